"""The tissue around a training region, from its scan, on the grid of a painting."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from synthct.metrics.region_match import SCALES, SHIFT_PX, FloatArray, Query
from synthct.volume import HU_MIN, Volume

#: Ends of what is looked at along a side of the square, in sides.
_ENDS = (-0.2, 1.2)

Points = npt.NDArray[np.float64]


def tissues(
    scan: Volume,
    grid_mm: Points,
    side_px: int,
    query: Query,
    *,
    step_mm: float = 0.0,
    middle: int = 0,
) -> list[FloatArray]:
    """The tissue that a painting may be a copy of, at each of ``SCALES``.

    Args:
        scan: HU of the training scan.
        grid_mm: (3, 3): centre of the region's first pixel, step to the next row and column.
        side_px: Side of the square around the region.
        query: The painting; its square is laid over that of the region.
        step_mm: Distance of the query's slices, if there are several; negative to turn them round.
        middle: Which of them lies on the region.

    Returns:
        (N, S + 2 * ``SHIFT_PX``, the same) each.
    """
    to_voxel = np.linalg.inv(scan.affine)
    corner, row, column = (grid_mm[n] @ to_voxel[:3, :3].T for n in range(3))
    corner = corner + to_voxel[:3, 3]
    centre = corner + (row + column) * (side_px - 1) / 2
    normal = np.cross(grid_mm[1], grid_mm[2])
    normal = step_mm * normal / np.linalg.norm(normal) @ to_voxel[:3, :3].T
    slices = (np.arange(len(query.hu)) - middle)[:, None] * normal
    size, out = query.cells + 2 * SHIFT_PX, []
    for scale in SCALES:
        cell = side_px / query.cells * scale
        fine = max(1, math.ceil(cell * float(np.linalg.norm(row)) - 0.5))
        along = ((np.arange(size * fine) + 0.5) / fine - size / 2) * cell
        plane = along[:, None, None] * row + along[None, :, None] * column
        points = centre + slices[:, None, None] + plane
        values = _at(scan, points).reshape(len(slices), size, fine, size, fine)
        out.append(values.mean(axis=(2, 4), dtype=np.float32))
    return out


def slab_around(scan: Volume, grid_mm: Points, side_px: int) -> npt.NDArray[np.int16]:
    """The scan's own voxels on the slice of a region and around it: (rows, columns)."""
    to_voxel = np.linalg.inv(scan.affine)
    first, row, column = grid_mm
    corners = [first + side_px * (a * row + b * column) for a in _ENDS for b in _ENDS]
    voxels = np.array(corners) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    axis = int(np.argmin(np.ptp(voxels, axis=0)))
    cut = []
    for n, length in enumerate(scan.shape):
        low, high = round(voxels[:, n].min()), round(voxels[:, n].max()) + 1
        if n == axis:
            middle = min(max(round(float(voxels[:, n].mean())), 0), length - 1)
            low, high = middle, middle + 1
        cut.append(slice(min(max(low, 0), length), min(max(high, 0), length)))
    return scan.array[tuple(cut)].squeeze(axis)


def _at(scan: Volume, points: Points) -> FloatArray:
    """HU at points (..., 3) in voxels, interpolated; air beyond the scan."""
    from scipy.ndimage import map_coordinates

    flat = points.reshape(-1, 3)
    low = np.maximum(np.floor(flat.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(flat.max(axis=0)).astype(int) + 2, scan.shape)
    if (low >= high).any():
        return np.full(points.shape[:-1], HU_MIN, dtype=np.float32)
    part = scan.array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    values = map_coordinates(
        part.astype(np.float32), (flat - low).T, order=1, mode="grid-constant", cval=HU_MIN
    )
    return np.asarray(values, dtype=np.float32).reshape(points.shape[:-1])
