"""The grain of paint, made to that of the scan around it.

A network learns what tissue looks like, and the grain of the scans it was trained on with it;
every scanner, dose and kernel has another. So the paint keeps the network's anatomy, and its grain
is completed to the noise power spectrum of the surroundings: what is missing is drawn as a
stationary Gaussian field, what is too much is filtered off.

At the border the field is conditioned on the grain of the nearest known
voxel (simple kriging; Hoffman and Ribak, "Constrained realizations of Gaussian fields", 1991), so
that it goes on where the scan's own ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from synthct.models.noise_spectrum import (
    LEAST,
    MEAN,
    Lattice,
    Region,
    Spectrum,
    Steps,
    Values,
    around,
    local_mean,
    reach_of,
    spectrum_around,
    spectrum_within,
    steps_of,
)
from synthct.volume import HU_MAX, HU_MIN, Box, Volume

#: Lengths in voxels of the finest axis: how far around the mask of a slice and of a volume grain is
#: measured (beside a kidney, a slice has little even tissue nearer), and the distance at which a
#: voxel counts a third of one beside the mask.
_MARGINS, _NEAR = {2: 80, 3: 40}, 20.0
#: The filter (sigma, likewise) before tissue is told from air, bone and fat by its HU.
_CLASS = 2.0
#: Surroundings are of the painted kind of tissue, if their HU differ by no more. Around whole
#: organs that takes in bowel and vessels, whose edges are no grain; so around a volume tissue of
#: the same HU, and tissue of any, are looked at as well, and count where they have less.
_ALIKE, _SAME = 100.0, 30.0
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
#: No scanner's noise is stronger than so many HU; what seems to be is structure.
_MOST = 150.0
#: With fewer even voxels of the same tissue one odd place would decide.
_LEAST_SAME = 20_000


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
    return [math.ceil(_MARGINS[len(spacing_mm)] / step) for step in steps_of(spacing_mm).tolist()]


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

    crop = around(mask, margin(spacing_mm))
    inside = mask[crop]
    scan, paint = (np.ascontiguousarray(hu[crop], np.float32) for hu in (original, painted))
    lattice = Lattice.of(scan.shape, spacing_mm)
    voxel, shape = lattice.voxel, lattice.shape

    smooth = ndimage.gaussian_filter(np.where(inside, paint, scan), _CLASS / voxel)
    low, high = np.percentile(smooth[inside], (5, 95))
    distance = ndimage.distance_transform_edt(~inside, sampling=voxel)
    weight = np.exp(-distance / _NEAR).astype(np.float32)

    def within(reach: float, least: int = 0) -> list[Spectrum]:
        """The grain of surroundings whose HU differ by no more; none where that is too little."""
        lowest, highest = max(range_hu[0], low - reach), min(range_hu[1], high + reach)
        tissue = ~inside & (smooth > lowest) & (smooth < highest)
        residual = scan - local_mean(scan, tissue, voxel)
        found = spectrum_around(residual, tissue, lattice, weight)
        is_grain = found is not None and found.voxels >= least and found.variance < _MOST**2
        return [found] if found is not None and is_grain else []

    known = within(_ALIKE) or within(np.inf)
    if mask.ndim == 3:
        known += within(_SAME, _LEAST_SAME) + within(np.inf, _LEAST_SAME)
    if not known:
        return painted[mask].astype(np.float32), None
    there = min(known, key=lambda one: one.variance)
    deviation = np.sqrt(there.variance)
    scan_mean = local_mean(scan, ~inside, voxel)
    near, paint_mean = around(inside, reach_of(MEAN, voxel)), np.zeros_like(paint)
    paint_mean[near] = local_mean(paint[near], inside[near], voxel)
    is_edge = np.abs(scan_mean - paint_mean) > max(deviation, _EDGE_HU)
    alike = inside | ~is_edge
    mean = np.where(alike, local_mean(paint, alike, voxel), scan_mean)
    residual = paint - mean
    own = spectrum_within(paint - paint_mean, inside, lattice)
    own_power = 0 * there.power if own is None else own.power
    part = tuple(slice(n) for n in scan.shape)

    gain = np.sqrt(np.minimum(1, there.power / np.maximum(own_power, LEAST)))
    surplus = (residual - fft.irfftn(fft.rfftn(residual, shape) * gain, shape)[part])[inside]
    # Only by one standard deviation: an edge that the network painted is no grain.
    even = paint[inside] - np.clip(surplus, -deviation, deviation)

    white = fft.rfftn(rng.standard_normal(shape, dtype=np.float32))
    missing = np.sqrt(np.maximum(there.power - own_power, 0))
    field = fft.irfftn(white * missing, shape)[part]
    near = around(inside, reach_of(_BESIDE, voxel, _RING))
    beside = scan[near] - local_mean(paint[near], inside[near], voxel, _BESIDE)
    limit = np.where(is_edge[near], np.float32(_EDGE_HU), np.float32(_OTHER * deviation))
    beside = np.where(np.abs(beside) < limit, beside, np.float32(0))
    known_hu = np.where(inside[near], residual[near], beside)
    grain = _from_the_border(field[near], known_hu, distance[near], there, voxel)
    facts = Grain(float(deviation), float(np.sqrt(own.variance if own else 0)), there.voxels)
    return (even + grain).astype(np.float32), facts


def _from_the_border(
    field: Values,
    residual: Values,
    distance: npt.NDArray[np.float64],
    there: Spectrum,
    voxel: Steps,
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
        distance: From the mask, in units of ``voxel``; 0 inside.
        there: The grain of the surroundings.
        voxel: Voxel sizes.
    """
    from scipy.ndimage import distance_transform_edt
    from scipy.spatial import cKDTree

    inside = distance == 0
    depth = distance_transform_edt(inside, sampling=voxel)[inside]
    ring, near = np.argwhere(~inside & (distance < _RING)), depth < _DEPTH
    grain = field[inside]
    if not len(ring):
        return grain
    targets = np.argwhere(inside)[near]
    nearest = cKDTree(ring * voxel).query(targets * voxel, k=min(_NEIGHBOURS, len(ring)))[1]
    known = ring[nearest.reshape(len(targets), -1)]  # (M, K, dimensions)

    by_lag = np.fft.fftshift(there.covariance)  # periodic: negative lags count
    strides = np.append(np.cumprod(by_lag.shape[:0:-1])[::-1], 1)
    zero, from_known, from_targets = (
        n @ strides for n in (np.array(by_lag.shape) // 2, known, targets)
    )

    def covariance(lag: npt.NDArray[np.int_]) -> Values:
        return by_lag.take(zero + lag)

    nugget = np.float32(_NUGGET * there.variance) * np.eye(known.shape[1], dtype=np.float32)
    among = covariance(from_known[:, :, None] - from_known[:, None]) + nugget
    beside = covariance(from_targets[:, None] - from_known)
    weights = np.linalg.solve(among, beside[..., None])[..., 0]

    at = tuple(np.moveaxis(known, -1, 0))
    border = residual[at]
    layer, first = np.rint(depth[near]).astype(int), border[:, 0]
    own = residual[inside][near]
    is_grain = np.abs(own) < _OTHER * np.sqrt(there.variance)
    product = np.bincount(layer, first * own * is_grain)
    painted = product / np.maximum(np.bincount(layer, np.square(first)), LEAST)
    grain[near] += (weights * (border - field[at])).sum(axis=1) - painted[layer] * first
    return grain
