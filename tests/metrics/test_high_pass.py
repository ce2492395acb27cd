"""High-passed tissue: what of it a comparison sees."""

from __future__ import annotations

import numpy as np
import pytest

from synthct.metrics.high_pass import CLIP, cell_means, high_passed

HU = np.random.default_rng(0).normal(40, 30, (2, 24, 24)).astype(np.float32)
MASK = np.zeros(HU.shape, dtype=bool)
MASK[:, 4:20, 6:22] = True


def test_only_what_is_inside_the_mask_counts_without_its_level() -> None:
    even = high_passed(HU, MASK, 1.5)
    assert not even[~MASK].any()
    assert np.abs(even).max() <= CLIP
    other = np.where(MASK, HU + 500, -1000).astype(np.float32)
    assert high_passed(other, MASK, 1.5) == pytest.approx(even, abs=1e-3)


def test_an_edge_stands_out_no_more_than_other_texture() -> None:
    bone = HU.copy()
    bone[:, :, 14:] += 1200
    even = high_passed(bone, MASK, 1.5)
    assert np.abs(even[MASK]).max() <= CLIP
    assert np.abs(even[:, 8:16, 8:11]).mean() > 0.3


def test_cells_are_means_of_their_pixels() -> None:
    means = cell_means(10, 4)
    assert means.sum(axis=1) == pytest.approx(1)
    assert means[0, :3] == pytest.approx([0.4, 0.4, 0.2])
