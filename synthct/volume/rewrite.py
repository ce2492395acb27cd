"""A NIfTI file written again with some of its voxels changed, and every other byte as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from synthct.errors import SourceError
from synthct.volume.content import open_content
from synthct.volume.header import Header, read_header
from synthct.volume.volume import HU_MAX, HU_MIN, Volume, restore_orientation


def require_storable(path: Path, *, orientation: str | None = None) -> None:
    """See that a file's type of voxels, with its slope and intercept, can hold any HU.

    Raises:
        SourceError: If it cannot, or the header is none.
    """
    with open_content(path) as content:
        header = read_header(content, orientation=orientation)
    if header.dtype.kind == "f":
        return
    stored = (np.array([HU_MIN, HU_MAX]) - header.intercept) / header.slope
    limits = np.iinfo(header.dtype)
    if stored.min() < limits.min or stored.max() > limits.max:
        ends = np.array([limits.min, limits.max], np.float64) * header.slope + header.intercept
        raise SourceError(
            f"{path}: its voxels ({header.dtype}) can hold {ends.min():g} to {ends.max():g} only, "
            f"but what is painted may be {HU_MIN} to {HU_MAX} HU; save the scan as int16 first"
        )


def changed_file(
    source: Path,
    volume: Volume,
    where: npt.NDArray[np.bool_],
    *,
    compress: bool,
    orientation: str | None = None,
) -> bytes:
    """The bytes of a NIfTI file with the values of a volume in some of its voxels.

    Header, extensions, axes, type of voxels, and all other voxels are those of the file.

    Args:
        source: The file, .nii or .nii.gz; see ``require_storable``.
        volume: HU in the file's canonical orientation.
        where: Boolean (I, J, K) on the volume's grid: the voxels to change.
        compress: Whether to gzip them.
        orientation: Patient directions of the axes of a file that says none.

    Raises:
        SourceError: If the file is damaged.
    """
    with open_content(source) as content:
        header = read_header(content, orientation=orientation)
    with open_content(source) as content:
        data = bytearray(content.rest())
    start = len(data) - header.num_bytes
    voxels = np.frombuffer(data, header.dtype, offset=start).reshape(header.shape, order="F")
    region = restore_orientation(Volume(where, volume.affine), header.affine).array
    hu = restore_orientation(volume, header.affine).array
    voxels[region] = _stored(hu[region], header)
    if not compress:
        return bytes(data)
    from isal import igzip

    return bytes(igzip.compress(bytes(data), compresslevel=2, mtime=0))


def _stored(hu: npt.NDArray[np.int16], header: Header) -> npt.NDArray[np.generic]:
    """HU as the file stores them."""
    values = (hu.astype(np.float64) - header.intercept) / header.slope
    return (values if header.dtype.kind == "f" else np.rint(values)).astype(header.dtype)
