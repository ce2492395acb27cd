"""Whether a painting has the fine texture of the tissue it replaced."""

from __future__ import annotations

import numpy as np

from synthct.metrics.crop import Hu, Picture, Range, Region, crop_to_mask, ratio
from synthct.metrics.measure import Measure


def texture_ratio(
    original: Hu, painted: Hu, mask: Region, range_hu: Range | None = None, *, erode: int = 2
) -> float:
    """Root mean square of the Laplacian inside the mask, painted over original.

    The Laplacian uses nearest neighbours (a 3x3 kernel on a slice). The mask is eroded first,
    since its border is measured by the seam ratio. Below 1 the painting is too smooth.

    Args:
        original: HU of any shape.
        painted: HU of the same shape.
        mask: Boolean, of the same shape.
        range_hu: Least and greatest HU to clip both pictures to, or None.
        erode: Voxels (city-block distance) by which the mask is eroded, at least 1.

    Returns:
        The ratio; NaN if the eroded mask is empty or the original is flat.

    Raises:
        ValueError: If a shape differs, the mask is not boolean or ``erode`` is below 1.
    """
    from scipy.ndimage import binary_erosion

    if erode < 1:
        raise ValueError(f"erode is {erode}; the Laplacian needs a neighbour, so at least 1")
    before, after, inside = crop_to_mask(original, painted, mask, range_hu)
    core = binary_erosion(inside, iterations=erode)
    if not core.any():
        return float("nan")
    return ratio(_roughness(after, core), _roughness(before, core))


def _roughness(picture: Picture, core: Region) -> float:
    """Root mean square of the Laplacian over ``core``, in HU."""
    from scipy.ndimage import laplace

    return float(np.sqrt(np.square(laplace(picture)[core]).mean()))


TEXTURE_RATIO = Measure(
    "texture_ratio", "fine texture inside, painted / original", worse="far from 1",
    of=lambda painting: texture_ratio(*painting.windowed),
)  # fmt: skip
