"""Slices, parts and label maps of masks."""

import json
from collections import Counter

import numpy as np
import pytest
from conftest import ellipsoid, make_tiny_case, oblique_affine

from synthct.errors import MaskError
from synthct.masks import (
    IGNORE,
    VIEW_AXIS,
    Mask,
    draw_part,
    draw_slice,
    paint_labels,
    take_part,
    take_slice,
)
from synthct.masks.base import PlacementError, components, make_mask, structure
from synthct.volume import Box, Volume

SHAPE, SPACING = (60, 50, 20), (0.8, 0.8, 2.5)


def blob_mask() -> Mask:
    case = make_tiny_case()
    region, box = structure(case, ["kidney"])
    return make_mask(case, region, box.start_ijk, "kidney", {})


def wide_mask() -> Mask:
    region = ellipsoid(SHAPE, SPACING, (24.0, 20.0, 25.0), (20.0, 16.0, 20.0))
    volume = Volume(region, oblique_affine(SPACING))
    return Mask(volume, Box((0, 0, 0), SHAPE), None)


@pytest.mark.parametrize("view", ["axial", "coronal", "sagittal"])
def test_largest_slice_has_the_greatest_area(view):
    mask = blob_mask()
    index = draw_slice(mask, view, "largest", np.random.default_rng(0))
    axis = VIEW_AXIS[view]
    area = mask.in_host((48, 40, 24)).sum(axis=tuple(a for a in range(3) if a != axis))
    assert area[index] == area.max()


@pytest.mark.parametrize("view", ["axial", "coronal", "sagittal"])
def test_random_slices_follow_the_area_and_skip_slivers(view):
    mask, rng, axis = blob_mask(), np.random.default_rng(1), VIEW_AXIS[view]
    area = mask.in_host((48, 40, 24)).sum(axis=tuple(a for a in range(3) if a != axis))
    drawn = Counter(draw_slice(mask, view, "random", rng) for _ in range(4000))
    allowed = np.where(area >= 0.25 * area.max(), area, 0)
    assert set(drawn) <= set(np.flatnonzero(allowed).tolist())
    share = np.array([drawn[n] for n in range(len(area))]) / 4000
    assert np.abs(share - allowed / allowed.sum()).max() < 0.03


@pytest.mark.parametrize("view", ["axial", "coronal", "sagittal"])
def test_slice_is_the_same_voxels_of_the_host(view):
    mask = blob_mask()
    index = draw_slice(mask, view, "largest", np.random.default_rng(0))
    flat = take_slice(mask, view, index)
    expected = np.zeros((48, 40, 24), dtype=bool)
    place = tuple(index if a == VIEW_AXIS[view] else slice(None) for a in range(3))
    expected[place] = mask.in_host((48, 40, 24))[place]
    assert np.array_equal(flat.in_host((48, 40, 24)), expected)
    assert flat.box.shape[VIEW_AXIS[view]] == 1


def test_slice_beyond_the_mask_is_refused():
    with pytest.raises(MaskError, match=r"axial slice 99 lies outside"):
        take_slice(blob_mask(), "axial", 99)


def test_small_mask_is_taken_whole():
    mask = take_slice(blob_mask(), "axial", 12)
    assert draw_part(mask, 200.0, np.random.default_rng(0)) is None
    assert take_part(mask, None) is mask


@pytest.mark.parametrize("view", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("extent_mm", [1.0, 6.0, 15.0])
def test_part_fits_its_extent_and_is_one_piece_of_the_mask(view, extent_mm):
    whole, rng = wide_mask(), np.random.default_rng(3)
    flat = take_slice(whole, view, draw_slice(whole, view, "largest", rng))
    thick = VIEW_AXIS[view]
    for _ in range(20):
        params = json.loads(json.dumps(draw_part(flat, extent_mm, rng)))
        part = take_part(flat, params)
        extent = [n * s for n, s in zip(part.box.shape, SPACING, strict=True)]
        extent[thick] = 0.0
        assert max(extent) <= max(extent_mm, *(s for a, s in enumerate(SPACING) if a != thick))
        inside = flat.in_host(SHAPE)
        assert (inside | part.in_host(SHAPE)).sum() == inside.sum()
        assert len(components(part.region.array)[1]) == 1


def test_part_uses_most_of_the_allowed_extent():
    flat = take_slice(wide_mask(), "axial", 10)
    rng = np.random.default_rng(5)
    widths = [max(take_part(flat, draw_part(flat, 20.0, rng)).box.shape) * 0.8 for _ in range(20)]
    assert 14.0 <= np.median(widths) <= 20.0


@pytest.mark.parametrize(("policy", "value"), [("paint", 2), ("ignore", IGNORE), ("keep", None)])
def test_label_map_follows_the_policy_inside_the_mask_only(policy, value):
    case, mask = make_tiny_case(), blob_mask()
    before = case.labels.array.copy()
    after = paint_labels(case.labels, mask, policy, 2)
    inside = mask.in_host(case.labels.shape)
    assert np.array_equal(after[~inside], before[~inside])
    assert np.array_equal(
        after[inside], before[inside] if value is None else [value] * inside.sum()
    )
    assert np.array_equal(case.labels.array, before)
    assert after.dtype == before.dtype


def test_label_map_of_one_slice_gets_the_mask_of_that_slice():
    case, mask = make_tiny_case(), blob_mask()
    thin = case.labels.crop(Box((3, 0, 12), (48, 40, 13)))
    after = paint_labels(thin, mask, "ignore", None)
    assert np.array_equal(after == IGNORE, mask.in_host(case.labels.shape)[3:, :, 12:13])


def test_painting_needs_a_value_below_ignore():
    case = make_tiny_case()
    for value in (None, 0, IGNORE):
        with pytest.raises(MaskError, match="needs a label with a value"):
            paint_labels(case.labels, blob_mask(), "paint", value)


def test_label_map_of_another_grid_is_refused():
    case = make_tiny_case()
    other = Volume(case.labels.array, oblique_affine((0.9, 0.8, 2.5)))
    with pytest.raises(MaskError, match="another grid"):
        paint_labels(other, blob_mask(), "ignore", None)


def test_parts_are_numbered_from_the_largest():
    region = np.zeros((9, 3, 3), dtype=bool)
    region[0], region[2:5], region[6:8] = True, True, True
    numbers, counts = components(region)
    assert counts.tolist() == [27, 18, 9]
    assert [int(numbers[i, 0, 0]) for i in (0, 2, 6, 1)] == [3, 1, 2, 0]


def test_empty_mask_and_empty_label_are_refused():
    case = make_tiny_case()
    with pytest.raises(MaskError, match="no voxel"):
        make_mask(case, np.zeros((2, 2, 2), dtype=bool), (0, 0, 0), None, {})
    case.labels.array[:] = 0
    with pytest.raises(MaskError, match="'kidney' has no voxels"):
        structure(case, ["kidney"])
    with pytest.raises(MaskError, match="'spleen' is not in the label map"):
        structure(case, ["spleen"])


def test_placement_error_names_the_commonest_reason():
    error = PlacementError("none", Counter(torn=1, clearance=3))
    assert error.reason == "clearance"
    assert error.reasons == {"clearance": 3, "torn": 1}
