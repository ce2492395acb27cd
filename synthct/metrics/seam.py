"""How visible the border of the mask is: steps between neighbouring voxels across it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from synthct.metrics.crop import Hu, Range, Region, crop_to_mask, ratio
from synthct.metrics.measure import Measure


class SeamSteps(NamedTuple):
    """Steps across one mask's border, summed so that masks can be pooled.

    Attributes:
        painted_hu: Sum of absolute differences in the painted picture.
        original_hu: Sum of absolute differences in the original.
        pairs: Number of neighbouring voxel pairs, one of each inside the mask.
    """

    painted_hu: float
    original_hu: float
    pairs: int


def seam_steps(original: Hu, painted: Hu, mask: Region, range_hu: Range | None = None) -> SeamSteps:
    """Absolute HU differences between face neighbours, one in the mask and one not."""
    before, after, inside = crop_to_mask(original, painted, mask, range_hu)
    painted_hu, original_hu, pairs = 0.0, 0.0, 0
    for axis in range(inside.ndim):
        crosses = np.diff(inside, axis=axis)
        painted_hu += float(np.abs(np.diff(after, axis=axis))[crosses].sum())
        original_hu += float(np.abs(np.diff(before, axis=axis))[crosses].sum())
        pairs += int(crosses.sum())
    return SeamSteps(painted_hu, original_hu, pairs)


def seam_ratio(original: Hu, painted: Hu, mask: Region, range_hu: Range | None = None) -> float:
    """Mean step across the mask's border, painted over original; 1 is seamless.

    Above 1 the border is visible; below 1 the painting is smoother across it than real tissue.
    NaN if the mask has no border or the original does not change across it.
    """
    return pooled_seam_ratio([seam_steps(original, painted, mask, range_hu)])


def seam_overshoot(painted: Hu, mask: Region, range_hu: Range | None = None) -> float:
    """Difference in HU of the mask's rim from the range between its two sides; 0 if within it.

    The rim is the outermost layer of voxels inside the mask; its sides are the layer outside and
    the third layer inside. Unlike the seam ratio it detects a faint ring in noisy tissue, and
    ignores the step to a lesion of other HU.

    Returns:
        Signed, in HU: positive for a bright ring. NaN where the mask has no third layer or no
        outside.
    """
    from scipy.ndimage import binary_dilation, binary_erosion

    _, hu, inside = crop_to_mask(painted, painted, mask, range_hu)
    deeper = binary_erosion(inside, iterations=2, border_value=1)
    layers = (
        inside & ~binary_erosion(inside, border_value=1),
        binary_dilation(inside) & ~inside,
        deeper & ~binary_erosion(deeper, border_value=1),
    )
    if not all(layer.any() for layer in layers):
        return float("nan")
    rim, outside, inner = (float(hu[layer].mean()) for layer in layers)
    return rim - float(np.clip(rim, min(outside, inner), max(outside, inner)))


def pooled_seam_ratio(seams: Iterable[SeamSteps]) -> float:
    """The seam ratio of many masks together: all painted steps over all original ones."""
    painted_hu, original_hu = 0.0, 0.0
    for one in seams:
        painted_hu += one.painted_hu
        original_hu += one.original_hu
    return ratio(painted_hu, original_hu)


SEAM_RATIO = Measure(
    "seam_ratio", "step across the mask's border, painted / original", worse="far from 1",
    of=lambda painting: seam_ratio(*painting.windowed),
)  # fmt: skip
SEAM_OVERSHOOT = Measure(
    "seam_overshoot", "rim of the mask beyond both of its sides", unit="HU", worse="far from 0",
    of=lambda painting: seam_overshoot(painting.image, painting.mask, painting.range_hu),
)  # fmt: skip
