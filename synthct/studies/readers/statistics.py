"""How well readers told painted from real, and how far they agreed.

Plain numbers in and out. Answers are ratings: positive for painted, negative for real, and the
further from 0 the more certain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import binomtest, mannwhitneyu, norm

#: Confidence of all intervals.
CONFIDENCE = 0.95

_Z = float(norm.ppf((1 + CONFIDENCE) / 2))

_TINY = 1e-9

#: Resamplings of the pictures for the interval of all readers' accuracy.
_RESAMPLED = 2000

Truth = npt.NDArray[np.bool_]
Ratings = npt.NDArray[np.int64]


class Estimate(NamedTuple):
    """A value with its interval of 95 %."""

    value: float
    low: float
    high: float


class Told(NamedTuple):
    """How well one reader told painted from real.

    Attributes:
        pictures: Number of answers.
        accuracy: Share of right answers.
        p_value: How probable an accuracy as far from one half is by guessing (binomial test).
        auc: Area under the ROC curve of the ratings; one half by guessing.
        painted_found: Share of the painted pictures that were called painted.
        real_found: Share of the real pictures that were called real.
    """

    pictures: int
    accuracy: Estimate
    p_value: float
    auc: Estimate
    painted_found: float
    real_found: float


def told_apart(truth: Truth, ratings: Ratings) -> Told:
    """How well a reader did.

    Args:
        truth: Boolean (N,), true for painted; both kinds are there.
        ratings: (N,), none of them 0.
    """
    right = (ratings > 0) == truth
    test = binomtest(int(right.sum()), len(right), 0.5)
    interval = test.proportion_ci(CONFIDENCE, method="wilson")
    return Told(
        pictures=len(right),
        accuracy=Estimate(float(right.mean()), float(interval.low), float(interval.high)),
        p_value=float(test.pvalue),
        auc=area_under_curve(ratings[truth], ratings[~truth]),
        painted_found=float(right[truth].mean()),
        real_found=float(right[~truth].mean()),
    )


def area_under_curve(painted: Ratings, real: Ratings) -> Estimate:
    """The chance that a painted picture is rated above a real one, ties counted half.

    The interval is method 5 of Newcombe (Statistics in Medicine 25, 2006): it stays within 0 and 1
    and is not empty where the readers made no mistake.
    """
    m, n = len(painted), len(real)
    value = float(mannwhitneyu(painted, real).statistic) / (m * n)

    def beyond(theta: float) -> float:
        """How far the value is from ``theta``, less what chance allows."""
        alike = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance = theta * (1 - theta) / (m * n) * (1 + ((m + n) / 2 - 1) * alike)
        return abs(value - theta) - _Z * math.sqrt(variance)

    # At 0 and at 1 chance allows nothing, so these are no solutions there.
    low = float(brentq(beyond, 0.0, min(value, 1 - _TINY))) if value > 0 else 0.0
    high = float(brentq(beyond, max(value, _TINY), 1.0)) if value < 1 else 1.0
    return Estimate(value, low, high)


def mean_accuracy(truth: Truth, ratings: Sequence[Ratings]) -> Estimate:
    """The mean of the readers' accuracies; the interval is over the pictures.

    Readers who look at the same pictures err on the same ones, so the pictures are resampled and
    not the answers (bootstrap, with a fixed seed).
    """
    right = np.stack([(one > 0) == truth for one in ratings]).mean(axis=0)
    chosen = np.random.default_rng(0).integers(len(right), size=(_RESAMPLED, len(right)))
    low, high = np.quantile(
        right[chosen].mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    )
    return Estimate(float(right.mean()), float(low), float(high))


def agreement(ratings: Sequence[Ratings]) -> tuple[float, float]:
    """How far two or more readers gave the same answers.

    Returns:
        The share of pairs of answers to a picture that are the same; and Fleiss' kappa, which is 0
        for what chance gives and 1 for full agreement (1 too where all answers are the same).
    """
    said = np.stack([one > 0 for one in ratings])
    readers = len(said)
    painted = said.sum(axis=0)
    same = painted * (painted - 1) + (readers - painted) * (readers - painted - 1)
    observed = float((same / (readers * (readers - 1))).mean())
    share = float(said.mean())
    by_chance = share**2 + (1 - share) ** 2
    return observed, 1.0 if by_chance == 1 else (observed - by_chance) / (1 - by_chance)
