"""A CT series as HU: all slices are there, each once, and of the file that was meant."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from synthct.errors import SourceError
from synthct.volume.dicom.files import Series, joint_sha256, open_dicom, open_hashed, understood
from synthct.volume.dicom.slices import Slice, arranged, slices_of
from synthct.volume.volume import Array, Volume
from synthct.volume.voxels import CtVoxels, Stored

if TYPE_CHECKING:
    from pydicom import Dataset

#: So many slices are put into their place at once.
_SLICES = 16


def grid_of(series: Series) -> tuple[Stored, list[Slice]]:
    """The grid of a series by its headers, and its slices along the k axis.

    Kept for the next call, as the structures of a case are read one after the other.

    Raises:
        SourceError: If a file is damaged, or the slices do not make a grid.
    """
    try:
        states = [path.stat() for path in series.files]
    except OSError as err:
        raise SourceError(f"{err.filename}: cannot be read ({err.strerror})") from err
    return _grid_of(series, tuple((state.st_size, state.st_mtime_ns) for state in states))


def reference_to(series: Series, axis: int, index: int) -> dict[str, Any]:
    """What a slice of a canonical scan is in DICOM: UIDs of study, series, frame and files.

    Args:
        series: The series of the scan.
        axis: Axis of the canonical scan that the slice is across.
        index: Of the slice along it.

    Returns:
        ``study``, ``series``, ``frame_of_reference``, ``class`` of the files, and ``instances``,
        which are stored only for slices that are those of the series.
    """
    stored, slices = grid_of(series)
    *_, ornt = stored.canonical_grid()
    through, sign = (int(n) for n in ornt[2])
    place = index if sign > 0 else len(slices) - 1 - index
    names = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPClassUID")
    header = open_dicom(slices[0].path, only=names)
    study, uid, frame, kind = (str(header.get(name) or "") for name in names)
    instances = [slices[place].instance] if axis == through else []
    return {
        "study": study,
        "series": uid,
        "frame_of_reference": frame,
        "class": kind,
        "instances": instances,
    }


@lru_cache(maxsize=4)
def _grid_of(series: Series, stamps: tuple[tuple[int, int], ...]) -> tuple[Stored, list[Slice]]:
    del stamps
    slices: list[Slice] = []
    for path in series.files:
        header = open_dicom(path)
        with understood(path):
            slices += slices_of(path, header)
    return arranged(series, slices)


def read_series(
    series: Series, *, sha256: str | None = None, remarks: list[str] | None = None
) -> tuple[Volume, int]:
    """Read a CT series as canonical int16 HU, clipped to -1024..3071.

    Args:
        series: Its files.
        sha256: What ``joint_sha256`` of its files must be, if that is known.
        remarks: Gets a sentence for each choice that was made, such as clipping.

    Returns:
        The scan, and 0: no voxel had to be filled.

    Raises:
        SourceError: If slices are missing, double or damaged, or the values are not HU.
        ResourceError: If its voxels do not fit into memory.
    """
    remarks = [] if remarks is None else remarks
    stored, slices = grid_of(series)
    voxels = CtVoxels(stored)
    places = {(one.path, one.frame): k for k, one in enumerate(slices)}
    digests, lossy, start = [], 0, 0
    slab: list[Array] = []  # several slices at once are put into their place much faster
    for path in dict.fromkeys(one.path for one in slices):
        header, digest = open_hashed(path)
        digests.append(digest)
        with understood(path):
            found = {one.frame: one for one in slices_of(path, header)}
            lossy += str(header.get("LossyImageCompression", "")) == "01"
            for frame, pixels in _decoded(header, found):
                k = places.get((path, frame))
                if k is None or found[frame] != slices[k]:
                    raise SourceError(f"{path}: changed while it was read; run the command again")
                if slab and (k != start + len(slab) or len(slab) == _SLICES):
                    voxels.add(start, np.stack(slab).T)
                    slab = []
                start = start if slab else k
                slab.append(_hu(pixels, found[frame]))
    voxels.add(start, np.stack(slab).T)
    if sha256 is not None and joint_sha256(iter(digests)) != sha256:
        raise SourceError(
            f"{series.folder}: its files are not those that were indexed; run the command again. "
            "If it says so again, a file is damaged: fetch the series again"
        )
    scaled = f" ({stored.scaling[0]} {slices[0].slope:g}, {stored.scaling[1]} "
    scaled += f"{slices[0].intercept:g})"
    volume, filled = voxels.finish(remarks, fill_nan=False, scaled=scaled)
    if lossy:
        remarks.append("slices were compressed with loss (LossyImageCompression)")
    return volume, filled


def _decoded(header: Dataset, frames: dict[int, Slice]) -> Iterator[tuple[int, Array]]:
    """The wanted frames of a file, each with its number, as stored (rows, columns).

    Raises:
        SourceError: If they are compressed in a way that nothing installed decodes, or damaged.
    """
    from pydicom.pixels.utils import iter_pixels

    try:
        yield from zip(frames, iter_pixels(header, indices=list(frames)), strict=True)
    except Exception as err:
        path = next(iter(frames.values())).path
        raise SourceError(f"{path}: {_undecoded(header, str(err))}") from err


def _undecoded(header: Dataset, reason: str) -> str:
    """Why pixels cannot be decoded, and what to do.

    Args:
        header: Of the file.
        reason: pydicom's message.
    """
    from pydicom.pixels.decoders.base import get_decoder

    syntax = header.file_meta.TransferSyntaxUID
    failed = f"its pixels cannot be decoded ({' '.join(reason.split()):.200})"
    if not syntax.is_compressed:
        return f"{failed}; the file is cut short or its header is wrong; fetch it again"
    compressed = f"its pixels are compressed as {syntax.name}"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return f"{compressed}, which pydicom does not decode; convert the series (gdcmconv)"
    # Such as "gdcm - requires gdcm>=3.0.10", one for each of the plugins.
    needed = next((one.partition("requires ")[2] for one in decoder.missing_dependencies), "")
    names = [name.strip().split(">=")[0] for name in needed.split(" and ")]
    command = "pip install " + " ".join("python-gdcm" if n == "gdcm" else n for n in names)
    if not decoder.is_available:
        return f"{compressed}, which nothing that is installed decodes; run {command}"
    more = f", or run {command}, which decodes more of its kinds" if needed else ""
    return f"{compressed}; {failed}; fetch it again{more}"


def _hu(pixels: Array, one: Slice) -> Array:
    """Stored values as HU; exact where slope and intercept are whole numbers."""
    if one.slope.is_integer() and one.intercept.is_integer():
        wide = np.int32 if pixels.itemsize <= 2 and abs(one.slope) < 2**14 else np.int64
        return pixels.astype(wide) * int(one.slope) + int(one.intercept)
    return np.asarray(pixels * np.float64(one.slope) + one.intercept)
