"""Headers and values as real programs write them: read where readers agree, else named."""

from __future__ import annotations

import bz2
import gzip
import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import make_tiny_case

from synthct.errors import SourceError
from synthct.volume import Box, LabelReading, Volume, nifti_bytes, read_ct, read_labels
from synthct.volume.counting import count_values, fingerprint
from synthct.volume.grid import same_grid, start_within
from synthct.volume.nifti import read_ct_counting

CASE = make_tiny_case()
SCAN, LABELS = CASE.scan(), CASE.labels


def file_of(
    array: Any, affine: Any, path: Path, *, qform: Any = None, codes: tuple[int, int] = (0, 1),
    **fields: Any,
) -> Path:  # fmt: skip
    """A plain NIfTI file; ``fields`` are set in its header at the end, as stored."""
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.set_qform(affine if qform is None else qform, codes[0])
    image.set_sform(affine, codes[1])
    raw = bytearray(image.to_bytes())
    for name, value in fields.items():
        kind, offset = nib.Nifti1Header.template_dtype.fields[name]
        raw[offset : offset + kind.itemsize] = np.asarray(value, kind.base).tobytes()
    path.write_bytes(raw)
    return path


def pixdim(first: float) -> list[float]:
    return [first, *SCAN.spacing_mm, 1, 1, 1, 1]


# --- geometry ---


def test_a_quaternion_that_cannot_hold_the_shear_is_no_contradiction(tmp_path: Path) -> None:
    """A gantry tilted by 15 degrees: dcm2niix writes the sheared sform and its nearest rotation."""
    spacing = np.diag([0.8, 0.8, 3.0, 1.0])
    tilt = np.eye(4)
    tilt[1:3, 1] = np.cos(np.deg2rad(15)), np.sin(np.deg2rad(15))
    sheared = tilt @ spacing
    path = file_of(SCAN.array, sheared, tmp_path / "a.nii", codes=(1, 1))
    remarks: list[str] = []
    volume, _ = read_ct_counting(path, remarks=remarks)
    assert volume.has_grid_of(Volume(SCAN.array, sheared))
    assert "tilted gantry" in remarks[0]
    assert "_Tilt_1" in remarks[0]
    turned = np.eye(4)
    turned[:2, :2] = [[0.96, -0.28], [0.28, 0.96]]
    for wrong in (turned @ sheared, sheared @ np.diag([-1, 1, 1, 1]), sheared + np.eye(4)[:, :1]):
        path = file_of(SCAN.array, sheared, tmp_path / "a.nii", qform=wrong, codes=(1, 1))
        with pytest.raises(SourceError, match="sform and qform place its corners"):
            read_ct(path)


@pytest.mark.parametrize(("share", "is_read"), [(0.04, True), (0.07, False), (0.5, False)])
@pytest.mark.parametrize("axis", [0, 2])
def test_forms_may_differ_by_a_twentieth_of_a_voxel(
    tmp_path: Path, share: float, is_read: bool, axis: int
) -> None:
    spacing = np.diag([0.8, 0.8, 3.0, 1.0])
    moved = spacing.copy()
    moved[axis, 3] = share * spacing[axis, axis]
    path = file_of(SCAN.array, spacing, tmp_path / "a.nii", qform=moved, codes=(1, 1))
    if is_read:
        assert np.array_equal(read_ct(path).affine, spacing.astype(np.float32))
    else:
        with pytest.raises(SourceError, match="mm apart"):
            read_ct(path)


@pytest.mark.parametrize("codes", [(1, 0), (1, 1)])
def test_pixdim_0_of_0_counts_as_1(tmp_path: Path, codes: tuple[int, int]) -> None:
    path = file_of(SCAN.array, SCAN.affine, tmp_path / "a.nii", codes=codes, pixdim=pixdim(0))
    assert read_ct(path).has_grid_of(SCAN)
    path = file_of(SCAN.array, SCAN.affine, tmp_path / "a.nii", codes=codes, pixdim=pixdim(0.3))
    with pytest.raises(SourceError, match="qform is no rotation"):
        read_ct(path)


@pytest.mark.parametrize("orientation", ["LAS", "RAS", "PIR", "SRA"])
def test_a_file_without_codes_lies_as_nibabel_would_name_it(
    tmp_path: Path, orientation: str
) -> None:
    path = file_of(LABELS.array, SCAN.affine, tmp_path / "a.nii", codes=(0, 0), pixdim=pixdim(0))
    with pytest.raises(SourceError, match="'orientation: LAS'"):
        read_labels(path)
    remarks: list[str] = []
    read = read_labels(path, reading=LabelReading(orientation), remarks=remarks)
    assert orientation in remarks[0]
    stored = nib.Nifti1Image(LABELS.array, None)
    wanted = nib.orientations.axcodes2ornt(tuple(orientation))
    turned = nib.orientations.apply_orientation(np.asarray(stored.dataobj), wanted)
    assert np.array_equal(read.array, turned)
    assert read.orientation == "RAS"


