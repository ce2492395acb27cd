"""Differences of arms over test patients, on made-up numbers."""

from __future__ import annotations

import numpy as np
import pytest

from synthct.studies.downstream.judge import THRESHOLDS, USUAL, Judged, Lesion
from synthct.studies.downstream.statistics import (
    ALARMS,
    MEASURES,
    Counts,
    by_size,
    difference,
    froc,
    number,
)


def scan(patient: int, dice: float | None, score: float, alarms: int) -> Judged:
    """A scan with one lesion, or with none where there is no Dice."""
    lesions = () if dice is None else (Lesion(4.0, 15.0 + 10 * patient, (0.5, 0.5, 0.5), score),)
    overlap = {"tumor": dice}
    falling = tuple(alarms if t <= USUAL else 0 for t in THRESHOLDS)
    return Judged(f"c{patient}", f"p{patient}", overlap, overlap, overlap, lesions, falling)


def counts(scans: list[Judged]) -> Counts:
    return Counts.of([scans], "tumor")


ONE = [scan(n, 0.2 + 0.02 * n, 0.3, 1) for n in range(10)] + [scan(10, None, 0, 2)]
BETTER = [scan(n, 0.5 + 0.02 * n, 0.9, 1) for n in range(10)] + [scan(10, None, 0, 2)]


def test_numbers_of_an_arm() -> None:
    arm = counts(ONE)
    values = [number(measure, arm, arm) for measure, _ in MEASURES.values()]
    assert values[0] == pytest.approx(0.29)
    assert values[1] == 0.0  # their probability is below the usual threshold
    assert values[3] == pytest.approx(12 / 11, abs=1e-4)


def test_a_difference_has_an_interval_by_patient() -> None:
    one, better = counts(ONE), counts(BETTER)
    for name in ("lesion Dice", "lesions found"):
        found = difference(MEASURES[name][0], better, one, one)
        assert found is not None
        assert found.low > 0
        assert found.is_shown
    assert difference(MEASURES["lesion Dice"][0], better, one, one).value == pytest.approx(0.3)
    alarms = difference(MEASURES["false positives per scan"][0], better, one, one)
    assert alarms == difference(MEASURES["false positives per scan"][0], one, one, one)
    assert not alarms.is_shown


def test_a_few_patients_who_agree_show_nothing() -> None:
    for patients, is_shown in ((3, False), (5, False), (6, True)):
        one, better = counts(ONE[:patients]), counts(BETTER[:patients])
        found = difference(MEASURES["lesion Dice"][0], better, one, one)
        assert found is not None
        assert found.low > 0
        assert found.is_shown == is_shown


def test_noise_is_not_shown() -> None:
    drawn = np.random.default_rng(0).uniform(0, 1, 10)
    other = [scan(n, float(d), 0.9, 1) for n, d in enumerate(drawn)]
    mine = [scan(n, float(d), 0.9, 1) for n, d in enumerate(drawn[::-1])]
    found = difference(MEASURES["lesion Dice"][0], counts(mine), counts(other), counts(other))
    assert found.low < 0 < found.high
    assert not found.is_shown


def test_patients_count_the_mean_of_the_seeds() -> None:
    both = Counts.of([ONE, BETTER], "tumor")
    assert number(MEASURES["lesion Dice"][0], both, both) == pytest.approx(0.44)
    assert number(MEASURES["lesions found"][0], both, both) == pytest.approx(0.5)


def test_false_alarms_on_healthy_scans_are_read_where_as_much_is_found() -> None:
    measure = MEASURES["false positives on scans without a lesion, at the lesions found of real"][0]
    real = counts([scan(n, 0.5, 0.5, 0) for n in range(4)] + [scan(4, None, 0, 3)])
    sure = counts([scan(n, 0.5, 0.95, 0) for n in range(4)] + [scan(4, None, 0, 3)])
    blind = counts([scan(n, 0.1, 0.0, 0) for n in range(4)] + [scan(4, None, 0, 3)])
    assert number(measure, real, real) == 3.0
    assert number(measure, sure, real) == 0.0  # at a higher threshold it has found all the same
    assert number(measure, blind, real) is None
    assert difference(measure, blind, real, real) is None
    assert number(measure, sure, blind) is None  # nothing is asked for
    faint = counts([scan(n, 0.5, 0.3, 0) for n in range(4)] + [scan(4, None, 0, 3)])
    assert number(measure, faint, faint) == 3.0  # it finds none at the usual threshold
    assert number(measure, sure, faint) == 0.0


def test_a_curve_is_read_between_thresholds() -> None:
    alarms, found = np.array([8.0, 2.0, 0.5]), np.array([1.0, 0.8, 0.2])
    assert froc(alarms, found).tolist() == pytest.approx([0.0, 0.2, 0.4, 0.8, 0.8 + 0.2 / 3])
    assert len(ALARMS) == 5


def test_lesions_are_counted_by_size() -> None:
    assert by_size([BETTER]) == {
        "below 2 cm": (1, 1.0),
        "2 to 4 cm": (2, 1.0),
        "4 cm and above": (7, 1.0),
    }
    assert by_size([[scan(0, 0.5, 0.9, 0)]])["4 cm and above"] == (0, None)
