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

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from synthct.volume import HU_MAX, HU_MIN, Box, Volume

Values = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]
#: Voxel sizes along each axis, in units of the finest.
Steps = npt.NDArray[np.float64]

#: Lengths in voxels of the finest axis: how far around the mask of a slice and of a volume grain is
#: measured (beside a kidney, a slice has little even tissue nearer), the sigma of the local mean,
#: and the longest correlation.
_MARGINS = {2: 80, 3: 40}
MEAN, LAG = 3.0, 10
#: Side of the window of local deviations, in mm, and the least and most voxels of the finest axis:
#: where voxels are coarse, a window of many of them is larger than any even tissue.
_WINDOW_MM, _WINDOW = 7.2, (5, 9)
#: The filter (sigma, likewise) before tissue is told from air, bone and fat by its HU.
_CLASS = 2.0
#: Surroundings are of the painted kind of tissue, if their HU differ by no more. Around whole
#: organs that takes in bowel and vessels, whose edges are no grain; so around a volume tissue of
#: the same HU, and tissue of any, are looked at as well, and count where they have less.
_ALIKE, _SAME = 100.0, 30.0
#: Tissue is even where its local deviation is at most so many times the commonest one.
_EVEN = 1.6
#: But no more than at this share of the voxels.
_QUIET = 0.15
#: Frequencies of which the local mean left less are not known well enough to be completed.
_KEPT = 0.3
#: Kriging near the border: voxels of the finest axis from the mask that are known, and that are
#: moved; how many known ones move each; what makes their covariances invertible.
_RING, _DEPTH, _NEIGHBOURS, _NUGGET = 2.5, 6.0, 10, 0.02
#: A known voxel that differs from the paint beside it (its mean with this sigma) by more than so
#: many deviations of the grain is other tissue, which the paint does not go on with.
_BESIDE, _OTHER = 2.0, 3.0
#: Known voxels whose local mean differs from that of the paint by more than so many HU, and by more
#: than one deviation, are beyond an edge. There three deviations of a strong grain would reach from
#: an organ to its fat and pull the paint along, so this many HU are the limit.
_EDGE_HU = 36.0
#: Keeps quotients finite, in HU².
_LEAST = 1e-6
#: No scanner's noise is stronger than so many HU; what seems to be is structure.
_MOST = 150.0
#: Fewer even voxels of the surroundings, or of the paint, say nothing about a spectrum; of the same
#: tissue there must be more, lest one odd place decide.
LEAST_AROUND, LEAST_PAINTED, LEAST_SAME = 200, 64, 20_000


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


def surroundings(box: Box, shape: tuple[int, int, int], spacing_mm: Sequence[float]) -> Box:
    """The part of a scan in which the grain around a box is measured.

    Args:
        box: What is painted lies in it.
        shape: Of the scan.
        spacing_mm: Of the scan.
    """
    return box.grow(tuple(margin(spacing_mm))).clip(shape)


def with_grain(
    original: Volume,
    painted: Volume,
    region: Volume,
    range_hu: tuple[float, float],
    rng: np.random.Generator,
    level_hu: float | None = None,
) -> tuple[Volume, Grain | None]:
    """A painted scan, or slice of one, whose paint has the grain of its surroundings.

    Args:
        original: HU.
        painted: HU, equal to ``original`` outside the mask.
        region: Boolean, on the same grid: the mask.
        range_hu: As in ``match_grain``.
        rng: Draws the grain.
        level_hu: The median that the paint is to have, which coarse grain would move; None to leave
            it.

    Returns:
        HU, equal to ``original`` outside the mask; and what was measured, as in ``match_grain``.
    """
    axes = [axis for axis, n in enumerate(original.shape) if n > 1] or [0]
    flat = [np.squeeze(v.array, tuple({0, 1, 2} - set(axes))) for v in (original, painted, region)]
    spacing = [original.spacing_mm[axis] for axis in axes]
    grain, facts = match_grain(flat[0], flat[1], flat[2].astype(bool), spacing, range_hu, rng)
    if level_hu is not None:
        grain = grain + np.float32(level_hu - np.median(grain))
    hu = np.zeros(original.shape, np.float32)
    hu[region.array.astype(bool)] = np.clip(grain, HU_MIN, HU_MAX)
    return painted.paste(hu, where=region.array.astype(bool)), facts


