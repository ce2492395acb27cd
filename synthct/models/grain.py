"""The grain of paint, made to that of the scan around it.

A network learns what tissue looks like, and the grain of the scans it was trained on with it;
every scanner, dose and kernel has another. So the paint keeps the network's anatomy, and its grain
is completed to the noise power spectrum of the surroundings: what is missing is drawn as a
stationary Gaussian field, what is too much is filtered off.

Spectra are taken where tissue is even, since anatomy is no grain: the commonest local standard
deviation is the noise level of a scan (Christianson et al., "Automated technique to measure noise
in clinical CT examinations", 2015). They are the Fourier transforms of autocovariances over the
voxels of a region of any shape (Padfield, "Masked object registration in the Fourier domain",
2012), within a lag window. At the border the field is conditioned on the grain of the nearest known
voxel (simple kriging; Hoffman and Ribak, "Constrained realizations of Gaussian fields", 1991), so
that it goes on where the scan's own ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from synthct.volume import HU_MAX, HU_MIN, Volume

Values = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]

#: Lengths in voxels of the finest axis: how far around the mask grain is measured, the sigma of the
#: local mean, the longest correlation, and the side of the window of local deviations.
MARGIN, MEAN, LAG, WINDOW = 40, 3.0, 6, 9
#: The filter (sigma, likewise) before tissue is told from air, bone and fat by its HU.
_CLASS = 2.0
#: Tissue is even where its local deviation is at most so many times the commonest one.
_EVEN = 1.3
#: Fewer even voxels say nothing about a spectrum.
LEAST_VOXELS = 64


class Grain(NamedTuple):
    """What was measured, in HU.

    Attributes:
        around_hu: Standard deviation of the grain of the surroundings.
        painted_hu: That of the paint, as the network gave it.
        voxels: Number of even voxels of the surroundings.
    """

    around_hu: float
    painted_hu: float
    voxels: int

    def as_json(self) -> dict[str, float]:
        """For a provenance; the floats to a hundredth HU."""
        return {name: round(value, 2) for name, value in self._asdict().items()}


class _Spectrum(NamedTuple):
    """Noise power by frequency (of ``scipy.fft.rfftn``), autocovariance, its value at lag 0."""

    power: Values
    covariance: Values
    covariance: Values
    variance: float
    voxels: int


def with_grain(
    original: Volume,
    painted: Volume,
    region: Volume,
    range_hu: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[Volume, Grain | None]:
    """A painted scan, or slice of one, whose paint has the grain of its surroundings.

    Args:
        original: HU.
        painted: HU, equal to ``original`` outside the mask.
        region: Boolean, on the same grid: the mask.
        range_hu: As in ``match_grain``.
        rng: Draws the grain.

    Returns:
        HU, equal to ``original`` outside the mask; and what was measured, as in ``match_grain``.
    """
    axes = [axis for axis, n in enumerate(original.shape) if n > 1] or [0]
    flat = [np.squeeze(v.array, tuple({0, 1, 2} - set(axes))) for v in (original, painted, region)]
    spacing = [original.spacing_mm[axis] for axis in axes]
    grain, facts = match_grain(flat[0], flat[1], flat[2].astype(bool), spacing, range_hu, rng)
    hu = np.zeros(original.shape, np.float32)
    hu[region.array.astype(bool)] = np.clip(grain, HU_MIN, HU_MAX)
    return original.paste(hu, where=region.array.astype(bool)), facts


def match_grain(
    original: npt.NDArray[np.int16],
    painted: npt.NDArray[np.int16],
    mask: Region,
    spacing_mm: Sequence[float],
    range_hu: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[Values, Grain | None]:
    """Paint with the grain of its surroundings.

    Args:
        original: HU, 2D or 3D.
        painted: HU of the same shape, equal to ``original`` outside the mask.
        mask: Boolean, of the same shape, not empty.
        spacing_mm: Voxel size along each axis.
        range_hu: Surroundings within this range are of the kind of tissue that is painted.
        rng: Draws the grain.

    Returns:
        HU (N,) of the true voxels of ``mask``, not rounded, and what was measured; the paint as it
        is and None, where nothing around is even tissue within the range.
    """
    from scipy import fft, ndimage

    voxel = np.asarray(spacing_mm) / min(spacing_mm)
    crop = _around(mask, np.ceil(MARGIN / voxel).astype(int))
    inside = mask[crop]
    scan, paint = original[crop].astype(np.float32), painted[crop].astype(np.float32)
    lags = np.maximum(1, np.round(LAG / voxel).astype(int))
    shape = [fft.next_fast_len(int(n + 2 * r), real=True) for n, r in zip(scan.shape, lags)]

    smooth = ndimage.gaussian_filter(np.where(inside, paint, scan), _CLASS / voxel)
    tissue = ~inside & (smooth > range_hu[0]) & (smooth < range_hu[1])
    around = _spectrum(_residual(scan, tissue, voxel), tissue, voxel, lags, shape)
    if around is None:
        return painted[mask].astype(np.float32), None
    residual = _residual(paint, np.ones_like(inside), voxel)
    own = _spectrum(residual, inside, voxel, lags, shape) or around._replace(
        power=np.zeros_like(around.power), variance=0.0
    )
    part = tuple(slice(n) for n in scan.shape)
    deviation = np.sqrt(around.variance)

    # Only by one standard deviation: an edge that the network painted is no grain.
    gain = np.sqrt(np.minimum(1, around.power / np.maximum(own.power, 1e-6)))
    surplus = residual - fft.irfftn(fft.rfftn(residual, shape) * gain, shape)[part]
    even = paint - np.clip(surplus, -deviation, deviation)

    power = np.maximum(around.power - own.power, 0)
    white = rng.standard_normal(shape, dtype=np.float32)
    field = fft.irfftn(fft.rfftn(white) * np.sqrt(power), shape)[part]
    depth, nearest = ndimage.distance_transform_edt(inside, sampling=voxel, return_indices=True)
    where = np.nonzero(inside)
    known = tuple(index[where] for index in nearest)
    lag = tuple((a - b) % n for a, b, n in zip(where, known, shape, strict=True))
    correlation = around.covariance[lag] / around.variance
    border = residual[known]
    border = np.where(np.abs(border) < 2 * deviation, border, 0)  # an edge is no grain
    continued = np.clip(residual[where], -2 * deviation, 2 * deviation)
    layer = np.minimum(depth[where].round().astype(int), LAG + 1)
    share = np.bincount(layer, border * continued, LAG + 2) / np.maximum(
        np.bincount(layer, np.square(border), LAG + 2), 1e-6
    )
    share[-1] = 0
    grain = field[where] * np.sqrt(1 - correlation**2) + (correlation - share[layer]) * border
    facts = Grain(float(deviation), float(np.sqrt(own.variance)), around.voxels)
    return np.asarray(even[where] + grain, dtype=np.float32), facts


def _around(mask: Region, margin: npt.NDArray[np.int_]) -> tuple[slice, ...]:
    """The box of the mask and what lies around it."""
    from scipy.ndimage import find_objects

    (box,) = find_objects(mask.astype(np.uint8))
    return tuple(
        slice(max(0, side.start - m), min(n, side.stop + m))
        for side, m, n in zip(box, margin.tolist(), mask.shape, strict=True)
    )


def _residual(hu: Values, region: Region, voxel: npt.NDArray[np.float64]) -> Values:
    """HU minus their local mean over the region."""
    from scipy.ndimage import gaussian_filter

    weight = region.astype(np.float32)
    total = gaussian_filter(hu * weight, MEAN / voxel)
    residual: Values = hu - total / np.maximum(gaussian_filter(weight, MEAN / voxel), 1e-6)
    return residual


def _spectrum(
    residual: Values,
    region: Region,
    voxel: npt.NDArray[np.float64],
    lags: npt.NDArray[np.int_],
    shape: Sequence[int],
) -> _Spectrum | None:
    """The noise power spectrum of the even part of a region; None if that is too small."""
    from scipy import fft

    even = _even(residual, region, voxel)
    voxels = int(np.count_nonzero(even))
    if voxels < LEAST_VOXELS:
        return None

    def correlate(values: Values) -> Values:
        power = np.square(np.abs(fft.rfftn(values, shape)))
        return np.asarray(fft.irfftn(power, shape))

    pairs = np.maximum(correlate(even.astype(np.float32)), 1)
    covariance = correlate(np.where(even, residual, np.float32(0))) / pairs
    for axis, (n, reach) in enumerate(zip(shape, lags.tolist(), strict=True)):
        distance = np.minimum(np.arange(n), n - np.arange(n))
        taper = np.where(distance <= reach, 0.5 + 0.5 * np.cos(np.pi * distance / (reach + 1)), 0)
        covariance = covariance * taper.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    power = np.maximum(fft.rfftn(covariance).real, 0).astype(np.float32)
    variance = max(float(covariance.flat[0]), 1e-6)
    return _Spectrum(power, covariance, variance, voxels)


def _even(residual: Values, region: Region, voxel: npt.NDArray[np.float64]) -> Region:
    """Where the local deviation is about the commonest one of the region."""
    from scipy.ndimage import uniform_filter

    size = np.maximum(1, np.round(WINDOW / voxel)).astype(int).tolist()
    share = uniform_filter(region.astype(np.float32), size)
    square = uniform_filter(np.where(region, np.square(residual), np.float32(0)), size)
    inner = region & (share > 0.6)
    if np.count_nonzero(inner) < LEAST_VOXELS:
        return region
    variance = np.maximum(square, 0) / np.maximum(share, 1e-6)
    commonest = np.exp(_mode(np.log(variance[inner] + 1e-6)))
    even: Region = inner & (variance <= _EVEN**2 * commonest)
    return even


def _mode(values: Values) -> float:
    """The half-sample mode (Bickel and Frühwirth, 2006)."""
    ordered = np.sort(values)
    while len(ordered) > 3:
        half = (len(ordered) + 1) // 2
        start = int(np.argmin(ordered[half - 1 :] - ordered[: len(ordered) - half + 1]))
        ordered = ordered[start : start + half]
    return float(ordered.mean())
