"""A piece is found anywhere on the slice that it came from, on a grid of any level."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from synthct.metrics.slice_search import Template, level_of, spectrum_of

SHAPE = (150, 170)


def tissue(number: int) -> np.ndarray:
    rng = np.random.default_rng([17, number])
    hu = gaussian_filter(rng.standard_normal(SHAPE), 2.5)
    return np.rint(40 + 40 * hu / hu.std() + rng.normal(0, 8, SHAPE)).astype(np.int16)


def disc(side: int) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    return np.hypot(rows, columns) < side / 2


@pytest.mark.parametrize("side", [21, 60, 101])
def test_a_piece_is_found_where_it_was_cut(side: int) -> None:
    slices = [tissue(n) for n in range(5)]
    level, row, column = level_of(side), 16, 40
    cut = slices[3][row : row + side, column : column + side]
    noisy = np.rint(cut + np.random.default_rng(1).normal(0, 10, cut.shape))
    template = Template.of(noisy.astype(np.int16), disc(side), SHAPE)
    assert template is not None
    assert template.level == level
    found = [template.place(spectrum_of(one, level), SHAPE) for one in slices]
    assert int(np.argmax([one.score for one in found])) == 3
    assert abs(found[3].row - row) <= level
    assert abs(found[3].column - column) <= level


def test_a_piece_larger_than_a_slice_has_no_template() -> None:
    assert Template.of(tissue(0), np.ones(SHAPE, dtype=bool), (100, 170)) is None


def test_a_small_piece_between_the_cells_of_a_coarse_grid_stands_out() -> None:
    rng = np.random.default_rng(18)
    slices = [gaussian_filter(rng.normal(40, 60, SHAPE), 0.6).astype(np.int16) for _ in range(3)]
    cut = slices[1][17 : 17 + 43, 41 : 41 + 43]
    template = Template.of(cut, disc(43), SHAPE)
    assert template is not None
    scores = [template.place(spectrum_of(one, template.level), SHAPE).score for one in slices]
    assert scores[1] > 3 * max(scores[0], scores[2])
