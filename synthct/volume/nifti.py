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
import numpy.typing as npt

from synthct.errors import ResourceError, SourceError
from synthct.volume.content import Content, open_content
from synthct.volume.grid import Affine, Index3, same_grid, spacing_of
from synthct.volume.header import Header, read_header
from synthct.volume.hounsfield import has_no_air, not_hu
from synthct.volume.volume import HU_MAX, HU_MIN, Array, Volume

#: What a slab of stored voxels holds at most, unless a single slice is more.
_SLAB_BYTES = 1 << 23
#: Values above are neither HU nor metal; below there may only be one value, the padding.
_STORED_HU = (-(2**16), 2**16)
#: Programs that edit masks as floats leave values such as 1.00000006.
_LABEL_TOLERANCE = 1e-3
#: Voxels that are looked at to tell HU from other values.
_SAMPLE = 1_000_000


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
        path: A .nii or .nii.gz file.
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
        path: A .nii or .nii.gz file.
        sha256: What the file's bytes must hash to, if that is known.
        reading: What the user allows or says; by default nothing.
        remarks: Gets a sentence for each choice that was made, such as clipping.
    """
    reading = reading or CtReading()
    remarks = [] if remarks is None else remarks
    with _open(path, sha256, reading.orientation) as (content, header):
        frame = _frame(path, header, reading.frame)
        frame_bytes = math.prod(header.shape) * header.dtype.itemsize
        content.skip(frame * frame_bytes)
        out, stored, affine = _canonical_array(path, header, np.int16)
        low, high = math.inf, -math.inf
        broken, far_below = _NotFinite(path), set[float]()
        step, some = max(1, out.size // _SAMPLE), list[Array]()
        for start, slab in _slabs(content, header):
            values = _scaled(slab, header)
            if values.dtype.kind == "f":
                values = np.rint(broken.fill(values, start))
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            if low < _STORED_HU[0]:
                below = values[values < _STORED_HU[0]]
                far_below |= {float(below.min()), float(below.max())} if below.size else set()
            some.append(values.reshape(-1)[::step].copy())
            stored[:, :, start : start + slab.shape[2]] = np.clip(values, HU_MIN, HU_MAX)
        content.skip((header.frames - 1 - frame) * frame_bytes)
        content.finish()
    if not reading.fill_nan:
        broken.refuse()
    if high > _STORED_HU[1] or len(far_below) > 1:
        raise SourceError(
            f"{path}: values {low:g}..{high:g} (scl_slope {header.slope:g}, scl_inter "
            f"{header.intercept:g}) are not HU; repair the header or the scan"
        )
    if evidence := not_hu(np.concatenate(some), low, high):
        raise SourceError(f"{path}: its values are not HU: {evidence}")
    if not header.has_form:
        remarks.append(
            f"the image is read as orientation {reading.orientation}, since neither sform nor "
            "qform says how it lies"
        )
    if header.is_sheared:
        remarks.append(
            "the image's slices are sheared (tilted gantry) and stay so; dcm2niix writes a "
            "corrected copy beside it, whose name ends with _Tilt_1"
        )
    i_mm, j_mm, k_mm = (n * s for n, s in zip(out.shape, spacing_of(affine), strict=True))
    if has_no_air(low, (i_mm, j_mm, k_mm)):
        remarks.append(
            "no value of the image is as low as that of air, though it is as wide as a body; see "
            "that its values are HU and not, say, a tenth of them"
        )
    if low < HU_MIN:
        remarks.append(f"values below {HU_MIN} HU (padding) are clipped to it")
    return Volume(out, affine), broken.count


def read_labels(
    path: Path,
    *,
    sha256: str | None = None,
    reading: LabelReading | None = None,
    remarks: list[str] | None = None,
) -> Volume:
    """Read a label map as a canonical volume of uint8, or uint16 where values exceed 255.

    Args:
        path: A .nii or .nii.gz file.
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
    with _open(path, sha256, orientation) as (content, header):
        _frame(path, header, None)
        if reading.image is not None:
            header = _on_grid_of(path, header, reading.image, reading.orientation, remarks)
        elif not header.has_form:
            remarks.append(
                f"the label map is read as orientation {reading.orientation}, since neither sform "
                "nor qform says how it lies"
            )
        out, stored, affine = _canonical_array(path, header, np.uint8)
        for start, slab in _slabs(content, header):
            if header.intercept == 0 and not slab.any():
                continue  # most of most structures' files is empty, and so is the array
            values = _scaled(slab, header)
            if values.dtype.kind == "f":
                whole = np.rint(values)
                with np.errstate(invalid="ignore"):  # infinity less infinity
                    fractional = ~(np.abs(values - whole) <= _LABEL_TOLERANCE)
                if fractional.any():
                    raise SourceError(
                        f"{path}: label value {values[fractional][0]} is not a whole number"
                    )
                values = whole
            low, high = int(values.min()), int(values.max())
            if low < 0 or high > np.iinfo(np.uint16).max:
                raise SourceError(f"{path}: label values {low}..{high} are not within 0..65535")
            if high > np.iinfo(out.dtype).max:
                wide, stored, _ = _canonical_array(path, header, np.uint16)
                wide[...] = out
                out = wide
            stored[:, :, start : start + slab.shape[2]] = values
        content.finish()
    return Volume(out, affine)