def test_where_a_part_of_a_grid_begins() -> None:
    shape, affine = SCAN.shape, SCAN.affine
    for start in ((0, 0, 0), (3, 4, 5), (47, 39, 23)):
        part = SCAN.crop(Box(start, shape))
        assert start_within(part, SCAN) == start
    part = SCAN.crop(Box((3, 4, 5), (10, 11, 12)))
    for move in ([0.5, 0, 0], [0, 0, 0.1], [-4, 0, 0], [40, 0, 0]):
        off = part.affine.copy()
        off[:3, 3] += off[:3, :3] @ move
        assert start_within(Volume(part.array, off), SCAN) is None
    flipped = Volume(part.array, part.affine @ np.diag([-1, 1, 1, 1]))
    assert start_within(flipped, SCAN) is None
    assert not same_grid(shape, affine, affine @ np.diag([1.01, 1, 1, 1]))


# --- values ---


@pytest.mark.parametrize(
    ("stored", "slope", "intercept"),
    [
        (SCAN.array, np.nan, 0), (SCAN.array, np.nan, np.nan), (SCAN.array, 0, 0),
        (-SCAN.array, -1, 0), (-SCAN.array - 1024, -1, -1024),
    ],
)  # fmt: skip
def test_scaling_on_which_readers_agree_is_read(
    tmp_path: Path, stored: Any, slope: float, intercept: float
) -> None:
    path = file_of(stored, SCAN.affine, tmp_path / "a.nii", scl_slope=slope, scl_inter=intercept)
    assert np.array_equal(read_ct(path).array, SCAN.array)


@pytest.mark.parametrize("slope", [0, np.nan])
def test_scaling_on_which_readers_differ_is_refused(tmp_path: Path, slope: float) -> None:
    path = file_of(SCAN.array, SCAN.affine, tmp_path / "a.nii", scl_slope=slope, scl_inter=-1024)
    with pytest.raises(SourceError, match=r"scl_slope is .* and scl_inter -1024"):
        read_ct(path)


def test_a_mask_that_was_saved_through_floats_is_read(tmp_path: Path) -> None:
    mask = (LABELS.array > 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(mask, LABELS.affine), tmp_path / "a.nii")
    image = nib.load(tmp_path / "a.nii")
    nib.save(nib.Nifti1Image(image.get_fdata(), image.affine, image.header), tmp_path / "b.nii")
    assert not set(np.unique(nib.load(tmp_path / "b.nii").get_fdata())) <= {0, 1}
    assert np.array_equal(read_labels(tmp_path / "b.nii").array, mask)
    for error, is_read in ((4e-4, True), (-4e-4, True), (2e-3, False), (0.5, False)):
        values = LABELS.array + np.float32(error)
        path = file_of(values, LABELS.affine, tmp_path / "c.nii")
        if is_read:
            assert np.array_equal(read_labels(path).array, LABELS.array)
        else:
            with pytest.raises(SourceError, match="not a whole number"):
                read_labels(path)


def test_only_padding_may_lie_far_below(tmp_path: Path) -> None:
    array = SCAN.array.astype(np.float64)
    array[:2] = -1e9
    read = read_ct(file_of(array, SCAN.affine, tmp_path / "a.nii")).array
    assert (read[:2] == -1024).all()
    array[0, 0, 0] = -2e9
    with pytest.raises(SourceError, match="are not HU"):
        read_ct(file_of(array, SCAN.affine, tmp_path / "a.nii"))
    with pytest.raises(SourceError, match="are not HU"):
        read_ct(file_of(SCAN.array.astype(np.int32) - 9000, SCAN.affine, tmp_path / "a.nii"))


@pytest.mark.long
def test_what_gzip_makes_very_small_is_no_damage(tmp_path: Path) -> None:
    """A phantom without noise, more than 2**26 voxels."""
    array = np.full((512, 512, 257), -1000, np.int16, order="F")
    array[100:400, 100:400] = 40
    raw = nifti_bytes(Volume(array, np.diag([0.8, 0.8, 1, 1.0])), compress=False)
    zipped = gzip.compress(raw, 6)
    assert len(raw) > 200 * len(zipped)
    (tmp_path / "a.nii.gz").write_bytes(zipped)
    assert read_ct(tmp_path / "a.nii.gz").array[0, 0, 0] == -1000


