"""NRRD and MetaImage files through SimpleITK, if their headers say how they lie in the patient.

Without that SimpleITK takes voxels of 1 mm along the axes of the patient.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synthct.errors import SourceError
from synthct.volume.dicom.files import joint_sha256
from synthct.volume.formats import START_BYTES, describe_format
from synthct.volume.header import MAX_VOXELS
from synthct.volume.volume import Volume
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


def read_itk_ct(
    path: Path, *, sha256: str | None, fill_nan: bool, remarks: list[str]
) -> tuple[Volume, int]:
    """Read a CT; see ``read_ct_counting``.

    Raises:
        SourceError: If it is damaged, not 3D, not in HU, or does not say how it lies.
    """
    image, stored = _open(path, sha256)
    voxels = CtVoxels(stored)
    _add(voxels, image, stored)
    return voxels.finish(remarks, fill_nan=fill_nan)


def read_itk_labels(path: Path, *, sha256: str | None) -> Volume:
    """Read a label map; see ``read_labels``.

    Raises:
        SourceError: If it is damaged, not 3D, holds no labels, or does not say how it lies.
    """
    image, stored = _open(path, sha256)
    voxels = LabelVoxels(stored)
    _add(voxels, image, stored)
    return voxels.finish()


def _open(path: Path, sha256: str | None) -> tuple[SimpleITK.Image, Stored]:
    """The image, and how it lies."""
    _require_place(path)
    try:
        import SimpleITK
    except ImportError as err:
        raise SourceError(
            f"{path}: NRRD and MetaImage are read by SimpleITK, which is not installed; run "
            "pip install '.[itk]'"
        ) from err
    try:
        digests = [_sha256(file) for file in files_of(path)]
        digest = digests[0] if len(digests) == 1 else joint_sha256(iter(digests))
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        size = reader.GetSize()
        if len(size) != 3 or reader.GetNumberOfComponents() != 1:
            raise SourceError(
                f"{path}: expected a 3D scan or label map but its size is {size} with "
                f"{reader.GetNumberOfComponents()} values a voxel; save one scan, or one label map "
                "of segments that do not overlap"
            )
        if np.prod(size, dtype=float) > MAX_VOXELS:
            raise SourceError(f"{path}: {size} voxels are more than {MAX_VOXELS}")
        image = reader.Execute()
    except OSError as err:
        raise SourceError(f"{path}: cannot be read ({err.strerror})") from err
    except RuntimeError as err:
        reason = str(err).strip().splitlines()[-1]
        raise SourceError(f"{path}: damaged or cut short ({reason}); fetch it again") from err
    if sha256 is not None and digest != sha256:
        raise SourceError(
            f"{path}: is not the file that was indexed; run the command again. If it says so "
            "again, the file is damaged: restore it, or touch it if it is right"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1  # ITK is LPS+
    return image, Stored(path, image.GetSize(), affine, _SCALING)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add(voxels: CtVoxels | LabelVoxels, image: SimpleITK.Image, stored: Stored) -> None:
    import SimpleITK

    array = SimpleITK.GetArrayViewFromImage(image)  # (K, J, I)
    if array.dtype.kind not in "iuf":
        raise SourceError(f"{stored.path}: voxels of type {array.dtype} are not a CT or label map")
    for start in range(0, len(array), _SLICES):
        voxels.add(start, array[start : start + _SLICES].T)


def _require_place(path: Path) -> None:
    """Refuse a file whose header leaves open how it lies, or that is something else.

    Raises:
        SourceError: If it does, or cannot be read.
    """
    start = _start(path)
    strange = describe_format(start[:START_BYTES])
    if strange is not None and not start.startswith(_BEGINNINGS[_kind(path)]):
        raise SourceError(f"{path}: not what its name says; {strange}")
    fields = _fields(path, start)
    for names in _PLACE[_kind(path)]:
        if fields.keys().isdisjoint(names):
            raise SourceError(
                f"{path}: its header has no '{names[0]}', so how it lies in the patient is "
                "unknown; save it again by a program that knows"
            )