def _on_grid_of(
    path: Path, header: Header, image: Path, orientation: str | None, remarks: list[str]
) -> Header:
    """A label map's header with the affine of its image if its own puts it elsewhere.

    Raises:
        SourceError: If it has not the stored shape of its image and no affine of its own.
    """
    with open_content(image) as content:
        other = read_header(content, orientation=orientation)
    if header.shape != other.shape:
        if header.has_form or orientation is not None:
            return header  # perhaps a part of the image's grid, or refused when they are compared
        raise SourceError(
            f"{path}: its shape {header.shape} is not that of its image, {other.shape}, and "
            "neither sform nor qform says how it lies; repair the header"
        )
    (shape, affine, _), (other_shape, other_affine, _) = map(_canonical_grid, (header, other))
    if header.has_form and shape == other_shape and same_grid(shape, other_affine, affine):
        return header
    remarks.append(
        "the label map takes the grid of its image (label_grid: image), since its own affine does "
        "not fit"
    )
    return replace(header, affine=other.affine)


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


def nifti_bytes(volume: Volume, *, compress: bool) -> bytes:
    """A volume as the bytes of a NIfTI-1 file, gzipped if ``compress``; no time stamp inside."""
    from isal import igzip

    raw = _nifti_image(volume).to_bytes()
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


class _NotFinite:
    """Counts voxels that are not finite numbers, and remembers where the first is."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self.first: tuple[int, ...] = ()

    def fill(self, values: Array, start: int) -> Array:
        """The values of a slab that begins at slice ``start``, with air where there are none."""
        good = np.isfinite(values)
        if good.all():
            return values
        if not self.count:
            i, j, k = (int(n) for n in np.argwhere(~good)[0])
            self.first = i, j, k + start
        self.count += int(np.count_nonzero(~good))
        return np.where(good, values, HU_MIN)

    def refuse(self) -> None:
        """Raise a SourceError if there were any."""
        if self.count:
            raise SourceError(
                f"{self.path}: {self.count} voxels are not finite numbers, the first is voxel "
                f"{self.first}; repair the scan, or read them as air with 'nan: fill' in the source"
            )


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
            f"CT say which with 'frame: 0' to 'frame: {header.frames - 1}' in the source"
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


def _canonical_array(
    path: Path, header: Header, dtype: npt.DTypeLike
) -> tuple[Array, Array, Affine]:
    """Zeros in canonical orientation, a view of them in stored orientation, and their affine.

    Raises:
        ResourceError: If there is no memory for them.
    """
    shape, out_affine, ornt = _canonical_grid(header)
    try:
        out = np.zeros(shape, dtype)
    except MemoryError as err:
        raise ResourceError(f"{path}: no memory for {header.shape} voxels") from err
    flips = tuple(slice(None, None, int(sign)) for sign in ornt[:, 1])
    return out, out.transpose([int(axis) for axis in ornt[:, 0]])[flips], out_affine


def _canonical_grid(header: Header) -> tuple[Index3, Affine, Array]:
    """Shape and affine in canonical orientation, and nibabel's orientation (3, 2) of the file."""
    from nibabel.orientations import inv_ornt_aff, io_orientation

    ornt = io_orientation(header.affine)
    shape = [0, 0, 0]
    for axis, length in zip(ornt[:, 0], header.shape, strict=True):
        shape[int(axis)] = length
    i, j, k = shape
    return (i, j, k), header.affine @ inv_ornt_aff(ornt, header.shape), ornt
