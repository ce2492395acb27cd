"""Volumes: an array that never travels without its affine.

Reads and writes NIfTI, brings scans into closest-canonical (RAS+) orientation, crops, pastes and
resamples in millimetres. Knows nothing of HU windows, labels or masks.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from synthct.errors import ResourceError, SourceError

Affine = npt.NDArray[np.float64]
Array = npt.NDArray[Any]
Index3 = tuple[int, int, int]
Spacing = tuple[float, float, float]

#: Paddings of -2048 and -3024 and values above 3071 occur in real files; both are outside of HU.
HU_MIN, HU_MAX = -1024, 3071

#: Two grids are one when their corners lie closer than this (mm).
GRID_TOLERANCE_MM = 1e-2


@dataclass(frozen=True)
class Box:
    """A box of voxels, ``start_ijk`` inclusive and ``stop_ijk`` exclusive."""

    start_ijk: Index3
    stop_ijk: Index3

    @property
    def shape(self) -> Index3:
        """Number of voxels along i, j, k."""
        extent = [max(0, b - a) for a, b in zip(self.start_ijk, self.stop_ijk, strict=True)]
        return extent[0], extent[1], extent[2]

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index into an array."""
        (i, j, k), (i2, j2, k2) = self.start_ijk, self.stop_ijk
        return slice(i, i2), slice(j, j2), slice(k, k2)

    def clip(self, shape: Index3) -> Box:
        """The part of the box that lies inside an array of ``shape``."""
        start = [min(max(0, a), n) for a, n in zip(self.start_ijk, shape, strict=True)]
        stop = [min(max(0, b), n) for b, n in zip(self.stop_ijk, shape, strict=True)]
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    def grow(self, voxels: Sequence[int]) -> Box:
        """The box with ``voxels`` (along i, j, k) more on either side; may leave the array."""
        start = [a - n for a, n in zip(self.start_ijk, voxels, strict=True)]
        stop = [b + n for b, n in zip(self.stop_ijk, voxels, strict=True)]
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    @classmethod
    def around(cls, region: Array) -> Box | None:
        """The smallest box around the true voxels of ``region`` (I, J, K); None if there are none.

        Args:
            region: Array (I, J, K); non-zero counts as true.
        """
        region = np.asarray(region, dtype=bool)
        bounds = []
        for axis in range(3):
            hit = np.flatnonzero(region.any(axis=tuple(a for a in range(3) if a != axis)))
            if hit.size == 0:
                return None
            bounds.append((int(hit[0]), int(hit[-1]) + 1))
        (i, i2), (j, j2), (k, k2) = bounds
        return cls((i, j, k), (i2, j2, k2))


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D array and where it lies in the patient.

    Attributes:
        array: (I, J, K); int16 HU, an integer label map, or a boolean region. Treat as read-only.
        affine: (4, 4) float64, from voxel index (i, j, k, 1) to RAS+ millimetres.
    """

    array: Array
    affine: Affine

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise ValueError(f"a Volume has three axes, not shape {self.array.shape}")
        if self.affine.shape != (4, 4):
            raise ValueError(f"an affine is (4, 4), not {self.affine.shape}")

    @property
    def shape(self) -> Index3:
        """Number of voxels along i, j, k."""
        i, j, k = self.array.shape
        return i, j, k

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size in mm along i, j, k."""
        return spacing_of(self.affine)

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        """RAS+ position of the centre of voxel (0, 0, 0) in mm."""
        x, y, z = self.affine[:3, 3]
        return float(x), float(y), float(z)

    @property
    def orientation(self) -> str:
        """The patient direction in which i, j and k increase, such as ``RAS``."""
        from nibabel.orientations import aff2axcodes

        return "".join(aff2axcodes(self.affine))

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in ml."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def has_grid_of(self, other: Volume) -> bool:
        """Whether both have the same shape and their corners lie within 0.01 mm."""
        return self.shape == other.shape and (
            corner_distance_mm(self.shape, self.affine, other.affine) <= GRID_TOLERANCE_MM
        )

    def crop(self, box: Box) -> Volume:
        """The voxels inside ``box``; the origin moves by whole voxels.

        Raises:
            ValueError: If the box is empty or leaves the volume.
        """
        if 0 in box.shape or box.clip(self.shape) != box:
            raise ValueError(f"box {box.start_ijk}..{box.stop_ijk} leaves the volume {self.shape}")
        return Volume(self.array[box.slices], shifted(self.affine, box.start_ijk))

    def paste(self, values: Array, *, where: npt.NDArray[np.bool_]) -> Volume:
        """A copy in which the voxels of ``where`` hold ``values``; all others stay bit-identical.

        Args:
            values: (I, J, K), of any real type; rounded and cast to this volume's type.
            where: Boolean (I, J, K).

        Raises:
            ValueError: If a shape differs, ``where`` is not boolean or a value overflows the type.
        """
        if values.shape != self.shape or where.shape != self.shape:
            raise ValueError(f"cannot paste {values.shape} where {where.shape} into {self.shape}")
        if where.dtype != bool:
            raise ValueError(f"where is {where.dtype}, not boolean")
        new = values[where]
        if np.issubdtype(self.array.dtype, np.integer):
            limits = np.iinfo(self.array.dtype)
            new = np.rint(new) if np.issubdtype(new.dtype, np.floating) else new
            if new.size and not (limits.min <= new.min() and new.max() <= limits.max):
                raise ValueError(f"values {new.min()}..{new.max()} overflow {self.array.dtype}")
        out = self.array.copy()
        out[where] = new.astype(self.array.dtype)
        return Volume(out, self.affine)

    def resample(
        self,
        shape: Index3,
        affine: Affine,
        *,
        order: Literal[0, 1, 2, 3] = 1,
        fill: float | None = None,
    ) -> Volume:
        """The volume on another grid, by spline interpolation in patient millimetres.

        Args:
            shape: Shape (I, J, K) of the new grid.
            affine: Affine (4, 4) of the new grid.
            order: Spline order; 0 for label maps.
            fill: Value outside of the old grid; by default the least value of the volume.

        Returns:
            A volume of the same type (rounded if it is an integer type).
        """
        from scipy.ndimage import affine_transform

        to_old = np.linalg.inv(self.affine) @ affine
        dtype = self.array.dtype
        is_region = np.issubdtype(dtype, np.bool_)
        source: Array = self.array.astype(np.float32) if order > 0 or is_region else self.array
        cval = float(self.array.min()) if fill is None else float(fill)
        # "grid-constant" fades to the fill over one voxel; "constant" would lose whole faces of the
        # volume to rounding, because it fills every place beyond the outermost voxel centres.
        out = affine_transform(
            source,
            to_old[:3, :3],
            to_old[:3, 3],
            tuple(shape),
            order=order,
            mode="grid-constant",
            cval=cval,
        )
        if is_region:
            out = out >= 0.5
        elif np.issubdtype(dtype, np.integer) and order > 0:
            limits = np.iinfo(dtype)
            out = np.clip(np.rint(out), limits.min, limits.max)
        return Volume(out.astype(dtype, copy=False), affine)


