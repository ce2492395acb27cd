"""Distances between two sets of features: FID, KID, precision and recall; and the inception score.

All functions take features as arrays (N, D). Sums are in float64 and in a fixed order, so the same
features give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[Any]
Groups = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float64]

#: Rows of a kernel or distance matrix in memory at once.
_CHUNK = 1024

#: Parts over which the inception score is averaged, and the least number of pictures in each.
IS_SPLITS, _LEAST_PER_SPLIT = 10, 10


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval.

    Attributes:
        value: The number.
        low: Lower end of its 95 % interval; None without an interval.
        high: Upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None


def frechet_distance(one: Features, two: Features) -> float:
    """Fréchet distance between Gaussians with the means and covariances of two sets.

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½) (Heusel et al. 2017, equation 6). The trace of the root
    is the sum of the singular values of A Bᵀ, where AᵀA = C1 and BᵀB = C2, which needs no matrix
    root of a singular product and is exact for any number of samples.

    Args:
        one: (N, D), at least two rows.
        two: (M, D), at least two rows.

    Raises:
        ValueError: If a set has fewer than two rows, or the dimensions differ.
    """
    _check_sets(one, two)
    (mean_1, root_1), (mean_2, root_2) = _moments(one), _moments(two)
    cross = np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum()
    offset = float(np.square(mean_1 - mean_2).sum())
    spread = float(np.square(root_1).sum() + np.square(root_2).sum())
    return max(0.0, offset + spread - 2 * float(cross))


def _moments(features: Features) -> tuple[Matrix, Matrix]:
    """Mean, and a matrix A with AᵀA = covariance and at most D rows."""
    x = features.astype(np.float64)
    mean = x.mean(axis=0)
    root = (x - mean) / np.sqrt(len(x) - 1)
    if len(root) > root.shape[1]:
        root = np.asarray(np.linalg.qr(root, mode="r"))
    return mean, root


def kernel_distance(
    one: Features,
    two: Features,
    units: tuple[Groups, Groups] | None = None,
    *,
    interval: bool = False,
) -> Estimate:
    """Kernel inception distance: the unbiased squared MMD of a cubic kernel.

    k(x, y) = (x·y / D + 1)³ (Bińkowski et al. 2018). For independent samples of one distribution
    its expectation is 0 for any number of samples, so it may be negative. Slices of one patient,
    or a painting and the tissue it replaced, are not independent: pairs within a unit are left out
    of all three sums. The interval is a delete-one-unit jackknife.

    Args:
        one: (N, D), at least two rows.
        two: (M, D), at least two rows.
        units: For each row of both sets the number of its patient or mask; None if all are
            independent.
        interval: Whether to give an interval over the units.

    Returns:
        The estimate; NaN if no two samples are of different units.

    Raises:
        ValueError: If a set has fewer than two rows, or the dimensions differ.
    """
    _check_sets(one, two)
    if units is None:
        units = np.arange(len(one)), np.arange(len(one), len(one) + len(two))
    pairs = ((one, one, 0, 0), (two, two, 1, 1), (one, two, 0, 1))
    count = int(max(units[0].max(), units[1].max())) + 1
    sizes = [np.bincount(unit, minlength=count).astype(np.float64) for unit in units]
    sums = [_kernel_sums(x, y, units[a], units[b], count) for x, y, a, b in pairs]
    numbers = [np.outer(sizes[a], sizes[b]) for *_, a, b in pairs]
    for matrix in (*sums, *numbers):
        np.fill_diagonal(matrix, 0)
    total = [(float(s.sum()), float(n.sum())) for s, n in zip(sums, numbers, strict=True)]
    value = _mmd(total)
    if not interval:
        return Estimate(value)
    left = []
    for unit in range(count):
        without = [
            (t - s[unit].sum() - s[:, unit].sum(), m - n[unit].sum() - n[:, unit].sum())
            for (t, m), s, n in zip(total, sums, numbers, strict=True)
        ]
        left.append(_mmd(without))
    known = np.array(left)[np.isfinite(left)]
    if len(known) < 2:
        return Estimate(value)
    from scipy.stats import t

    error = np.sqrt((len(known) - 1) / len(known) * np.square(known - known.mean()).sum())
    reach = float(t.ppf(0.975, len(known) - 1) * error)
    return Estimate(value, value - reach, value + reach)


def _kernel_sums(one: Features, two: Features, rows: Groups, columns: Groups, count: int) -> Matrix:
    """Sum of the kernel between each pair of units, (U, U)."""
    x, y = one.astype(np.float64), two.astype(np.float64)
    order = np.argsort(columns, kind="stable")
    starts = np.flatnonzero(np.diff(columns[order], prepend=-1))
    out = np.zeros((count, count))
    for start in range(0, len(x), _CHUNK):
        kernel = (x[start : start + _CHUNK] @ y[order].T / x.shape[1] + 1) ** 3
        by_unit = np.zeros((len(kernel), count))
        by_unit[:, columns[order][starts]] = np.add.reduceat(kernel, starts, axis=1)
        np.add.at(out, rows[start : start + _CHUNK], by_unit)
    return out


def _mmd(sums: Sequence[tuple[float, float]]) -> float:
    """The MMD from (sum, number of pairs) within the first set, within the second, and between."""
    if any(number < 1 for _, number in sums):
        return float("nan")
    within_1, within_2, between = (total / number for total, number in sums)
    return within_1 + within_2 - 2 * between


def precision_recall(real: Features, made: Features, k: int = 3) -> tuple[float, float]:
    """Precision: share of generated samples that look real; recall: share of real ones covered.

    A sample counts if some sample of the other set is at most as far away as that one's k-th
    nearest neighbour in its own set (Kynkäänniemi et al. 2019).

    Args:
        real: (N, D), more than ``k`` rows.
        made: (M, D), more than ``k`` rows.
        k: Which neighbour.

    Returns:
        Precision and recall; NaN if a set has too few rows.
    """
    if min(len(real), len(made)) <= k:
        return float("nan"), float("nan")
    return _share_within(made, real, k), _share_within(real, made, k)


def _share_within(samples: Features, others: Features, k: int) -> float:
    """Share of ``samples`` within the k-th neighbour distance of any of ``others``."""
    from scipy.spatial.distance import cdist

    reach = np.concatenate(
        [
            np.partition(cdist(others[n : n + _CHUNK], others), k, axis=1)[:, k]  # 0 is itself
            for n in range(0, len(others), _CHUNK)
        ]
    )
    hits = [
        (cdist(samples[n : n + _CHUNK], others) <= reach).any(axis=1)
        for n in range(0, len(samples), _CHUNK)
    ]
    return float(np.concatenate(hits).mean())


def inception_score(probabilities: Features) -> tuple[float, float | None]:
    """Inception score: exp(E KL(p(y|x) || p(y))) (Salimans et al. 2016).

    Args:
        probabilities: (N, C), of the classifier's classes, in rows that add up to 1.

    Returns:
        Mean and standard deviation over ten parts; with fewer than a hundred pictures, the score
        of all of them and None.
    """
    splits = IS_SPLITS if len(probabilities) >= IS_SPLITS * _LEAST_PER_SPLIT else 1
    scores = []
    for part in np.array_split(probabilities.astype(np.float64), splits):
        marginal = part.mean(axis=0)
        tiny = np.finfo(np.float64).tiny
        gain = part * (np.log(np.maximum(part, tiny)) - np.log(np.maximum(marginal, tiny)))
        scores.append(float(np.exp(gain.sum(axis=1).mean())))
    return float(np.mean(scores)), float(np.std(scores)) if splits > 1 else None


def _check_sets(one: Features, two: Features) -> None:
    if one.ndim != 2 or two.ndim != 2 or one.shape[1] != two.shape[1]:
        raise ValueError(f"features of {one.shape} and {two.shape} cannot be compared")
    if min(len(one), len(two)) < 2:
        raise ValueError(f"{len(one)} and {len(two)} samples; a distance needs two of each")
