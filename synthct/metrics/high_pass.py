"""Tissue as it is compared by keys and correlations: without what is smooth, of even contrast."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from synthct.metrics.crop import Region

FloatArray = npt.NDArray[np.float32]

#: HU² below which variance counts as noise. Places that stand out by more than so many deviations
#: count no more than that.
LEAST_VARIANCE, CLIP = 25.0, 2.5

#: Weights of a Gaussian that change no sum. Below 1e-38 they would make it ten times slower, since
#: processors calculate such numbers in another way.
_NO_WEIGHT = 1e-24


def high_passed(hu: FloatArray, mask: Region, sigma_px: float) -> FloatArray:
    """High-passed tissue, at every place divided by its deviation around there.

    Without this, the edge of an organ or of gas would be all that a comparison sees.

    Args:
        hu: (..., S, S).
        mask: Boolean, of the same shape.
        sigma_px: Standard deviation of the Gaussian that is taken away.

    Returns:
        Of the same shape, within ``CLIP`` of 0; 0 outside of the mask.
    """
    inside = mask.astype(np.float32)
    smooth = _smoothing(hu.shape[-1], sigma_px)
    around = np.maximum(smooth @ inside @ smooth.T, 1e-3)
    tissue = hu * inside
    fine = (tissue - smooth @ tissue @ smooth.T / around) * inside
    deviation = np.sqrt(smooth @ (fine**2) @ smooth.T / around + np.float32(LEAST_VARIANCE))
    return np.clip(fine / deviation, -CLIP, CLIP)


@cache
def cell_means(side: int, cells: int) -> FloatArray:
    """(cells, side): the mean over each cell of a grid."""
    edges, pixel = np.linspace(0, side, cells + 1), np.arange(side)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.asarray(np.clip(overlap, 0, None) * cells / side, dtype=np.float32)


@cache
def _smoothing(side: int, sigma_px: float) -> FloatArray:
    """A Gaussian along one axis, not normalised."""
    apart = np.subtract.outer(np.arange(side), np.arange(side))
    weights = np.exp(-(apart**2) / (2 * sigma_px**2))
    return np.asarray(np.where(weights < _NO_WEIGHT, 0, weights), dtype=np.float32)
