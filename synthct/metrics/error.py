"""Error of a painting against the voxels it replaced.

Only meaningful where the replaced tissue is the ground truth. Even a perfect random painting has
about 1.41 times the error of the best guess.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from synthct.metrics.crop import Hu, Picture, Range, Region, crop_to_mask
from synthct.metrics.measure import Measure

#: Radius in pixels of the window of structural similarity.
_WINDOW = 5


def mean_absolute_error(
    original: Hu, painted: Hu, mask: Region, range_hu: Range | None = None
) -> float:
    """Mean absolute difference in HU over the mask, which must not be empty."""
    return float(np.abs(_change(original, painted, mask, range_hu)).mean())


def mean_error(original: Hu, painted: Hu, mask: Region, range_hu: Range | None = None) -> float:
    """Mean of painted minus original HU over the mask (signed)."""
    return float(_change(original, painted, mask, range_hu).mean())


def psnr(original: Hu, painted: Hu, mask: Region, range_hu: Range) -> float:
    """Peak signal-to-noise ratio in dB over the mask, the peak being the width of ``range_hu``.

    Infinite where nothing differs.
    """
    error = float(np.square(_change(original, painted, mask, range_hu)).mean())
    peak = range_hu[1] - range_hu[0]
    return float(10 * np.log10(peak**2 / error)) if error > 0 else float("inf")


def ssim(original: Hu, painted: Hu, mask: Region, range_hu: Range) -> float:
    """Mean structural similarity over the mask (Wang et al. 2004, equation 13).

    With their Gaussian window of 1.5 pixels and constants 0.01 and 0.03; the window reaches over
    the mask's border.
    """
    from scipy.ndimage import gaussian_filter

    before, after, inside = crop_to_mask(original, painted, mask, range_hu, margin=_WINDOW)
    if not inside.any():
        raise ValueError("no voxels to measure; the mask is empty")

    def mean(picture: Picture) -> Picture:
        return np.asarray(gaussian_filter(picture, 1.5, radius=_WINDOW))

    low = range_hu[0]  # luminance counts from black
    x, y, peak = before - low, after - low, range_hu[1] - range_hu[0]
    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(similarity[inside].mean())


def _change(
    original: Hu, painted: Hu, mask: Region, range_hu: Range | None
) -> npt.NDArray[np.float64]:
    before, after, inside = crop_to_mask(original, painted, mask, range_hu, margin=0)
    if not inside.any():
        raise ValueError("no voxels to measure; the mask is empty")
    change: npt.NDArray[np.float64] = after[inside] - before[inside]
    return change


MAE = Measure(
    "mae_hu", "mean absolute error, where the replaced tissue is the truth", unit="HU",
    worse="higher",
    of=lambda painting: mean_absolute_error(*painting.windowed) if painting.has_truth else None,
)  # fmt: skip
PSNR = Measure(
    "psnr_db", "peak signal-to-noise ratio, where the replaced tissue is the truth", unit="dB",
    worse="lower", of=lambda painting: psnr(*painting.windowed) if painting.has_truth else None,
)  # fmt: skip
SSIM = Measure(
    "ssim", "structural similarity, where the replaced tissue is the truth", worse="lower",
    of=lambda painting: ssim(*painting.windowed) if painting.has_truth else None,
)  # fmt: skip