def spacing_of(affine: Affine) -> Spacing:
    """Voxel size in mm along i, j, k: the lengths of the affine's columns."""
    x, y, z = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return float(x), float(y), float(z)


def shifted(affine: Affine, start_ijk: Sequence[int]) -> Affine:
    """The affine of a crop that starts at ``start_ijk``."""
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ np.asarray(start_ijk, dtype=np.float64) + affine[:3, 3]
    return moved


def corner_distance_mm(shape: Sequence[int], one: Affine, two: Affine) -> float:
    """Greatest distance in mm between the corners of two grids of the same shape."""
    last = np.asarray(shape) - 1
    corners = np.array(np.meshgrid(*[(0, n) for n in last], indexing="ij")).reshape(3, -1)
    homogeneous = np.vstack([corners, np.ones(corners.shape[1])])
    return float(np.linalg.norm(((one - two) @ homogeneous)[:3], axis=0).max())


def canonical(volume: Volume) -> Volume:
    """Flip and permute axes so that i, j, k run closest to right, anterior, superior.

    Only whole axes move, so no voxel value changes and the step can be reversed.
    """
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    ornt = io_orientation(volume.affine)
    array = np.ascontiguousarray(apply_orientation(volume.array, ornt))
    return Volume(array, volume.affine @ inv_ornt_aff(ornt, volume.shape))


def restore_orientation(volume: Volume, like_affine: Affine) -> Volume:
    """Undo ``canonical``: bring a volume back to the axes and directions of ``like_affine``."""
    from nibabel.orientations import (
        apply_orientation,
        inv_ornt_aff,
        io_orientation,
        ornt_transform,
    )

    ornt = ornt_transform(io_orientation(volume.affine), io_orientation(like_affine))
    array = np.ascontiguousarray(apply_orientation(volume.array, ornt))
    return Volume(array, volume.affine @ inv_ornt_aff(ornt, volume.shape))


