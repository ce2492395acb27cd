"""The seam of a volume's mask on each of its six sides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from synthct.metrics.crop import Hu, Range, Region, crop_to_mask, ratio
from synthct.metrics.measure import Measure, Painting

#: The sides of a mask in canonical axes, by axis and direction along it.
SIDES = {
    "left": (0, -1),
    "right": (0, 1),
    "posterior": (1, -1),
    "anterior": (1, 1),
    "inferior": (2, -1),
    "superior": (2, 1),
}


def side_seam_ratio(
    original: Hu,
    painted: Hu,
    mask: Region,
    axis: int,
    direction: int,
    range_hu: Range | None = None,
) -> float:
    """Mean step across the faces of a mask that look one way, painted over original.

    Args:
        original: HU (I, J, K).
        painted: HU of the same shape.
        mask: Boolean, of the same shape.
        axis: Across the faces.
        direction: 1 for faces whose outer voxel has the higher index, -1 for the others.
        range_hu: Least and greatest HU to clip both volumes to, or None.

    Returns:
        The ratio; NaN if there are no such faces or the original does not change across them.
    """
    before, after, inside = crop_to_mask(original, painted, mask, range_hu)
    lower, upper = np.moveaxis(inside, axis, 0)[:-1], np.moveaxis(inside, axis, 0)[1:]
    faces = lower & ~upper if direction > 0 else upper & ~lower
    if not faces.any():
        return float("nan")
    old, new = (np.abs(np.diff(np.moveaxis(hu, axis, 0), axis=0))[faces] for hu in (before, after))
    return ratio(float(new.mean()), float(old.mean()))


def _of_side(axis: int, direction: int) -> Callable[[Painting], float | None]:
    def of(painting: Painting) -> float | None:
        if painting.axis is None:
            return None
        original, image, mask, range_hu = painting.windowed
        return side_seam_ratio(original, image, mask, axis, direction, range_hu)

    return of


SIDE_SEAMS = tuple(
    Measure(
        f"seam_ratio_{name}", f"step across the mask's {name} side, painted / original",
        worse="far from 1", of_volumes=True, of=_of_side(*side),
    )
    for name, side in SIDES.items()
)  # fmt: skip
