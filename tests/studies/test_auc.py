"""Areas under ROC curves, on scores whose area is known."""

from __future__ import annotations

import numpy as np
import pytest

from synthct.studies.downstream.auc import Separation, area

PATIENTS = [f"p{n}" for n in range(12)]


def separation(high: list[float], low: list[float]) -> Separation:
    return Separation.of(PATIENTS, (PATIENTS, [high]), (PATIENTS, [low]))


def test_perfect_equal_and_inverted_scores_have_known_areas() -> None:
    up, flat = list(map(float, range(12, 24))), [1.0] * 12
    down = list(map(float, range(12)))
    for high, low, value in ((up, down, 1.0), (down, up, 0.0), (flat, flat, 0.5)):
        found = area(separation(high, low))
        assert found is not None
        assert (found.value, found.low, found.high) == (value, value, value)


def test_an_area_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    high, low = rng.normal(0.5, 1, 12), rng.normal(0, 1, 12)
    found = area(separation(high.tolist(), low.tolist()))
    assert found is not None
    assert found.value == pytest.approx(np.greater.outer(high, low).mean(), abs=1e-4)
    assert found.low < found.value < found.high


def test_patients_with_more_crops_count_by_their_crops_and_seeds_are_averaged() -> None:
    one = Separation.of(["a", "b"], (["a", "b", "b"], [[1, 2, 3], [3, 2, 1]]), (["a"], [[2], [0]]))
    assert one.pairs.sum() == 3
    assert one.wins.sum() == pytest.approx((1.5 + 3) / 2)


def test_equal_classifiers_do_not_differ_and_an_empty_group_has_no_area() -> None:
    rng = np.random.default_rng(1)
    one = separation(rng.normal(1, 1, 12).tolist(), rng.normal(0, 1, 12).tolist())
    gap = area(one, one)
    assert gap is not None
    assert (gap.value, gap.low, gap.high, gap.is_shown) == (0, 0, 0, False)
    nothing = Separation.of(PATIENTS, ([], [[]]), (PATIENTS, [[0.0] * 12]))
    assert area(nothing) is None
