"""``synthct inpaint``: a file comes back as it was, but for the voxels that were painted."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import KITS_AXES, make_tiny_case, oblique_affine
from typer.testing import CliRunner, Result

from synthct.cli import app
from synthct.volume import Box, Volume, restore_orientation, shifted, write_volume

Run = Callable[..., Result]

LPS = np.diag([-1.0, -1, 1, 1])
PADDING = -3024

#: How programs store scans: type of voxels, slope, intercept, and what the file adds to HU.
STORED: dict[str, tuple[Any, float, float]] = {
    "int16": (np.int16, 1, 0),
    "big-endian": (np.dtype(">i2"), 1, 0),
    "uint16-from-1024": (np.uint16, 1, -4096),
    "float32": (np.float32, 1, 0),
    "float64": (np.float64, 1, 0),
    "int32-halves": (np.int32, 0.5, 0),
}


def write_scan(path: Path, volume: Volume, kind: str) -> None:
    """A file with padding, values that are no HU, codes and texts of its own, and an extension."""
    dtype, slope, intercept = STORED[kind]
    hu = volume.array.astype(np.float64)
    hu[:2] = PADDING
    hu[-1, -1, -1] = 12000
    if np.dtype(dtype).kind == "f":
        hu[3:5] += 0.37
    stored = (hu - intercept) / slope
    image = nib.Nifti1Image(np.zeros(1), None)
    header = nib.Nifti1Header(endianness=">" if np.dtype(dtype).byteorder == ">" else "<")
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image(stored.astype(dtype), volume.affine, header)
    image.header["descrip"], image.header["aux_file"] = b"scanner 7", b"x"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"keep me"))
    image.set_sform(volume.affine, 2)
    image.set_qform(volume.affine, 3, strip_shears=False)
    image.header.set_slope_inter(slope, intercept)
    raw = bytearray(image.to_bytes())
    path.write_bytes(gzip.compress(raw) if path.name.endswith(".gz") else raw)


def contents(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.name.endswith(".gz") else data


@pytest.fixture
def mask() -> Volume:
    """A part of the kidney on two slices, canonical."""
    case = make_tiny_case()
    region = case.region("kidney")
    region[:, :, :12], region[:, :, 14:] = False, False
    region[:20] = False
    return Volume(region.astype(np.uint8), case.labels.affine)


@pytest.fixture
def run(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    options = ["--checkpoint", str(tiny_checkpoint), "--steps", "2", "--device", "cpu"]
    return lambda *words: CliRunner().invoke(app, ["inpaint", *map(str, words), *options])


@pytest.mark.parametrize("axes", [np.eye(4), LPS, KITS_AXES], ids=["RAS", "LPS", "IPL"])
@pytest.mark.parametrize("kind", STORED)
def test_only_painted_voxels_of_a_file_change(
    run: Run, tmp_path: Path, mask: Volume, kind: str, axes: np.ndarray
) -> None:
    scan = restore_orientation(make_tiny_case().scan(), axes)  # oblique in any case
    write_scan(tmp_path / "ct.nii.gz", scan, kind)
    write_volume(mask, tmp_path / "mask.nii.gz")
    result = run("ct.nii.gz", "mask.nii.gz", "--label", "tumor", "--output", "deep/out.nii.gz")
    assert result.exit_code == 0, result.output
    assert result.stdout == "deep/out.nii.gz\n"
    before, after = contents(tmp_path / "ct.nii.gz"), contents(tmp_path / "deep/out.nii.gz")
    image = nib.load(tmp_path / "ct.nii.gz")
    start = int(image.dataobj.offset)
    assert len(before) == len(after)
    assert before[:start] == after[:start]  # codes, texts, extension
    dtype = image.get_data_dtype()
    old, new = (
        np.frombuffer(data[start:], dtype).reshape(scan.shape, order="F")
        for data in (before, after)
    )
    inside = restore_orientation(mask, scan.affine).array != 0
    assert np.array_equal(old[~inside], new[~inside])
    assert (old[inside] != new[inside]).mean() > 0.8
    hu = np.asarray(nib.load(tmp_path / "deep/out.nii.gz").dataobj)[inside]
    assert hu.min() >= -150 - 60  # the network's window, and the grain
    assert hu.max() <= 250 + 60
    assert np.array_equal(hu, np.rint(hu))


def test_every_storage_is_painted_alike(run: Run, tmp_path: Path, mask: Volume) -> None:
    """What the file adds to int16 does not change what is painted where nothing was rounded."""
    scan, painted = make_tiny_case().scan(), {}
    write_volume(mask, tmp_path / "mask.nii.gz")
    for kind in ("int16", "uint16-from-1024", "int32-halves"):
        write_scan(tmp_path / f"{kind}.nii", scan, kind)
        assert run(f"{kind}.nii", "mask.nii.gz", "-o", f"{kind}-out.nii.gz").exit_code == 0
        painted[kind] = np.asarray(nib.load(tmp_path / f"{kind}-out.nii.gz").dataobj)
    assert np.array_equal(painted["int16"], painted["uint16-from-1024"])
    assert np.array_equal(painted["int16"], painted["int32-halves"])


@pytest.mark.parametrize("view", ["coronal", "sagittal"])
def test_slices_of_any_view_are_painted(
    run: Run, tmp_path: Path, tiny_checkpoint: Path, view: str
) -> None:
    array = np.full((20, 24, 40), 40, np.int16)
    array[:, 20:] = -1000
    axis = {"sagittal": 0, "coronal": 1}[view]
    region = np.zeros(array.shape, np.uint8)
    region[8:12, 8:14, 10:20] = 2
    region[0, 0, 0] = 1
    affine = oblique_affine((1.5, 1.5, 1.5))
    write_volume(Volume(array, affine), tmp_path / "ct.nii.gz")
    write_volume(Volume(region, affine), tmp_path / "mask.nii.gz")
    words = ["ct.nii.gz", "mask.nii.gz", "--mask-value", "2", "--view", view]
    for options in (("-o", "a.nii.gz"), ("-o", "b.nii.gz", "--seed", 3)):
        result = run(*words, *options)
        assert result.exit_code == 0, result.output
    a, b = (np.asarray(nib.load(tmp_path / name).dataobj) for name in ("a.nii.gz", "b.nii.gz"))
    assert np.array_equal(a[region != 2], array[region != 2])
    assert (a[region == 2] != 40).mean() > 0.9
    assert not np.array_equal(a, b)
    planes = np.moveaxis(a, axis, 0)[8:12]
    assert not np.array_equal(planes[0], planes[1])  # every slice has noise of its own


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["ct.nii", "mask.nii", "-o", "out.png"], 2, "must end with .nii or .nii.gz"),
        (["ct.nii", "mask.nii", "-o", "ct.nii"], 2, "is an input too"),
        (["ct.nii", "mask.nii", "-o", "there.nii"], 6, "there.nii exists"),
        (["no.nii", "mask.nii", "-o", "out.nii"], 3, "no.nii: no such file"),
        (["ct.nii", "mask.nii", "--mask-value", "9", "-o", "o.nii"], 3, "there is: 0, 1"),
        (["small.nii", "mask.nii", "-o", "o.nii"], 3, "can hold 0 to 255 only"),
        (["ct.nii", "mask.nii", "--label", "liver", "-o", "o.nii"], 4, "cannot paint 'liver'"),
        (["ct.nii", "mask.nii", "--scheduler", "ddmi", "-o", "o.nii"], 2, "scheduler"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_anything_is_painted(
    run: Run, tmp_path: Path, mask: Volume, words: list[str], code: int, said: str
) -> None:
    scan = make_tiny_case().scan()
    write_volume(scan, tmp_path / "ct.nii")
    write_volume(mask, tmp_path / "mask.nii")
    write_volume(Volume((scan.array > 0).astype(np.uint8), scan.affine), tmp_path / "small.nii")
    (tmp_path / "there.nii").write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = run(*words)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--guidance-scale", "99"], "inpaint.guidance_scale: 99.0 is out of range"),
        (["--scheduler", "ddmi"], "inpaint.scheduler: 'ddmi' is not known; did you mean 'ddpm'"),
        (["--level-hu", "5000", "--label", "kidney"], "inpaint.level_hu.kidney: 5000.0 is out of"),
        (["--orientation", "XYZ"], "orientation: 'XYZ' is no orientation"),
    ],
)
def test_options_are_answered_as_those_of_a_recipe(
    run: Run, tmp_path: Path, mask: Volume, words: list[str], said: str
) -> None:
    write_volume(make_tiny_case().scan(), tmp_path / "ct.nii")
    write_volume(mask, tmp_path / "mask.nii")
    result = run("ct.nii", "mask.nii", "-o", "out.nii", *words)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    assert "nput should" not in result.stderr


def test_a_mask_of_a_part_of_the_scan_is_as_good(run: Run, tmp_path: Path, mask: Volume) -> None:
    write_volume(make_tiny_case().scan(), tmp_path / "ct.nii")
    write_volume(mask, tmp_path / "mask.nii")
    box = Box.around(mask.array)
    assert box is not None
    write_volume(mask.crop(box), tmp_path / "part.nii")
    for name in ("mask", "part"):
        assert run("ct.nii", f"{name}.nii", "-o", f"{name}-out.nii").exit_code == 0
    assert (tmp_path / "part-out.nii").read_bytes() == (tmp_path / "mask-out.nii").read_bytes()


def test_files_that_have_lost_their_place_are_painted_if_it_is_said(
    run: Run, tmp_path: Path, mask: Volume
) -> None:
    scan = make_tiny_case().scan()
    write_volume(scan, tmp_path / "ct.nii")
    write_volume(mask, tmp_path / "mask.nii")
    write_volume(Volume(mask.array, np.eye(4)), tmp_path / "lost.nii")
    result = run("ct.nii", "lost.nii", "-o", "out.nii")
    assert "--label-grid image" in result.stderr
    assert run("ct.nii", "lost.nii", "-o", "out.nii", "--label-grid", "image").exit_code == 0
    assert run("ct.nii", "mask.nii", "-o", "mask-out.nii").exit_code == 0
    assert (tmp_path / "out.nii").read_bytes() == (tmp_path / "mask-out.nii").read_bytes()
    for name in ("ct", "mask"):  # sform_code and qform_code are 0
        data = bytearray((tmp_path / f"{name}.nii").read_bytes())
        data[252:256] = bytes(4)
        (tmp_path / f"{name}.nii").write_bytes(data)
    assert "'orientation: LAS'" in run("ct.nii", "mask.nii", "-o", "las.nii").stderr
    said = ("--orientation", "LAS")
    assert run("ct.nii", "mask.nii", "-o", "las.nii", *said).exit_code == 0
    painted = np.asarray(nib.load(tmp_path / "las.nii").dataobj)
    hu = np.asarray(nib.load(tmp_path / "ct.nii").dataobj)
    inside = np.asarray(nib.load(tmp_path / "mask.nii").dataobj) > 0
    assert np.array_equal(painted[~inside], hu[~inside])
    assert not np.array_equal(painted[inside], hu[inside])


def test_what_is_odd_about_the_files_is_told(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hu = np.full((110, 110, 2), 40, np.int16)
    hu[:40], hu[60:80, 60:80] = -100, 90  # as wide as a body, and nowhere air
    mask = np.zeros(hu.shape, np.uint8)
    mask[50:55, 50:55] = 1
    affine = np.diag([1.5, 1.5, 3, 1])
    write_volume(Volume(hu, affine), tmp_path / "ct.nii")
    write_volume(Volume(mask[40:70], shifted(affine, (40, 0, 0))), tmp_path / "mask.nii")
    result = run("ct.nii", "mask.nii", "-o", "out.nii")
    assert result.exit_code == 0, result.output
    scan, region = caplog.messages
    assert "ct.nii, as the model sees it: no part of the image has the values of air" in scan
    assert region == "mask.nii: the mask covers a part of the scan's grid"


def test_an_output_is_replaced_on_request(run: Run, tmp_path: Path, mask: Volume) -> None:
    write_volume(make_tiny_case().scan(), tmp_path / "ct.nii")
    write_volume(mask, tmp_path / "mask.nii")
    (tmp_path / "there.nii").write_bytes(b"mine")
    assert run("ct.nii", "mask.nii", "-o", "there.nii", "--overwrite").exit_code == 0
    assert nib.load(tmp_path / "there.nii").shape == (48, 40, 24)
