"""Whether a painting has the fine texture of the tissue it replaced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthct.metrics.crop import Hu, Picture, Range, Region, along, crop_to_mask, ratio
from synthct.metrics.measure import Measure, Painting


def texture_ratio(
    original: Hu,
    painted: Hu,
    mask: Region,
    range_hu: Range | None = None,
    *,
    erode: int = 2,
    axes: Sequence[int] | None = None,
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
        axes: Of a volume, the axes along which neighbours count and the mask is eroded; all of them
            by default.

    Returns:
        The ratio; NaN if the eroded mask is empty or the original is flat.

    Raises:
        ValueError: If a shape differs, the mask is not boolean or ``erode`` is below 1.
    """
    from scipy.ndimage import binary_erosion

    if erode < 1:
        raise ValueError(f"erode is {erode}; the Laplacian needs a neighbour, so at least 1")
    before, after, inside = crop_to_mask(original, painted, mask, range_hu)
    axes = range(inside.ndim) if axes is None else axes
    core = binary_erosion(inside, along(axes, inside.ndim), iterations=erode)
    if not core.any():
        return float("nan")
    return ratio(_roughness(after, core, axes), _roughness(before, core, axes))


def _roughness(picture: Picture, core: Region, axes: Sequence[int]) -> float:
    """Root mean square of the Laplacian over ``core``, in HU."""
    from scipy.ndimage import correlate1d

    curvature = sum(correlate1d(picture, [1, -2, 1], axis) for axis in axes)
    return float(np.sqrt(np.square(np.asarray(curvature)[core]).mean()))


def _through(painting: Painting) -> float | None:
    """Across the slices, where one voxel of distance to the border must do: masks are thin."""
    if painting.axis is None:
        return None
    return texture_ratio(*painting.windowed, erode=1, axes=[painting.axis])


TEXTURE_RATIO = Measure(
    "texture_ratio", "fine texture inside, painted / original", worse="far from 1",
    of=lambda painting: texture_ratio(*painting.windowed, axes=painting.in_plane),
)  # fmt: skip
TEXTURE_RATIO_THROUGH = Measure(
    "texture_ratio_through", "fine texture across the slices, painted / original",
    worse="far from 1", of_volumes=True, of=_through,
)  # fmt: skip
