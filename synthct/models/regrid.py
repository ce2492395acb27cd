"""Slices, boxes and masks on a grid of larger or smaller voxels; edges coincide at the origin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

#: Relative tolerance at the ends of a spacing range: NIfTI stores spacings as float32.
SPACING_TOLERANCE = 1e-4


def scale_into(spacing: float, allowed: tuple[float, float]) -> float:
    """Voxels of the scan per voxel of a patch that bring a spacing into a range; 1 if it is in."""
    low, high = allowed[0] * (1 - SPACING_TOLERANCE), allowed[1] * (1 + SPACING_TOLERANCE)
    return 1.0 if low <= spacing <= high else float(np.clip(spacing, *allowed)) / spacing


def to_grid(
    array: FloatArray,
    shape: Sequence[int],
    scale: Sequence[float],
    edge: Sequence[float] | None = None,
) -> FloatArray:
    """Resample to voxels ``scale`` times as large, averaging where they are larger.

    Args:
        array: Of any number of dimensions.
        shape: Of the result.
        scale: Voxels of ``array`` per voxel of the result, along each axis.
        edge: Where in ``array``, in its voxels, the result begins; its own edge by default.
    """
    from scipy.ndimage import affine_transform, gaussian_filter

    blur = blur_of(scale)
    smooth = gaussian_filter(array, blur, mode="nearest") if max(blur) > 0 else array
    # Edges coincide: the centre of new voxel n lies at (n + 0.5) * scale - 0.5.
    offset = [e + 0.5 * s - 0.5 for e, s in zip(edge or [0.0] * array.ndim, scale, strict=True)]
    out = affine_transform(smooth, np.asarray(scale), offset, tuple(shape), order=1, mode="nearest")
    return np.asarray(out, dtype=np.float32)


def blur_of(scale: Sequence[float]) -> list[float]:
    """Sigma of the average along each axis, in voxels of the finer grid; 0 for none."""
    return [max(0.0, 0.5 * (s - 1.0)) for s in scale]


def cover(mask: BoolArray, shape: Sequence[int], scale: Sequence[float]) -> BoolArray:
    """The pixels of the other grid in which any pixel of the mask has its centre."""
    rows, columns = np.nonzero(mask)
    out = np.zeros(tuple(shape), dtype=bool)
    out[cell_of(rows, scale[0]), cell_of(columns, scale[1])] = True
    return out


def cell_of(
    index: npt.NDArray[np.intp], scale: float | npt.NDArray[np.float64]
) -> npt.NDArray[np.intp]:
    """The voxel of the other grid in which the centre of a voxel of the scan lies."""
    cell: npt.NDArray[np.intp] = np.floor((index + 0.5) / scale).astype(np.intp)
    return cell


def covered(length: int, start: int, size: int, scale: float) -> npt.NDArray[np.intp]:
    """The pixels along one axis of a slice whose centres lie in a patch of another grid."""
    index = np.arange(length)
    place = cell_of(index, scale) - start
    return index[(place >= 0) & (place < size)]