def margin(spacing_mm: Sequence[float]) -> list[int]:
    """How far around a mask grain is measured, in voxels of each axis of a slice or a volume."""
    return [math.ceil(_MARGINS[len(spacing_mm)] / step) for step in _steps(spacing_mm).tolist()]


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
        is and None, where nothing around is even tissue within the range, with noise that a scanner
        can have.
    """
    from scipy import fft, ndimage

    voxel = _steps(spacing_mm)
    window = np.clip(round(_WINDOW_MM / min(spacing_mm)), *_WINDOW)
    size = np.maximum(1, np.round(window / voxel)).astype(int).tolist()
    crop = _around(mask, margin(spacing_mm))
    inside = mask[crop]
    scan, paint = (np.ascontiguousarray(hu[crop], np.float32) for hu in (original, painted))
    lags = np.maximum(1, np.round(LAG / voxel)).astype(int)
    shape = [fft.next_fast_len(n, real=True) for n in (scan.shape + 2 * lags).tolist()]

    smooth = ndimage.gaussian_filter(np.where(inside, paint, scan), _CLASS / voxel)
    low, high = np.percentile(smooth[inside], (5, 95))

    def within(reach: float, least: int) -> list[_Spectrum]:
        """The grain of surroundings whose HU differ by no more; none where that is too little."""
        lowest, highest = max(range_hu[0], low - reach), min(range_hu[1], high + reach)
        tissue = ~inside & (smooth > lowest) & (smooth < highest)
        residual = scan - _local_mean(scan, tissue, voxel, MEAN)
        found = _spectrum(residual, tissue, voxel, lags, shape, size)
        is_grain = found is not None and found.voxels >= least and found.variance < _MOST**2
        return [found] if found is not None and is_grain else []

    known = within(_ALIKE, LEAST_AROUND) or within(np.inf, LEAST_AROUND)
    if mask.ndim == 3:
        known += within(_SAME, LEAST_SAME) + within(np.inf, LEAST_SAME)
    if not known:
        return painted[mask].astype(np.float32), None
    around = min(known, key=lambda one: one.variance)
    deviation = np.sqrt(around.variance)
    scan_mean = _local_mean(scan, ~inside, voxel, MEAN)
    near, paint_mean = _around(inside, _reach(MEAN, voxel)), np.zeros_like(paint)
    paint_mean[near] = _local_mean(paint[near], inside[near], voxel, MEAN)
    is_edge = np.abs(scan_mean - paint_mean) > max(deviation, _EDGE_HU)
    alike = inside | ~is_edge
    mean = np.where(alike, _local_mean(paint, alike, voxel, MEAN), scan_mean)
    residual = paint - mean
    own = _spectrum(paint - paint_mean, inside, voxel, lags, shape, size, 0.0)
    own_power = 0 * around.power if own is None else own.power
    part = tuple(slice(n) for n in scan.shape)

    gain = np.sqrt(np.minimum(1, around.power / np.maximum(own_power, _LEAST)))
    surplus = (residual - fft.irfftn(fft.rfftn(residual, shape) * gain, shape)[part])[inside]
    # Only by one standard deviation: an edge that the network painted is no grain.
    even = paint[inside] - np.clip(surplus, -deviation, deviation)

    white = fft.rfftn(rng.standard_normal(shape, dtype=np.float32))
    missing = np.sqrt(np.maximum(around.power - own_power, 0))
    field = fft.irfftn(white * missing, shape)[part]
    near = _around(inside, _reach(_BESIDE, voxel, _RING))
    beside = scan[near] - _local_mean(paint[near], inside[near], voxel, _BESIDE)
    limit = np.where(is_edge[near], np.float32(_EDGE_HU), np.float32(_OTHER * deviation))
    beside = np.where(np.abs(beside) < limit, beside, np.float32(0))
    known_hu = np.where(inside[near], residual[near], beside)
    grain = _from_the_border(field[near], known_hu, inside[near], around, voxel)
    facts = Grain(float(deviation), float(np.sqrt(own.variance if own else 0)), around.voxels)
    return (even + grain).astype(np.float32), facts


def _from_the_border(
    field: Values, residual: Values, inside: Region, around: _Spectrum, voxel: Steps
) -> Values:
    """Grain (N,) inside the mask that goes on from the known voxels at its border.

    Each voxel near the border is moved by kriging from the nearest known ones, by what they differ
    from the paint beside them: their grain, and the step that the network left at the border. The
    network goes on with their grain as well, more or less: by how much is measured in each layer of
    voxels, as the slope of its paint's grain over that of the nearest known voxel.

    Args:
        field: The grain that was drawn.
        residual: Inside the mask the paint minus its local mean, outside the scan minus the local
            mean of the paint; 0 where that is other tissue.
        inside: The mask.
        around: The grain of the surroundings.
        voxel: Voxel sizes.
    """
    from scipy.ndimage import distance_transform_edt
    from scipy.spatial import cKDTree

    outer = distance_transform_edt(~inside, sampling=voxel)
    depth = distance_transform_edt(inside, sampling=voxel)[inside]
    ring, near = np.argwhere((outer > 0) & (outer < _RING)), depth < _DEPTH
    grain = field[inside]
    if not len(ring):
        return grain
    targets = np.argwhere(inside)[near]
    nearest = cKDTree(ring * voxel).query(targets * voxel, k=min(_NEIGHBOURS, len(ring)))[1]
    known = ring[nearest.reshape(len(targets), -1)]  # (M, K, dimensions)

    by_lag = np.fft.fftshift(around.covariance)  # periodic: negative lags count
    strides = np.append(np.cumprod(by_lag.shape[:0:-1])[::-1], 1)
    zero, from_known, from_targets = (
        n @ strides for n in (np.array(by_lag.shape) // 2, known, targets)
    )

    def covariance(lag: npt.NDArray[np.int_]) -> Values:
        return by_lag.take(zero + lag)

    nugget = np.float32(_NUGGET * around.variance) * np.eye(known.shape[1], dtype=np.float32)
    among = covariance(from_known[:, :, None] - from_known[:, None]) + nugget
    beside = covariance(from_targets[:, None] - from_known)
    weights = np.linalg.solve(among, beside[..., None])[..., 0]

    at = tuple(np.moveaxis(known, -1, 0))
    border = residual[at]
    layer, first = np.rint(depth[near]).astype(int), border[:, 0]
    own = residual[inside][near]
    is_grain = np.abs(own) < _OTHER * np.sqrt(around.variance)
    product = np.bincount(layer, first * own * is_grain)
    painted = product / np.maximum(np.bincount(layer, np.square(first)), _LEAST)
    grain[near] += (weights * (border - field[at])).sum(axis=1) - painted[layer] * first
    return grain


def _steps(spacing_mm: Sequence[float]) -> Steps:
    """Voxel sizes in units of the finest, rounded: files keep affines in float32."""
    return np.asarray(np.round(np.asarray(spacing_mm) / min(spacing_mm), 3))


def _around(mask: Region, margin: Sequence[int]) -> tuple[slice, ...]:
    """The box of the mask and what lies around it."""
    axes = range(mask.ndim)
    hits = [np.flatnonzero(mask.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
    return tuple(
        slice(max(0, int(hit[0]) - m), min(n, int(hit[-1]) + 1 + m))
        for hit, m, n in zip(hits, margin, mask.shape, strict=True)
    )


def _reach(sigma: float, voxel: Steps, more: float = 0.0) -> list[int]:
    """How far a Gaussian filter of voxels up to ``more`` beyond a region sees, along each axis."""
    return np.ceil((more + 4 * sigma) / voxel + 1).astype(int).tolist()


def _local_mean(hu: Values, region: Region, voxel: Steps, sigma: float) -> Values:
    """The mean of the region's HU around each voxel, with Gaussian weights."""
    from scipy.ndimage import gaussian_filter

    weight = region.astype(np.float32)
    total = gaussian_filter(hu * weight, sigma / voxel)
    mean = total / np.maximum(gaussian_filter(weight, sigma / voxel), _LEAST)
    return np.asarray(mean, dtype=np.float32)


