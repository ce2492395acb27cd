"""Numbers of the arms from judged test scans, and differences between arms with intervals.

Test patients are resampled (bootstrap), the same ones in both arms of a difference; what a patient
counts is the mean over the seeds of training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthct import seeds
from synthct.studies.downstream.judge import THRESHOLDS, USUAL, Judged

Vector = npt.NDArray[np.float64]

#: Resamples of the patients, and the interval that is taken of them.
RESAMPLES, PERCENTILES = 2000, (2.5, 97.5)
#: Fewer patients show no difference: n of them all agree by chance in 2 of 2^n cases, and then no
#: interval of theirs holds 0. Up to five that is more often than an interval of 95 % may err.
LEAST_PATIENTS = 6

#: Classes of lesions by greatest diameter, from and below, in mm.
SIZES = {"below 2 cm": (0.0, 20.0), "2 to 4 cm": (20.0, 40.0), "4 cm and above": (40.0, 1e9)}

#: False positives per scan at which FROC curves are read.
ALARMS = (0.25, 0.5, 1.0, 2.0, 4.0)

_AT = THRESHOLDS.index(USUAL)


@dataclass(frozen=True, eq=False)
class Counts:
    """What each test patient counts, in the order of the patients; means over segmenters.

    Attributes:
        patients: The patients (P).
        dice: Sum (P) over scans with the lesion of its Dice.
        with_lesion: Scans with the lesion (P).
        lesions: True lesions (P).
        found: Of these at each threshold (P, T).
        scans: Scans (P).
        alarms: False positives at each threshold (P, T).
        healthy: Scans without the lesion (P).
        alarms_healthy: False positives on these at each threshold (P, T).
    """

    patients: tuple[str, ...]
    dice: Vector
    with_lesion: Vector
    lesions: Vector
    found: Vector
    scans: Vector
    alarms: Vector
    healthy: Vector
    alarms_healthy: Vector

    @classmethod
    def of(cls, segmenters: Sequence[Sequence[Judged]], lesion: str) -> Counts:
        """The counts of some segmenters, judged on the same scans.

        Args:
            segmenters: For each of them the test scans.
            lesion: The lesion's label.
        """
        patients = tuple(sorted({one.patient_id for one in segmenters[0]}))
        row = {patient: n for n, patient in enumerate(patients)}
        size, steps = len(patients), np.array(THRESHOLDS)
        flat = {name: np.zeros(size) for name in ("dice", "with_lesion", "lesions", "scans",
                                                  "healthy")}  # fmt: skip
        curves = {name: np.zeros((size, len(steps))) for name in ("found", "alarms",
                                                                  "alarms_healthy")}  # fmt: skip
        for one in (one for judged in segmenters for one in judged):
            at, alarms = row[one.patient_id], np.array(one.false_positives, float)
            scores = np.array([lesion.score for lesion in one.lesions])
            flat["scans"][at] += 1
            flat["lesions"][at] += len(scores)
            curves["found"][at] += (scores[:, None] >= steps).sum(0)
            curves["alarms"][at] += alarms
            if one.lesions:
                flat["dice"][at] += one.dice[lesion] or 0.0
                flat["with_lesion"][at] += 1
            else:
                flat["healthy"][at] += 1
                curves["alarms_healthy"][at] += alarms
        return cls(patients, **{k: v / len(segmenters) for k, v in (flat | curves).items()})


#: A number of an arm for each resample (B, P) of the patients; the second counts are those of the
#: arm ``real``, which says what sensitivity is to be reached.
Measure = Callable[[Vector, Counts, Counts], Vector]


def _ratio(above: Vector, below: Vector) -> Vector:
    made = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=made, where=below > 0)
    return made


def lesion_dice(weights: Vector, arm: Counts, real: Counts) -> Vector:
    """Mean Dice of the lesion over scans that have it."""
    del real
    return _ratio(weights @ arm.dice, weights @ arm.with_lesion)


def sensitivity(weights: Vector, arm: Counts, real: Counts) -> Vector:
    """Share of the lesions that are found."""
    del real
    return _ratio(weights @ arm.found[:, _AT], weights @ arm.lesions)


def false_positives(weights: Vector, arm: Counts, real: Counts) -> Vector:
    """False positives per scan."""
    del real
    return _ratio(weights @ arm.alarms[:, _AT], weights @ arm.scans)


def froc_score(weights: Vector, arm: Counts, real: Counts) -> Vector:
    """Mean of the shares of lesions found at each of ``ALARMS``."""
    del real
    found = (weights @ arm.found) / np.maximum(weights @ arm.lesions, 1e-9)[:, None]
    alarms = (weights @ arm.alarms) / (weights @ arm.scans)[:, None]
    return np.array([froc(a, f).mean() for a, f in zip(alarms, found, strict=True)])


def healthy_alarms(weights: Vector, arm: Counts, real: Counts) -> Vector:
    """False positives per scan without the lesion, at the share found that ``real`` reaches.

    Where ``real`` finds no lesion at all at the usual threshold, at the share that it finds at the
    lowest. NaN where it finds none there either, or no threshold of the arm as many.
    """
    at = _AT if real.found[:, _AT].any() else 0
    wanted = _ratio(weights @ real.found[:, at], weights @ real.lesions)
    found = (weights @ arm.found) / np.maximum(weights @ arm.lesions, 1e-9)[:, None]
    healthy = (weights @ arm.healthy)[:, None]
    alarms = _ratio(weights @ arm.alarms_healthy, np.broadcast_to(healthy, found.shape))
    return np.array([_at_found(*one) for one in zip(wanted, found, alarms, strict=True)])


def froc(alarms: Vector, found: Vector) -> Vector:
    """Shares of lesions found at ``ALARMS``, interpolated between thresholds.

    Args:
        alarms: False positives per scan, falling with the threshold.
        found: Share of the lesions found, likewise.
    """
    rising = np.maximum.accumulate(alarms[::-1])  # parts of a prediction may also join
    return np.interp(ALARMS, rising, found[::-1], left=0.0)


def _at_found(wanted: float, found: Vector, alarms: Vector) -> float:
    """False positives at the highest threshold that finds enough; NaN if none does."""
    enough = np.flatnonzero(found >= wanted - 1e-9)
    if wanted <= 0 or not len(enough):
        return float("nan")
    at = int(enough[-1])
    if at + 1 == len(found) or found[at] <= wanted:
        return float(alarms[at])
    beyond = (found[at] - wanted) / (found[at] - found[at + 1])
    return float(alarms[at] + beyond * (alarms[at + 1] - alarms[at]))


#: What arms are compared by: name, and whether more is better.
MEASURES: Mapping[str, tuple[Measure, bool]] = {
    "lesion Dice": (lesion_dice, True),
    "lesions found": (sensitivity, True),
    "FROC score": (froc_score, True),
    "false positives per scan": (false_positives, False),
    "false positives on scans without a lesion, at the lesions found of real": (
        healthy_alarms,
        False,
    ),
}


def number(measure: Measure, arm: Counts, real: Counts) -> float | None:
    """The number of an arm over all test patients."""
    value = float(measure(np.ones((1, len(arm.patients))), arm, real)[0])
    return round(value, 4) if np.isfinite(value) else None


@dataclass(frozen=True)
class Difference:
    """A difference of two arms with its 95 % interval.

    Attributes:
        value: Of all test patients.
        low: Of the interval.
        high: Of the interval.
        patients: That were drawn from.
    """

    value: float
    low: float
    high: float
    patients: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out 0, of patients enough for that to mean something."""
        return self.patients >= LEAST_PATIENTS and (self.low > 0 or self.high < 0)


