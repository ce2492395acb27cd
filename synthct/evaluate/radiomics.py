"""First-order and co-occurrence features of the HU inside a mask, as IBSI defines them.

Names and definitions follow the Image Biomarker Standardisation Initiative's reference manual
(Zwanenburg et al., arXiv 1612.07003, sections 3.3 and 3.6); tests compare the values on its digital
phantom with the published ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.evaluate.pictures import Crop, Extracted

#: HU per grey level of the co-occurrence matrix ("fixed bin size").
BIN_HU = 25.0

Levels = npt.NDArray[np.intp]
Matrices = npt.NDArray[np.float64]

#: To be raised when a feature changes, so that cached features are not reused.
_VERSION = 1


class Radiomics:
    """The extractor: features of the HU inside the mask, of volumes in space."""

    name = "radiomics"
    key = f"radiomics-{_VERSION}"
    sees_slices, sees_volumes = False, True

    @property
    def dim(self) -> int:
        """Number of features."""
        return len(feature_names())

    def extract(self, crops: Sequence[Crop]) -> Extracted:
        """Features (N, D); no probabilities."""
        rows = [list(crop_features(crop).values()) for crop in crops]
        return Extracted(np.array(rows, dtype=np.float32).reshape(len(rows), self.dim), None)


def feature_names() -> list[str]:
    """Names of the features of a crop, in order."""
    values, levels = np.array([0.0, 1.0]), np.array([[1, 2]])
    return [*first_order(values), *texture(levels, 2)]


def crop_features(crop: Crop) -> dict[str, float]:
    """First-order and texture features of the HU inside the mask, clipped to its window."""
    low, high = crop.window.range_hu
    hu = np.clip(crop.hu.astype(np.float64), low, high)
    count = int(np.ceil((high - low) / BIN_HU))
    levels = np.minimum(((hu - low) // BIN_HU).astype(np.intp) + 1, count)
    return {**first_order(hu[crop.mask]), **texture(np.where(crop.mask, levels, 0), count)}


def first_order(values: npt.NDArray[Any]) -> dict[str, float]:
    """Intensity statistics of voxels (section 3.3).

    Args:
        values: (N,), not empty.
    """
    x = values.astype(np.float64)
    p10, p25, median, p75, p90 = (float(q) for q in np.percentile(x, [10, 25, 50, 75, 90]))
    mean, variance = float(x.mean()), float(x.var())
    centred = x - mean
    middle = x[(x >= p10) & (x <= p90)]
    middle = middle if middle.size else x  # of two voxels, none lies between
    # A flat region has no skew and no tails.
    scale = variance if variance > 0 else 1.0
    return {
        "mean": mean,
        "variance": variance,
        "skewness": float((centred**3).mean()) / scale**1.5,
        "kurtosis": float((centred**4).mean()) / scale**2 - (3 if variance > 0 else 0),
        "median": median,
        "minimum": float(x.min()),
        "p10": p10,
        "p90": p90,
        "maximum": float(x.max()),
        "interquartile_range": p75 - p25,
        "range": float(np.ptp(x)),
        "mean_absolute_deviation": float(np.abs(centred).mean()),
        "robust_mean_absolute_deviation": float(np.abs(middle - middle.mean()).mean()),
        "median_absolute_deviation": float(np.abs(x - median).mean()),
        "root_mean_square": float(np.sqrt((x**2).mean())),
    }


def texture(levels: Levels, count: int) -> dict[str, float]:
    """Co-occurrence features, averaged over the directions in the plane (or in space).

    Args:
        levels: Grey levels 1..``count`` of any dimension; 0 is outside of the mask.
        count: Number of grey levels.

    Returns:
        The 25 features of section 3.6; 0 where the mask has no two neighbours.
    """
    offsets = [
        step
        for step in product((-1, 0, 1), repeat=levels.ndim)
        if step > (0,) * levels.ndim  # one of each two opposite directions
    ]
    matrices = np.stack([co_occurrence(levels, count, step) for step in offsets])
    pairs = matrices.sum(axis=(1, 2))
    if not pairs.any():
        matrices, pairs = np.zeros((1, count, count)), np.ones(1)
    seen = pairs > 0
    features = co_occurrence_features(matrices[seen] / pairs[seen, None, None])
    return {name: float(values.mean()) for name, values in features.items()}


def co_occurrence(levels: Levels, count: int, step: Sequence[int]) -> Matrices:
    """How often two levels are neighbours along a step, either way round, (count, count)."""
    first = tuple(slice(max(0, -s), min(n, n - s)) for s, n in zip(step, levels.shape, strict=True))
    other = tuple(slice(max(0, s), min(n, n + s)) for s, n in zip(step, levels.shape, strict=True))
    one, two = levels[first].ravel(), levels[other].ravel()
    both = (one > 0) & (two > 0)
    code = (one[both] - 1) * count + two[both] - 1
    matrix = np.bincount(code, minlength=count * count).reshape(count, count).astype(np.float64)
    symmetric: Matrices = matrix + matrix.T
    return symmetric


def co_occurrence_features(p: Matrices) -> dict[str, Matrices]:
    """The features of co-occurrence matrices (section 3.6).

    Args:
        p: (M, G, G), each symmetric with a sum of 1.

    Returns:
        By name, (M,) each.
    """
    count = p.shape[1]
    i, j = np.meshgrid(np.arange(1.0, count + 1), np.arange(1.0, count + 1), indexing="ij")
    gap, total = np.abs(i - j), i + j
    apart = np.stack([p[:, gap == k].sum(axis=1) for k in range(count)], axis=1)
    sums = np.stack([p[:, total == k].sum(axis=1) for k in range(2, 2 * count + 1)], axis=1)
    k_apart, k_sums = np.arange(float(count)), np.arange(2.0, 2 * count + 1)
    row = p.sum(axis=2)

    def over(weight: npt.NDArray[Any]) -> Matrices:
        return np.asarray((p * weight).sum(axis=(1, 2)))

    mean = over(i)
    centred = total[None] - 2 * mean[:, None, None]
    variance = over((i - mean[:, None, None]) ** 2)
    autocorrelation = over(i * j)
    mean_apart, mean_sum = apart @ k_apart, sums @ k_sums
    joint, single = _entropy(p.reshape(len(p), -1)), _entropy(row)
    independent = row[:, :, None] * row[:, None, :]
    cross = -(p * _log2(independent)).sum(axis=(1, 2))
    product_entropy = _entropy(independent.reshape(len(p), -1))
    inverse = np.divide(1.0, gap**2, out=np.zeros_like(gap), where=gap > 0)
    return {
        "joint_maximum": p.max(axis=(1, 2)),
        "joint_average": mean,
        "joint_variance": variance,
        "joint_entropy": joint,
        "difference_average": mean_apart,
        "difference_variance": (apart * (k_apart - mean_apart[:, None]) ** 2).sum(axis=1),
        "difference_entropy": _entropy(apart),
        "sum_average": mean_sum,
        "sum_variance": (sums * (k_sums - mean_sum[:, None]) ** 2).sum(axis=1),
        "sum_entropy": _entropy(sums),
        "angular_second_moment": over(p),
        "contrast": over(gap**2),
        "dissimilarity": over(gap),
        "inverse_difference": over(1 / (1 + gap)),
        "normalised_inverse_difference": over(1 / (1 + gap / count)),
        "inverse_difference_moment": over(1 / (1 + gap**2)),
        "normalised_inverse_difference_moment": over(1 / (1 + (gap / count) ** 2)),
        "inverse_variance": over(inverse),
        "correlation": _ratio(autocorrelation - mean**2, variance, 1.0),
        "autocorrelation": autocorrelation,
        "cluster_tendency": over(centred**2),
        "cluster_shade": over(centred**3),
        "cluster_prominence": over(centred**4),
        "information_correlation_1": _ratio(joint - cross, single, 0.0),
        "information_correlation_2": np.sqrt(
            np.maximum(0, 1 - np.exp(-2 * (product_entropy - joint)))
        ),
    }


def _log2(x: Matrices) -> Matrices:
    return np.log2(x, out=np.zeros_like(x), where=x > 0)


def _entropy(p: Matrices) -> Matrices:
    """Entropy in bits of the rows of (M, N)."""
    return np.asarray(-(p * _log2(p)).sum(axis=1))


def _ratio(upper: Matrices, lower: Matrices, flat: float) -> Matrices:
    """The quotient; ``flat`` where there is only one grey level."""
    is_flat = lower <= 0
    return np.where(is_flat, flat, upper / np.where(is_flat, 1.0, lower))
