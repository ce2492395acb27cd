"""The noise power spectrum of a part of a scan: what its grain is like.

Spectra are taken where tissue is even, since anatomy is no grain: the least local standard
deviations that are common are the noise of a scan (after Christianson et al., "Automated technique
to measure noise in clinical CT examinations", 2015). They are the Fourier transforms of
autocovariances over the voxels of a region of any shape (Padfield, "Masked object registration in
the Fourier domain", 2012), within a lag window. Noise is not the same all over a slice: it is
stronger deep in the body, and its streaks follow the bones. So voxels have weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]
#: Voxel sizes along each axis, in units of the finest.
Steps = npt.NDArray[np.float64]

#: Lengths in voxels of the finest axis: the sigma of the local mean, and the longest correlation.
MEAN, LAG = 3.0, 10
#: Side of the window of local deviations, in mm, and the least and most voxels of the finest axis:
#: where voxels are coarse, a window of many of them is larger than any even tissue.
_WINDOW_MM, _WINDOW = 7.2, (5, 9)
#: Share of the window around a voxel that must lie in the region: rims of other tissue, of the same
#: HU by chance, fill none.
_FILLED = 0.6
#: Tissue is even where its local deviation is at most so many times that of the quietest, which is
#: at this share of the voxels: where anatomy is everywhere, that is the commonest.
_EVEN, _QUIET = 1.6, 0.15
#: Frequencies of which the local mean left less are not known well enough to be completed.
_KEPT = 0.3
#: Keeps quotients finite, in HU².
LEAST = 1e-6
#: Lags between which less of all pairs of voxels lie say nothing.
_LEAST_PAIRS = 1e-4
#: Fewer even voxels of a region, or of paint, say nothing about a spectrum.
LEAST_AROUND, LEAST_PAINTED = 200, 64


class Spectrum(NamedTuple):
    """The grain of a region.

    Attributes:
        power: Noise power by frequency, as ``scipy.fft.rfftn`` orders them.
        covariance: Its inverse transform: the autocovariance by lag, periodic.
        variance: That at lag 0.
        voxels: Number of even voxels that it comes from.
    """

    power: Values
    covariance: Values
    variance: float
    voxels: int


@dataclass(frozen=True, eq=False)
class Lattice:
    """The voxels of a picture or volume, and the frequencies at which its grain is known.

    Attributes:
        voxel: Voxel sizes.
        window: Sides of the window of local deviations, in voxels.
        lags: The longest correlation along each axis, in voxels.
        shape: Of the Fourier transforms: the picture's and the lags.
    """

    voxel: Steps
    window: tuple[int, ...]
    lags: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, shape: Sequence[int], spacing_mm: Sequence[float]) -> Self:
        """The lattice of an array of a shape."""
        from scipy import fft

        voxel = steps_of(spacing_mm)
        window = np.clip(round(_WINDOW_MM / min(spacing_mm)), *_WINDOW)
        lags = np.maximum(1, np.round(LAG / voxel)).astype(int).tolist()
        return cls(
            voxel,
            tuple(np.maximum(1, np.round(window / voxel)).astype(int).tolist()),
            tuple(lags),
            tuple(
                fft.next_fast_len(n + 2 * lag, real=True)
                for n, lag in zip(shape, lags, strict=True)
            ),
        )


def steps_of(spacing_mm: Sequence[float]) -> Steps:
    """Voxel sizes in units of the finest, rounded: files keep affines in float32."""
    return np.asarray(np.round(np.asarray(spacing_mm) / min(spacing_mm), 3))


def around(mask: Region, margin: Sequence[int]) -> tuple[slice, ...]:
    """The box of the mask and what lies around it."""
    axes = range(mask.ndim)
    hits = [np.flatnonzero(mask.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
    return tuple(
        slice(max(0, int(hit[0]) - m), min(n, int(hit[-1]) + 1 + m))
        for hit, m, n in zip(hits, margin, mask.shape, strict=True)
    )


def reach_of(sigma: float, voxel: Steps, more: float = 0.0) -> list[int]:
    """How far a Gaussian filter of voxels up to ``more`` beyond a region sees, along each axis."""
    return np.ceil((more + 4 * sigma) / voxel + 1).astype(int).tolist()


def local_mean(hu: Values, region: Region, voxel: Steps, sigma: float = MEAN) -> Values:
    """The mean of the region's HU around each voxel, with Gaussian weights."""
    from scipy.ndimage import gaussian_filter

    weight = region.astype(np.float32)
    total = gaussian_filter(hu * weight, sigma / voxel)
    mean = total / np.maximum(gaussian_filter(weight, sigma / voxel), LEAST)
    return np.asarray(mean, dtype=np.float32)


