"""NRRD and MetaImage: the same voxels at the same place as in NIfTI, or the reason why not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from orientations import stored_in_all_ways

from synthct.errors import SourceError
from synthct.sources.stored import sha256_of
from synthct.volume import LabelReading, Volume, canonical, read_ct, read_labels, same_grid
from synthct.volume.case import Case
from synthct.volume.grid import spacing_of
from synthct.volume.itk import files_of
from synthct.volume.nifti import CtReading, read_ct_counting


def write(path: Path, volume: Volume, compressed: bool = False) -> Path:
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.affine
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(volume.array.T)
    image.SetSpacing(steps.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / steps).ravel().tolist())
    SimpleITK.WriteImage(image, str(path), compressed)
    return path


def without(path: Path, field: bytes) -> None:
    """Take a field out of a header; a NRRD file whose space is unknown still says its axes."""
    content = path.read_bytes()
    if field == b"space:":
        content = content.replace(b"space: left-posterior-superior", b"space dimension: 3")
    kept = [line for line in content.split(b"\n") if not line.startswith(field)]
    path.write_bytes(b"\n".join(kept))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_scan_is_read_as_it_is_however_it_is_stored(
    tmp_path: Path, tiny_case: Case, suffix: str, compressed: bool
) -> None:
    for number, stored in enumerate(stored_in_all_ways(tiny_case.scan())):
        if number % 9 == 0:
            found = read_ct(write(tmp_path / f"a{suffix}", stored, compressed))
            expected = canonical(stored)
            assert np.array_equal(found.array, expected.array)
            assert same_grid(found.shape, found.affine, expected.affine)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_labels_are_read(tmp_path: Path, tiny_case: Case, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", tiny_case.labels)
    assert np.array_equal(read_labels(path).array, tiny_case.labels.array)
    half = Volume(tiny_case.labels.array * 0.5, tiny_case.labels.affine)
    with pytest.raises(SourceError, match="is not a whole number"):
        read_labels(write(path, half))


@pytest.mark.parametrize(("suffix", "raw"), [(".mhd", "a.raw"), (".nhdr", "a.raw")])
def test_a_header_may_name_the_file_of_the_voxels(
    tmp_path: Path, tiny_case: Case, suffix: str, raw: str
) -> None:
    path = write(tmp_path / f"a{suffix}", tiny_case.scan())
    assert files_of(path) == (path, tmp_path / raw)
    assert np.array_equal(read_ct(path).array, canonical(tiny_case.scan()).array)
    known = sha256_of(path)
    content = (tmp_path / raw).read_bytes()
    (tmp_path / raw).write_bytes(content[:-2] + b"ab")
    assert sha256_of(path) != known
    with pytest.raises(SourceError, match="is not the file that was indexed"):
        read_ct_counting(path, sha256=known)
    (tmp_path / raw).unlink()
    with pytest.raises(SourceError, match=r"'a\.raw', is not beside it"):
        read_ct(path)
    for elsewhere in ("../a.raw", "/etc/passwd", "LIST", "a%03d.raw", ""):
        path.write_bytes(path.read_bytes().replace(b"a.raw", elsewhere.encode()))
        with pytest.raises(SourceError, match="as the file of the voxels"):
            read_ct(path)
        path.write_bytes(path.read_bytes().replace(elsewhere.encode(), b"a.raw") if elsewhere
                         else path.read_bytes())  # fmt: skip


def test_a_space_of_another_handedness_is_understood(tmp_path: Path, tiny_case: Case) -> None:
    """3D Slicer writes LPS, others RAS; the space turns the affine, not the voxels."""
    path = write(tmp_path / "a.nrrd", tiny_case.scan())
    start, _, voxels = path.read_bytes().partition(b"\n\n")
    ras = b"right-anterior-superior"
    path.write_bytes(start.replace(b"left-posterior-superior", ras) + b"\n\n" + voxels)
    turned = Volume(tiny_case.scan().array, np.diag([-1.0, -1, 1, 1]) @ tiny_case.scan().affine)
    found = read_ct(path)
    assert np.array_equal(found.array, canonical(turned).array)
    assert same_grid(found.shape, found.affine, canonical(turned).affine)


@pytest.mark.parametrize(
    ("suffix", "field"),
    [
        (".nrrd", b"space:"), (".nrrd", b"space directions"), (".nrrd", b"space origin"),
        (".mha", b"TransformMatrix"), (".mha", b"Offset"), (".mha", b"ElementSpacing"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_say_how_it_lies_is_refused(
    tmp_path: Path, tiny_case: Case, suffix: str, field: bytes
) -> None:
    path = write(tmp_path / f"a{suffix}", tiny_case.scan())
    without(path, field)
    with pytest.raises(SourceError, match=r"how it lies in the patient is unknown.*orientation: L"):
        read_ct(path)


@pytest.mark.parametrize("space", [b"scanner-xyz", b"3D-right-handed", b"3D-left-handed"])
def test_a_space_without_directions_of_a_patient_is_refused(
    tmp_path: Path, tiny_case: Case, space: bytes
) -> None:
    """SimpleITK takes them for left-posterior-superior."""
    path = write(tmp_path / "a.nrrd", tiny_case.scan())
    path.write_bytes(path.read_bytes().replace(b"left-posterior-superior", space))
    with pytest.raises(SourceError, match=f"space '{space.decode()}', which tells no directions"):
        read_ct(path)


@pytest.mark.parametrize(
    ("suffix", "field"), [(".nrrd", b"space:"), (".mha", b"TransformMatrix"), (".mha", b"Offset")]
)
def test_the_user_can_say_how_a_file_lies(
    tmp_path: Path, tiny_case: Case, suffix: str, field: bytes
) -> None:
    scan = tiny_case.scan()
    path = write(tmp_path / f"a{suffix}", scan)
    without(path, field)
    remarks: list[str] = []
    reading = CtReading(orientation="LAS")
    found, _ = read_ct_counting(path, reading=reading, remarks=remarks)
    assert np.array_equal(found.array, scan.array[::-1])
    assert np.allclose(found.spacing_mm, spacing_of(scan.affine))
    assert remarks[0].startswith("the image is read as orientation LAS, since its header has no '")
    # A label map lies as its image does, by the same word or by its image.
    labels = write(tmp_path / f"b{suffix}", tiny_case.labels)
    if suffix == ".nrrd":  # pynrrd writes no more than this of an array
        start, _, voxels = path.read_bytes().partition(b"\n\n")
        lines = [one for one in start.split(b"\n") if not one.startswith(b"space")]
        sizes = " ".join(f"{size:g}" for size in spacing_of(scan.affine)).encode()
        path.write_bytes(b"\n".join([*lines, b"spacings: " + sizes]) + b"\n\n" + voxels)
        assert read_ct(path, reading=reading).has_grid_of(found)
    for image, lost in ((None, field), (path, field), (path, b"#")):
        without(labels, lost)
        told = LabelReading("LAS", image)
        assert read_labels(labels, reading=told).has_grid_of(found)


@pytest.mark.parametrize(("suffix", "field"), [(".mha", b"ElementSpacing"), (".nrrd", b"space d")])
def test_nobody_guesses_the_size_of_a_voxel(
    tmp_path: Path, tiny_case: Case, suffix: str, field: bytes
) -> None:
    path = write(tmp_path / f"a{suffix}", tiny_case.scan())
    without(path, field)
    with pytest.raises(SourceError, match="so the size of its voxels is unknown"):
        read_ct(path, reading=CtReading(orientation="LAS"))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_is_cut_short_is_refused(
    tmp_path: Path, tiny_case: Case, suffix: str, compressed: bool
) -> None:
    path = write(tmp_path / f"a{suffix}", tiny_case.scan(), compressed)
    whole = path.read_bytes()
    for share in (0, 0.001, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(SourceError, match=path.name):
            read_ct(path)


def test_what_is_no_scan_is_refused(tmp_path: Path, tiny_case: Case) -> None:
    shifted = Volume(tiny_case.scan().array + np.int16(1024), tiny_case.scan().affine)
    with pytest.raises(SourceError, match=r"not HU: .*subtract 1024"):
        read_ct(write(tmp_path / "a.nrrd", shifted))
    several = SimpleITK.JoinSeries([SimpleITK.Image(4, 4, 4, SimpleITK.sitkInt16)] * 2)
    SimpleITK.WriteImage(several, str(tmp_path / "b.nrrd"))
    with pytest.raises(SourceError, match=r"expected a 3D scan|how it lies"):
        read_ct(tmp_path / "b.nrrd")
    colours = SimpleITK.Image([4, 4, 4], SimpleITK.sitkVectorUInt8, 3)
    SimpleITK.WriteImage(colours, str(tmp_path / "c.mha"))
    with pytest.raises(SourceError, match="3 values a voxel"):
        read_ct(tmp_path / "c.mha")


def test_another_file_than_was_indexed_is_refused(tmp_path: Path, tiny_case: Case) -> None:
    with pytest.raises(SourceError, match="is not the file that was indexed"):
        read_ct_counting(write(tmp_path / "a.mha", tiny_case.scan()), sha256="0")


def test_without_simpleitk_the_command_is_named(
    tmp_path: Path, tiny_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mha", tiny_case.scan())
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(SourceError, match=r"pip install '\.\[itk\]'"):
        read_ct(path)