def read_ct(path: Path) -> Volume:
    """Read a CT as canonical int16 HU, clipped to -1024..3071.

    Raises:
        SourceError: If the file is missing, damaged, not 3D, or holds values that are not finite.
    """
    array, affine = _read_nifti(path)
    if array.dtype != np.int16 or array.size == 0:
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            where = tuple(int(n) for n in np.argwhere(~np.isfinite(array))[0])
            raise SourceError(f"{path}: voxel {where} is not a finite number; repair the scan")
        array = np.rint(array) if np.issubdtype(array.dtype, np.floating) else array
    array = np.clip(array, HU_MIN, HU_MAX).astype(np.int16)
    return canonical(Volume(array, affine))


def read_labels(path: Path) -> Volume:
    """Read a label map as a canonical volume of uint8, or uint16 where values exceed 255.

    Raises:
        SourceError: If the file is missing or damaged, or a value is negative or fractional.
    """
    array, affine = _read_nifti(path)
    if np.issubdtype(array.dtype, np.floating):
        whole = np.rint(array)
        odd = (whole != array) | ~np.isfinite(array)
        if odd.any():
            raise SourceError(f"{path}: label value {array[odd][0]} is not a whole number")
        array = whole
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise SourceError(f"{path}: label values {low}..{high} are not within 0..65535")
    dtype = np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16
    return canonical(Volume(array.astype(dtype), affine))


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
    import nibabel as nib
    from isal import igzip

    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    image = nib.Nifti1Image(array, volume.affine, dtype=array.dtype)
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    image.header.set_xyzt_units("mm")
    raw = image.to_bytes()
    return igzip.compress(raw, compresslevel=2, mtime=0) if compress else bytes(raw)


def _read_nifti(path: Path) -> tuple[Array, Affine]:
    """The voxels (scaled if the header scales them) and affine of a 3D NIfTI file, as stored."""
    import nibabel as nib
    from nibabel.imageglobals import LoggingOutputSuppressor

    raw = _file_bytes(path)
    try:
        with LoggingOutputSuppressor():  # nibabel would also print what we raise
            image = nib.Nifti1Image.from_bytes(raw)
    except Exception as err:  # nibabel raises many types on damaged headers
        raise SourceError(f"{path}: not a readable NIfTI file ({err})") from err
    shape = image.shape
    if len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    if len(shape) != 3 or min(shape) < 1:
        raise SourceError(f"{path}: expected a 3D scan but its shape is {image.shape}")
    if image.get_data_dtype().fields is not None or image.get_data_dtype().kind not in "iuf":
        raise SourceError(f"{path}: voxels of type {image.get_data_dtype()} are not a CT")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise SourceError(f"{path}: its affine has no inverse:\n{affine}")
    # nibabel ignores a slope that is not finite; a slope of 0 means "not scaled" by the standard.
    slope = float(nib.Nifti1Header.from_fileobj(io.BytesIO(raw), check=False)["scl_slope"])
    if not np.isfinite(slope):
        raise SourceError(f"{path}: scl_slope is {slope}; repair the header")
    start, size = image.dataobj.offset, math.prod(shape) * image.get_data_dtype().itemsize
    if start < image.header.single_vox_offset:
        raise SourceError(f"{path}: vox_offset is {start}, inside the header; repair the header")
    if len(raw) < start + size:
        raise SourceError(
            f"{path}: cut short or damaged: {len(raw)} bytes, but voxels {shape} end at byte "
            f"{start + size}; fetch the file again"
        )
    try:
        array = np.asanyarray(image.dataobj).reshape(shape)
    except (OSError, ValueError) as err:
        raise SourceError(f"{path}: cut short or damaged ({err})") from err
    return array, affine


def _file_bytes(path: Path) -> bytes:
    """The whole file, gunzipped to the end of its stream so that its checksum is verified."""
    from isal import igzip, isal_zlib

    isal_error: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stubs err
    try:
        raw = path.read_bytes()
    except FileNotFoundError as err:
        raise SourceError(f"{path}: no such file") from err
    except OSError as err:
        raise SourceError(f"{path}: cannot be read ({err.strerror})") from err
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        with igzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
            return bytes(stream.read())
    except (EOFError, OSError, ValueError, zlib.error, isal_error) as err:
        raise SourceError(f"{path}: gzip stream is damaged or cut short ({err})") from err