def spectrum_around(
    residual: Values, region: Region, lattice: Lattice, weight: Values
) -> Spectrum | None:
    """The grain of the even part of a scan's tissue; None if that is too small.

    Args:
        residual: HU minus their local mean in the region.
        region: Boolean, of the same shape.
        lattice: Of that shape.
        weight: How much each voxel counts, above 0.
    """
    if not region.any():
        return None
    near = around(region, reach_of(MEAN, lattice.voxel))
    even = _even(residual[near], region[near], lattice.window, _FILLED)
    if np.count_nonzero(even) < LEAST_AROUND:
        return None
    return _spectrum(residual[near], np.where(even, weight[near], np.float32(0)), near, lattice)


def spectrum_within(residual: Values, region: Region, lattice: Lattice) -> Spectrum | None:
    """The grain of the even part of some paint, as ``spectrum_around``: all voxels count alike."""
    near = around(region, reach_of(MEAN, lattice.voxel))
    even = _even(residual[near], region[near], lattice.window, 0.0)
    if np.count_nonzero(even) < LEAST_PAINTED:
        return None
    return _spectrum(residual[near], even.astype(np.float32), near, lattice)


def _spectrum(
    residual: Values, weight: Values, place: tuple[slice, ...], lattice: Lattice
) -> Spectrum:
    """The grain of the voxels with a weight, in a part of the lattice."""
    from scipy import fft

    shape = lattice.shape

    def correlate(values: Values) -> Values:
        padded = np.zeros(shape, np.float32)
        padded[place] = values
        return np.asarray(fft.irfftn(np.square(np.abs(fft.rfftn(padded))), shape))

    pairs = correlate(weight)
    pairs = np.maximum(pairs, _LEAST_PAIRS * pairs.flat[0])
    # Even tissue beside other tissue lies off the local mean, which is no grain.
    grain = residual - np.average(residual, weights=weight)
    covariance = correlate(weight * grain) / pairs
    for axis, (n, longest) in enumerate(zip(shape, lattice.lags, strict=True)):
        lag = np.abs(np.fft.fftfreq(n, 1 / n))
        taper = np.where(lag <= longest, 0.5 + 0.5 * np.cos(np.pi * lag / (longest + 1)), 0)
        covariance *= np.expand_dims(taper, [a for a in range(len(shape)) if a != axis])
    axes = np.meshgrid(
        *map(fft.fftfreq, shape[:-1]), fft.rfftfreq(shape[-1]), indexing="ij", sparse=True
    )
    square = sum((f / step) ** 2 for f, step in zip(axes, lattice.voxel, strict=True))
    kept = np.square(1 - np.exp(-2 * (np.pi * MEAN) ** 2 * square))  # the local mean took the rest
    power = np.maximum(np.asarray(fft.rfftn(covariance)).real, 0) / np.maximum(kept, _KEPT)
    covariance = np.asarray(fft.irfftn(power, shape))
    variance = max(float(covariance.flat[0]), LEAST)
    voxels = int(np.count_nonzero(weight))
    return Spectrum(power.astype(np.float32), covariance.astype(np.float32), variance, voxels)


def _even(residual: Values, region: Region, window: tuple[int, ...], share: float) -> Region:
    """Where the local deviation is at most about that of the quietest tissue of the region.

    ``share`` of the window around a voxel must lie in the region.
    """
    from scipy.ndimage import uniform_filter

    filled = uniform_filter(region.astype(np.float32), window)
    square = uniform_filter(np.where(region, np.square(residual), np.float32(0)), window)
    inner = region & (filled > share)
    if not inner.any():
        return inner
    variance = np.maximum(square, 0) / np.maximum(filled, LEAST)
    quiet = np.quantile(variance[inner], _QUIET)
    even: Region = inner & (variance <= _EVEN**2 * quiet)
    return even
