"""The statistics of a reader study, against values that are known otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from synthct.studies.readers.statistics import (
    agreement,
    area_under_curve,
    mean_accuracy,
    told_apart,
)

TRUTH = np.arange(20) < 10


def rated(right: int, confidence: int = 3) -> np.ndarray:
    """Ratings of which the first so many of each kind are right."""
    sign = np.where(TRUTH, 1, -1) * np.where(np.arange(20) % 10 < right, 1, -1)
    return sign * confidence


def test_accuracy_has_an_interval_and_is_compared_with_guessing() -> None:
    told = told_apart(TRUTH, rated(8))
    assert told.accuracy.value == pytest.approx(0.8)
    assert told.accuracy[1:] == pytest.approx((0.584, 0.919), abs=5e-4)  # Wilson, 16 of 20
    assert told.p_value == pytest.approx(0.0118, abs=1e-4)  # two-sided binomial
    assert (told.painted_found, told.real_found) == (0.8, 0.8)
    guessing = told_apart(TRUTH, rated(5))
    assert guessing.accuracy.value == guessing.auc.value == 0.5
    assert guessing.p_value == pytest.approx(1)


def test_the_curve_counts_confidence_and_ties() -> None:
    painted, real = np.array([5, 3, -1]), np.array([3, -2, -5])
    # of 9 pairs: 5 beats 3; 3 ties with 3 and beats two; -1 beats two, not 3
    assert area_under_curve(painted, real).value == pytest.approx((3 + 2.5 + 2) / 9)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_a_mistake_the_interval_is_not_empty(value: float) -> None:
    sign = 1 if value else -1
    one = area_under_curve(np.full(10, 3 * sign), np.full(10, -3 * sign))
    assert one.value == value
    assert 0.05 < one.high - one.low < 0.4
    assert 0 <= one.low <= one.high <= 1


def test_the_interval_of_the_curve_covers_the_truth_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(300):
        painted, real = rng.normal(0.5, 1, 25), rng.normal(0, 1, 25)
        one = area_under_curve(painted, real)  # type: ignore[arg-type]  # floats will do
        hits += one.low <= 0.6382 <= one.high  # Phi(0.5 / sqrt 2)
    assert 0.92 <= hits / 300 <= 0.98


def test_agreement_is_one_for_equal_answers_and_about_zero_for_guesses() -> None:
    assert agreement([rated(8), rated(8, 5)]) == (1.0, 1.0)
    assert agreement([np.full(20, 3)] * 2) == (1.0, 1.0)
    rng = np.random.default_rng(1)
    guesses = [rng.choice([-1, 1], 2000) for _ in range(3)]
    same, kappa = agreement(guesses)
    assert same == pytest.approx(0.5, abs=0.03)
    assert kappa == pytest.approx(0, abs=0.05)
    # Fleiss 1971 by hand: two readers, answers (p, p), (p, r), (r, r), (r, r)
    same, kappa = agreement([np.array([1, 1, -1, -1]), np.array([1, -1, -1, -1])])
    assert same == 0.75
    share = 3 / 8
    chance = share**2 + (1 - share) ** 2
    assert kappa == pytest.approx((0.75 - chance) / (1 - chance))


def test_readers_who_err_together_do_not_narrow_the_interval() -> None:
    one = mean_accuracy(TRUTH, [rated(8)])
    four = mean_accuracy(TRUTH, [rated(8)] * 4)
    assert one == four
    assert one.value == pytest.approx(0.8)
    assert one.high - one.low > 0.2