# --- other files in the place of a scan ---


def tar_of(raw: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("ct.nii"), io.BytesIO(raw))
    return out.getvalue()


RAW = nifti_bytes(SCAN, compress=False)
OTHERS = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n", "git lfs pull"),
    "annex": (b"/annex/objects/MD5E-s1--0.nii.gz\n", "git-annex pointer"),
    "html": (b"\xef\xbb\xbf\n<!doctype HTML><html><title>Quota</title>", "web page"),
    "html in gzip": (gzip.compress(b"<html><body>Sign in</body></html>"), "web page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "server's error"),
    "json": (b'{"error": "not found"}', "server's error"),
    "text": (b"Repository not found, or you have no access to it.\n" * 9, "text"),
    "gzip in gzip": (gzip.compress(gzip.compress(RAW)), "gzip in gzip.* unzip it once"),
    "MetaImage": (b"ObjectType = Image\nNDims = 3\n" + bytes(900), "MetaImage"),
    "NRRD": (b"NRRD0005\ntype: short\n" + bytes(900), "NRRD"),
    "DICOM": (bytes(128) + b"DICM" + bytes(900), "DICOM, use layout 'dicom', or convert"),
    "tar": (tar_of(RAW), "tar archive"),
    "tar.gz": (gzip.compress(tar_of(RAW)), "tar archive"),
    "bzip2": (bz2.compress(RAW), "bzip2"),
    "macOS": (b"\0\5\26\7\0\2\0\0Mac OS X" + bytes(200), "macOS metadata"),
    "zip": (b"PK\3\4" + bytes(900), "zip"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(900), "PNG"),
    "zeros": (bytes(4096), "zeros only"),
    "rubbish": (b"\x01\x02\x03" * 300, "it begins with"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("read", [read_ct, read_labels])
def test_other_files_are_named(tmp_path: Path, content: bytes, message: str, read: Any) -> None:
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(SourceError, match=rf"a\.nii\.gz: not a NIfTI file.*{message}"):
        read(tmp_path / "a.nii.gz")


# --- counting ---


def test_values_are_counted_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(
        np.array([0, 1, 7, 300], np.uint16), (30, 20, 10), p=[0.9, 0.06, 0.03, 0.01]
    )
    for size in (1, 600, 1 << 21):
        monkeypatch.setattr("synthct.volume.counting._SLAB_VOXELS", size)
        counted = count_values(labels)
        assert list(counted) == [1, 7, 300]
        for value, (voxels, box) in counted.items():
            assert voxels == (labels == value).sum()
            assert box == Box.around(labels == value)
    assert count_values(np.zeros((3, 3, 3), np.uint8)) == {}


def test_a_fingerprint_survives_all_that_copies_do_to_a_scan() -> None:
    own = fingerprint(SCAN.array)
    for copy in (SCAN.array[::-1], SCAN.array.transpose(2, 0, 1), SCAN.array[:, ::-1, ::-1]):
        assert fingerprint(copy) == own
    other = SCAN.array.copy()
    other[1, 2, 3] += 1
    assert fingerprint(other) != own
    assert fingerprint(make_tiny_case(noise_seed=5).scan().array) != own


PEAK = """
import sys
from pathlib import Path
import numpy as np
from synthct.sources import Nifti, index_sources, label_table, read_case

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

def read(root):
    source = Nifti(
        root=Path(root), image="{case}.nii", labels="seg/{case}.nii", label_names={"a": 1, "b": 117}
    )
    index = index_sources({"hosts": source}, [], cache_dir=Path(root) / "cache")
    case = read_case(index.entries("hosts")[0], label_table({"hosts": source}, []))
    return case.labels.array.size

read(sys.argv[1])
before = peak()
voxels = read(sys.argv[2])
print((peak() - before) / voxels)
"""


@pytest.mark.long
def test_a_scan_and_its_label_map_take_four_bytes_a_voxel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, depth in (("tiny", 16), ("large", 208)):
        shape = (256, 256, depth)
        labels = rng.integers(0, 118, shape, dtype=np.uint8)
        scan = rng.integers(-1000, 900, shape, dtype=np.int16)
        (tmp_path / name / "seg").mkdir(parents=True)
        for path, array in (("a.nii", scan), ("seg/a.nii", labels)):
            raw = nifti_bytes(Volume(array, np.diag([1.0, 1, 2, 1])), compress=False)
            (tmp_path / name / path).write_bytes(raw)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "tiny"), str(tmp_path / "large")],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert float(done.stdout) <= 4
