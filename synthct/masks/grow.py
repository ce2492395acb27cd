"""Dilation and erosion of regions by millimetres, on anisotropic and on sheared grids too."""

from __future__ import annotations

import numpy as np

from synthct.volume import Affine, Box, Volume, distances_mm, voxels_within
from synthct.volume.regions import Region


def grow(region: Region, margin_mm: float, affine: Affine) -> Region:
    """Grow a region by a physical margin, or shrink it where the margin is negative.

    Args:
        region: Boolean (I, J, K) with enough background around it. The array's edge does not
            count as background: the region may continue beyond it.
        margin_mm: Euclidean distance between voxel centres.
        affine: (4, 4) of its grid.

    Returns:
        Boolean (I, J, K).
    """
    if margin_mm == 0 or region.all() or not region.any():
        return region.copy()
    if margin_mm > 0:
        return np.asarray(distances_mm(~region, affine, reach_mm=margin_mm) <= margin_mm)
    return np.asarray(distances_mm(region, affine, reach_mm=-margin_mm) > -margin_mm)


def grow_within(
    volume: Volume, region: Region, box: Box, margin_mm: float
) -> tuple[Region, Region, Box]:
    """Grow or shrink a region that lies at ``box`` of a volume, within the volume.

    Returns:
        The grown region and the original one, both boolean of the grown box; and that box.
    """
    # Shrinking needs one voxel of background around the region.
    room = [max(1, n) for n in voxels_within(margin_mm, volume.affine)]
    grown = box.grow(room).clip(volume.shape)
    pad = [
        (a - b, d - c)
        for a, b, c, d in zip(
            box.start_ijk, grown.start_ijk, box.stop_ijk, grown.stop_ijk, strict=True
        )
    ]
    before = np.pad(region, pad)
    return grow(before, margin_mm, volume.affine), before, grown