def over_patients(patients: int, values: Callable[[Vector], Vector]) -> Difference | None:
    """A value with its interval over patients drawn anew; None where it is not defined.

    Args:
        patients: How many there are.
        values: The value for each resample, whose weights (B, P) of the patients it gets.
    """
    drawn = seeds.generator(0, "patients").integers(patients, size=(RESAMPLES, patients))
    weights = np.stack([np.bincount(row, minlength=patients) for row in drawn])
    whole, *resampled = values(np.concatenate([np.ones((1, patients)), weights]))
    defined = [value for value in resampled if np.isfinite(value)]
    if not np.isfinite(whole) or not defined:
        return None
    value, low, high = (round(float(n), 4) for n in (whole, *np.percentile(defined, PERCENTILES)))
    return Difference(value, low, high, patients)


def difference(measure: Measure, arm: Counts, other: Counts, real: Counts) -> Difference | None:
    """By how much an arm differs from another; None where either has no such number.

    Args:
        measure: One of ``MEASURES``.
        arm: The arm.
        other: What is subtracted.
        real: The arm ``real``.
    """
    return over_patients(
        len(arm.patients),
        lambda weights: measure(weights, arm, real) - measure(weights, other, real),
    )


def by_size(segmenters: Sequence[Sequence[Judged]]) -> dict[str, tuple[int, float | None]]:
    """For each of ``SIZES`` the number of true lesions and the share of them that is found."""
    made: dict[str, tuple[int, float | None]] = {}
    for name, (low, high) in SIZES.items():
        hits = [
            lesion.score >= USUAL
            for judged in segmenters
            for one in judged
            for lesion in one.lesions
            if low <= lesion.diameter_mm < high
        ]
        made[name] = len(hits) // len(segmenters), round(float(np.mean(hits)), 4) if hits else None
    return made


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of the numbers that there are; None if there is none."""
    there = [value for value in values if value is not None]
    return round(float(np.mean(there)), 4) if there else None
