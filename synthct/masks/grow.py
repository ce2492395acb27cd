"""Dilation and erosion of regions by millimetres, right on anisotropic grids."""

from __future__ import annotations

import numpy as np

from synthct.masks.base import voxels_within
from synthct.volume import Box, Spacing, Volume
from synthct.volume.regions import Region


def grow(region: Region, margin_mm: float, spacing_mm: Spacing) -> Region:
    """Grow a region by a physical margin, or shrink it where the margin is negative.

    Args:
        region: Boolean (I, J, K), with room for the margin; it is not shrunk from the array's
            edge, where it may go on.
        margin_mm: Euclidean distance between voxel centres.
        spacing_mm: Voxel size in mm along i, j, k.

    Returns:
        Boolean (I, J, K).
    """
    from scipy.ndimage import distance_transform_edt

    if margin_mm == 0 or region.all() or not region.any():
        return region.copy()
    if margin_mm > 0:
        return np.asarray(distance_transform_edt(~region, spacing_mm) <= margin_mm)
    return np.asarray(distance_transform_edt(region, spacing_mm) > -margin_mm)


def grow_within(
    volume: Volume, region: Region, box: Box, margin_mm: float
) -> tuple[Region, Region, Box]:
    """Grow or shrink a region that lies at ``box`` of a volume.

    What leaves the volume is cut off, and nothing is shrunk from the volume's edge.

    Returns:
        The grown region and the one before, both boolean of the grown box; and that box.
    """
    spacing = volume.spacing_mm
    # A voxel of what lies around is needed for shrinking as well.
    room = [max(1, n) for n in voxels_within(margin_mm, spacing)]
    grown = box.grow(room).clip(volume.shape)
    pad = [
        (a - b, d - c)
        for a, b, c, d in zip(
            box.start_ijk, grown.start_ijk, box.stop_ijk, grown.stop_ijk, strict=True
        )
    ]
    before = np.pad(region, pad)
    return grow(before, margin_mm, spacing), before, grown
