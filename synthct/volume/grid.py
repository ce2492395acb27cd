"""Grids: boxes of voxels, and affines from voxel index to patient millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Affine = npt.NDArray[np.float64]
Index3 = tuple[int, int, int]
Spacing = tuple[float, float, float]

#: Two grids are the same if none of their voxels is further apart than this share of a voxel.
GRID_TOLERANCE = 0.05

#: The corners (3, 8) of a box whose sides are 1 long.
_ENDS = np.indices((2, 2, 2)).reshape(3, -1)


class Gridded(Protocol):
    """Anything with voxels: a volume, or what is known of one."""

    @property
    def shape(self) -> Index3:
        """Number of voxels along i, j, k."""

    @property
    def affine(self) -> Affine:
        """(4, 4) from voxel index to RAS+ millimetres."""


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

    def shift(self, voxels: Sequence[int]) -> Box:
        """The box moved by ``voxels`` along i, j, k."""
        i, j, k = (a + n for a, n in zip(self.start_ijk, voxels, strict=True))
        i2, j2, k2 = (b + n for b, n in zip(self.stop_ijk, voxels, strict=True))
        return Box((i, j, k), (i2, j2, k2))

    def join(self, other: Box) -> Box:
        """The smallest box around both."""
        i, j, k = (min(a, b) for a, b in zip(self.start_ijk, other.start_ijk, strict=True))
        i2, j2, k2 = (max(a, b) for a, b in zip(self.stop_ijk, other.stop_ijk, strict=True))
        return Box((i, j, k), (i2, j2, k2))

    @classmethod
    def of_slices(cls, slices: Sequence[slice]) -> Box:
        """The box that indexes an array by ``slices``."""
        (i, i2), (j, j2), (k, k2) = ((one.start, one.stop) for one in slices)
        return cls((i, j, k), (i2, j2, k2))

    @classmethod
    def around(cls, region: npt.NDArray[Any]) -> Box | None:
        """The smallest box around the true voxels of ``region`` (I, J, K); None if there are none.

        Args:
            region: Array (I, J, K); non-zero counts as true.
        """
        # Without a boolean copy, which of a large label map is as large again.
        columns: npt.NDArray[np.bool_] = np.any(region, axis=2)
        if not columns.any():
            return None
        i, i2 = _bounds(np.asarray(np.any(columns, axis=1)))
        j, j2 = _bounds(np.asarray(np.any(columns, axis=0)))
        k, k2 = _bounds(np.asarray(np.any(region[i:i2, j:j2], axis=(0, 1))))
        return cls((i, j, k), (i2, j2, k2))


def _bounds(hit: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """First true element and the one after the last."""
    where = np.flatnonzero(hit)
    return int(where[0]), int(where[-1]) + 1


def spacing_of(affine: Affine) -> Spacing:
    """Voxel size in mm along i, j, k: the lengths of the affine's columns."""
    x, y, z = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return float(x), float(y), float(z)


def oriented_affine(shape: Index3, spacing_mm: Sequence[float], orientation: str) -> Affine:
    """The affine (4, 4) of a grid of which no more is known; its centre is the origin.

    Args:
        shape: Shape (I, J, K).
        spacing_mm: Voxel size in mm along i, j, k.
        orientation: Patient directions in which the axes run, such as ``LAS``.
    """
    from nibabel.orientations import axcodes2ornt, inv_ornt_aff

    turn = inv_ornt_aff(axcodes2ornt(tuple(orientation)), shape)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.inv(turn)[:3, :3] @ np.diag(spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ (np.asarray(shape) - 1) / 2
    return affine


def shifted(affine: Affine, start_ijk: Sequence[float]) -> Affine:
    """The affine of a crop that starts at ``start_ijk``."""
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ np.asarray(start_ijk, dtype=np.float64) + affine[:3, 3]
    return moved


def corner_distance_mm(shape: Sequence[int], one: Affine, two: Affine) -> float:
    """Greatest distance in mm between the corners of two grids of the same shape."""
    apart = one - two
    return float(np.linalg.norm(apart[:3, :3] @ _corners(shape) + apart[:3, 3:], axis=0).max())


def voxel_distance(shape: Sequence[int], one: Affine, two: Affine) -> float:
    """Greatest distance between two grids of the same shape along an axis, in voxels of ``one``."""
    return float(np.abs(_corners_in_voxels(shape, one, two) - _corners(shape)).max())


def same_grid(shape: Sequence[int], one: Affine, two: Affine) -> bool:
    """Whether two grids of the same shape differ by at most ``GRID_TOLERANCE``."""
    return voxel_distance(shape, one, two) <= GRID_TOLERANCE


def start_within(part: Gridded, whole: Gridded) -> Index3 | None:
    """Where a grid begins in a larger one whose voxels it shares; None if it is no part of it."""
    corners = _corners_in_voxels(part.shape, whole.affine, part.affine)
    i, j, k = (int(n) for n in np.rint(corners[:, 0]))
    expected = _corners(part.shape) + np.array([[i], [j], [k]])
    if np.abs(corners - expected).max() > GRID_TOLERANCE:
        return None
    inside = (expected >= 0).all() and (expected.max(axis=1) < np.asarray(whole.shape)).all()
    return (i, j, k) if inside else None


def padded(array: npt.NDArray[Any], start: Index3, shape: Index3) -> npt.NDArray[Any]:
    """An array that begins at ``start`` of a larger one, with 0 around it."""
    if array.shape == shape:
        return array
    whole = np.zeros(shape, array.dtype, order="F")
    whole[Box.whole(array.shape).shift(start).slices] = array
    return whole


def _corners(shape: Sequence[int]) -> npt.NDArray[np.float64]:
    """Voxel indices (3, 8) of the outermost voxels; the first is (0, 0, 0)."""
    return _ENDS * (np.array(shape, dtype=np.float64)[:, None] - 1)


def _corners_in_voxels(shape: Sequence[int], one: Affine, two: Affine) -> npt.NDArray[np.float64]:
    """Voxel indices (3, 8) in the grid ``one`` of the corners of the grid ``two``."""
    to_one = np.linalg.inv(one) @ two
    return np.asarray(to_one[:3, :3] @ _corners(shape) + to_one[:3, 3:])
