"""Cases: structures and unions by name, and a donor without an image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from synthct.errors import MaskError
from synthct.volume import Volume
from synthct.volume.case import Case


@pytest.fixture
def paired(tiny_case: Case) -> Case:
    """Kidney 1 and tumour 2 as the parts of unions, of which one part is in no label map."""
    unions = {
        "both": ("kidney", "tumor"),
        "left_only": ("kidney", "kidney_right"),
        "none": ("gone",),
    }
    return replace(tiny_case, unions=unions)


def test_a_union_is_the_sum_of_its_parts(paired: Case) -> None:
    labels = paired.labels.array
    assert paired.values_of("both") == (1, 2)
    assert np.array_equal(paired.region("both"), labels > 0)
    assert np.array_equal(paired.region("tumor"), labels == 2)
    assert paired.region("both").dtype == bool


def test_a_union_takes_the_parts_that_the_case_has(paired: Case) -> None:
    assert paired.values_of("left_only") == (1,)
    assert np.array_equal(paired.region("left_only"), paired.labels.array == 1)


def test_wide_label_maps_work_too(paired: Case) -> None:
    wide = paired.labels.array.astype(np.uint16) * 300
    case = replace(
        paired,
        labels=Volume(wide, paired.labels.affine),
        label_names={"kidney": 300, "tumor": 600},
    )
    assert np.array_equal(case.region("both"), wide > 0)


@pytest.mark.parametrize("label", ["spleen", "none"])
def test_an_unknown_label_names_the_case_and_what_it_has(paired: Case, label: str) -> None:
    with pytest.raises(
        MaskError, match=f"case tiny: label '{label}'.*kidney, left_only, none, tumor"
    ):
        paired.region(label)


def test_a_donor_without_an_image_has_shapes_but_no_scan(tiny_case: Case) -> None:
    assert tiny_case.scan() is tiny_case.ct
    donor = replace(tiny_case, ct=None)
    assert donor.region("tumor").any()
    with pytest.raises(MaskError, match="only be a donor"):
        donor.scan()
