"""The grain of tissue as a stationary random field: measured where it is, drawn where it is not.

Grain is what is left of the HU without their local mean, where the tissue is even: anatomy (the
edge of cortex and medulla, a vessel) is no part of it. Its autocorrelation is that of the tissue's
voxels alone, however their region is shaped: the products of pairs of voxels, over the number of
pairs, for each distance (Padfield, "Masked object registration in the Fourier domain", 2012).
White noise filtered by the root of its Fourier transform has that autocorrelation
(Wiener-Khinchin).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthct.volume.regions import Region

FloatArray = npt.NDArray[np.float64]

#: Widths (sigma) of the local mean and of the local variance.
MEAN_MM, VARIANCE_MM = 6.0, 4.0

#: Autocorrelation is measured up to this distance, and fades towards it.
REACH_MM = 10.0

#: Distances at which fewer than this share of the voxels have a partner count as uncorrelated.
LEAST_PAIRS = 0.02

#: Tissue is even where its local variance is below so many times the lower quartile.
EVEN = 1.5


@dataclass(frozen=True, eq=False)
class Grain:
    """Level and grain of a tissue in a plane.

    Attributes:
        median_hu: Median of the HU.
        std_hu: Standard deviation of the grain.
        correlation: (2 R + 1, 2 C + 1), autocorrelation of the grain by distance in pixels along
            rows and columns; 1 at the centre.
        voxels: How many it was measured in.
    """

    median_hu: float
    std_hu: float
    correlation: FloatArray
    voxels: int

    def field(self, shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
        """Grain (rows, columns) in HU around 0."""
        from scipy.fft import irfft2, rfft2

        reach = [n // 2 for n in self.correlation.shape]
        # The field that is drawn is periodic: longer by the reach, its ends know nothing of each
        # other.
        size = _padded(shape, reach)
        kernel = np.zeros(size)
        kernel[_lags(reach)] = self.correlation
        power = np.clip(rfft2(kernel).real, 0, None)
        noise = irfft2(rfft2(rng.standard_normal(size)) * np.sqrt(power), s=size)
        scale = self.std_hu / np.sqrt(irfft2(power, s=size)[0, 0])
        return np.asarray(noise[: shape[0], : shape[1]] * scale)


def measure_grain(
    planes: Sequence[npt.NDArray[np.int16]],
    regions: Sequence[Region],
    spacing_mm: tuple[float, float],
) -> Grain:
    """Level and grain of the tissue in some slices.

    Args:
        planes: HU (rows, columns) of each slice.
        regions: Boolean, of the same shapes: where the tissue is; together not empty.
        spacing_mm: Pixel size along rows and columns.
    """
    from scipy.fft import irfft2, rfft2

    values = np.concatenate([p[r] for p, r in zip(planes, regions, strict=True)])
    parts = [_fine(p, r, spacing_mm) for p, r in zip(planes, regions, strict=True)]
    variances = np.concatenate([v[r] for (_, v), r in zip(parts, regions, strict=True)])
    limit = EVEN * float(np.quantile(variances, 0.25))
    evens = [r & (v <= limit) for (_, v), r in zip(parts, regions, strict=True)]
    std = float(np.concatenate([f[e] for (f, _), e in zip(parts, evens, strict=True)]).std())

    reach = [max(2, round(REACH_MM / s)) for s in spacing_mm]
    products = np.zeros([2 * r + 1 for r in reach])
    pairs = np.zeros_like(products)
    for (fine, _), even in zip(parts, evens, strict=True):
        size = _padded(even.shape, reach)
        for total, field in ((products, fine * even), (pairs, even.astype(np.float64))):
            total += irfft2(np.abs(rfft2(field, s=size)) ** 2, s=size)[_lags(reach)]
    known = pairs >= max(1.0, LEAST_PAIRS * values.size)
    correlation = np.where(known, products / np.maximum(pairs, 1), 0) / max(std, 1e-9) ** 2
    correlation *= np.outer(*(np.hanning(2 * r + 3)[1:-1] for r in reach))
    correlation[reach[0], reach[1]] = 1.0
    return Grain(float(np.median(values)), std, correlation, values.size)


def _fine(
    plane: npt.NDArray[np.int16], region: Region, spacing_mm: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """HU less their local mean, and the local variance of that, of the region's own pixels."""
    from scipy.ndimage import gaussian_filter

    inside = region.astype(np.float64)

    def local_mean(field: FloatArray, width_mm: float) -> FloatArray:
        sigma = [width_mm / s for s in spacing_mm]
        weight = np.maximum(gaussian_filter(inside, sigma, mode="constant"), 1e-9)
        return np.asarray(gaussian_filter(field * inside, sigma, mode="constant") / weight)

    fine = (plane - local_mean(plane.astype(np.float64), MEAN_MM)) * inside
    return fine, local_mean(fine**2, VARIANCE_MM)


def _padded(shape: Sequence[int], reach: Sequence[int]) -> list[int]:
    """Lengths of a periodic grid in which no pixel meets another around the edge."""
    from scipy.fft import next_fast_len

    lengths = zip(shape, reach, strict=True)
    return [next_fast_len(max(n + r, 2 * r + 1), real=True) for n, r in lengths]


def _lags(reach: Sequence[int]) -> tuple[npt.NDArray[np.intp], ...]:
    """Index of the distances -R..R along both axes of a periodic grid."""
    return np.ix_(*(np.arange(-r, r + 1) for r in reach))
