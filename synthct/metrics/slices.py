"""Continuity of a painting between neighbouring slices."""

from __future__ import annotations

import numpy as np

from synthct.metrics.crop import Hu, Range, Region, crop_to_mask, ratio
from synthct.metrics.measure import Measure, Painting


def z_jump_ratio(
    original: Hu, painted: Hu, mask: Region, axis: int, range_hu: Range | None = None
) -> float:
    """Mean step between neighbouring slices inside the mask, painted over original.

    1 is as continuous as the scan; slices that are painted independently are above 1.

    Args:
        original: HU (I, J, K).
        painted: HU of the same shape.
        mask: Boolean, of the same shape.
        axis: The axis along which the slices are stacked.
        range_hu: Least and greatest HU to clip both volumes to, or None.

    Returns:
        The ratio, or NaN where no two neighbouring slices are both in the mask or the original
        does not change between them.
    """
    if mask.shape[axis] == 1:
        return float("nan")
    *pictures, inside = crop_to_mask(original, painted, mask, range_hu, margin=0)
    axis -= mask.shape[:axis].count(1)  # a crop has no such axes
    slices = np.moveaxis(inside, axis, 0)
    both = slices[1:] & slices[:-1]
    if not both.any():
        return float("nan")
    before, after = (
        float(np.abs(np.diff(np.moveaxis(hu, axis, 0), axis=0))[both].mean()) for hu in pictures
    )
    return ratio(after, before)


def _of_volume(painting: Painting) -> float | None:
    if painting.axis is None:
        return None
    original, image, mask, range_hu = painting.windowed
    return z_jump_ratio(original, image, mask, painting.axis, range_hu)


Z_JUMP_RATIO = Measure(
    "z_jump_ratio", "step between neighbouring slices, painted / original", worse="far from 1",
    of_volumes=True, of=_of_volume,
)  # fmt: skip
