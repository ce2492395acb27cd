"""NRRD and MetaImage files through SimpleITK, if their headers say how they lie in the patient.

Without that SimpleITK takes voxels of 1 mm along the axes of the patient.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synthct.errors import SourceError, counted
from synthct.volume.dicom.files import joint_sha256
from synthct.volume.formats import START_BYTES, describe_format
from synthct.volume.grid import oriented_affine
from synthct.volume.header import MAX_VOXELS
from synthct.volume.voxels import CtVoxels, LabelVoxels, Stored

if TYPE_CHECKING:
    import SimpleITK

#: With header and voxels in one file, and with a header that names the file of the voxels.
ITK_SUFFIXES = (".nrrd", ".mha", ".nhdr", ".mhd")
_DETACHED = {".nhdr": b"data file", ".mhd": b"ElementDataFile"}

#: What of a header says how the file lies; one name of each is needed.
_PLACE = {
    "nrrd": (("space",), ("space directions",), ("space origin",)),
    "mha": (
        ("TransformMatrix", "Orientation", "Rotation"),
        ("Offset", "Origin", "Position"),
        ("ElementSpacing", "ElementSize"),
    ),
}
#: What tells the size of a voxel.
_SIZES = {"nrrd": ("space directions", "spacings"), "mha": ("ElementSpacing", "ElementSize")}
#: The spaces of NRRD that SimpleITK turns into its own; it takes any other for left-posterior.
_SPACES = frozenset({
    "las", "left-anterior-superior", "left-posterior-superior", "lps", "ras",
    "right-anterior-superior",
})  # fmt: skip
#: What such files begin with.
_BEGINNINGS = {"nrrd": (b"NRRD",), "mha": (b"ObjectType", b"NDims", b"Comment")}
#: The values are not scaled.
_SCALING = ("the scale", "the offset")
_MAX_HEADER = 1 << 16
_SLICES = 16


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that a scan or label map lies in: the one, and that of its voxels if it is another.

    Raises:
        SourceError: If the header names no such file in its own folder.
    """
    key = _DETACHED.get(path.suffix)
    if key is None:
        return (path,)
    fields = _fields(path, _start(path))
    name = fields.get(key.decode(), "")
    if not name or name in ("LOCAL", "LIST") or Path(name).name != name or "%" in name:
        raise SourceError(
            f"{path}: its header names '{name}' as the file of the voxels; save it as "
            f"{'.nrrd' if path.suffix == '.nhdr' else '.mha'}, header and voxels in one file"
        )
    if not path.with_name(name).is_file():
        raise SourceError(f"{path}: the file of its voxels, '{name}', is not beside it")
    return path, path.with_name(name)


def _kind(path: Path) -> str:
    return "mha" if path.suffix.startswith(".mh") else "nrrd"


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_HEADER)
    except OSError as err:
        raise SourceError(f"{path}: cannot be read ({err.strerror})") from err


def _fields(path: Path, start: bytes) -> dict[str, str]:
    """The fields of a header."""
    sign = b"=" if _kind(path) == "mha" else b":"
    fields = {}
    for line in start.replace(b"\r\n", b"\n").split(b"\n\n")[0].split(b"\n"):
        name, found, value = line.partition(sign)
        if found:
            key = name.decode("ascii", "replace").strip()
            fields[key] = value.decode("utf-8", "replace").strip()
            if key == "ElementDataFile":  # the last one; the voxels may follow
                break
    return fields


def open_itk(
    path: Path, sha256: str | None = None, orientation: str | None = None
) -> tuple[SimpleITK.Image, Stored, str | None]:
    """A file's voxels, and what ``itk_grid`` tells.

    Args:
        path: Of the file, or of its header.
        sha256: What the file's bytes must hash to; None for any.
        orientation: As for ``itk_grid``.

    Raises:
        SourceError: If it is damaged or another than meant; and what ``itk_grid`` raises.
    """
    stored, unsaid = itk_grid(path, orientation)
    with _named(path):
        digests = [_sha256(file) for file in files_of(path)]
        digest = digests[0] if len(digests) == 1 else joint_sha256(iter(digests))
        image = _reader(path).Execute()
    if sha256 is not None and digest != sha256:
        raise SourceError(
            f"{path}: is not the file that was indexed; run the command again. If it says so "
            "again, the file is damaged: restore it, or touch it if it is right"
        )
    return image, stored, unsaid


