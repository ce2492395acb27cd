"""The shape of a mask is found again, moved and flipped, and another one is not."""

from __future__ import annotations

import numpy as np
import pytest

from synthct.metrics.shape_dice import shape_dice


def hook(side: int = 40, row: int = 5, column: int = 8) -> np.ndarray:
    """A shape without any symmetry."""
    mask = np.zeros((side, side), dtype=bool)
    mask[row : row + 15, column : column + 4] = True
    mask[row + 12 : row + 15, column : column + 11] = True
    return mask


def test_a_shape_is_found_moved_and_flipped() -> None:
    assert shape_dice(hook(), [hook(row=20, column=21)]) == 1.0
    for turned in (hook()[::-1], hook()[:, ::-1], hook()[::-1, ::-1]):
        assert shape_dice(hook(), [turned]) == 1.0


def test_another_shape_is_less_alike() -> None:
    rows, columns = np.mgrid[:40, :40] - 20
    disc = np.hypot(rows, columns) < 5.3
    assert 0.5 < shape_dice(hook(), [disc]) < 0.8
    assert shape_dice(hook(), [disc, hook(), np.zeros((9, 9), dtype=bool)]) == 1.0
    assert shape_dice(hook(), []) == 0.0
    half = hook()
    half[:12] = False
    assert shape_dice(hook(), [half]) == pytest.approx(2 * half.sum() / (half.sum() + hook().sum()))