def _spectrum(
    residual: Values,
    region: Region,
    voxel: Steps,
    lags: npt.NDArray[np.int_],
    shape: Sequence[int],
    size: Sequence[int],
    share: float = 0.6,
) -> _Spectrum | None:
    """The grain of the even part of a region; None if that is too small.

    ``residual`` is HU minus their local mean in the region. ``share`` of the window around a voxel
    must lie in the region: rims of other tissue, of the same HU by chance, fill none. It is 0 for
    the paint, of which all counts.
    """
    from scipy import fft

    if not region.any():
        return None
    near = _around(region, _reach(MEAN, voxel))
    residual = residual[near]
    even = _even(residual, region[near], size, share)
    voxels = int(np.count_nonzero(even))
    if voxels < (LEAST_AROUND if share else LEAST_PAINTED):
        return None

    def correlate(values: Values) -> Values:
        padded = np.zeros(shape, np.float32)
        padded[near] = values
        return np.asarray(fft.irfftn(np.square(np.abs(fft.rfftn(padded))), shape))

    pairs = np.maximum(correlate(even.astype(np.float32)), 1)
    # Even tissue beside other tissue lies off the local mean, which is no grain.
    grain = residual - residual[even].mean()
    covariance = correlate(np.where(even, grain, np.float32(0))) / pairs
    for axis, (n, reach) in enumerate(zip(shape, lags.tolist(), strict=True)):
        lag = np.abs(np.fft.fftfreq(n, 1 / n))
        taper = np.where(lag <= reach, 0.5 + 0.5 * np.cos(np.pi * lag / (reach + 1)), 0)
        covariance *= np.expand_dims(taper, [a for a in range(len(shape)) if a != axis])
    axes = np.meshgrid(
        *map(fft.fftfreq, shape[:-1]), fft.rfftfreq(shape[-1]), indexing="ij", sparse=True
    )
    square = sum((f / step) ** 2 for f, step in zip(axes, voxel, strict=True))
    kept = np.square(1 - np.exp(-2 * (np.pi * MEAN) ** 2 * square))  # the local mean took the rest
    power = np.maximum(np.asarray(fft.rfftn(covariance)).real, 0) / np.maximum(kept, _KEPT)
    covariance = np.asarray(fft.irfftn(power, shape))
    variance = max(float(covariance.flat[0]), _LEAST)
    return _Spectrum(power.astype(np.float32), covariance.astype(np.float32), variance, voxels)


def _even(residual: Values, region: Region, size: Sequence[int], share: float) -> Region:
    """Where the local deviation is at most about the commonest one of the region."""
    from scipy.ndimage import uniform_filter

    filled = uniform_filter(region.astype(np.float32), size)
    square = uniform_filter(np.where(region, np.square(residual), np.float32(0)), size)
    inner = region & (filled > share)
    if not inner.any():
        return inner
    variance = np.maximum(square, 0) / np.maximum(filled, _LEAST)
    # Where anatomy is everywhere, it is the commonest; it is never less than grain.
    commonest = min(
        np.exp(_mode(np.log(variance[inner] + _LEAST))), np.quantile(variance[inner], _QUIET)
    )
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
