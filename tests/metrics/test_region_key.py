"""Keys of regions: what they find again, and that they find nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from synthct.metrics.region_key import HASH_BYTES, KEY_BYTES, region_hash, region_key, search_keys

CHANGES = {
    "exact": lambda hu, mask: (hu, mask),
    "mirrored": lambda hu, mask: (hu[::-1], mask[::-1]),
    "turned": lambda hu, mask: (hu[::-1, ::-1], mask[::-1, ::-1]),
    "shifted": lambda hu, mask: (np.roll(hu, (2, -2), (0, 1)), mask),
    "scaled": lambda hu, mask: (hu * 1.15 + 20, mask),
    "noisy": lambda hu, mask: (hu + np.random.default_rng(9).normal(0, 20, hu.shape), mask),
    "blurred": lambda hu, mask: (gaussian_filter(hu, 1), mask),
    "coarser": lambda hu, mask: (hu[::2, ::2], mask[::2, ::2]),
}


def tissue(number):
    """A textured square with a round mask; the surroundings are of no matter."""
    rng = np.random.default_rng([7, number])
    hu = gaussian_filter(rng.standard_normal((60, 60)), 3)
    hu = 40 + 40 * hu / hu.std() + rng.normal(0, 8, hu.shape)
    rows, columns = np.mgrid[:60, :60] - rng.uniform(27, 33, (2, 1, 1))
    mask = np.hypot(rows, columns * rng.uniform(0.8, 1.2)) < rng.uniform(16, 22)
    return np.where(mask, hu, rng.normal(0, 300, hu.shape)), mask


@pytest.fixture(scope="module")
def keys():
    return np.stack([region_key(*tissue(number)) for number in range(400)])


def test_a_key_is_small_and_depends_on_the_inside_alone():
    hu, mask = tissue(0)
    key = region_key(hu, mask)
    assert key.shape == (KEY_BYTES,)
    assert key.dtype == np.uint8
    assert np.array_equal(region_key(np.where(mask, hu, -1000), mask), key)
    wider = np.pad(hu, 9), np.pad(mask, 9)
    assert np.array_equal(region_key(*wider), key)


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_found(change, keys):
    regions = [CHANGES[change](*tissue(number)) for number in range(0, 400, 40)]
    rows, cosines = search_keys(regions, keys, best=3)
    assert rows[:, 0].tolist() == list(range(0, 400, 40))
    assert cosines[:, 0].min() > 0.75
    assert np.all(np.diff(cosines, axis=1) <= 0)


def test_other_tissue_is_not_found(keys):
    _, cosines = search_keys([tissue(number) for number in range(1000, 1040)], keys, best=1)
    assert cosines.max() < 0.7


def test_edges_of_the_picture_and_small_masks():
    hu, mask = tissue(1)
    at_the_edge = hu[12:], mask[12:]
    assert search_keys([at_the_edge], region_key(*at_the_edge)[None])[1][0, 0] > 0.97
    dot = np.zeros_like(mask)
    dot[0, 0] = True
    assert search_keys([(hu, dot)], region_key(hu, dot)[None])[0].shape == (1, 1)
    assert search_keys([], region_key(hu, dot)[None])[0].shape == (0, 1)


def test_the_hash_is_of_the_inside():
    hu, mask = tissue(2)
    assert len(region_hash(hu, mask)) == HASH_BYTES
    assert region_hash(np.where(mask, hu, 0), mask) == region_hash(hu + 0.001, mask)
    assert region_hash(hu + mask, mask) != region_hash(hu, mask)
