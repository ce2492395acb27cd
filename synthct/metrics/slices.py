"""Continuity of a painting between neighbouring slices."""

from __future__ import annotations

import numpy as np

from synthct.metrics.crop import Hu, Range, Region, check_shapes, ratio
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
    check_shapes(original, painted, mask)
    stacks = [np.moveaxis(a, axis, 0) for a in (original, painted, mask)]
    both = stacks[2][1:] & stacks[2][:-1]
    if not both.any():
        return float("nan")
    steps = []
    for stack in stacks[:2]:
        hu = stack.astype(np.float64)
        hu = hu if range_hu is None else np.clip(hu, *range_hu)
        steps.append(float(np.abs(np.diff(hu, axis=0))[both].mean()))
    return ratio(steps[1], steps[0])


def _of_volume(painting: Painting) -> float | None:
    if painting.axis is None:
        return None
    original, image, mask, range_hu = painting.windowed
    return z_jump_ratio(original, image, mask, painting.axis, range_hu)


Z_JUMP_RATIO = Measure(
    "z_jump_ratio", "step between neighbouring slices, painted / original", worse="far from 1",
    of_volumes=True, of=_of_volume,
)  # fmt: skip
