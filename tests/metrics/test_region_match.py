"""Correlation of two pieces of tissue: what it finds again, and that it finds nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from synthct.metrics.region_match import (
    SCALES,
    SHIFT_PX,
    Query,
    best_correlation,
    blocks,
    correlation,
    deviations,
)

ROWS, COLUMNS = np.mgrid[:60, :60] - 30
MASK = np.hypot(ROWS, COLUMNS * 1.1) < 20


def tissue(number, slices=1):
    rng = np.random.default_rng([7, number])
    hu = gaussian_filter(rng.standard_normal((slices, 60, 60)), (0.5, 2, 2))
    return (40 + 40 * hu / hu.std() + rng.normal(0, 8, hu.shape)).astype(np.float32)


def around(hu, query):
    """What a scan gives for the square of the mask: at every scale, ``SHIFT_PX`` wider."""
    wide = query.cells + 2 * SHIFT_PX
    out = []
    for scale in SCALES:
        whole = zoom(hu, (1, 1 / scale, 1 / scale), order=1, grid_mode=True, mode="nearest")
        middle = [(n - wide) // 2 for n in whole.shape[1:]]
        rows, columns = (slice(start, start + wide) for start in middle)
        out.append(whole[:, rows, columns])
    return out


CHANGES = {
    "exact": lambda hu: hu,
    "shifted": lambda hu: np.roll(hu, (3, -2), (1, 2)),
    "scaled HU": lambda hu: hu * 1.15 + 20,
    "mirrored": lambda hu: hu[:, ::-1, ::-1],
    "noisy": lambda hu: hu + np.random.default_rng(9).normal(0, 15, hu.shape),
    "blurred": lambda hu: gaussian_filter(hu, (0, 1, 1)),
    "larger": lambda hu: zoom(hu, (1, 1.1, 1.1), order=1, mode="nearest")[:, 3:63, 3:63],
}


@pytest.mark.parametrize("slices", [1, 5])
@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_found(change, slices):
    hu = tissue(0, slices)
    query = Query.of(CHANGES[change](hu), np.broadcast_to(MASK, hu.shape))
    found = best_correlation(query, around(hu, query))
    assert found.ncc > 0.5
    assert deviations(found.ncc, found.spread) > 8


def test_other_tissue_is_not_found():
    query = Query.of(tissue(0), MASK[None])
    found = [best_correlation(query, around(tissue(n), query)) for n in range(1, 20)]
    assert max(one.ncc for one in found) < 0.45
    assert max(deviations(one.ncc, one.spread) for one in found) < 8
    assert best_correlation(query, []).ncc == -1


def test_a_weak_copy_stands_out_from_chance_if_it_is_large():
    hu = 0.35 * tissue(0) + 0.65 * tissue(1)
    large = Query.of(hu, MASK[None])
    small = Query.of(hu, (np.hypot(ROWS, COLUMNS) < 5)[None])
    found, little = (best_correlation(one, around(tissue(0), one)) for one in (large, small))
    assert found.ncc < 0.65
    assert deviations(found.ncc, found.spread) > 6
    assert little.spread > 2 * found.spread


def test_only_the_inside_of_the_mask_counts():
    hu = tissue(1)
    changed = np.where(MASK, hu, 3000)
    one, other = (Query.of(a[0], MASK) for a in (hu, changed))
    assert correlation(one, other) == pytest.approx(1)
    assert abs(correlation(one, Query.of(tissue(2)[0], MASK))) < 0.2


def test_blocks_are_found_at_any_place_and_flat_ones_are_left_out():
    hu = np.rint(tissue(3)[0]).astype(np.int16)
    known = blocks(hu, np.ones(hu.shape, dtype=bool))
    moved = np.roll(hu, (5, 7), (0, 1))
    inside = np.zeros_like(MASK)
    inside[12:50, 12:50] = True
    mine = blocks(moved, inside, step=4)
    assert len(mine) == 64
    assert np.isin(mine, known).all()
    assert not np.isin(blocks(moved + 1, inside), known).any()
    assert len(blocks(np.full((20, 20), -1024, dtype=np.int16), np.ones((20, 20), bool))) == 0
    assert len(blocks(hu[:5], inside[:5])) == 0
