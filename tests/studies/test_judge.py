"""What a prediction is worth, on shapes whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from synthct.studies.downstream.judge import THRESHOLDS, Judged, judge

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
NAMES = ("kidney", "tumor")


def truth() -> np.ndarray:
    classes = np.zeros((40, 40, 20), np.uint8)
    classes[5:25, 5:25, 4:16] = 1
    classes[10:16, 10:16, 6:9] = 2
    classes[30:36, 30:36, 12:15] = 2
    return classes


def certain(classes: np.ndarray) -> np.ndarray:
    """The probabilities of somebody who is sure of these classes."""
    return np.stack([classes == n for n in range(3)]).astype(np.float32)


def judged(probability: np.ndarray, true: np.ndarray | None = None) -> Judged:
    return judge(("a", "A"), truth() if true is None else true, probability, AFFINE, NAMES)


def test_the_truth_itself_is_perfect() -> None:
    made = judged(certain(truth()))
    for overlap in (made.dice, made.jaccard, made.surface_dice):
        assert overlap == {"kidney": 1.0, "tumor": 1.0}
    assert [lesion.score for lesion in made.lesions] == [THRESHOLDS[-1]] * 2
    assert made.false_positives == (0,) * len(THRESHOLDS)
    assert made.lesions[0].volume_ml == pytest.approx(6 * 6 * 3 * 2 / 1000)
    assert made.lesions[0].diameter_mm == pytest.approx(10.0, abs=1)  # the faces' centres
    assert Judged.from_json(made.as_json()) == made


def test_a_missed_lesion_and_a_false_alarm_are_told_apart() -> None:
    seen = truth()
    seen[30:36, 30:36, 12:15] = 0
    seen[2:5, 30:36, 2:5] = 2
    made = judged(certain(seen))
    assert [lesion.score for lesion in made.lesions] == [THRESHOLDS[-1], 0.0]
    assert set(made.false_positives) == {1}
    assert made.dice["tumor"] == pytest.approx(2 * 108 / (216 + 162))
    assert made.jaccard["tumor"] == pytest.approx(108 / (216 + 162 - 108))


def test_a_lesion_is_found_up_to_the_probability_that_it_has() -> None:
    unsure = certain(truth())
    unsure[2] *= 0.35
    assert [lesion.score for lesion in judged(unsure).lesions] == [0.3, 0.3]
    touched = np.zeros_like(unsure)
    touched[2, 10, 10, 6:9] = 1  # less than a tenth of one lesion
    made = judged(touched)
    assert [lesion.score for lesion in made.lesions] == [0.0, 0.0]
    assert made.false_positives == (0,) * len(THRESHOLDS)


def test_surfaces_agree_within_two_millimetres() -> None:
    near, far = truth(), truth()
    near[25:27, 5:25, 4:16] = 1
    far[25:31, 5:25, 4:16] = 1
    assert judged(certain(near)).surface_dice["kidney"] == 1.0
    assert (judged(certain(far)).surface_dice["kidney"] or 0) < 0.9


def test_what_nobody_knows_counts_for_nothing() -> None:
    known = truth()
    known[30:36, 30:36, 12:15] = 255
    made = judged(certain(truth()), known)
    assert len(made.lesions) == 1
    assert made.dice["tumor"] == 1.0
    assert made.false_positives == (0,) * len(THRESHOLDS)


def test_a_label_that_is_not_there_has_no_overlap() -> None:
    none = np.where(truth() == 2, 0, truth())
    made = judged(certain(truth()), none)
    assert made.dice["tumor"] is None
    assert set(made.false_positives) == {2}


def test_specks_of_the_truth_are_no_lesions_and_no_false_positives() -> None:
    speckled = truth()
    speckled[2:5, 30:34, 2:5] = 2  # 0.07 ml
    made = judged(certain(speckled), speckled)
    assert len(made.lesions) == 2
    wide = certain(speckled)
    wide[2, 1:7, 29:36, 1:6] = 1
    assert judged(wide, speckled).false_positives == (0,) * len(THRESHOLDS)


def test_a_lesion_is_told_with_its_organ_and_how_far_it_is_outside_of_it() -> None:
    inside, alone = judged(certain(truth())).lesions
    assert (inside.organ, inside.exophytic_share) == ("kidney", 0.0)
    assert (alone.organ, alone.exophytic_share) == (None, 1.0)
