"""DICOM files by name, and their opening: what a path is for other formats."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from synthct.errors import SourceError, counted

if TYPE_CHECKING:
    from pydicom import Dataset

#: Where the mark of a DICOM file stands, and the mark.
_MARK_AT, _MARK = 128, b"DICM"


@dataclass(frozen=True)
class Series:
    """The files of one CT series.

    Attributes:
        folder: The folder that all of them lie in or below.
        files: The files, by name.
        keeps_uids: Whether its UIDs may be stored.
    """

    folder: Path
    files: tuple[Path, ...]
    keeps_uids: bool = False

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.folder} ({counted(len(self.files), 'file')})"


@dataclass(frozen=True)
class Drawn:
    """A structure as it is drawn on a series.

    Attributes:
        parts: SEG or RTSTRUCT files, each with the numbers of its segments or regions that make
            up the structure.
        series: What they are drawn on.
        interpolates: Whether slices between contours belong to the structure.
    """

    parts: tuple[tuple[Path, tuple[int, ...]], ...]
    series: Series
    interpolates: bool = False

    @property
    def name(self) -> str:
        """For messages."""
        return ", ".join(f"{path} (number {_listed(numbers)})" for path, numbers in self.parts)


def is_dicom(path: Path) -> bool:
    """Whether a file has the mark of DICOM."""
    try:
        with path.open("rb") as file:
            return file.read(_MARK_AT + len(_MARK))[_MARK_AT:] == _MARK
    except OSError as err:
        raise SourceError(f"{path}: cannot be read ({err.strerror})") from err


def open_dicom(path: Path, *, only: tuple[str, ...] | None = None, pixels: bool = False) -> Dataset:
    """Read a DICOM file.

    Args:
        path: The file.
        only: Keywords of what is wanted; by default everything.
        pixels: Whether the pixels are wanted too.

    Raises:
        SourceError: If it is missing or damaged, or pydicom is.
    """
    with understood(path), path.open("rb") as file:
        return _parsed(file, only, pixels)


def open_hashed(path: Path) -> tuple[Dataset, str]:
    """A DICOM file with its pixels, and the sha256 of the bytes that it was read from.

    Raises:
        SourceError: If it is missing or damaged.
    """
    with understood(path):
        content = path.read_bytes()
        return _parsed(io.BytesIO(content), None, True), hashlib.sha256(content).hexdigest()


def joint_sha256(digests: Iterator[str]) -> str:
    """One digest of several files, whatever they are called."""
    lines = "".join(f"{digest}\n" for digest in sorted(digests))
    return hashlib.sha256(f"synthct/files/v1\n{lines}".encode()).hexdigest()


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Say of which file it is that pydicom makes nothing of, and keep quiet what it works around.

    Raises:
        SourceError: In place of all that pydicom raises.
    """
    try:
        import pydicom  # noqa: F401
    except ImportError as err:
        raise SourceError(
            f"{path}: DICOM is read by pydicom, which is not installed; run pip install '.[dicom]'"
        ) from err
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that break the standard but can be read
            yield
    except FileNotFoundError as err:
        raise SourceError(f"{path}: no such file") from err
    except OSError as err:
        raise SourceError(f"{path}: cannot be read ({err.strerror or err})") from err
    except SourceError:
        raise
    except Exception as err:  # pydicom raises anything on damaged files: struct.error, KeyError ...
        reason = " ".join(str(err).split())
        kind = type(err).__name__
        raise SourceError(
            f"{path}: damaged, or no DICOM file ({kind}: {reason:.200}); fetch it again"
        ) from err


def _parsed(file: BinaryIO, only: tuple[str, ...] | None, pixels: bool) -> Dataset:
    from pydicom import dcmread

    return dcmread(file, stop_before_pixels=not pixels, specific_tags=list(only) if only else None)


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
