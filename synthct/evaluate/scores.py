"""Distances of every arm from real scans, and of real scans from each other (the floor)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from synthct.evaluate.collect import FeatureSet
from synthct.evaluate.distances import (
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)
from synthct.evaluate.results import Interval, Numbers
from synthct.seeds import generator

#: Least number of real patients for halves by patient and an interval.
LEAST_PATIENTS = 5

#: Number of random halvings over which distances are averaged.
HALVINGS = 10

Array = npt.NDArray[np.float32]
Half = Mapping[str, bool]


@dataclass(frozen=True, eq=False)
class Halving:
    """Random halvings of the real set.

    Attributes:
        by: Halved by patients, or by masks where there are too few patients.
        halves: For each halving, whether a patient or mask is in the first half.
        patient_of: Mask to patient.
    """

    by: Literal["patients", "masks"]
    halves: tuple[Half, ...]
    patient_of: Mapping[str, str]

    def chosen(self, half: Half, features: FeatureSet) -> npt.NDArray[np.bool_]:
        """Boolean (N,): which pictures of a set are in the first half."""
        ids = [str(mask) for mask in features.mask_ids]
        units = [self.patient_of[m] for m in ids] if self.by == "patients" else ids
        return np.array([half[unit] for unit in units], dtype=bool)


def make_halvings(
    real: Sequence[str], others: Sequence[str], patient_of: Mapping[str, str]
) -> Halving:
    """Random halvings of a real set, with a fixed seed."""
    patients = {patient_of[mask] for mask in real}
    by: Literal["patients", "masks"] = "patients" if len(patients) >= LEAST_PATIENTS else "masks"
    halves = []
    for n in range(HALVINGS):
        rng = generator(0, "evaluate", "halves", str(n))
        half: dict[str, bool] = {}
        for masks in (real, others):  # so that the real set is halved evenly
            sizes: dict[str, int] = {}
            for mask in dict.fromkeys(masks):
                unit = patient_of[mask] if by == "patients" else mask
                sizes[unit] = sizes.get(unit, 0) + 1
            new = sorted(unit for unit in sizes if unit not in half)
            counts = [0, 0]
            for place in rng.permutation(len(new)):
                side = int(counts[1] < counts[0])
                half[new[place]] = side == 0
                counts[side] += sizes[new[place]]
        halves.append(half)
    return Halving(by, tuple(halves), patient_of)


def score_arm(real: FeatureSet, made: FeatureSet, halving: Halving, *, scale: bool) -> Numbers:
    """Distance of an arm from real scans.

    Args:
        real: One picture per mask.
        made: The arm, any number of pictures per mask.
        halving: From ``make_halvings``.
        scale: Standardise features by the real set, for features with different units.
    """
    if min(len(real.features), len(made.features)) < 2:
        return Numbers(samples=len(made.features), real_samples=len(real.features))
    x, y = _scaled(real.features, made.features, scale)
    score, spread = _inception_score(made)
    return Numbers(
        samples=len(y),
        real_samples=len(x),
        fid=frechet_distance(x, y),
        kid=_kid(x, y, (real, made), halving),
        inception_score=score,
        inception_score_std=spread,
        **_over_halves(real, made, x, y, halving),
    )


def score_floor(real: FeatureSet, halving: Halving, *, scale: bool) -> Numbers:
    """Distance between halves of the real set: the floor for all arms."""
    count = len(real.features)
    if count < 4:
        return Numbers(samples=count, real_samples=count)
    x, _ = _scaled(real.features, real.features, scale)
    first = halving.chosen(halving.halves[0], real)
    halves = real.subset(~first), real.subset(first)
    score, spread = _inception_score(real)
    return Numbers(
        samples=count,
        real_samples=count,
        kid=_kid(x[~first], x[first], halves, halving),
        inception_score=score,
        inception_score_std=spread,
        **_over_halves(real, real, x, x, halving),
    )


def _over_halves(
    real: FeatureSet, made: FeatureSet, x: Array, y: Array, halving: Halving
) -> dict[str, Any]:
    """Means over the halvings of one half of the arm against the other half of the real set."""
    single = np.zeros(len(y), dtype=bool)
    single[np.unique(made.mask_ids, return_index=True)[1]] = True  # one painting per mask
    distances, shares = [], []
    for half in halving.halves:
        mine = y[single & halving.chosen(half, made)]
        theirs = x[~halving.chosen(half, real)]
        if min(len(mine), len(theirs)) >= 2:
            distances.append(frechet_distance(theirs, mine))
            shares.append(precision_recall(theirs, mine))
    if not distances:
        return {}
    low, high = None, None
    if halving.by == "patients":
        low, high = (float(q) for q in np.percentile(distances, [2.5, 97.5]))
    precision, recall = np.mean(shares, axis=0)
    return {
        "fid_halves": Interval(value=float(np.mean(distances)), low=low, high=high),
        "precision": _defined(float(precision)),
        "recall": _defined(float(recall)),
    }


def _kid(
    x: Array, y: Array, sets: tuple[FeatureSet, FeatureSet], halving: Halving
) -> Interval | None:
    """The kernel distance over pairs of different patients, with an interval.

    With too few patients, it is over pairs of different masks and without an interval.
    """
    by_patient = halving.by == "patients"
    names = [
        [halving.patient_of[str(m)] if by_patient else str(m) for m in one.mask_ids] for one in sets
    ]
    number = {name: n for n, name in enumerate(sorted({*names[0], *names[1]}))}
    first, second = (np.array([number[name] for name in part], dtype=np.int64) for part in names)
    estimate = kernel_distance(x, y, (first, second), interval=by_patient)
    if np.isnan(estimate.value):
        return None
    return Interval(value=estimate.value, low=estimate.low, high=estimate.high)


def _scaled(real: Array, made: Array, scale: bool) -> tuple[Array, Array]:
    """Both sets standardised by the real one, without features that are constant there."""
    if not scale:
        return real, made
    mean, std = real.mean(axis=0, dtype=np.float64), real.std(axis=0, dtype=np.float64)
    varies = std > 1e-6 * np.maximum(1, np.abs(mean))
    x, y = (
        ((one[:, varies] - mean[varies]) / std[varies]).astype(np.float32) for one in (real, made)
    )
    return x, y


def _inception_score(features: FeatureSet) -> tuple[float | None, float | None]:
    chances = features.probabilities
    return (None, None) if chances is None else inception_score(chances)


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value
