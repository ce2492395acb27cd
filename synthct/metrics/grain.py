"""Whether a painting has the grain of the tissue around it, whatever it has replaced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthct.metrics.crop import Hu, Range, Region, along, crop_to_mask, ratio
from synthct.metrics.measure import Measure

#: So many pixels around the mask are looked at. A border of two, inside and outside, belongs to the
#: seam.
_AROUND, _BORDER = 40, 2
#: Side of the window in which tissue is even or not, and the least share of it that is tissue.
_WINDOW, _SHARE = 7, 0.8
#: Tissue is even where its fine texture is at most so many times that of the quietest share of it.
_EVEN, _QUIET = 1.3, 0.25
#: Nearer to an end of the range than this share of it, clipping takes grain away.
_END = 0.05
#: Fewer even pixels say nothing.
_LEAST = 50


def grain_ratio(
    painted: Hu,
    mask: Region,
    range_hu: Range | None = None,
    *,
    axes: Sequence[int] | None = None,
) -> float:
    """Median of the absolute Laplacian inside the mask, over that of even tissue around it.

    Medians pass over edges and vessels, and the tissue around is looked at where it is quietest, so
    that what remains is grain. What was replaced counts for nothing: the measure is for paint
    that is to be something else.

    Args:
        painted: HU of any shape.
        mask: Boolean, of the same shape.
        range_hu: Least and greatest HU to clip the picture to, or None. Tissue around counts within
            this range.
        axes: Of a volume, the axes in the plane of its slices; all of them by default.

    Returns:
        The ratio, about 1 to 1.2 for real tissue; NaN if the mask less its border is empty, or
        there is too little even tissue around, or none with grain.
    """
    from scipy.ndimage import binary_dilation, binary_erosion, correlate1d, uniform_filter

    shape = mask.squeeze().shape
    axes = range(len(shape)) if axes is None else axes
    reach = [_AROUND if axis in axes else 0 for axis in range(len(shape))]
    picture, _, inside = crop_to_mask(painted, painted, mask, range_hu, reach)
    cross = along(axes, inside.ndim)
    core = binary_erosion(inside, cross, iterations=_BORDER)
    if not core.any():
        return float("nan")
    fine = np.abs(sum(correlate1d(picture, [1, -2, 1], axis) for axis in axes))
    window = [_WINDOW if axis in axes else 1 for axis in range(inside.ndim)]
    tissue = ~binary_dilation(inside, cross, iterations=_BORDER)
    if range_hu is not None:
        smooth, end = uniform_filter(picture, window), _END * (range_hu[1] - range_hu[0])
        tissue &= (smooth > range_hu[0] + end) & (smooth < range_hu[1] - end)
    share = uniform_filter(tissue.astype(np.float32), window)
    inner = tissue & (share > _SHARE)
    if np.count_nonzero(inner) < _LEAST:
        return float("nan")
    around = (uniform_filter(np.where(tissue, fine, 0), window)[inner]) / share[inner]
    even = around <= _EVEN * np.quantile(around, _QUIET)
    return ratio(float(np.median(fine[core])), float(np.median(fine[inner][even])))


GRAIN_RATIO = Measure(
    "grain_ratio", "grain inside, painted / around", worse="far from 1", if_stated=True,
    of=lambda painting: grain_ratio(
        painting.image, painting.mask, painting.range_hu, axes=painting.in_plane
    ),
)  # fmt: skip