def itk_grid(path: Path, orientation: str | None = None) -> tuple[Stored, str | None]:
    """How a file lies by its header, and what that lacks to say so, if anything.

    Args:
        path: Of the file, or of its header.
        orientation: Patient directions of the axes, such as ``LAS``, of files that say none.

    Raises:
        SourceError: If it is not 3D, or says not how it lies and ``orientation`` does not either.
    """
    unsaid = _unsaid(path, orientation)
    files_of(path)  # says it better than SimpleITK if one is not there
    with _named(path):
        reader = _reader(path)
        reader.ReadImageInformation()
    size = reader.GetSize()
    if len(size) != 3 or reader.GetNumberOfComponents() != 1:
        raise SourceError(
            f"{path}: expected a 3D scan or label map but its size is {size} with "
            f"{counted(reader.GetNumberOfComponents(), 'value')} a voxel; save one scan, or one "
            "label map of segments that do not overlap"
        )
    if np.prod(size, dtype=float) > MAX_VOXELS:
        raise SourceError(f"{path}: {size} voxels are more than {MAX_VOXELS}")
    if unsaid is not None and orientation is not None:
        affine = oriented_affine(size, reader.GetSpacing(), orientation)
    else:
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
        affine[:3, 3] = reader.GetOrigin()
        affine[:2] *= -1  # ITK is LPS+
    return Stored(path, size, affine, _SCALING), unsaid


def _reader(path: Path) -> SimpleITK.ImageFileReader:
    try:
        import SimpleITK
    except ImportError as err:
        raise SourceError(
            f"{path}: NRRD and MetaImage are read by SimpleITK, which is not installed; run "
            "pip install '.[itk]'"
        ) from err
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    return reader


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in what is raised because it cannot be read."""
    try:
        yield
    except OSError as err:
        raise SourceError(f"{path}: cannot be read ({err.strerror})") from err
    except RuntimeError as err:
        reason = str(err).strip().splitlines()[-1]
        raise SourceError(f"{path}: damaged or cut short ({reason}); fetch it again") from err


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def add_itk(voxels: CtVoxels | LabelVoxels, image: SimpleITK.Image, stored: Stored) -> None:
    """Take the voxels of a file.

    Raises:
        SourceError: If they are of a type, or have values, that a scan or label map has not.
    """
    import SimpleITK

    array = SimpleITK.GetArrayViewFromImage(image)  # (K, J, I)
    if array.dtype.kind not in "iuf":
        raise SourceError(f"{stored.path}: voxels of type {array.dtype} are not a CT or label map")
    for start in range(0, len(array), _SLICES):
        voxels.add(start, array[start : start + _SLICES].T)


def _unsaid(path: Path, orientation: str | None) -> str | None:
    """What a header lacks to say how its file lies; None if it says it.

    Raises:
        SourceError: If it lacks something and no orientation is given, or nothing tells the size of
            a voxel, or the file is something else or cannot be read.
    """
    start = _start(path)
    strange = describe_format(start[:START_BYTES])
    if strange is not None and not start.startswith(_BEGINNINGS[_kind(path)]):
        raise SourceError(f"{path}: not what its name says; {strange}")
    fields = _fields(path, start)
    missing = (n[0] for n in _PLACE[_kind(path)] if fields.keys().isdisjoint(n))
    unsaid = next((f"has no '{name}'" for name in missing), None)
    space = fields.get("space", "")
    if unsaid is None and _kind(path) == "nrrd" and space.lower() not in _SPACES:
        unsaid = f"is of the space '{space}', which tells no directions of a patient"
    if unsaid is None:
        return None
    if orientation is None:
        raise SourceError(
            f"{path}: its header {unsaid}, so how it lies in the patient is unknown; save it again "
            "by a program that knows, or say with 'orientation: LAS' (or RAS, LPS, ...) in the "
            "source in which directions its axes run"
        )
    if fields.keys().isdisjoint(_SIZES[_kind(path)]):
        raise SourceError(
            f"{path}: its header has no '{_SIZES[_kind(path)][0]}', so the size of its voxels is "
            "unknown; save it again by a program that knows"
        )
    return unsaid
