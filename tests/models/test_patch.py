"""Cutting patches and pasting them back: nothing outside the mask moves, nothing inside is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import oblique_affine

from synthct.errors import CheckpointError, MaskError
from synthct.models.patch import LEAST_CONTEXT_PX, Patch, PatchRules, cut_patches, paste_patches
from synthct.volume import Volume
from synthct.volume.intensity import FULL_RANGE, LUNG, SOFT_TISSUE

CONFIG: dict[str, Any] = {
    "labels": ["kidney", "tumor", "lung"],
    "codecs": {
        "default": "full_range",
        "kidney": "soft_tissue",
        "tumor": "soft_tissue",
        "lung": LUNG.model_dump(),
    },
    "patch_sizes": [64, 32],
    "spacing_range_mm": [0.5, 3.1],
}
RULES = PatchRules.from_config(CONFIG)

#: Full range spans all of CT: with it, painting what is there must give back what is there.
EVERYTHING = None


def make_slice(
    shape: tuple[int, int], spacing_mm: tuple[float, float], axis: int = 2, *, smooth: bool = False
) -> Volume:
    """A slice of soft tissue, oblique: noise in -1024..1500 HU, or a smooth wave in 0..100 HU."""
    if smooth:
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        y, x = rows * spacing_mm[0], columns * spacing_mm[1]
        hu = 50 + 50 * np.sin(2 * np.pi * y / 60) * np.cos(2 * np.pi * x / 80)
    else:
        hu = np.random.default_rng(0).uniform(-1024, 1500, shape)
    spacing = list(spacing_mm)
    spacing.insert(axis, 4.0)
    array = np.expand_dims(np.rint(hu).astype(np.int16), axis)
    return Volume(array, oblique_affine((spacing[0], spacing[1], spacing[2])))


def make_region(ct: Volume, *boxes: tuple[int, int, int, int]) -> Volume:
    """A mask of ellipses, each filling its box of (row, row after, column, column after)."""
    axis = ct.shape.index(1)
    plane = np.zeros([n for n in ct.shape if n != 1], dtype=bool)
    rows, columns = np.ogrid[: plane.shape[0], : plane.shape[1]]
    for r0, r1, c0, c1 in boxes:
        y = (rows - (r0 + r1 - 1) / 2) / ((r1 - r0) / 2)
        x = (columns - (c0 + c1 - 1) / 2) / ((c1 - c0) / 2)
        plane |= y**2 + x**2 <= 1
    return Volume(np.expand_dims(plane, axis), ct.affine)


def as_seen(patches: list[Patch]) -> list[np.ndarray]:
    """A painter that paints what is already there."""
    return [p.image for p in patches]


def as_noise(patches: list[Patch]) -> list[np.ndarray]:
    """A painter that paints noise everywhere, far beyond the range too."""
    rng = np.random.default_rng(1)
    return [rng.normal(0, 2, p.image.shape).astype(np.float32) for p in patches]


def changed(before: Volume, after: Volume) -> np.ndarray:
    return before.array != after.array


MASKS = {
    "inside": (20, 38, 22, 33),
    "at the low border": (0, 14, 0, 9),
    "at the high border": (66, 80, 59, 70),
    "across the border": (-8, 9, 30, 45),
    "one voxel": (40, 41, 40, 41),
}
SPACINGS = {
    "native": (0.8, 0.8),
    "anisotropic": (0.7, 2.9),
    "at the limits": (0.5, 3.1),
    "too fine": (0.3, 0.3),
    "too coarse": (0.9, 5.0),
    "fine and coarse": (0.22, 4.4),
}


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["sagittal", "coronal", "axial"])
@pytest.mark.parametrize("spacing_mm", SPACINGS.values(), ids=SPACINGS.keys())
@pytest.mark.parametrize("box", MASKS.values(), ids=MASKS.keys())
def test_paint_fills_the_mask_and_leaves_every_other_voxel(
    axis: int, spacing_mm: tuple[float, float], box: tuple[int, int, int, int]
) -> None:
    ct = make_slice((80, 70), spacing_mm, axis)
    region = make_region(ct, box)
    patches = cut_patches(ct, region, EVERYTHING, RULES)
    # HU that the slice does not hold: every voxel of the mask must change, and no other.
    painted = [p.codec.encode(np.full(p.image.shape, 2500)) for p in patches]
    result = paste_patches(ct, region, patches, painted)
    assert np.array_equal(changed(ct, result), region.array)
    assert result.array[region.array].min() >= 2499
    assert result.array.dtype == np.int16
    assert np.array_equal(result.affine, ct.affine)


@pytest.mark.parametrize("spacing_mm", SPACINGS.values(), ids=SPACINGS.keys())
def test_random_masks_are_covered_on_every_grid(spacing_mm: tuple[float, float]) -> None:
    rng = np.random.default_rng(5)
    for _ in range(12):
        shape = (int(rng.integers(9, 90)), int(rng.integers(9, 90)))
        ct = make_slice(shape, spacing_mm)
        top, left = (int(rng.integers(0, n - 4)) for n in shape)
        region = rng.random((*shape, 1)) < 0.3
        region[:top], region[:, :left] = False, False
        region[top + 30 :], region[:, left + 30 :] = False, False
        region[top, left] = True
        mask = Volume(region, ct.affine)
        patches = cut_patches(ct, mask, EVERYTHING, RULES)
        result = paste_patches(ct, mask, patches, as_noise(patches))
        assert not changed(ct, result)[~region].any()


def test_paint_beyond_the_range_is_clipped_to_hu() -> None:
    ct = make_slice((80, 70), (0.8, 0.8))
    region = make_region(ct, MASKS["inside"])
    for label, low, high in ((None, -1024, 3071), ("kidney", -150, 250), ("lung", -1024, 150)):
        patches = cut_patches(ct, region, label, RULES)
        inside = paste_patches(ct, region, patches, as_noise(patches)).array[region.array]
        assert (inside.min(), inside.max()) == (low, high)


def test_native_patches_give_back_what_they_were_cut_from() -> None:
    ct = make_slice((80, 70), (0.8, 0.8))
    region = make_region(ct, MASKS["inside"], MASKS["at the high border"])
    patches = cut_patches(ct, region, EVERYTHING, RULES)
    assert not any(p.is_resampled for p in patches)
    assert np.array_equal(paste_patches(ct, region, patches, as_seen(patches)).array, ct.array)


def test_windows_give_back_what_they_can_express() -> None:
    ct = make_slice((80, 70), (0.8, 0.8))
    region = make_region(ct, MASKS["inside"])
    patches = cut_patches(ct, region, "kidney", RULES)
    result = paste_patches(ct, region, patches, as_seen(patches))
    expected = np.where(region.array, np.clip(ct.array, -150, 250), ct.array)
    assert np.array_equal(result.array, expected)


@pytest.mark.parametrize(
    ("spacing_mm", "shape", "box"),
    [
        ((0.25, 0.25), (300, 260), (100, 150, 90, 130)),
        ((0.8, 0.8), (200, 160), (20, 150, 30, 60)),
        ((0.8, 5.0), (120, 40), (40, 60, 15, 21)),
        ((0.25, 0.25), (300, 260), (-9, 30, 230, 270)),
    ],
    ids=["fine scan", "large mask", "coarse scan", "border"],
)
def test_resampled_patches_give_back_smooth_tissue(
    spacing_mm: tuple[float, float], shape: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    ct = make_slice(shape, spacing_mm, smooth=True)
    region = make_region(ct, box)
    patches = cut_patches(ct, region, EVERYTHING, RULES)
    assert all(p.is_resampled for p in patches)
    result = paste_patches(ct, region, patches, as_seen(patches))
    error = np.abs(result.array.astype(float) - ct.array)
    assert error.max() <= 4
    assert error[region.array].mean() <= 1


def test_patch_tells_its_spacing_label_and_place() -> None:
    ct = make_slice((80, 70), (0.25, 2.0))
    region = make_region(ct, (30, 50, 30, 36))
    (patch,) = cut_patches(ct, region, "tumor", RULES)
    assert patch.spacing_mm == pytest.approx((0.5, 2.0))
    assert patch.scale == (2.0, 1.0)
    assert patch.label == 2
    # On the grid of the patch the slice has 40 x 70 pixels; the mask's middle is at (20, 33).
    assert patch.size == 64
    assert patch.origin == (-12, 1)


@pytest.mark.parametrize(
    ("label", "number", "codec"),
    [
        (None, 0, FULL_RANGE),
        ("kidney", 1, SOFT_TISSUE),
        ("tumor", 2, SOFT_TISSUE),
        ("lung", 3, LUNG),
    ],
)
def test_each_label_has_its_number_and_codec(label: str | None, number: int, codec: Any) -> None:
    ct = make_slice((80, 70), (0.8, 0.8))
    (patch,) = cut_patches(ct, make_region(ct, MASKS["inside"]), label, RULES)
    assert (patch.label, patch.codec) == (number, codec)
    rows, columns = (slice(o, o + patch.size) for o in patch.origin)
    assert np.array_equal(patch.image, codec.encode(ct.array[rows, columns, 0]))


def test_unknown_label_is_refused_with_what_there_is() -> None:
    ct = make_slice((80, 70), (0.8, 0.8))
    with pytest.raises(
        CheckpointError, match=r"cannot paint 'liver' \(it paints kidney, tumor, lung"
    ):
        cut_patches(ct, make_region(ct, MASKS["inside"]), "liver", RULES)


def test_smallest_patch_with_enough_context_is_taken() -> None:
    ct = make_slice((200, 200), (0.8, 0.8))
    sizes = {
        extent: cut_patches(ct, make_region(ct, (90, 90 + extent, 90, 95)), None, RULES)[0].size
        for extent in (1, 17, 32, 52)
    }
    assert sizes == {1: 64, 17: 64, 32: 64, 52: 64}
    wide = PatchRules.from_config({**CONFIG, "patch_sizes": [32, 48, 64, 96]})
    sizes = {
        extent: cut_patches(ct, make_region(ct, (90, 90 + extent, 90, 95)), None, wide)[0].size
        for extent in (1, 16, 17, 32, 33, 64, 65, 84)
    }
    assert sizes == {1: 48, 16: 48, 17: 64, 32: 64, 33: 96, 64: 96, 65: 96, 84: 96}


def test_patch_stays_inside_the_slice_where_it_fits() -> None:
    ct = make_slice((200, 200), (0.8, 0.8))
    (low,) = cut_patches(ct, make_region(ct, (0, 9, 100, 120)), None, RULES)
    (high,) = cut_patches(ct, make_region(ct, (195, 200, 0, 5)), None, RULES)
    assert low.origin == (0, 78)
    assert high.origin == (136, 0)


def test_what_lies_beyond_a_small_slice_is_air() -> None:
    ct = make_slice((20, 30), (0.8, 0.8))
    region = make_region(ct, (5, 12, 0, 9))
    (patch,) = cut_patches(ct, region, None, RULES)
    assert patch.origin == (-22, -17)
    assert patch.image[:22].max() == -1
    assert patch.image[42:].max() == -1
    assert not patch.mask[:22].any()
    assert np.array_equal(patch.image[22:42, 17:47], FULL_RANGE.encode(ct.array[:, :, 0]))


def test_two_far_parts_get_a_patch_each_that_hides_the_other() -> None:
    ct = make_slice((120, 200), (0.8, 0.8))
    region = make_region(ct, (40, 60, 60, 80), (45, 65, 85, 125))
    one, two = cut_patches(ct, region, "kidney", RULES)
    assert not one.is_resampled
    assert not two.is_resampled
    plane = region.array[:, :, 0]
    for patch, columns in ((one, slice(0, 82)), (two, slice(82, 200))):
        rows, cols = (slice(o, o + patch.size) for o in patch.origin)
        assert np.array_equal(patch.mask, plane[rows, cols])
        part = np.zeros_like(plane)
        part[:, columns] = plane[:, columns]
        assert np.array_equal(patch.own, part[rows, cols])
    assert (one.mask & ~one.own).any(), "the test wants the parts in one another's patch"

    # Each part is painted by its own patch and by no other.
    painted = [SOFT_TISSUE.encode(np.full((64, 64), hu)) for hu in (100, 200)]
    result = paste_patches(ct, region, [one, two], painted).array[:, :, 0]
    assert set(np.unique(result[:, :82][plane[:, :82]])) == {100}
    assert set(np.unique(result[:, 82:][plane[:, 82:]])) == {200}
    assert np.array_equal(result[~plane], ct.array[:, :, 0][~plane])


def test_a_part_too_large_for_a_patch_goes_to_a_coarser_grid_alone() -> None:
    ct = make_slice((220, 200), (0.8, 0.8))
    region = make_region(ct, (10, 150, 20, 60), (180, 190, 150, 170))
    large, small = cut_patches(ct, region, "kidney", RULES)
    assert large.scale == pytest.approx((140 / (64 - 2 * LEAST_CONTEXT_PX), 1.0))
    assert large.spacing_mm == pytest.approx((0.8 * 140 / 52, 0.8))
    assert small.scale == (1.0, 1.0)
    painted = [SOFT_TISSUE.encode(np.full((64, 64), hu)) for hu in (100, 200)]
    result = paste_patches(ct, region, [large, small], painted)
    assert set(np.unique(result.array[:160][region.array[:160]])) == {100}
    assert set(np.unique(result.array[160:][region.array[160:]])) == {200}


def test_every_patch_has_context_around_its_part() -> None:
    ct = make_slice((260, 260), (0.8, 0.8))
    for extent in (30, 52, 53, 90, 150, 200):
        (patch,) = cut_patches(ct, make_region(ct, (30, 30 + extent, 40, 70)), None, RULES)
        rows = np.flatnonzero(patch.mask.any(axis=1))
        assert rows[0] >= 3
        assert rows[-1] < patch.size - 3


def test_a_mask_beyond_the_coarsest_grid_is_refused_in_mm() -> None:
    ct = make_slice((300, 200), (0.8, 0.8))
    # 52 pixels of 3.1 mm are 161 mm.
    fits = make_region(ct, (0, 201, 20, 60))
    assert len(cut_patches(ct, fits, None, RULES)) == 1
    with pytest.raises(
        MaskError, match=r"spans 176 x 32 mm, more than the 161 mm .* max_extent_mm"
    ):
        cut_patches(ct, make_region(ct, (0, 220, 20, 60)), None, RULES)


def test_resampled_patches_show_nothing_of_what_is_masked() -> None:
    quiet = make_slice((300, 260), (0.2, 0.2), smooth=True)
    region = make_region(quiet, (100, 180, 90, 160))
    loud = Volume(np.where(region.array, np.int16(3071), quiet.array), quiet.affine)
    (one,) = cut_patches(quiet, region, None, RULES)
    (two,) = cut_patches(loud, region, None, RULES)
    assert one.is_resampled
    assert np.array_equal(one.mask, two.mask)
    # A trace of at most 1 % may remain: 30 of 3000 HU.
    seen = np.abs(FULL_RANGE.decode(one.image) - FULL_RANGE.decode(two.image))[~one.mask]
    assert seen.max() <= 31
    assert np.count_nonzero(one.mask) < 1.5 * np.count_nonzero(one.own)


def test_spacing_stored_as_float32_is_not_resampled() -> None:
    for spacing in (0.5, 3.1):
        stored = float(np.float32(spacing)) * (1 - 3e-7), float(np.float32(spacing)) * (1 + 3e-7)
        ct = make_slice((80, 70), stored)
        (patch,) = cut_patches(ct, make_region(ct, MASKS["one voxel"]), None, RULES)
        assert not patch.is_resampled


def test_empty_mask_is_refused() -> None:
    ct = make_slice((80, 70), (0.8, 0.8))
    empty = Volume(np.zeros(ct.shape, dtype=bool), ct.affine)
    with pytest.raises(MaskError, match="empty"):
        cut_patches(ct, empty, None, RULES)


def test_other_grids_and_thick_volumes_are_refused() -> None:
    ct = make_slice((80, 70), (0.8, 0.8))
    other = make_slice((80, 71), (0.8, 0.8))
    with pytest.raises(ValueError, match="different grids"):
        cut_patches(ct, make_region(other, MASKS["inside"]), None, RULES)
    thick = Volume(np.zeros((8, 8, 2), dtype=np.int16), np.eye(4))
    with pytest.raises(ValueError, match="one voxel thick"):
        cut_patches(thick, replace(thick, array=thick.array == 0), None, RULES)


@pytest.mark.parametrize(
    "change",
    [
        {"codecs": None},
        {"codecs": {}},
        {"codecs": {"kidney": "soft_tissue"}},
        {"codecs": {"default": "no such"}},
        {"codecs": {"default": {"kind": "window", "level_hu": 50}}},
        {"patch_sizes": []},
        {"patch_sizes": ["x"]},
        {"patch_sizes": [4]},
        {"spacing_range_mm": [3.0, 0.5]},
        {"spacing_range_mm": [0.0, 0.5]},
        {"spacing_range_mm": [float("nan"), 1.0]},
        {"spacing_range_mm": [0.5]},
        {"labels": None},
    ],
    ids=str,
)
def test_config_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="config"):
        PatchRules.from_config({**CONFIG, **change})


@pytest.mark.parametrize("key", ["labels", "codecs", "patch_sizes", "spacing_range_mm"])
def test_config_without_a_field_is_refused_by_name(key: str) -> None:
    with pytest.raises(CheckpointError, match=key):
        PatchRules.from_config({k: v for k, v in CONFIG.items() if k != key})


def test_strength_and_guidance_go_by_label_and_are_1_where_nothing_is_said() -> None:
    config = {
        "labels": ["kidney"],
        "codecs": {"default": "soft_tissue"},
        "patch_sizes": [32, 64],
        "spacing_range_mm": [0.5, 3.0],
    }
    silent = PatchRules.from_config(config)
    assert silent.strength("kidney") == silent.guidance_scale("kidney") == 1
    stated = {"strengths": {"default": 0.8, "kidney": 0.95}, "guidance": {"kidney": 1.5}}
    said = PatchRules.from_config({**config, **stated})
    assert (said.strength(None), said.strength("kidney")) == (0.8, 0.95)
    assert (said.guidance_scale(None), said.guidance_scale("kidney")) == (1, 1.5)
    ct = make_slice((80, 70), (0.8, 0.8))
    (patch,) = cut_patches(ct, make_region(ct, MASKS["inside"]), "kidney", said)
    assert (patch.strength, patch.guidance_scale) == (0.95, 1.5)
    with pytest.raises(CheckpointError, match="strengths"):
        PatchRules.from_config({**config, "strengths": {"default": 0}})
    with pytest.raises(CheckpointError, match="guidance"):
        PatchRules.from_config({**config, "guidance": {"default": 0.5}})


@pytest.mark.parametrize("spacing_mm", [(0.8, 0.8), (0.4, 0.4)], ids=["native", "resampled"])
def test_neighbours_lie_on_the_pixels_of_the_patch(spacing_mm: tuple[float, float]) -> None:
    ct = make_slice((80, 70), spacing_mm)
    region = make_region(ct, MASKS["inside"])
    same = ct.array[:, :, 0].astype(np.float32)
    unknown = same.copy()
    unknown[region.array[:, :, 0]] = np.nan
    (patch,) = cut_patches(ct, region, None, RULES, np.stack([same, unknown]))
    assert patch.neighbours is not None
    assert np.array_equal(patch.neighbours[0], patch.image)
    assert np.isnan(patch.neighbours[1][patch.own]).all()
    known = ~np.isnan(patch.neighbours[1])
    assert known.any()
    assert np.array_equal(patch.neighbours[1][known], patch.image[known])
    assert cut_patches(ct, region, None, RULES)[0].neighbours is None
    with pytest.raises(ValueError, match="neighbours"):
        cut_patches(ct, region, None, RULES, np.stack([same, same])[:, 1:])
