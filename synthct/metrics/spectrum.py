"""Whether the noise of a painting has the frequencies of the tissue it replaced.

Unlike the texture ratio, it distinguishes smooth paint, white noise and network artefacts from the
scanner's noise even where their strength agrees.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from synthct.metrics.crop import Hu, Picture, Range, Region, crop_to_mask
from synthct.metrics.measure import Measure, Painting

#: Rings between 0 and the Nyquist frequency; one more lies beyond it along diagonals, where
#: checkerboard artefacts are. The first ring is left out: it holds the mask's shape and the trend.
BINS = 8

#: Least number of voxels of the eroded mask for a spectrum.
LEAST_VOXELS = 64

#: Standard deviation in voxels of the filter for the trend, which is subtracted first.
_TREND = 3.0

#: HU² per bin that are added to both spectra: the variance of rounding to integers.
_ROUNDING = 1 / 12


def spectrum_distance(
    original: Hu,
    painted: Hu,
    mask: Region,
    range_hu: Range | None = None,
    *,
    axes: Sequence[int] | None = None,
) -> float:
    """Root mean square difference in dB between two radial noise power spectra inside the mask.

    The noise power spectrum is the squared Fourier transform of the picture minus its local mean,
    within the mask eroded by one voxel, averaged over rings of equal frequency (in cycles per
    voxel; ICRU report 87 defines it for a square region). 0 is equal noise, and 3 dB a factor of
    two in power at a typical frequency.

    Args:
        original: HU of any shape.
        painted: HU of the same shape.
        mask: Boolean, of the same shape.
        range_hu: Least and greatest HU to clip both pictures to, or None.
        axes: Of a volume, the axes whose frequencies count; all of them by default.

    Returns:
        The distance; NaN if the eroded mask has fewer than ``LEAST_VOXELS`` voxels.
    """
    from scipy.ndimage import binary_erosion

    before, after, inside = crop_to_mask(original, painted, mask, range_hu)
    core = binary_erosion(inside)
    if np.count_nonzero(core) < LEAST_VOXELS:
        return float("nan")
    change = 10 * np.log10(_radial_power(after, core, axes) / _radial_power(before, core, axes))
    return float(np.sqrt(np.square(change).mean()))


def _radial_power(
    picture: Picture, core: Region, axes: Sequence[int] | None
) -> npt.NDArray[np.float64]:
    """Mean noise power in HU² per ring of frequencies, without the lowest ring."""
    from scipy.ndimage import gaussian_filter

    weight = core.astype(np.float64)
    spread = gaussian_filter(weight, _TREND)
    trend = gaussian_filter(picture * weight, _TREND) / np.maximum(spread, 1e-9)
    grain = np.where(core, picture - trend, 0.0)
    # Along few slices there are few frequencies, so they are interpolated.
    shape = core.shape if axes is None else tuple(max(n, 2 * BINS) for n in core.shape)
    power = np.square(np.abs(np.fft.fftn(grain, shape, range(grain.ndim)))) / weight.sum()
    squares = [f**2 for f in np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")]
    frequency = np.sqrt(sum(squares if axes is None else [squares[axis] for axis in axes]))
    ring = np.minimum((frequency * 2 * BINS).astype(int), BINS)  # the last holds the corners
    total = np.bincount(ring.ravel(), power.ravel(), minlength=BINS + 1)
    count = np.bincount(ring.ravel(), minlength=BINS + 1)
    mean: npt.NDArray[np.float64] = (total / np.maximum(count, 1))[1:] + _ROUNDING
    return mean


def _through(painting: Painting) -> float | None:
    if painting.axis is None:
        return None
    return spectrum_distance(*painting.windowed, axes=[painting.axis])


SPECTRUM_DISTANCE = Measure(
    "spectrum_distance", "difference of the noise spectra, painted to original", unit="dB",
    worse="higher",
    of=lambda painting: spectrum_distance(*painting.windowed, axes=painting.in_plane),
)  # fmt: skip
SPECTRUM_DISTANCE_THROUGH = Measure(
    "spectrum_distance_through", "difference of the noise spectra across the slices", unit="dB",
    worse="higher", of_volumes=True, of=_through,
)  # fmt: skip
