"""Boxes around 3D masks: where they lie, what they show, and their paint put back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import oblique_affine

from synthct.models.patch import PatchRules
from synthct.models.region import box_within, cut_boxes, paste_boxes
from synthct.volume import Box, Volume
from synthct.volume.intensity import SOFT_TISSUE

RULES = PatchRules(
    labels=("tumor",), codecs={"default": SOFT_TISSUE}, patch_sizes=(48, 64),
    spacing_range_mm=(0.5, 1.0), depth=16, slice_range_mm=(1.0, 5.0),
)  # fmt: skip
SHAPE = (120, 110, 40)


def host(shape: tuple[int, int, int] = SHAPE) -> Volume:
    hu = np.random.default_rng(0).normal(40, 20, shape).round().astype(np.int16)
    return Volume(hu, oblique_affine())


def block(box: Box) -> np.ndarray:
    return np.ones(box.shape, dtype=bool)


@pytest.mark.parametrize(
    ("box", "sides"),
    [
        (Box((50, 50, 18), (60, 58, 24)), (48, 48, 16)),
        (Box((50, 50, 18), (70, 58, 24)), (64, 64, 16)),
        (Box((50, 50, 12), (60, 58, 24)), (48, 48, 16)),
        (Box((50, 50, 12), (60, 58, 25)), (48, 48, 24)),  # too many slices for one box
        (Box((30, 50, 18), (80, 58, 24)), (96, 64, 16)),
        (Box((0, 0, 0), (10, 8, 6)), (48, 48, 16)),  # kept inside the scan
    ],
)
def test_a_box_has_the_networks_size_or_is_as_large_as_the_mask_asks(
    box: Box, sides: tuple[int, int, int]
) -> None:
    scan = host()
    (patch,) = cut_boxes(scan, block(box), box, 2, "tumor", RULES)
    assert patch.image.shape == patch.mask.shape == sides
    assert (patch.label, patch.spacing_mm) == (1, scan.spacing_mm)
    assert all(0 <= o <= n - s for o, n, s in zip(patch.origin, SHAPE, sides, strict=True))
    seen = tuple(slice(o, o + n) for o, n in zip(patch.origin, sides, strict=True))
    assert np.array_equal(patch.image, SOFT_TISSUE.encode(scan.array[seen].astype(np.float32)))
    inside = np.zeros(SHAPE, dtype=bool)
    inside[box.slices] = True
    assert np.array_equal(patch.mask, inside[seen])
    assert np.array_equal(patch.own, patch.mask)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_paint_comes_back_to_its_place_whichever_way_the_slices_lie(axis: int) -> None:
    scan, box = host((80, 80, 80)), Box((30, 35, 38), (40, 47, 44))
    region = np.random.default_rng(1).random(box.shape) > 0.4
    rules = replace(RULES, spacing_range_mm=(0.5, 3.0), slice_range_mm=(0.5, 3.0))
    (patch,) = cut_boxes(scan, region, box, axis, None, rules)
    assert patch.image.shape[2] == 16
    hu = paste_boxes(region, box, axis, [patch], [patch.image])
    expected = scan.array[box.slices][region].clip(-150, 250)
    assert np.array_equal(hu, expected)


@pytest.mark.parametrize("axis", [0, 2])
def test_a_scan_whose_voxels_the_network_does_not_know_is_seen_on_its_own_grid(axis: int) -> None:
    """A ramp keeps its place through both changes of grid, and a box shows as much of it."""
    rules = replace(RULES, spacing_range_mm=(2.0, 3.0), slice_range_mm=(4.0, 5.0))
    affine = oblique_affine()
    affine[:3, [axis, 2]] = affine[:3, [2, axis]]  # slices of 2.5 mm, pixels of 0.8 mm
    shape = [120, 120, 120]
    shape[axis] = 40
    scan = Volume((np.indices(shape) * [[[[1]]], [[[2]]], [[[0.5]]]]).sum(axis=0), affine)
    scan = Volume(scan.array.round().astype(np.int16) - 100, affine)
    box = Box((30, 45, 16), (54, 60, 26)) if axis == 2 else Box((16, 45, 30), (26, 60, 54))
    region = np.random.default_rng(1).random(box.shape) > 0.3
    (patch,) = cut_boxes(scan, region, box, axis, "tumor", rules)
    assert patch.image.shape == (48, 48, 16)  # 96 mm of 96, and 64 of 100
    assert patch.spacing_mm == pytest.approx((2.0, 2.0, 4.0))
    assert patch.is_resampled
    # Nothing of a masked voxel is shown: what the mask hides may be anything.
    other = scan.array.copy()
    other[box.slices][region] = 200
    (same,) = cut_boxes(Volume(other, affine), region, box, axis, "tumor", rules)
    assert np.abs(same.image - patch.image)[~patch.mask].max() < 0.02
    assert patch.mask.sum() < 4 * patch.own.sum()
    hu = paste_boxes(region, box, axis, [patch], [patch.image])
    assert np.abs(hu - scan.array[box.slices][region]).max() <= 2


def test_on_a_finer_grid_every_voxel_of_a_mask_comes_back() -> None:
    rules = replace(RULES, spacing_range_mm=(0.3, 0.5), slice_range_mm=(1.0, 1.5))
    scan, box = host(), Box((50, 50, 18), (58, 57, 22))
    scan = Volume(np.full(SHAPE, 40, dtype=np.int16), scan.affine)
    region = np.random.default_rng(1).random(box.shape) > 0.3
    (patch,) = cut_boxes(scan, region, box, 2, "tumor", rules)
    assert patch.spacing_mm == pytest.approx((0.5, 0.5, 1.5))
    assert (paste_boxes(region, box, 2, [patch], [patch.image]) == 40).all()


def test_parts_that_are_far_from_each_other_have_a_box_of_their_own() -> None:
    scan, box = host(), Box((10, 10, 4), (110, 100, 36))
    region = np.zeros(box.shape, dtype=bool)
    region[:6, :6, :5] = region[8:10, 3:5, 2:4] = True  # close by: one box
    region[90:, 80:, 26:] = True
    first, second = cut_boxes(scan, region, box, 2, None, RULES)
    assert first.own.sum() + second.own.sum() == region.sum()
    assert {first.own.sum(), second.own.sum()} == {6 * 6 * 5 + 2 * 2 * 2, 10 * 10 * 6}
    hu = paste_boxes(region, box, 2, [first, second], [first.image, second.image])
    assert hu.shape == (region.sum(),)


def test_beyond_the_scan_its_last_voxels_go_on() -> None:
    scan, box = host((30, 30, 6)), Box((10, 10, 1), (20, 20, 4))
    (patch,) = cut_boxes(scan, block(box), box, 2, None, RULES)
    assert patch.image.shape == (48, 48, 16)
    assert patch.origin == (-9, -9, -5)
    assert np.array_equal(patch.image[:9], patch.image[9:10].repeat(9, axis=0))
    assert np.array_equal(patch.image[..., -6:], patch.image[..., -6:-5].repeat(6, axis=2))
    assert patch.mask.sum() == box.shape[0] * box.shape[1] * box.shape[2]


def test_the_network_sees_the_least_of_its_boxes_that_holds_all_or_its_largest() -> None:
    assert box_within((32, 32, 16), (32, 64), 16) == (32, 32, 16)
    assert box_within((48, 33, 40), (32, 64), 16) == (64, 64, 16)
    assert box_within((128, 64, 16), (32, 64), 16) == (64, 64, 16)
