"""Hand-made bad scans: each is refused with what is wrong, at little cost, and never read."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import make_tiny_case, oblique_affine

from synthct.errors import SourceError
from synthct.volume import (
    HU_MAX,
    HU_MIN,
    Volume,
    canonical,
    nifti_bytes,
    read_ct,
    read_ct_counting,
    read_labels,
)

CASE = make_tiny_case()
SCAN, LABELS = CASE.scan(), CASE.labels
RAW = nifti_bytes(SCAN, compress=False)
ZIPPED = gzip.compress(RAW, mtime=0)
SHAPE = SCAN.shape

Read = Callable[[Path], Volume]


def patched(offset: int, form: str, *values: float | bytes, raw: bytes = RAW) -> bytes:
    out = bytearray(raw)
    struct.pack_into("<" + form, out, offset, *values)
    return bytes(out)


def image(array: Any, affine: Any = None, **header: Any) -> bytes:
    """A NIfTI file with an sform alone; ``header`` are fields set at the end."""
    made = nib.Nifti1Image(array, None, dtype=array.dtype)
    made.set_sform(oblique_affine() if affine is None else affine, 1)
    made.set_qform(None)
    made.header.set_zooms((*(0.8, 0.8, 2.5), *(1.0,) * (array.ndim - 3))[: array.ndim])
    raw = bytearray(made.to_bytes())
    for name, value in header.items():
        kind, offset = nib.Nifti1Header.template_dtype.fields[name]
        raw[offset : offset + kind.itemsize] = np.asarray(value, kind.base).tobytes()
    return bytes(raw)


def with_affine(affine: Any) -> bytes:
    return patched(280, "12f", *np.asarray(affine)[:3].ravel())


def moved(*shift_mm: float) -> Any:
    affine = SCAN.affine.copy()
    affine[:3, 3] += shift_mm
    return affine


def turned(degrees: float) -> Any:
    a = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return turn @ SCAN.affine


def noisy(values: Any) -> Any:
    """Values with the noise of thin slices."""
    return np.rint(values + np.random.default_rng(0).normal(0, 60, values.shape))


def hu(change: Callable[[Any], Any], dtype: str = "i2") -> bytes:
    """The scan with its values changed."""
    return image(np.rint(change(SCAN.array.astype(np.float64))).astype(dtype))


def resonance(hu: Any) -> Any:
    """Like a magnetic resonance: background near 0, tissue bright, nothing negative."""
    noise = np.abs(np.random.default_rng(0).normal(0, 8, hu.shape))
    return np.where(hu < -500, noise, 400 + hu + noise)


with_nan = SCAN.array.astype(np.float32)
with_nan[4, 5, 6] = np.nan
with_inf = SCAN.array.astype(np.float64)
with_inf[4:6, 5, 6] = -np.inf
all_nan = np.full(SHAPE, np.nan, np.float32)
rgb = np.zeros(SHAPE, dtype=[(c, "u1") for c in "RGB"])
rgba = np.zeros(SHAPE, dtype=[(c, "u1") for c in "RGBA"])
label = LABELS.array.astype(np.float32)

SCANS: dict[str, tuple[bytes, str]] = {
    # row 16: cut, flipped, more than there should be
    "empty": (b"", "the file is empty"),
    "text": (b"not a scan" * 100, "not a NIfTI file"),
    "cut in the header": (RAW[:200], "cut in its header"),
    "cut after the header": (RAW[:352], "352 bytes, but its header tells of"),
    "last byte lost": (RAW[:-1], "damaged or cut short.* fetch the file again"),
    "one byte more": (RAW + b"\0", "damaged or cut short"),
    "gzip cut in the middle": (ZIPPED[: len(ZIPPED) // 2], "cut short|gzip trailer"),
    "gzip without its trailer": (ZIPPED[:-8], "cut short|gzip trailer"),
    "gzip with a flipped bit": (patched(2000, "B", ZIPPED[2000] ^ 8, raw=ZIPPED), "damaged"),
    "gzip with a wrong checksum": (patched(len(ZIPPED) - 8, "I", 7, raw=ZIPPED), "damaged .*sum"),
    "gzip with a wrong length": (patched(len(ZIPPED) - 4, "I", 7, raw=ZIPPED), "damaged .*sum"),
    "rubbish after the gzip": (ZIPPED + b"rubbish", "bytes follow|gzip trailer"),
    "zeros and rubbish after the gzip": (ZIPPED + bytes(512) + b"x", "bytes follow|gzip trailer"),
    "gzip of a longer file": (gzip.compress(RAW + bytes(99)), "gzip trailer of|goes on after"),
    "two scans in one gzip": (ZIPPED + gzip.compress(b"x"), "goes on after the last voxel"),
    "gzip of nothing": (gzip.compress(b""), "not a NIfTI file, or cut"),
    "gzip twice": (gzip.compress(ZIPPED), "not a NIfTI file"),
    # row 17: claims
    "30000 cubed": (patched(42, "hhh", 30000, 30000, 30000), "claims 30000 x 30000 x 30000"),
    "30000 cubed in gzip": (gzip.compress(patched(42, "hhh", 30000, 30000, 30000)), "allowed"),
    "1000 cubed in little gzip": (gzip.compress(patched(42, "hhh", 1000, 1000, 1000)), "at most"),
    "1000 cubed, plain": (patched(42, "hhh", 1000, 1000, 1000), "its header tells of 2000000352"),
    "10000 frames": (patched(40, "hhhhh", 4, 500, 500, 500, 10000), "in 10000 frames, more than"),
    # row 18: axes and types
    "no axes": (patched(40, "h", 0), r"dim\[0\] is 0"),
    "negative number of axes": (patched(40, "h", -1), r"dim\[0\] is -1"),
    "nine axes": (patched(40, "h", 9), r"dim\[0\] is 9"),
    "one axis": (patched(40, "h", 1), r"its shape is \(48,\)"),
    "a slice": (image(SCAN.array[:, :, 0]), r"expected a 3D scan but its shape is \(48, 40\)"),
    "axis of length 0": (patched(42, "h", 0), "every axis needs a length"),
    "axis of negative length": (patched(44, "h", -40), "every axis needs a length"),
    "two frames": (image(np.stack([SCAN.array] * 2, axis=3)), "'frame: 0' to 'frame: 1'"),
    "vectors": (image(np.zeros((*SHAPE, 1, 3), np.float32)), r"its shape is \(48, 40, 24, 1, 3\)"),
    "RGB": (image(rgb), "RGB colours are not a CT"),
    "RGBA": (image(rgba), "RGB colours are not a CT"),
    "complex": (image(SCAN.array.astype(np.complex64)), "complex64 are not a CT"),
    "unknown type": (patched(70, "h", 77), "datatype 77 is unknown"),
    "bits": (patched(70, "h", 1), "are not a CT|bitpix"),
    "other number of bits": (patched(72, "h", 8), "bitpix says 8"),
    # row 19: scaling
    "slope NaN with an intercept": (patched(112, "ff", np.nan, 5), "scl_slope is nan"),
    "slope inf": (patched(112, "f", np.inf), "scl_slope is inf"),
    "slope 3e38": (patched(112, "f", 3e38), "values .* 3e.38.* are not HU"),
    "slope 1e-30": (patched(112, "f", 1e-30), "not HU"),
    "slope 0 with an intercept": (patched(112, "ff", 0, -1024), "scl_slope is 0 and scl_inter -10"),
    "intercept NaN": (patched(116, "f", np.nan), "scl_inter nan"),
    "intercept inf": (patched(116, "f", -np.inf), "scl_inter -inf"),
    "intercept 1e6": (patched(116, "f", 1e6), r"values 99.*\(scl_slope 1, scl_inter 1e\+06\)"),
    "values of 1e30": (image(SCAN.array.astype(np.float32) * 1e30), "are not HU"),
    "values of 2**31": (image(SCAN.array.astype(np.int32) * 2**20), "are not HU"),
    # row 20: no numbers
    "NaN": (image(with_nan), r"1 voxel is not a finite number, .* voxel \(4, 5, 6\)"),
    "infinity": (image(with_inf), r"2 voxels are not finite .* voxel \(4, 5, 6\)"),
    "nothing but NaN": (image(all_nan), r"46,080 voxels .* voxel \(0, 0, 0\)"),
    # row 21: not HU
    "8-bit picture": (hu(lambda x: np.interp(x, [-1000, 400], [0, 255]), "u1"), "none is below 0"),
    "0 to 1": (image(np.interp(SCAN.array, [-1000, 400], [0, 1]).astype("f4")), "within 0..1"),
    "-1 to 1": (image(np.interp(SCAN.array, [-1000, 400], [-1, 1]).astype("f4")), "within -1..1"),
    "HU + 1024": (hu(lambda x: x + 1024), r"look like HU \+ 1024 .* subtract 1024"),
    "HU + 1024 with padding": (
        hu(lambda x: np.where(np.arange(SHAPE[0])[:, None, None] < 4, -2000, x + 1024)),
        r"look like HU \+ 1024",
    ),
    "z-scores": (hu(lambda x: (x - x.mean()) / x.std()), "all values lie within"),
    "magnetic resonance": (hu(resonance), "none is below 0"),
    "8192 too much": (hu(lambda x: x + 8192), r"100% of them are above 3071 .* greatest"),
    "4096 too much": (hu(lambda x: x + 4096), r"of them are above 3071 HU"),
    "HU - 1024": (hu(lambda x: x - 1024), r"of them are below -1200 HU and differ"),
    "ten times": (hu(lambda x: 10 * x), r"of them are (above 3071|below -1200) HU"),
    "negated": (hu(lambda x: -x), "HU of the wrong sign"),
    "8 bits": (hu(lambda x: (noisy(x) + 128) % 256 - 128), "cut to 8 bits"),
    "8 bits without sign": (hu(lambda x: noisy(x) % 256, "u1"), "cut to 8 bits|none is below 0"),
    "12 bits without sign": (hu(lambda x: x % 4096), "are above 3071"),
    "all the same once clipped": (hu(lambda x: x * 0.004 + 9000), "all values lie within"),
    "paddings alone": (hu(lambda x: np.where(x < 0, -2000, -3024)), "all values lie within"),
    "all the same": (hu(lambda x: 0 * x - 1000), r"within -1000..-1000"),
    # row 22: where it lies
    "no codes": (patched(252, "hh", 0, 0), "neither sform nor qform .* left and right are unknown"),
    "sform moved by a tenth of a voxel": (with_affine(moved(0.08, 0, 0)), r"corners 0\.080 mm"),
    "sform moved by 5 mm": (with_affine(moved(0, 0, 5)), r"corners 5\.000 mm apart"),
    "sform turned by a degree": (with_affine(turned(1)), "sform and qform place its corners"),
    "sform flipped": (with_affine(SCAN.affine @ np.diag([-1, 1, 1, 1])), "mm apart"),
    "qform moved by 1 mm": (patched(268, "f", -30.5), r"corners 1\.000 mm apart"),
    "quaternion of length 2": (patched(256, "fff", 1.2, 1.2, 1.2), "qform is no rotation"),
    "singular sform": (patched(280, "12f", *[0] * 12), "has no inverse"),
    "flat sform": (with_affine(SCAN.affine @ np.diag([1, 1, 0, 1])), "has no inverse"),
    "NaN in the sform": (patched(280, "f", np.nan), "has no inverse"),
    "infinity in the sform": (patched(292, "f", np.inf), "has no inverse"),
    "spacing 0": (patched(80, "f", 0), "are not of a CT"),
    "negative spacing": (patched(84, "f", -0.8), "are not of a CT"),
    "spacing NaN": (patched(88, "f", np.nan), "are not of a CT"),
    "spacing of a metre": (patched(88, "f", 1000), "are not of a CT"),
    "single bits": (patched(70, "hh", 1, 1), "voxels of type single bits"),
    "in metres": (patched(123, "B", 1), "not in mm but in metres"),
    "in micrometres": (patched(123, "B", 3), "not in mm but in micrometres"),
    "spacing is not the sform's": (
        image(SCAN.array, pixdim=[1, 0.8, 0.8, 5, 0, 0, 0, 0]),
        r"0.8 x 0.8 x 5 mm by pixdim but 0.8 x 0.8 x 2.5 mm by the sform",
    ),
    # what it begins with
    "half of a pair": (patched(344, "4s", b"ni1\0"), "one half of a .hdr and .img pair"),
    "Analyze": (patched(344, "4s", bytes(4)), "ANALYZE 7.5, .* convert"),
    "voxels inside the header": (patched(108, "f", 0), "vox_offset is 0"),
    "voxels between bytes": (patched(108, "f", 352.5), "vox_offset is 352.5"),
    "voxels nowhere": (patched(108, "f", np.nan), "vox_offset is nan"),
    "voxels after the end": (patched(108, "f", 1e6), "its header tells of"),
    "NRRD": (b"NRRD0004\n" + RAW, "it looks like NRRD"),
}  # fmt: skip

LABEL_MAPS: dict[str, tuple[bytes, str]] = {
    "half a label": (image(label * 0.5), "label value 0.5 is not a whole number"),
    "a hair off a label": (image(label * np.float32(1.001)), "is not a whole number"),
    "label -1": (image(LABELS.array.astype(np.int16) - 1), "-1..1 are .* another background"),
    "label 70000": (
        image(LABELS.array.astype(np.int32) * 35000),
        "0..70000 are not .* lower values",
    ),
    "label NaN": (image(np.where(label > 1, np.nan, label)), "label value nan is .* with 0 where"),
    "label 1e30": (image(label * np.float32(1e30)), "are not within"),
    "scaled to fractions": (image(LABELS.array, scl_slope=0.3), "is not a whole number"),
    "label map of two frames": (image(np.stack([LABELS.array] * 2, axis=3)), "expected a 3D scan"),
}


def test_there_are_sixty() -> None:
    assert len(SCANS) + len(LABEL_MAPS) >= 60


@pytest.mark.parametrize(("raw", "message"), SCANS.values(), ids=SCANS.keys())
def test_no_bad_scan_is_read(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "scan_17.nii.gz"
    path.write_bytes(raw)
    with pytest.raises(SourceError, match=rf"scan_17\.nii\.gz: (?s:.)*{message}"):
        read_ct(path)


@pytest.mark.parametrize(("raw", "message"), LABEL_MAPS.values(), ids=LABEL_MAPS.keys())
def test_no_bad_label_map_is_read(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "labels_17.nii.gz"
    path.write_bytes(raw)
    with pytest.raises(SourceError, match=rf"labels_17\.nii\.gz: .*{message}"):
        read_labels(path)


# What is unusual, but right


def same(path: Path, raw: bytes) -> bool:
    path.write_bytes(raw)
    read = read_ct(path)
    return np.array_equal(read.array, SCAN.array) and read.has_grid_of(SCAN)


def test_what_is_unusual_but_right_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    assert same(path, RAW)
    assert same(path, patched(112, "ff", 0, 0))  # not scaled, by the standard
    assert same(path, patched(123, "B", 0))  # unit not said
    assert same(path, patched(252, "h", 0))  # sform alone
    assert same(path, patched(254, "h", 0))  # qform alone
    two = nib.Nifti2Image(SCAN.array, SCAN.affine)
    two.set_sform(SCAN.affine, 1)
    assert same(path, two.to_bytes())
    assert same(path, image(SCAN.array[..., None]))
    assert same(path, ZIPPED)
    assert same(path, gzip.compress(RAW[:500]) + gzip.compress(RAW[500:]))
    for zeros in (1, 2, 3, 512, 1 << 19):  # padded to whole blocks, as tapes and some programs do
        assert same(path, ZIPPED + bytes(zeros))
    assert same(path, gzip.compress(RAW[:500]) + bytes(512) + gzip.compress(RAW[500:]))


def test_an_extension_before_the_voxels_is_passed_over(tmp_path: Path) -> None:
    made = nib.Nifti1Image(SCAN.array, SCAN.affine)
    made.set_sform(SCAN.affine, 1)
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a patient's story" * 99))
    assert same(tmp_path / "a.nii.gz", gzip.compress(made.to_bytes()))


@pytest.mark.parametrize("seed", range(60))
def test_an_oblique_file_of_our_own_agrees_with_itself(tmp_path: Path, seed: int) -> None:
    """Turned by almost half a circle, a quaternion of float32 says little: that is no damage."""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3) if seed % 2 else np.eye(3)[seed % 3] + 1e-4 * rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = np.pi - 10.0 ** rng.uniform(-8, -1)
    cross = np.cross(np.eye(3), axis)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    affine = np.eye(4)
    affine[:3, :3] = turn * rng.uniform(0.4, 5, 3)
    affine[:3, 3] = rng.uniform(-1000, 1000, 3)
    written = Volume(SCAN.array, affine)
    path = tmp_path / "a.nii"
    path.write_bytes(nifti_bytes(written, compress=False))
    assert read_ct(path).has_grid_of(canonical(written))


def test_a_tilted_gantry_is_written_and_read(tmp_path: Path) -> None:
    tilt = np.eye(4)
    tilt[1, 2] = 0.35
    scan = Volume(SCAN.array, SCAN.affine @ tilt)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(nifti_bytes(scan, compress=True))
    assert read_ct(path).has_grid_of(scan)


# HU: what is CT must pass


def crops() -> dict[str, Any]:
    """Fifty pictures that are CT: whole, cropped, padded, clean, noisy, dense, coarse."""
    rng = np.random.default_rng(1)
    shape = (24, 24, 12)

    def tissue(mean: float, sd: float) -> Any:
        return rng.normal(mean, sd, shape)

    left = np.arange(24)[:, None, None]
    made: dict[str, Any] = {}
    for name, mean, sd in [
        ("liver", 60, 12), ("enhanced liver", 110, 15), ("kidney", 35, 10), ("cortex", 190, 25),
        ("spleen", 50, 9), ("water", 0, 5), ("fat", -100, 8), ("lung", -800, 40),
        ("air", -1000, 12), ("bone", 700, 150), ("cortical bone", 1050, 200), ("blood", 300, 20),
        ("muscle", 55, 30), ("brain", 35, 5),
    ]:  # fmt: skip
        made[name] = tissue(mean, sd)
        made[f"{name}, thin slices"] = tissue(mean, 3 * sd)
        made[f"{name} beside fat"] = np.where(left < 5, tissue(-100, 8), tissue(mean, sd))
    inside_skull = tissue(35, 5)
    inside_skull[:, :3] = rng.normal(1000, 300, (24, 3, 12))
    inside_skull[8:12, 8:12] = rng.normal(8, 5, (4, 4, 12))
    made["inside of the skull"] = inside_skull
    made["padded"] = np.where(left < 8, -2048, tissue(40, 12))
    made["padded with -3024"] = np.where(left < 8, -3024, tissue(-90, 12))
    made["air and water"] = np.where(left < 8, -1000, tissue(0, 4))
    made["metal"] = np.where(left < 2, 20_000, tissue(40, 12))
    made["without noise"] = np.where(left < 8, -1000, np.full(shape, 40.0))
    made["air at -1024"] = np.where(left < 12, -1024, tissue(60, 9))
    made["spine"] = np.where(left < 12, tissue(300, 90), tissue(50, 12))
    made["half bone"] = np.where(left < 12, tissue(900, 90), tissue(-90, 9))
    made["window -200..300"] = tissue(40, 150).clip(-200, 300)
    made["body"] = SCAN.array.astype(np.float64)
    made["whole numbers of float"] = np.rint(tissue(40, 12))
    return made


def test_there_are_fifty_pictures_of_ct() -> None:
    assert len(crops()) >= 50


@pytest.mark.parametrize(("values"), crops().values(), ids=crops().keys())
@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_what_is_ct_is_never_taken_for_something_else(
    tmp_path: Path, values: Any, dtype: str
) -> None:
    array = (np.rint(values) if dtype == "i2" else values).astype(dtype)
    (tmp_path / "a.nii").write_bytes(image(array))
    read = read_ct(tmp_path / "a.nii").array
    assert np.array_equal(read, np.rint(array).clip(HU_MIN, HU_MAX))


def wide_body(air: int, padding: int | None = None) -> Any:
    """A slab of 240 mm: so many of its 60 rows are air; fat, muscle and some bone; padding."""
    rng = np.random.default_rng(0)
    body = rng.normal(40, 10, (60, 60, 12))
    body[air : air + 15] = rng.normal(-100, 10, (15, 60, 12))
    body[-1] = rng.normal(700, 200, (60, 12))
    body[:air] = rng.normal(-1000, 10, (air, 60, 12))
    if padding is not None:
        body[:, :9] = padding
    return body


@pytest.mark.parametrize("padding", [None, -2048, -3024])
def test_a_wide_scan_without_air_is_told(tmp_path: Path, padding: int | None) -> None:
    """A tenth of HU is a range that a crop within fat may have, but no scan of a body."""
    wide = np.diag([4.0, 4, 5, 1])
    for factor, is_told in ((1.0, False), (0.1, True)):
        array = np.rint(factor * wide_body(20, padding)).astype(np.int16)
        (tmp_path / "a.nii").write_bytes(nifti_bytes(Volume(array, wide), compress=False))
        remarks: list[str] = []
        read_ct_counting(tmp_path / "a.nii", remarks=remarks)
        assert any("has the values of air" in text for text in remarks) == is_told


@pytest.mark.parametrize("padding", [None, -2048, -3024])
@pytest.mark.parametrize("air", [8, 40])
def test_a_scan_of_the_wrong_sign_is_refused(tmp_path: Path, air: int, padding: int | None) -> None:
    array = -np.rint(wide_body(air, padding)).astype(np.int16)
    volume = Volume(array, np.diag([4.0, 4, 5, 1]))
    (tmp_path / "a.nii").write_bytes(nifti_bytes(volume, compress=False))
    with pytest.raises(SourceError, match="HU of the wrong sign"):
        read_ct(tmp_path / "a.nii")


@pytest.mark.long
@pytest.mark.realdata
def test_real_scans_on_wrong_scales_are_refused_or_told(shared_data: Path, tmp_path: Path) -> None:
    wrong: dict[str, Callable[[Any], Any]] = {
        "inverted": lambda hu: -hu,
        "ten times": lambda hu: 10 * hu,
        "8 bits": lambda hu: (hu + 128) % 256 - 128,
        "12 bits": lambda hu: hu % 4096,
        "a tenth": lambda hu: np.rint(hu / 10),
    }
    for path in [*shared_data.rglob("ct.nii.gz"), *shared_data.rglob("imaging.nii.gz")]:
        scan, _ = read_ct_counting(path)
        hu = scan.array[::2, ::2, :: 3 if scan.shape[2] > 9 else 1].astype(np.int32)
        affine = scan.affine @ np.diag([2, 2, 3 if scan.shape[2] > 9 else 1, 1])
        for name, change in wrong.items():
            volume = Volume(change(hu).astype(np.int16), affine)
            (tmp_path / "a.nii").write_bytes(nifti_bytes(volume, compress=False))
            remarks: list[str] = []
            try:
                read_ct_counting(tmp_path / "a.nii", remarks=remarks)
            except SourceError:
                pass
            else:
                assert name == "a tenth", (name, path)
                width_mm = sorted(np.array(hu.shape) * volume.spacing_mm)[1]
                assert width_mm < 150 or any("values of air" in text for text in remarks), path


@pytest.mark.long
@pytest.mark.realdata
def test_every_real_scan_and_crops_of_it_are_ct(shared_data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    found = [*shared_data.rglob("ct.nii.gz"), *shared_data.rglob("imaging.nii.gz")]
    assert len(found) >= 15
    for path in found:
        scan = read_ct(path)
        for _ in range(12):
            size = np.minimum(scan.shape, rng.integers(8, 80, 3))
            start = [int(rng.integers(0, n - s + 1)) for n, s in zip(scan.shape, size, strict=True)]
            box = tuple(slice(a, a + s) for a, s in zip(start, size, strict=True))
            part = scan.array[box]
            if int(part.max()) - int(part.min()) > 16:  # else padding alone
                (tmp_path / "a.nii").write_bytes(image(np.ascontiguousarray(part)))
                read_ct(tmp_path / "a.nii")


# What a refusal costs


MEASURE = """
import json, sys, time
from pathlib import Path
from synthct.errors import SourceError
from synthct.volume import read_ct
warm = Path(sys.argv[1])
read_ct(warm)

