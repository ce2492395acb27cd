"""Slices, parts and label maps of masks."""

import json
from collections import Counter

import numpy as np
import pytest
from conftest import ellipsoid, make_tiny_case, oblique_affine

from synthct.errors import MaskError
from synthct.masks.base import Mask, PlacementError, SeveralSlices, SliceRule, make_mask
from synthct.masks.slicing import (
    draw_part,
    draw_slices,
    paint_labels,
    slice_of,
    take_part,
    take_slice,
)
from synthct.volume import Box, Volume
from synthct.volume.regions import components, structure
from synthct.volume.views import IGNORE, PLANES, VIEW_AXIS, Plane

SHAPE, SPACING = (60, 50, 20), (0.8, 0.8, 2.5)


def blob_mask() -> Mask:
    case = make_tiny_case()
    region, box = structure(case, ["kidney"])
    return make_mask(case, region, box.start_ijk, "kidney", {})


def wide_mask() -> Mask:
    region = ellipsoid(SHAPE, SPACING, (24.0, 20.0, 25.0), (20.0, 16.0, 20.0))
    volume = Volume(region, oblique_affine(SPACING))
    return Mask(volume, Box((0, 0, 0), SHAPE), None)


def areas(mask: Mask, view: Plane) -> np.ndarray:
    """Voxels of the mask in each slice of the host."""
    across = tuple(a for a in range(3) if a != VIEW_AXIS[view])
    return mask.in_host((48, 40, 24)).sum(axis=across)


def indices(mask: Mask, view: Plane, rule: SliceRule, seed: int = 0) -> list[int]:
    drawn = draw_slices(mask, view, rule, None, np.random.default_rng(seed))
    assert all(one["part"] is None for one in drawn)
    return [one["slice_index"] for one in drawn]


@pytest.mark.parametrize("view", PLANES)
def test_largest_slice_has_the_greatest_area(view):
    mask = blob_mask()
    area = areas(mask, view)
    (index,) = indices(mask, view, "largest")
    assert area[index] == area.max()


@pytest.mark.parametrize(
    "view",
    [pytest.param(v, marks=() if v == "coronal" else pytest.mark.long) for v in PLANES],
)
def test_random_slices_follow_the_area_and_skip_slivers(view):
    mask, rng = blob_mask(), np.random.default_rng(1)
    area = areas(mask, view)
    drawn = Counter(
        draw_slices(mask, view, "random", None, rng)[0]["slice_index"] for _ in range(4000)
    )
    allowed = np.where(area >= 0.25 * area.max(), area, 0)
    assert set(drawn) <= set(np.flatnonzero(allowed).tolist())
    share = np.array([drawn[n] for n in range(len(area))]) / 4000
    assert np.abs(share - allowed / allowed.sum()).max() < 0.03


@pytest.mark.parametrize("view", PLANES)
def test_all_slices_make_up_the_whole_mask(view):
    mask = blob_mask()
    shape = (48, 40, 24)
    drawn = draw_slices(mask, view, "all", None, np.random.default_rng(0))
    flats = [slice_of(mask, view, one) for one in drawn]
    assert {flat.box.shape[VIEW_AXIS[view]] for flat in flats} == {1}
    together = np.sum([flat.in_host(shape) for flat in flats], axis=0)
    assert np.array_equal(together, mask.in_host(shape).astype(int))
    assert [one["slice_index"] for one in drawn] == np.flatnonzero(areas(mask, view)).tolist()


@pytest.mark.parametrize("view", PLANES)
@pytest.mark.parametrize("every_mm", [0.3, 2.0, 2.5, 6.0, 11.0, 500.0])
def test_slices_lie_so_many_mm_apart_and_the_largest_is_one_of_them(view, every_mm):
    mask = blob_mask()
    spacing, area = (0.8, 0.8, 2.5)[VIEW_AXIS[view]], areas(mask, view)
    found = indices(mask, view, SeveralSlices(every_mm=every_mm))
    shown = np.flatnonzero(area)
    if every_mm <= spacing:
        assert found == shown.tolist()
    assert area.argmax() in found
    gaps = np.diff(found) * spacing
    assert np.abs(gaps - max(every_mm, spacing)).max(initial=0) <= spacing
    # None is missing at either end.
    assert (found[0] - shown[0]) * spacing < every_mm + spacing / 2
    assert (shown[-1] - found[-1]) * spacing < every_mm + spacing / 2


@pytest.mark.parametrize("view", PLANES)
def test_slices_that_show_too_little_are_left_out(view):
    mask = blob_mask()
    pixel_mm2 = 0.8 * 0.8 if view == "axial" else 0.8 * 2.5
    area = areas(mask, view) * pixel_mm2
    limit = float(np.median(area[area > 0])) + 0.01
    found = indices(mask, view, SeveralSlices(min_area_mm2=limit))
    assert found == np.flatnonzero(area >= limit).tolist()
    assert 0 < len(found) < np.count_nonzero(area)


def test_a_mask_without_a_slice_of_the_least_area_is_refused_with_the_reason():
    with pytest.raises(PlacementError, match=r"shows \d+ mm2, less than min_area_mm2 9000") as info:
        indices(blob_mask(), "axial", SeveralSlices(min_area_mm2=9000))
    assert info.value.reason == "min_area_mm2"


@pytest.mark.parametrize("view", PLANES)
def test_several_slices_of_a_large_mask_show_one_part_of_it(view):
    whole = wide_mask()
    drawn = draw_slices(whole, view, "all", 15.0, np.random.default_rng(2))
    drawn = json.loads(json.dumps(drawn))
    part = np.sum([slice_of(whole, view, one).in_host(SHAPE) for one in drawn], axis=0)
    assert part.max() == 1
    box = Box.around(part)
    assert box is not None
    assert all(n * s <= 15.0 for n, s in zip(box.shape, SPACING, strict=True))
    assert len(components(part.astype(bool))[1]) == 1
    assert not (part.astype(bool) & ~whole.in_host(SHAPE)).any()


@pytest.mark.parametrize("view", PLANES)
@pytest.mark.parametrize("max_extent_mm", [None, 8.0])
def test_one_slice_is_drawn_before_its_part(view, max_extent_mm):
    whole = wide_mask()
    (one,) = draw_slices(whole, view, "random", max_extent_mm, np.random.default_rng(4))
    flat = take_slice(whole, view, one["slice_index"])
    shown = slice_of(whole, view, one)
    assert np.array_equal(shown.in_host(SHAPE), take_part(flat, one["part"]).in_host(SHAPE))
    assert (max_extent_mm is None) == (shown.volume_ml == flat.volume_ml)


@pytest.mark.parametrize("view", PLANES)
def test_slice_is_the_same_voxels_of_the_host(view):
    mask = blob_mask()
    index = int(areas(mask, view).argmax())
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


@pytest.mark.parametrize("view", PLANES)
@pytest.mark.parametrize("extent_mm", [1.0, 6.0, 15.0])
def test_part_fits_its_extent_and_is_one_piece_of_the_mask(view, extent_mm):
    whole, rng = wide_mask(), np.random.default_rng(3)
    (largest,) = draw_slices(whole, view, "largest", None, rng)
    flat = slice_of(whole, view, largest)
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
