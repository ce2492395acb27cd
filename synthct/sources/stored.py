"""What scans and labels are stored in, and how each is read: NIfTI, or series of DICOM files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from synthct.errors import SourceError
from synthct.volume import CtReading, LabelReading, Volume, read_ct_counting, read_labels
from synthct.volume.dicom.drawn import read_drawn
from synthct.volume.dicom.files import Drawn, Series, joint_sha256
from synthct.volume.dicom.scan import read_series, reference_to
from synthct.volume.itk import ITK_SUFFIXES, files_of

#: How the name of a file ends that is a scan or a label map by itself.
SUFFIXES = (".nii", ".nii.gz", *ITK_SUFFIXES)

#: A file of its own, or what of several DICOM files makes up a scan or a structure.
Stored = Path | Series | Drawn


def paths_of(stored: Stored) -> tuple[Path, ...]:
    """The files that its digest is of."""
    match stored:
        case Series():
            return stored.files
        case Drawn():
            return tuple(path for path, _ in stored.parts)
        case _:
            return files_of(stored) if stored.suffix in ITK_SUFFIXES else (stored,)


def place_of(stored: Stored) -> Path:
    """What stands for it in a message or table: the folder of a series, else its (first) file."""
    return stored.folder if isinstance(stored, Series) else paths_of(stored)[0]


def name_of(stored: Stored) -> str:
    """Its name for a message, with the folder above."""
    return "/".join(place_of(stored).parts[-2:])


def dicom_reference(stored: Stored | None, axis: int, index: int) -> dict[str, Any] | None:
    """What a slice of a canonical scan is in DICOM, if that may be told; see ``reference_to``."""
    if not isinstance(stored, Series) or not stored.keeps_uids:
        return None
    return reference_to(stored, axis, index)


def sha256_of(stored: Stored) -> str:
    """Of the bytes of the file; of several files, of their digests.

    Raises:
        SourceError: If one cannot be read.
    """
    digests = [_file_sha256(path) for path in paths_of(stored)]
    one = isinstance(stored, Path) and len(digests) == 1
    return digests[0] if one else joint_sha256(iter(digests))


def read_image(
    stored: Stored,
    *,
    sha256: str | None = None,
    reading: CtReading | None = None,
    remarks: list[str] | None = None,
) -> tuple[Volume, int]:
    """Read a scan; see ``read_ct_counting``."""
    match stored:
        case Series():
            return read_series(stored, sha256=sha256, remarks=remarks)
        case Drawn():
            raise AssertionError("a structure is no scan")
        case _:
            return read_ct_counting(stored, sha256=sha256, reading=reading, remarks=remarks)


def read_label_map(
    stored: Stored,
    *,
    sha256: str | None = None,
    reading: LabelReading | None = None,
    remarks: list[str] | None = None,
) -> Volume:
    """Read a label map or a structure; see ``read_labels``."""
    match stored:
        case Drawn():
            return read_drawn(stored, sha256=sha256, remarks=remarks)
        case Series():
            raise AssertionError("a scan is no label map")
        case _:
            return read_labels(stored, sha256=sha256, reading=reading, remarks=remarks)


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise SourceError(f"{path}: cannot be read ({err.strerror})") from err
