"""``synthct.inpaint``: files, volumes and arrays in any orientation; nothing outside changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import KITS_AXES, make_tiny_case

import synthct
from synthct.errors import CheckpointError, MaskError, SourceError
from synthct.volume import Volume, canonical, read_ct, restore_orientation, write_volume

LPS = np.diag([-1.0, -1, 1, 1])
PIR = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


@pytest.fixture
def ct() -> Volume:
    """A small scan, oblique and anisotropic."""
    return make_tiny_case().scan()


@pytest.fixture
def mask() -> Volume:
    """A part of the kidney on three slices, and two voxels in a corner of one of them."""
    case = make_tiny_case()
    region = case.region("kidney")
    region[:, :, :11], region[:, :, 14:] = False, False
    region[:20] = False
    region[0, :2, 12] = True
    return Volume(region.astype(np.uint8), case.labels.affine)


@pytest.fixture
def paint(tiny_checkpoint: Path) -> Any:
    """``synthct.inpaint`` with the tiny checkpoint and two steps."""

    def call(ct: Any, mask: Any, **options: Any) -> Volume:
        options = {"checkpoint": str(tiny_checkpoint), "num_inference_steps": 2, **options}
        return synthct.inpaint(ct, mask, **options)

    return call


def test_only_the_mask_changes(paint: Any, ct: Volume, mask: Volume) -> None:
    result = paint(ct, mask, label="kidney", grain="checkpoint")
    inside = mask.array != 0
    assert result.array.dtype == np.int16
    assert np.array_equal(result.array[~inside], ct.array[~inside])
    assert (result.array[inside] != ct.array[inside]).mean() > 0.9
    assert result.array[inside].min() >= -150
    assert result.array[inside].max() <= 250
    assert np.array_equal(result.affine, ct.affine)


def test_inputs_are_left_alone(paint: Any, ct: Volume, mask: Volume) -> None:
    before = ct.array.copy(), mask.array.copy()
    paint(ct, mask)
    assert np.array_equal(ct.array, before[0])
    assert np.array_equal(mask.array, before[1])


def test_files_volumes_and_arrays_give_the_same(
    paint: Any, ct: Volume, mask: Volume, tmp_path: Path
) -> None:
    write_volume(ct, tmp_path / "ct.nii.gz")
    write_volume(restore_orientation(mask, LPS), tmp_path / "mask.nii")
    expected = paint(ct, mask).array
    for given in (
        (str(tmp_path / "ct.nii.gz"), tmp_path / "mask.nii"),
        ((ct.array, ct.affine), (mask.array != 0, mask.affine)),
        ((ct.array.astype(np.float64), ct.affine), (mask.array * 7.0, mask.affine)),
        (ct, tmp_path / "mask.nii"),
    ):
        assert np.array_equal(paint(*given).array, expected)


@pytest.mark.parametrize("axes", [LPS, KITS_AXES, PIR], ids=["LPS", "IPL", "PIR"])
def test_scan_comes_back_in_its_own_orientation(
    paint: Any, ct: Volume, mask: Volume, axes: np.ndarray
) -> None:
    given = restore_orientation(ct, axes)
    result = paint(given, restore_orientation(mask, axes))
    assert result.orientation == given.orientation != ct.orientation
    assert np.array_equal(result.affine, given.affine)
    assert np.array_equal(canonical(result).array, paint(ct, mask).array)
    mixed = paint(given, mask)
    assert np.array_equal(mixed.array, result.array)


def test_file_comes_back_canonical(paint: Any, ct: Volume, mask: Volume, tmp_path: Path) -> None:
    write_volume(restore_orientation(ct, KITS_AXES), tmp_path / "ct.nii.gz")
    result = paint(tmp_path / "ct.nii.gz", mask)
    read = read_ct(tmp_path / "ct.nii.gz")
    assert result.orientation == "RAS"
    assert np.array_equal(result.affine, read.affine)
    assert np.array_equal(result.array, paint(ct, mask).array)


def test_same_seed_same_bytes(paint: Any, ct: Volume, mask: Volume) -> None:
    first = paint(ct, mask, seed=4)
    assert paint(ct, mask, seed=4).array.tobytes() == first.array.tobytes()
    assert not np.array_equal(paint(ct, mask, seed=5).array, first.array)


def test_slices_do_not_share_their_noise(paint: Any) -> None:
    """On equal slices the paint differs: every slice has noise of its own."""
    ct = Volume(np.full((40, 40, 3), 50, dtype=np.int16), np.diag([0.8, 0.8, 3.0, 1.0]))
    region = np.zeros(ct.shape, dtype=bool)
    region[10:20, 10:20] = True
    out = paint(ct, Volume(region, ct.affine)).array
    assert not np.array_equal(out[..., 0], out[..., 1])
    assert not np.array_equal(out[..., 1], out[..., 2])


def test_label_and_scheduler_matter(paint: Any, ct: Volume, mask: Volume) -> None:
    results = [
        paint(ct, mask, **options).array
        for options in ({}, {"label": "kidney"}, {"label": "tumor"}, {"scheduler": "ddim"})
    ]
    for n, one in enumerate(results):
        assert not any(np.array_equal(one, other) for other in results[:n])


def test_values_beyond_hu_are_clipped(paint: Any, ct: Volume, mask: Volume) -> None:
    wide = ct.array.astype(np.float32)
    wide[0, -1, 0], wide[1, -1, 0], wide[2, -1, 0] = -3024, 32000, 41.5
    result = paint((wide, ct.affine), mask)
    assert list(result.array[:3, -1, 0]) == [-1024, 3071, 42]


def test_empty_mask_is_refused_before_a_checkpoint_is_looked_for(ct: Volume) -> None:
    empty = Volume(np.zeros(ct.shape, dtype=np.uint8), ct.affine)
    with pytest.raises(MaskError, match="empty"):
        synthct.inpaint(ct, empty, checkpoint="package:unknown")


def test_other_grids_are_refused(paint: Any, ct: Volume, mask: Volume) -> None:
    with pytest.raises(SourceError, match=r"another grid .*\(48, 40, 23\), not "):
        paint(ct, Volume(mask.array[:, :, 1:], mask.affine))
    moved = mask.affine.copy()
    moved[2, 3] += 0.5
    with pytest.raises(SourceError, match=r"0\.50 mm"):
        paint(ct, Volume(mask.array, moved))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(
    paint: Any, ct: Volume, mask: Volume, poison: float
) -> None:
    hu, region = ct.array.astype(np.float32), mask.array.astype(np.float32)
    hu[3, 3, 3], region[3, 3, 3] = poison, poison
    with pytest.raises(SourceError, match="the scan holds values that are not finite"):
        paint((hu, ct.affine), mask)
    with pytest.raises(SourceError, match="the mask holds values that are not finite"):
        paint(ct, (region, mask.affine))


def test_affine_without_inverse_is_refused(paint: Any, ct: Volume, mask: Volume) -> None:
    for bad in (np.zeros((4, 4)), np.full((4, 4), np.nan)):
        with pytest.raises(SourceError, match="the scan's affine has no inverse"):
            paint((ct.array, bad), mask)
        with pytest.raises(SourceError, match="the mask's affine has no inverse"):
            paint(ct, (mask.array, bad))


def test_missing_file_is_named(paint: Any, ct: Volume, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.nii\.gz: no such file"):
        paint(tmp_path / "nowhere.nii.gz", ct)


def test_unknown_label_and_checkpoint_are_refused(paint: Any, ct: Volume, mask: Volume) -> None:
    with pytest.raises(CheckpointError, match="cannot paint 'liver'"):
        paint(ct, mask, label="liver")
    with pytest.raises(CheckpointError, match="needs a revision"):
        paint(ct, mask, checkpoint="owner/name")


def test_mask_too_large_is_refused_in_mm(paint: Any) -> None:
    ct = Volume(np.zeros((260, 40, 1), dtype=np.int16), np.diag([0.8, 0.8, 3.0, 1.0]))
    with pytest.raises(MaskError, match="slice 0: the mask spans 208 x 32 mm"):
        paint(ct, Volume(ct.array == 0, ct.affine))


def test_an_array_without_an_affine_is_refused() -> None:
    with pytest.raises(SourceError, match="array without an affine"):
        synthct.inpaint(np.zeros((8, 8, 1)), np.ones((8, 8, 1)))  # type: ignore[arg-type]
