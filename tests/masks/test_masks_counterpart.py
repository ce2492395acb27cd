"""Counterparts: the transplant's mask within the organ, painted as the organ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import make_tiny_case
from contract import MASKS, lender, section

from synthct.build.controls.copy_paste import Copied
from synthct.build.draw import DrawnMask
from synthct.errors import MaskError
from synthct.masks.base import MaskSection
from synthct.models.methods import CopyPaste


@pytest.mark.parametrize("seed", range(3))
def test_a_counterpart_is_the_transplant_within_the_organ(seed: int) -> None:
    host = make_tiny_case()
    donor = lender("transplant", host)
    made = {}
    for kind in ("transplant", "counterpart"):
        one: MaskSection = section(kind)
        params = one.draw(host, donor, np.random.default_rng(seed))
        mask = one.build(host, donor, params)
        made[kind] = mask.in_host(host.labels.shape)
        assert mask.label == ("tumor" if kind == "transplant" else "kidney")
        assert one.painted_labels() == (mask.label,)
    inside = made["transplant"] & host.region("kidney")
    assert inside.any()
    assert np.array_equal(made["counterpart"], inside)


def test_a_counterpart_adds_no_lesion_and_changes_no_label() -> None:
    one: MaskSection = section("counterpart")
    assert one.label_policy() == "keep"
    assert one.changes_lesion is None
    with pytest.raises(ValueError, match="pair needs a kind that adds or removes"):
        type(one).model_validate({"name": "m", **MASKS["counterpart"], "pair": True})


def test_nothing_is_pasted_into_a_counterpart() -> None:
    host = make_tiny_case()
    donor = lender("transplant", host)
    assert donor is not None
    one: MaskSection = section("counterpart")
    params = one.draw(host, donor, np.random.default_rng(0))
    mask = one.build(host, donor, params)
    seen = replace(donor, ct=host.ct)
    drawn = DrawnMask((), one, host, seen, None, mask, params, ())  # type: ignore[arg-type]
    with pytest.raises(MaskError, match="has no donor whose voxels could be pasted"):
        Copied.of(drawn, CopyPaste(), "axial")