def peak_kb():  # not ru_maxrss, which a child process inherits
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

cost = {}
for path in sorted(Path(sys.argv[2]).iterdir()):
    before, start = peak_kb(), time.process_time()
    try:
        read_ct(path)
        said = None
    except SourceError as err:
        said = str(err)
    after = peak_kb()
    cost[path.name] = [said, time.process_time() - start, (after - before) / 1024]
print(json.dumps(cost))
"""


@pytest.mark.long
def test_a_bomb_costs_little(tmp_path: Path) -> None:
    """18 MB that unzip to 4.3 GB, and headers that claim terabytes: at most 200 MB and 2 s."""
    bombs = tmp_path / "bombs"
    bombs.mkdir()
    zeros = gzip.compress(bytes(1 << 26), 9) * 64  # 4.3 GB as many members

    def claim(*shape: int, dtype: int = 4, bits: int = 16) -> bytes:
        return patched(70, "hh", dtype, bits, raw=patched(40, "hhhh", 3, *shape))[:352]

    (bombs / "honest.nii.gz").write_bytes(gzip.compress(claim(1290, 1290, 1290)) + zeros)
    (bombs / "small.nii.gz").write_bytes(gzip.compress(claim(64, 64, 64)) + zeros)
    (bombs / "float.nii.gz").write_bytes(
        gzip.compress(claim(800, 800, 800, dtype=64, bits=64)) + zeros
    )
    (bombs / "large.nii.gz").write_bytes(gzip.compress(claim(512, 512, 511)) + zeros)
    (bombs / "middle.nii.gz").write_bytes(gzip.compress(claim(400, 400, 300)) + zeros)
    (bombs / "cut.nii.gz").write_bytes((gzip.compress(claim(1000, 1000, 900)) + zeros)[:4000])
    (bombs / "cubed.nii.gz").write_bytes(gzip.compress(claim(30000, 30000, 30000)))
    (bombs / "cubed.nii").write_bytes(claim(30000, 30000, 30000))
    (bombs / "plain.nii").write_bytes(claim(1000, 1000, 1000))
    (bombs / "offset.nii.gz").write_bytes(gzip.compress(patched(108, "f", 2**30, raw=RAW)) + zeros)
    warm = tmp_path / "warm.nii"
    warm.write_bytes(RAW)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(warm), str(bombs)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    for name, (said, seconds, megabytes) in json.loads(done.stdout).items():
        assert said is not None, name
        assert seconds < 2, (name, said)
        assert megabytes < 200, (name, said)
