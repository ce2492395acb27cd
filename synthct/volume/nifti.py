"""NIfTI files, strictly: a scan is read whole and its checksum checked, or it is refused.

Files are decoded slab by slab into the canonical array, so that a large file needs little more
memory than its voxels, and a bad one almost none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from synthct.errors import ResourceError, SourceError
from synthct.volume.content import Content, open_content
from synthct.volume.grid import same_grid
from synthct.volume.header import Header, read_header
from synthct.volume.itk import ITK_SUFFIXES, add_itk, itk_grid, open_itk
from synthct.volume.volume import Array, Volume
from synthct.volume.voxels import CtVoxels, LabelVoxels, Stored

#: What a slab of stored voxels holds at most, unless a single slice is more.
_SLAB_BYTES = 1 << 23
_NO_FORM = "neither sform nor qform says how it lies"


@dataclass(frozen=True)
class CtReading:
    """What a user says of scans that would be refused otherwise.

    Attributes:
        frame: Which 3D scan of a 4D file to take, from 0.
        fill_nan: Whether voxels that are not finite numbers are read as -1024 HU.
        orientation: Patient directions of the axes, such as ``LAS``, of files that say none.
    """

    frame: int | None = None
    fill_nan: bool = False
    orientation: str | None = None


@dataclass(frozen=True)
class LabelReading:
    """What a user says of label maps that would be refused otherwise.

    Attributes:
        orientation: Patient directions of the axes, such as ``LAS``, of files that say none.
        image: The scan whose grid a label map of the same stored shape takes if its own affine
            puts it elsewhere; None to believe the affine.
    """

    orientation: str | None = None
    image: Path | None = None


def read_ct(path: Path, *, sha256: str | None = None, reading: CtReading | None = None) -> Volume:
    """Read a CT as canonical int16 HU, clipped to -1024..3071.

    Args:
        path: A .nii or .nii.gz file, or what ``itk`` reads.
        sha256: What the file's bytes must hash to, if that is known.
        reading: What the user allows or says; by default nothing.

    Raises:
        SourceError: If the file is missing, damaged or another than meant, not 3D, not in HU, or
            holds values that are not finite.
        ResourceError: If its voxels do not fit into memory.
    """
    return read_ct_counting(path, sha256=sha256, reading=reading)[0]


def read_ct_counting(
    path: Path,
    *,
    sha256: str | None = None,
    reading: CtReading | None = None,
    remarks: list[str] | None = None,
) -> tuple[Volume, int]:
    """As ``read_ct``, with the number of voxels that were filled because they are not finite.

    Args:
        path: A .nii or .nii.gz file, or what ``itk`` reads.
        sha256: What the file's bytes must hash to, if that is known.
        reading: What the user allows or says; by default nothing.
        remarks: Gets a sentence for each choice that was made, such as clipping.
    """
    reading = reading or CtReading()
    remarks = [] if remarks is None else remarks
    if path.suffix in ITK_SUFFIXES:
        image, stored, unsaid = open_itk(path, sha256, reading.orientation)
        voxels = CtVoxels(stored)
        add_itk(voxels, image, stored)
        if unsaid is not None:
            remarks.append(_read_as("image", reading.orientation, f"its header {unsaid}"))
        return voxels.finish(remarks, fill_nan=reading.fill_nan)
    with _open(path, sha256, reading.orientation) as (content, header):
        frame = _frame(path, header, reading.frame)
        frame_bytes = math.prod(header.shape) * header.dtype.itemsize
        content.skip(frame * frame_bytes)
        voxels = CtVoxels(_stored(path, header))
        for start, slab in _slabs(content, header):
            voxels.add(start, _scaled(slab, header))
        content.skip((header.frames - 1 - frame) * frame_bytes)
        content.finish()
    scaled = f" (scl_slope {header.slope:g}, scl_inter {header.intercept:g})"
    if not header.has_form:
        remarks.append(_read_as("image", reading.orientation, _NO_FORM))
    corrected = "dcm2niix writes a corrected copy beside it, whose name ends with _Tilt_1"
    return voxels.finish(remarks, fill_nan=reading.fill_nan, scaled=scaled, corrected=corrected)


def read_labels(
    path: Path,
    *,
    sha256: str | None = None,
    reading: LabelReading | None = None,
    remarks: list[str] | None = None,
) -> Volume:
    """Read a label map as a canonical volume of uint8, or uint16 where values exceed 255.

    Args:
        path: A .nii or .nii.gz file, or what ``itk`` reads.
        sha256: What the file's bytes must hash to, if that is known.
        reading: What the user says of its place; by default the file must say it.
        remarks: Gets a sentence for each choice that was made.

    Raises:
        SourceError: If the file is missing, damaged or another than meant, or a value is negative
            or fractional.
        ResourceError: If its voxels do not fit into memory.
    """
    reading = reading or LabelReading()
    remarks = [] if remarks is None else remarks
    # Any orientation will do for a file that takes its image's grid.
    orientation = reading.orientation or ("RAS" if reading.image is not None else None)
    if path.suffix in ITK_SUFFIXES:
        image, stored, unsaid = open_itk(path, sha256, orientation)
        stored = _placed(stored, unsaid and f"its header {unsaid}", reading, remarks)
        voxels = LabelVoxels(stored)
        add_itk(voxels, image, stored)
        return voxels.finish()
    with _open(path, sha256, orientation) as (content, header):
        _frame(path, header, None)
        unsaid = None if header.has_form else _NO_FORM
        voxels = LabelVoxels(_placed(_stored(path, header), unsaid, reading, remarks))
        for start, slab in _slabs(content, header):
            if header.intercept == 0 and not slab.any():
                continue  # most of most structures' files is empty, and so is the array
            voxels.add(start, _scaled(slab, header))
        content.finish()
    return voxels.finish()


def _placed(own: Stored, unsaid: str | None, reading: LabelReading, remarks: list[str]) -> Stored:
    """How a label map lies: by its own header, or as its image if the user says so.

    Args:
        own: How it lies by its own header, or by the orientation that the user says.
        unsaid: Why its header does not say it; None if it does.
        reading: What the user says of its place.
        remarks: Gets a sentence for a choice that was made.

    Raises:
        SourceError: If it has not the stored shape of its image and no affine of its own.
    """
    orientation = reading.orientation
    if reading.image is None:
        if unsaid is not None:
            remarks.append(_read_as("label map", orientation, unsaid))
        return own
    other = _stored_of(reading.image, orientation)
    if own.shape != other.shape:
        if unsaid is None or orientation is not None:
            return own  # perhaps a part of the image's grid, or refused when they are compared
        raise SourceError(
            f"{own.path}: its shape {own.shape} is not that of its image, {other.shape}, and "
            f"{unsaid}; repair the header"
        )
    shape, affine, _ = own.canonical_grid()
    other_shape, other_affine, _ = other.canonical_grid()
    if unsaid is None and shape == other_shape and same_grid(shape, other_affine, affine):
        return own
    remarks.append(
        "the label map takes the grid of its image (label_grid: image), since its own affine does "
        "not fit"
    )
    return replace(own, affine=other.affine)


def _stored_of(path: Path, orientation: str | None) -> Stored:
    """How a scan lies in its file."""
    if path.suffix in ITK_SUFFIXES:
        return itk_grid(path, orientation)[0]
    with open_content(path) as content:
        return _stored(path, read_header(content, orientation=orientation))


def _read_as(what: str, orientation: str | None, unsaid: str) -> str:
    return f"the {what} is read as orientation {orientation}, since {unsaid}"


def write_volume(volume: Volume, path: Path) -> None:
    """Write a volume as .nii or .nii.gz, losslessly and with the same bytes every time.

    Gzip comes from ISA-L, some ten times faster than zlib at the same ratio.

    Raises:
        ResourceError: If the file cannot be written.
    """
    try:
        path.write_bytes(nifti_bytes(volume, compress=path.name.endswith(".gz")))
    except OSError as err:
        raise ResourceError(f"cannot write {path}: {err.strerror}") from err


def nifti_bytes(volume: Volume, *, compress: bool, extension: bytes | None = None) -> bytes:
    """A volume as the bytes of a NIfTI-1 file, without a time stamp inside.

    Args:
        volume: The volume.
        compress: Whether to gzip it.
        extension: What is put between header and voxels, of an unknown kind (code 0).
    """
    import nibabel as nib
    from isal import igzip

    image = _nifti_image(volume)
    if extension is not None:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(0, extension))
        image.header["vox_offset"] = 0  # nibabel finds the place behind it
    raw = image.to_bytes()
    return igzip.compress(raw, compresslevel=2, mtime=0) if compress else bytes(raw)


def nifti_header(volume: Volume) -> bytes:
    """The first bytes of ``nifti_bytes``, up to the voxels, whose values do not matter."""
    return bytes(_nifti_image(volume).header.binaryblock) + b"\0\0\0\0"


def _nifti_image(volume: Volume) -> Any:
    import nibabel as nib
    from nibabel.spatialimages import HeaderDataError

    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    image = nib.Nifti1Image(array, volume.affine, dtype=array.dtype)
    image.set_sform(volume.affine, code=1)
    try:
        image.set_qform(volume.affine, code=1, strip_shears=False)
    except HeaderDataError:  # a quaternion cannot say that the gantry was tilted
        image.set_qform(None)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1, 0)
    image.header["vox_offset"] = 352
    return image


@contextmanager
def _open(
    path: Path, sha256: str | None, orientation: str | None
) -> Iterator[tuple[Content, Header]]:
    """A file at its first voxel; a large one is read once before memory is allocated for it."""
    with open_content(path, sha256) as content:
        header = read_header(content, orientation=orientation)
        if not header.is_large:
            yield content, header
            return
        content.skip(header.num_bytes)
        content.finish()
    with open_content(path, sha256) as content:
        yield content, read_header(content, orientation=orientation)


def _frame(path: Path, header: Header, frame: int | None) -> int:
    """The frame to read, from 0.

    Raises:
        SourceError: If there are several and ``frame`` is none of them.
    """
    if frame is None and header.frames == 1:
        return 0
    if frame is None or frame >= header.frames:
        shape = (*header.shape, header.frames)
        raise SourceError(
            f"{path}: expected a 3D scan but its shape is {shape}; save one frame alone, or for a "
            f"CT say which with 'frame: 0' to 'frame: {header.frames - 1}' in a recipe's source"
        )
    return frame


def _slabs(content: Content, header: Header) -> Iterator[tuple[int, Array]]:
    """The stored voxels (I, J, k) in order, with the index of their first slice."""
    i, j, k = header.shape
    slice_bytes = i * j * header.dtype.itemsize
    step = max(1, _SLAB_BYTES // slice_bytes)
    for start in range(0, k, step):
        count = min(step, k - start)
        raw = np.frombuffer(content.read(count * slice_bytes), header.dtype)
        yield start, raw.reshape((i, j, count), order="F")


def _scaled(slab: Array, header: Header) -> Array:
    """The values of stored voxels; float64, which no slope of float32 can overflow, if scaled."""
    if not header.is_scaled:
        return slab
    return slab.astype(np.float64) * header.slope + header.intercept


def _stored(path: Path, header: Header) -> Stored:
    return Stored(path, header.shape, header.affine)
