"""The limits of a recipe's ``quality`` section."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from synthct.recipe.quality import BrokenLimit, Limits, Quality, Standard

NONE = dict.fromkeys(Quality.model_fields)


def test_the_limits_themselves_are_good_enough() -> None:
    quality = Quality(seam_ratio=Limits(min=0.5, max=1.5))
    assert quality.first_broken({**NONE, "seam_ratio": 0.5}) is None
    assert quality.first_broken({**NONE, "seam_ratio": 1.5}) is None
    assert quality.first_broken({**NONE, "seam_ratio": 1.51}) == BrokenLimit(
        "seam_ratio", 1.51, "seam_ratio above 1.5"
    )
    assert quality.first_broken({**NONE, "seam_ratio": 0.4}) == BrokenLimit(
        "seam_ratio", 0.4, "seam_ratio below 0.5"
    )


def test_a_measure_that_does_not_apply_breaks_no_limit() -> None:
    assert Quality(texture_ratio=Limits(min=0.5, max=1.5)).first_broken(NONE) is None


@pytest.mark.parametrize("limits", [Limits(min=0.5), Limits(max=1.5)])
def test_a_limited_measure_that_cannot_be_computed_is_a_rejection(limits: Limits) -> None:
    undefined = {**NONE, "texture_ratio": float("nan")}
    broken = BrokenLimit("texture_ratio", None, "texture_ratio cannot be computed")
    assert Quality(texture_ratio=limits).first_broken(undefined) == broken
    assert Quality(seam_ratio=limits).first_broken({**undefined, "seam_ratio": 1.0}) is None


def test_infinity_breaks_an_upper_limit() -> None:
    assert (
        Quality(psnr_db=Limits(max=60)).first_broken({**NONE, "psnr_db": float("inf")}) is not None
    )


def test_the_first_broken_limit_is_named() -> None:
    quality = Quality(ssim=Limits(min=0.9), seam_ratio=Limits(max=1.2))
    broken = quality.first_broken({**NONE, "ssim": 0.1, "seam_ratio": 3.0})
    assert broken is not None
    assert broken.measure == "seam_ratio"


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"seam_ratio": {}}, "give min, max or both"),
        ({"seam_ratio": {"min": 2, "max": 1}}, "nothing would be kept"),
        ({"seam_ratio": {"max": float("nan")}}, "finite"),
        ({"sean_ratio": {"max": 1}}, "sean_ratio"),
    ],
)
def test_limits_that_make_no_sense_are_refused(section: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Quality.model_validate(section)


STANDARD = Standard(
    Quality(
        seam_ratio=Limits(min=0.5, max=2), spectrum_distance=Limits(max=3), ssim=Limits(min=0.5)
    ),
    is_default=True,
)


@pytest.mark.parametrize(
    ("measures", "grade"),
    [
        ({"seam_ratio": 1.0}, "good"),
        ({"seam_ratio": 1.5}, "good"),
        ({"seam_ratio": 1.7}, "doubtful"),
        ({"seam_ratio": 0.55}, "doubtful"),
        ({"seam_ratio": 2.1}, "poor"),
        ({"seam_ratio": 0.4}, "poor"),
        ({"seam_ratio": 1.0, "spectrum_distance": 2.5}, "doubtful"),
        ({"ssim": 0.51}, "good"),
        ({"ssim": 0.4}, "poor"),
        ({"seam_ratio": 1.0, "spectrum_distance": float("nan")}, "good"),
        ({}, None),
    ],
)
def test_the_grade_is_the_worst_of_the_limited_measures(
    measures: dict[str, float], grade: str | None
) -> None:
    assert STANDARD.grade({**NONE, **measures}) == grade


def test_a_sample_is_poor_where_it_breaks_a_limit() -> None:
    for value in (0.3, 0.5, 0.51, 1.0, 1.99, 2.0, 2.01, 5.0):
        measures = {**NONE, "seam_ratio": value}
        is_broken = STANDARD.limits.first_broken(measures) is not None
        assert (STANDARD.grade(measures) == "poor") == is_broken


def test_a_default_limit_rejects_only_what_lies_twice_as_far_from_the_ideal() -> None:
    standard = Standard(Quality(seam_ratio=Limits(min=0.5, max=2)), is_default=True)
    for value in (0.26, 0.4, 1.0, 2.5, 3.9):
        assert standard.first_broken({**NONE, "seam_ratio": value}) is None
    for value in (0.24, 4.1):
        assert standard.first_broken({**NONE, "seam_ratio": value}) is not None


def test_only_the_recipes_own_limits_reject_what_cannot_be_computed() -> None:
    undefined = {**NONE, "seam_ratio": float("nan")}
    assert STANDARD.first_broken(undefined) is None
    assert Standard(STANDARD.limits).first_broken(undefined) is not None


def test_limits_that_do_not_reject_still_grade() -> None:
    graded = Standard(STANDARD.limits, is_default=True, rejects=False)
    assert graded.first_broken({**NONE, "seam_ratio": 9.0}) is None
    assert graded.grade({**NONE, "seam_ratio": 9.0}) == "poor"
