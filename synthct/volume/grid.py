"""Grids: boxes of voxels, and affines from voxel index to patient millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Affine = npt.NDArray[np.float64]
Index3 = tuple[int, int, int]
Spacing = tuple[float, float, float]

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

    def slab(self, axis: int, index: int) -> Box:
        """The part of the box in the plane ``index`` along ``axis``, one voxel thick."""
        start, stop = list(self.start_ijk), list(self.stop_ijk)
        start[axis], stop[axis] = index, index + 1
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    @classmethod
    def whole(cls, shape: Index3) -> Box:
        """The box of all voxels of an array of ``shape``."""
        return cls((0, 0, 0), shape)

    @classmethod
    def around(cls, region: npt.NDArray[Any]) -> Box | None:
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
