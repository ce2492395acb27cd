"""Thresholds and intervals of a privacy check."""

from __future__ import annotations

import numpy as np
import pytest

from synthct.privacy.statistics import DEFAULTS, fit_threshold, reuse, share

PATIENTS = [f"p{n % 7}" for n in range(1000)]


def test_a_threshold_is_exceeded_by_one_in_a_thousand() -> None:
    rng = np.random.default_rng(0)
    values = list(rng.gumbel(0.2, 0.04, 1000))
    fitted = fit_threshold("train_nn_ncc", values, PATIENTS)
    assert fitted.is_fitted
    assert fitted.largest is not None
    assert fitted.value >= fitted.largest
    assert fitted.value == pytest.approx(0.2 + 6.9 * 0.04, abs=0.08)
    # A few flat regions, which correlate with nothing, change nothing.
    flat = fit_threshold("train_nn_ncc", [*values, *[0.0] * 5], [*PATIENTS, *["p0"] * 5])
    assert flat.value == pytest.approx(fitted.value, abs=0.01)


def test_too_few_held_out_regions_get_the_measured_threshold() -> None:
    for values, patients in (([0.1] * 49, PATIENTS), ([0.1] * 99, ["one"] * 99), ([], [])):
        got = fit_threshold("train_key", values, patients[: len(values)])
        assert (got.is_fitted, got.value) == (False, DEFAULTS["train_key"])
        assert "held-out patients" in got.reason
    assert fit_threshold("train_key", [0.9], ["one"]).value == 0.9


def test_intervals_of_shares() -> None:
    none, some, every = share(0, 300), share(3, 10), share(4, 4)
    assert [none.low, none.high] == pytest.approx([0, 0.0122], abs=1e-4)
    assert [some.low, some.high] == pytest.approx([0.0667, 0.6525], abs=1e-3)
    assert [every.low, every.high] == pytest.approx([0.398, 1], abs=1e-3)
    assert share(0, 0).value is None


def test_reuse_of_hosts() -> None:
    assert reuse(["a", "b", "c"]).gini == 0
    one = reuse(["a"] * 98 + ["b", "c"])
    assert (one.patients, one.most) == (3, 98)
    assert one.gini > 0.6
    assert reuse([]).patients == 0
