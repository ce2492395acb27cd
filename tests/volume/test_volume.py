"""Volumes: orientation, crop, paste, resampling in mm, and NIfTI files sound and damaged."""

from __future__ import annotations

import gzip
import itertools
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import oblique_affine

from synthct.errors import ResourceError, SourceError
from synthct.volume import (
    Affine,
    Box,
    Volume,
    canonical,
    corner_distance_mm,
    nifti_bytes,
    read_ct,
    read_labels,
    restore_orientation,
    shifted,
    spacing_of,
    write_volume,
)

SHAPE = (7, 6, 5)
HU = np.random.default_rng(0).integers(-1024, 3072, SHAPE).astype(np.int16)


def random_volume(affine: Affine | None = None) -> Volume:
    return Volume(HU, oblique_affine() if affine is None else affine)


def position_mm(volume: Volume, index: tuple[int, ...]) -> Any:
    return (volume.affine @ [*index, 1])[:3]


def write_raw(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


def patched(raw: bytes, offset: int, form: str, *values: float) -> bytes:
    out = bytearray(raw)
    struct.pack_into("<" + form, out, offset, *values)
    return bytes(out)


# Orientation


ORIENTATIONS = [
    (axes, signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def reoriented(volume: Volume, axes: tuple[int, ...], signs: tuple[int, ...]) -> Volume:
    """The same scan stored with its axes permuted and flipped, built by hand."""
    array = volume.array.transpose(axes)[tuple(slice(None, None, s) for s in signs)]
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for new, (old, sign) in enumerate(zip(axes, signs, strict=True)):
        step[old, new] = sign
        step[old, 3] = volume.shape[old] - 1 if sign < 0 else 0
    return Volume(array, volume.affine @ step)


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_canonical_is_lossless_and_reversible_for_all_48_orientations(
    axes: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    scan = random_volume()
    stored = reoriented(scan, axes, signs)
    ras = canonical(stored)
    assert ras.orientation == "RAS"
    assert np.array_equal(ras.array, scan.array)
    assert np.allclose(ras.affine, scan.affine, rtol=0, atol=1e-12)
    back = restore_orientation(ras, stored.affine)
    assert np.array_equal(back.array, stored.array)
    assert np.allclose(back.affine, stored.affine, rtol=0, atol=1e-12)


def test_there_are_48_different_orientations() -> None:
    scan = random_volume()
    assert len({reoriented(scan, *how).orientation for how in ORIENTATIONS}) == 48


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_files_in_any_orientation_read_as_the_same_scan(tmp_path: Path, suffix: str) -> None:
    scan = random_volume()
    for number, how in enumerate(ORIENTATIONS[::7]):
        path = tmp_path / f"{number}.{suffix}"
        write_volume(reoriented(scan, *how), path)
        read = read_ct(path)
        assert np.array_equal(read.array, scan.array)
        assert np.allclose(read.affine, scan.affine, rtol=0, atol=1e-4)


# Geometry


def test_properties_follow_from_an_oblique_affine() -> None:
    scan = random_volume()
    assert scan.spacing_mm == pytest.approx((0.8, 0.8, 2.5))
    assert spacing_of(scan.affine) == scan.spacing_mm
    assert scan.origin_mm == pytest.approx((-31.5, 12.25, -840.0))
    assert scan.voxel_volume_ml == pytest.approx(0.8 * 0.8 * 2.5 / 1000)
    assert scan.shape == SHAPE


def test_a_volume_has_three_axes_and_a_4x4_affine() -> None:
    with pytest.raises(ValueError, match="three axes"):
        Volume(HU[0], np.eye(4))
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        Volume(HU, np.eye(3))


def test_crop_moves_origin_by_whole_voxels_and_keeps_positions() -> None:
    scan = random_volume()
    box = Box((2, 1, 3), (6, 5, 5))
    crop = scan.crop(box)
    assert crop.shape == box.shape == (4, 4, 2)
    assert np.array_equal(crop.array, scan.array[2:6, 1:5, 3:5])
    for index in itertools.product((0, 3), (0, 3), (0, 1)):
        there = tuple(a + b for a, b in zip(index, box.start_ijk, strict=True))
        assert position_mm(crop, index) == pytest.approx(position_mm(scan, there))
    assert np.array_equal(shifted(scan.affine, box.start_ijk), crop.affine)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slab_is_the_crop_one_voxel_thick_and_a_view(axis: int) -> None:
    scan = random_volume()
    slab = scan.slab(axis, 2)
    assert slab.shape[axis] == 1
    assert np.array_equal(slab.array, scan.array.take([2], axis=axis))
    start = [2 if a == axis else 0 for a in range(3)]
    assert np.array_equal(slab.affine, shifted(scan.affine, start))
    assert np.shares_memory(slab.array, scan.array)
    for index in (-1, scan.shape[axis]):
        with pytest.raises(ValueError, match="leaves the volume"):
            scan.slab(axis, index)


def test_crop_of_a_crop_is_the_crop_of_both_starts() -> None:
    scan = random_volume()
    once = scan.crop(Box((3, 2, 1), (6, 5, 4)))
    twice = scan.crop(Box((1, 1, 0), (7, 6, 5))).crop(Box((2, 1, 1), (5, 4, 4)))
    assert once.has_grid_of(twice)
    assert np.array_equal(once.array, twice.array)


@pytest.mark.parametrize(
    "box", [Box((-1, 0, 0), (3, 3, 3)), Box((0, 0, 0), (8, 6, 5)), Box((2, 2, 2), (2, 4, 4))]
)
def test_crop_refuses_boxes_that_leave_the_volume_or_are_empty(box: Box) -> None:
    with pytest.raises(ValueError, match="leaves the volume"):
        random_volume().crop(box)


def test_box_around_is_the_smallest_and_none_for_nothing() -> None:
    region = np.zeros(SHAPE, dtype=bool)
    assert Box.around(region) is None
    region[2, 5, 1] = region[4, 3, 1] = True
    assert Box.around(region) == Box((2, 3, 1), (5, 6, 2))


def test_box_grows_beyond_the_array_and_clips_back() -> None:
    box = Box((0, 2, 3), (2, 4, 5)).grow((1, 2, 3))
    assert box == Box((-1, 0, 0), (3, 6, 8))
    assert box.clip(SHAPE) == Box((0, 0, 0), (3, 6, 5))
    assert 0 in Box((9, 0, 0), (12, 2, 2)).clip(SHAPE).shape
    assert 0 in Box((-5, 0, 0), (-2, 2, 2)).clip(SHAPE).shape


def test_grids_differ_from_a_twentieth_of_a_voxel_on() -> None:
    scan = random_volume()
    for shift_mm, same in ((0.039, True), (0.043, False)):  # voxels of 0.8 mm, turned a little
        moved = scan.affine.copy()
        moved[1, 3] += shift_mm
        assert corner_distance_mm(SHAPE, scan.affine, moved) == pytest.approx(shift_mm)
        assert scan.has_grid_of(Volume(HU, moved)) is same
    assert not scan.has_grid_of(scan.crop(Box((0, 0, 0), (7, 6, 4))))


def test_corner_distance_finds_a_stretch_that_the_origin_hides() -> None:
    affine = oblique_affine()
    stretched = affine.copy()
    stretched[:3, 2] *= 1.01
    assert corner_distance_mm((7, 6, 101), affine, stretched) == pytest.approx(100 * 2.5 * 0.01)


# Paste


def test_paste_changes_the_mask_alone_and_rounds() -> None:
    scan = random_volume()
    where = np.random.default_rng(1).random(SHAPE) < 0.3
    values = np.random.default_rng(2).uniform(-1000, 3000, SHAPE)
    before = scan.array.copy()
    result = scan.paste(values, where=where)
    assert result.array.dtype == np.int16
    assert np.array_equal(result.array[where], np.rint(values[where]))
    assert np.array_equal(result.array[~where], before[~where])
    assert np.array_equal(scan.array, before)
    assert result.has_grid_of(scan)


def test_paste_ignores_values_outside_the_mask() -> None:
    where = np.zeros(SHAPE, dtype=bool)
    where[1, 1, 1] = True
    values = np.full(SHAPE, np.nan)
    values[1, 1, 1] = -7.4
    assert random_volume().paste(values, where=where).array[1, 1, 1] == -7
    nothing = random_volume().paste(np.full(SHAPE, np.inf), where=np.zeros(SHAPE, dtype=bool))
    assert np.array_equal(nothing.array, HU)


@pytest.mark.parametrize("value", [40000.0, -40000.0, np.nan, np.inf, 32767.5])
def test_paste_refuses_what_does_not_fit_int16(value: float) -> None:
    with pytest.raises(ValueError, match="overflow"):
        random_volume().paste(np.full(SHAPE, value), where=np.ones(SHAPE, dtype=bool))


def test_paste_refuses_other_shapes_and_masks_that_are_not_boolean() -> None:
    scan = random_volume()
    with pytest.raises(ValueError, match="cannot paste"):
        scan.paste(HU[:-1], where=np.ones(SHAPE, dtype=bool))
    with pytest.raises(ValueError, match="not boolean"):
        scan.paste(HU, where=np.ones(SHAPE, dtype=np.uint8))


def test_paste_undoes_a_crop() -> None:
    scan, box = random_volume(), Box((1, 2, 0), (5, 6, 4))
    blank = Volume(np.zeros_like(HU), scan.affine)
    values, where = np.zeros_like(HU), np.zeros(SHAPE, dtype=bool)
    values[box.slices], where[box.slices] = scan.crop(box).array, True
    pasted = blank.paste(values, where=where)
    assert np.array_equal(pasted.crop(box).array, scan.crop(box).array)
    assert not pasted.array[~where].any()


# Files


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.uint16])
def test_written_volumes_read_back_and_have_the_same_bytes_each_time(
    tmp_path: Path, suffix: str, dtype: Any
) -> None:
    array = np.random.default_rng(3).integers(0, np.iinfo(dtype).max, SHAPE).astype(dtype)
    array = np.minimum(array, 3071) - 800 if dtype == np.int16 else array
    volume = Volume(array, oblique_affine())
    one, two = tmp_path / f"one.{suffix}", tmp_path / f"two.{suffix}"
    write_volume(volume, one)
    write_volume(volume, two)
    assert one.read_bytes() == two.read_bytes()
    assert (one.read_bytes()[:2] == b"\x1f\x8b") == (suffix == "nii.gz")
    read = read_ct(one) if dtype == np.int16 else read_labels(one)
    assert read.array.dtype == dtype
    assert np.array_equal(read.array, array)
    assert read.has_grid_of(volume)
    by_nibabel = nib.load(one)
    assert np.array_equal(np.asanyarray(by_nibabel.dataobj), array)
    assert by_nibabel.header.get_xyzt_units()[0] == "mm"
    assert np.allclose(by_nibabel.get_qform(), volume.affine, atol=1e-3)


def test_a_region_is_written_as_zeros_and_ones(tmp_path: Path) -> None:
    write_volume(Volume(HU > 0, oblique_affine()), tmp_path / "region.nii.gz")
    assert np.array_equal(read_labels(tmp_path / "region.nii.gz").array, (HU > 0).astype(np.uint8))


def test_gzip_by_other_programs_and_in_several_members_is_read(tmp_path: Path) -> None:
    raw = nifti_bytes(random_volume(), compress=False)
    path = write_raw(tmp_path / "a.nii.gz", gzip.compress(raw[:500]) + gzip.compress(raw[500:]))
    assert np.array_equal(read_ct(path).array, HU)


def test_a_gzipped_file_named_nii_is_read_all_the_same(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.nii", nifti_bytes(random_volume(), compress=True))
    assert np.array_equal(read_ct(path).array, HU)


def test_a_file_that_cannot_be_written_is_a_resource_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot write"):
        write_volume(random_volume(), tmp_path / "missing" / "a.nii.gz")


def test_a_missing_file_and_a_folder_are_source_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        read_ct(tmp_path / "none.nii.gz")
    (tmp_path / "a.nii").mkdir()  # as some programs unpack a.nii.gz
    (tmp_path / "a.nii/b.nii").touch()
    with pytest.raises(SourceError, match=r"a.nii: is a folder, .*holds b.nii.*move"):
        read_ct(tmp_path / "a.nii")


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "u2", "i2", ">i2", "i4", "u4", "i8", "f4", ">f4", "f8"]
)
def test_every_stored_type_reads_as_the_same_clipped_int16(tmp_path: Path, dtype: str) -> None:
    values = HU.astype(np.int64)
    values[::8] *= 3  # some beyond both limits of HU
    limits = np.iinfo(dtype) if "f" not in dtype else np.iinfo(np.int32)
    offset = 1024 if limits.min == 0 else 0
    # Not to the ends: what is cut to 8 bits is refused.
    values = np.clip(values, limits.min - offset + 1, limits.max - offset - 1)
    stored = (values + offset).astype(dtype)
    order = ">" if dtype.startswith(">") else "<"
    header = nib.Nifti1Header(endianness=order)
    image = nib.Nifti1Image(stored, oblique_affine(), header, dtype=np.dtype(dtype))
    raw = bytearray(image.to_bytes())
    struct.pack_into(order + "ff", raw, 112, 1.0, -offset)
    read = read_ct(write_raw(tmp_path / "a.nii", bytes(raw)))
    assert read.array.dtype == np.int16
    assert read.array.dtype.isnative
    assert np.array_equal(read.array, np.clip(values, -1024, 3071))


def test_paddings_and_metal_are_clipped_to_hu(tmp_path: Path) -> None:
    array = HU.copy()
    array[0, 0, :4] = (-3024, -2048, 3072, 32767)
    write_volume(Volume(array, oblique_affine()), tmp_path / "a.nii.gz")
    assert read_ct(tmp_path / "a.nii.gz").array[0, 0, :4].tolist() == [-1024, -1024, 3071, 3071]


def test_slope_and_intercept_are_applied_and_rounded(tmp_path: Path) -> None:
    raw = nifti_bytes(random_volume(), compress=False)
    read = read_ct(write_raw(tmp_path / "a.nii", patched(raw, 112, "ff", 0.5, -100.25)))
    assert np.array_equal(read.array, np.clip(np.rint(HU * 0.5 - 100.25), -1024, 3071))


def test_slope_zero_means_not_scaled(tmp_path: Path) -> None:
    raw = nifti_bytes(random_volume(), compress=False)
    read = read_ct(write_raw(tmp_path / "a.nii", patched(raw, 112, "ff", 0.0, 0.0)))
    assert np.array_equal(read.array, HU)


@pytest.mark.parametrize(
    ("slope", "intercept"), [(np.nan, 3), (np.inf, 0), (-np.inf, 0), (1, np.nan), (1, np.inf)]
)
def test_scaling_that_is_not_finite_is_refused(
    tmp_path: Path, slope: float, intercept: float
) -> None:
    raw = nifti_bytes(random_volume(), compress=False)
    path = write_raw(tmp_path / "a.nii", patched(raw, 112, "ff", slope, intercept))
    for read in (read_ct, read_labels):
        with pytest.raises(SourceError, match="slope"):
            read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_refused_and_the_first_is_named(
    tmp_path: Path, value: float
) -> None:
    array = HU.astype(np.float32)
    array[1, 2, 3] = value
    image = nib.Nifti1Image(array, oblique_affine())
    path = write_raw(tmp_path / "a.nii", image.to_bytes())
    with pytest.raises(SourceError, match=r"voxel \(1, 2, 3\)"):
        read_ct(path)
    with pytest.raises(SourceError, match="label value"):
        read_labels(path)


def test_label_maps_take_the_smallest_type_and_refuse_what_is_no_label(tmp_path: Path) -> None:
    def stored(array: Any) -> Path:
        image = nib.Nifti1Image(array, oblique_affine(), dtype=array.dtype)
        return write_raw(tmp_path / "a.nii", image.to_bytes())

    labels = np.abs(HU) % 4
    for array, dtype in (
        (labels.astype(np.float64), np.uint8),
        (labels.astype(np.int64) + 252, np.uint8),
        (labels.astype(np.int32) + 253, np.uint16),
    ):
        read = read_labels(stored(array))
        assert read.array.dtype == dtype
        assert np.array_equal(read.array, array)
    for bad, match in (
        (labels.astype(np.float32) + 0.5, "not a whole number"),
        (labels.astype(np.int16) - 1, "not within"),
        (labels.astype(np.int32) + 65533, "not within"),
    ):
        with pytest.raises(SourceError, match=match):
            read_labels(stored(bad))


def test_a_fourth_axis_of_length_one_is_dropped_and_a_longer_one_refused(tmp_path: Path) -> None:
    one = nib.Nifti1Image(HU[..., None], oblique_affine())
    assert np.array_equal(read_ct(write_raw(tmp_path / "a.nii", one.to_bytes())).array, HU)
    two = nib.Nifti1Image(np.stack([HU, HU], axis=3), oblique_affine())
    with pytest.raises(SourceError, match="expected a 3D scan"):
        read_ct(write_raw(tmp_path / "b.nii", two.to_bytes()))


RAW = nifti_bytes(Volume(HU, oblique_affine()), compress=False)
RGB = nib.Nifti1Image(np.zeros(SHAPE, dtype=[(c, "u1") for c in "RGB"]), np.eye(4)).to_bytes()
DAMAGED = {
    "empty": b"",
    "no NIfTI at all": b"not a scan" * 100,
    "cut in the header": RAW[:200],
    "cut after the header": RAW[:352],
    "last byte lost": RAW[:-1],
    "no axes": patched(RAW, 40, "h", 0),
    "negative number of axes": patched(RAW, 40, "h", -1),
    "one axis": patched(RAW, 40, "h", 1),
    "nine axes": patched(RAW, 40, "h", 9),
    "axis of length 0": patched(RAW, 42, "h", 0),
    "axis of negative length": patched(RAW, 42, "h", -3),
    "54 TB": patched(RAW, 42, "hhh", 30000, 30000, 30000),
    "unknown type": patched(RAW, 70, "h", 77),
    "RGB": RGB,
    "complex": nib.Nifti1Image(HU.astype(np.complex64), np.eye(4)).to_bytes(),
    "voxels inside the header": patched(RAW, 108, "f", 0),
    "voxels after the end": patched(RAW, 108, "f", 1e6),
    "voxels nowhere": patched(RAW, 108, "f", np.nan),
    "NaN in the affine": patched(RAW, 280, "f", np.nan),
    "singular affine": patched(RAW, 280, "12f", *[0] * 12),
}


@pytest.mark.parametrize("raw", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize("compress", [False, True])
def test_damaged_files_are_source_errors_that_name_the_file(
    tmp_path: Path, raw: bytes, compress: bool
) -> None:
    path = write_raw(tmp_path / "scan_17.nii", gzip.compress(raw) if compress else raw)
    with pytest.raises(SourceError, match="scan_17"):
        read_ct(path)


def smooth_scan() -> Volume:
    """A scan that compresses well, so that its gzip stream has real structure."""
    i, j, k = np.indices((24, 20, 12))
    return Volume((40 * np.sin(i / 5) * np.cos(j / 4) + k).astype(np.int16), oblique_affine())


@pytest.mark.long
def test_no_single_bit_flip_in_a_gzipped_scan_gives_wrong_voxels(tmp_path: Path) -> None:
    scan = smooth_scan()
    good = nifti_bytes(scan, compress=True)
    rng = np.random.default_rng(5)
    header_and_trailer = [*range(80), *range(8 * len(good) - 64, 8 * len(good))]
    bits = [*header_and_trailer, *rng.choice(8 * len(good), 300, replace=False)]
    path, refused = tmp_path / "a.nii.gz", 0
    for bit in bits:
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        try:
            read = read_ct(path)
        except SourceError:
            refused += 1
        else:  # a flip of the header's time stamp or system byte is harmless
            assert np.array_equal(read.array, scan.array)
            assert read.has_grid_of(scan)
            assert bit // 8 < 10
    assert refused > 300


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_no_scan_cut_short_is_read(tmp_path: Path, suffix: str) -> None:
    good = nifti_bytes(smooth_scan(), compress=suffix == "nii.gz")
    path = tmp_path / f"a.{suffix}"
    cuts = np.random.default_rng(6).choice(len(good) - 16, 60, replace=False)
    for length in (*cuts, *range(len(good) - 16, len(good))):
        path.write_bytes(good[:length])
        with pytest.raises(SourceError):
            read_ct(path)


def test_rubbish_after_the_gzip_stream_is_refused(tmp_path: Path) -> None:
    good = nifti_bytes(smooth_scan(), compress=True)
    with pytest.raises(SourceError, match="damaged"):
        read_ct(write_raw(tmp_path / "a.nii.gz", good + b"rubbish after the end"))


@pytest.mark.realdata
def test_a_kits_case_and_its_totalsegmentator_twin_are_the_same_scan(shared_data: Path) -> None:
    kits = read_ct(shared_data / "kits23" / "dataset" / "case_90001" / "imaging.nii.gz")
    total = read_ct(shared_data / "totalsegmentator_v2" / "s0001" / "ct.nii.gz")
    assert kits.orientation == total.orientation == "RAS"
    assert kits.has_grid_of(total)
    assert np.array_equal(kits.array, total.array)
