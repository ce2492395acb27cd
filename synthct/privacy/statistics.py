"""Thresholds, intervals and spreads of a privacy check."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthct.dataset.privacy.results import Reuse, Share, Threshold
from synthct.recipe.privacy import MOST_ALIKE

#: Expected share of regions of unknown patients above a threshold.
FALSE_ALARMS = 0.001

#: Least held-out regions and patients that a threshold is fitted to.
LEAST_REGIONS, LEAST_PATIENTS = 50, 3

#: Highest threshold of what is at most 1.
_MOST = 0.99

#: Quantiles by which the distribution is fitted.
_FITTED = (0.5, 0.9)

#: Thresholds where no patients are held out, and the highest ones that are fitted. One of 1,986
#: regions of 59 patients who were not in an index of 6,006 was above them (all its scans searched),
#: by its key: 0.781. Of the other two the largest were 0.69 and 8.9 (tests/benchmarks/privacy.py).
DEFAULTS = {"train_nn_ncc": 0.7, "train_nn_z": 9.0, "train_key": MOST_ALIKE}


def fit_threshold(measure: str, values: Sequence[float], patients: Sequence[str]) -> Threshold:
    """The threshold of a measure, from real regions of patients who were not trained on.

    A Gumbel distribution of largest values is fitted to them by two quantiles, since the likelihood
    is ruled by the few flattest regions. The threshold is exceeded by ``FALSE_ALARMS`` of it, but
    is not above the default one, since real tails are shorter, nor below the largest of the values.

    Args:
        measure: A key of ``DEFAULTS``.
        values: Of held-out regions.
        patients: Of each of them.
    """
    from scipy.stats import gumbel_r

    largest = max(values, default=None)
    count = len(set(patients))
    if len(values) < LEAST_REGIONS or count < LEAST_PATIENTS:
        reason = (
            f"{len(values)} real regions of {count} held-out patients, fewer than "
            f"{LEAST_REGIONS} of {LEAST_PATIENTS}: the one measured on other real CT"
        )
        value, is_fitted = max(DEFAULTS[measure], largest or 0.0), False
    else:
        middle, high = (float(np.quantile(values, q)) for q in _FITTED)
        low_place, high_place = (float(gumbel_r.ppf(q)) for q in _FITTED)
        scale = (high - middle) / (high_place - low_place)
        location = middle - low_place * scale
        fitted = float(gumbel_r.isf(FALSE_ALARMS, location, scale))
        value = max(min(fitted, DEFAULTS[measure]), float(largest or 0.0))
        reason = f"exceeded by {FALSE_ALARMS:.1%} of the Gumbel fit to held-out patients"
        if fitted > value:
            reason = f"the fit to held-out patients gives {fitted:.3f}, more than on other real CT"
        is_fitted = True
    if DEFAULTS[measure] < 1:  # at most 1, which nothing would exceed
        value = min(value, _MOST)
    return Threshold(
        measure=measure, value=value, is_fitted=is_fitted, regions=len(values),
        patients=count, largest=largest, reason=reason,
    )  # fmt: skip


def share(count: int, of: int) -> Share:
    """A share with its Clopper-Pearson interval (Biometrika 26, 1934)."""
    from scipy.stats import beta

    low = float(beta.ppf(0.025, count, of - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, of - count)) if count < of else 1.0
    return Share(count=count, of=of, low=low, high=high)


def reuse(patients: Sequence[str]) -> Reuse:
    """How often each of the patients is there."""
    counts = np.sort(np.unique(np.array(patients, dtype=str), return_counts=True)[1])
    if not len(counts):
        return Reuse(patients=0, most=0, gini=0.0)
    rank = np.arange(1, len(counts) + 1)
    gini = float((2 * rank - len(counts) - 1) @ counts / (len(counts) * counts.sum()))
    return Reuse(patients=len(counts), most=int(counts[-1]), gini=gini)
