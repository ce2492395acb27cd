"""Distances in millimetres on the grid of a scan, right on sheared grids (tilted gantry) as well.

SciPy's distance transform knows a size of voxels along each axis only, so it is right where the
axes are at right angles. On sheared grids the nearest voxel is searched for in a k-d tree, which
is exact for any affine, and slower.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.volume.grid import Affine, Index3, Spacing, spacing_of

Region = npt.NDArray[np.bool_]
Vectors = npt.NDArray[np.float64]

#: Cosine between axes from which on an affine is called sheared: half a degree.
_SHEARED = 0.01
#: Distances on sheared grids are rounded to so many decimals: 10 mm are within 10 mm.
_DECIMALS = 6


def is_sheared(affine: Affine) -> bool:
    """Whether axes are not at right angles, as with a tilted gantry.

    Args:
        affine: (4, 4) of a grid, or those two or three of its columns (3, N) that are axes.
    """
    axes = affine[:3, :3]
    unit = axes / np.linalg.norm(axes, axis=0)
    return bool(np.abs(unit.T @ unit - np.eye(axes.shape[1])).max() > _SHEARED)


def plane_spacing_mm(affine: Affine) -> Spacing:
    """Distance in mm from one plane of voxels to the next, across i, j, k.

    It is the spacing, but on sheared grids, where it is less: a step along k then leads sideways.
    """
    if not is_sheared(affine):
        return spacing_of(affine)
    i, j, k = (1 / np.linalg.norm(np.linalg.inv(affine[:3, :3]), axis=1)).tolist()
    return i, j, k


def voxels_within(margin_mm: float, affine: Affine) -> Index3:
    """Number of voxels along i, j, k that are sure to cover ``margin_mm``."""
    i, j, k = (int(np.ceil(margin_mm / s)) for s in plane_spacing_mm(affine))
    return i, j, k


def distances_mm(
    region: Region,
    affine: Affine,
    *,
    reach_mm: float = np.inf,
    longest_step_mm: float = np.inf,
) -> Vectors:
    """Distance from the centre of each voxel to that of the nearest one outside of a region.

    Args:
        region: Boolean (I, J, K); what lies beyond the array counts as neither in nor out.
        affine: (4, 4) of its grid; where it lies does not matter.
        reach_mm: Greater distances are not needed and may be returned as infinite.
        longest_step_mm: A step from one voxel to the next along an axis counts as at most this.

    Returns:
        (I, J, K) float64, 0 outside of the region.
    """
    steps = [min(s, longest_step_mm) for s in spacing_of(affine)]
    if not is_sheared(affine):
        from scipy.ndimage import distance_transform_edt

        return np.asarray(distance_transform_edt(region, steps))
    axes = affine[:3, :3] * (np.asarray(steps) / spacing_of(affine))
    out = np.zeros(region.shape)
    out[region], _ = _nearest(region, axes, reach_mm)
    return out.round(_DECIMALS)


def nearest_outside(region: Region, affine: Affine) -> npt.NDArray[np.integer[Any]]:
    """Index (3, I, J, K) of the nearest voxel outside of a region; a voxel's own if it is outside.

    Args:
        region: Boolean (I, J, K), not all true.
        affine: (4, 4) of its grid.
    """
    if not is_sheared(affine):
        from scipy.ndimage import distance_transform_edt

        return np.asarray(
            distance_transform_edt(
                region, spacing_of(affine), return_distances=False, return_indices=True
            )
        )
    out = np.indices(region.shape)
    out[:, region] = _nearest(region, affine[:3, :3], np.inf)[1].T
    return out


def _nearest(
    region: Region, axes: Vectors, reach_mm: float
) -> tuple[Vectors, npt.NDArray[np.intp]]:
    """For the N voxels of a region the nearest voxel outside: its distance (N,) and index (N, 3).

    Both are infinite or meaningless where none is within reach.
    """
    from scipy.ndimage import binary_dilation
    from scipy.spatial import KDTree

    # The nearest voxel outside has a neighbour inside, or one beyond the array.
    border = np.argwhere(binary_dilation(region, _neighbours(axes), border_value=1) & ~region)
    inside = np.argwhere(region)
    if not len(border) or not len(inside):
        return np.full(len(inside), np.inf), np.zeros((len(inside), 3), dtype=np.intp)
    distance, number = KDTree(border @ axes.T).query(
        inside @ axes.T, distance_upper_bound=reach_mm + 10**-_DECIMALS
    )
    return np.asarray(distance), border[np.minimum(number, len(border) - 1)]


def _neighbours(axes: Vectors) -> Region:
    """Which voxels around one share a face with it, if each voxel owns what is nearest to it.

    These are the shortest of all steps of the same parity (Voronoi; Conway and Sloane, "Sphere
    Packings, Lattices and Groups", chapter 21, theorem 10). None is longer than the diagonal of
    a box of the axes' lengths.

    Returns:
        Boolean of odd shape, with the voxel itself in the middle.
    """
    longest = np.sqrt((axes**2).sum())
    reach = np.ceil(longest * np.linalg.norm(np.linalg.inv(axes), axis=1)).astype(int)
    steps = np.indices(2 * reach + 1).reshape(3, -1).T - reach
    length = np.linalg.norm(steps @ axes.T, axis=1)
    out = np.zeros(2 * reach + 1, dtype=bool)
    for parity in itertools.product((0, 1), repeat=3):
        same = (steps % 2 == parity).all(axis=1) & (length > 0)
        shortest = same & (length <= length[same].min() * (1 + 1e-9))
        out[tuple((steps[shortest] + reach).T)] = any(parity)
    return out
