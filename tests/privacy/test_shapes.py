"""Whether a painted mask has the shape of its donor's lesion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from synthct.evaluate.stream import Dataset
from synthct.privacy.shapes import DonorShapes

GOLDEN = Path(__file__).parents[1] / "golden/datasets/1.4.0"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> DonorShapes:
    return DonorShapes(GOLDEN, {}, tmp_path_factory.mktemp("shapes"))


@pytest.mark.long
def test_a_lesion_in_the_shape_of_its_donor_is_told(shapes: DonorShapes) -> None:
    samples = list(Dataset(GOLDEN).samples())
    found = [shapes.dice(one) for one in samples]
    assert all(one is not None and 0.85 < one < 1 for one in found)  # rotated, bent and scaled
    line = np.zeros_like(samples[0].mask)
    line[3:60, 5] = True
    other = shapes.dice(replace(samples[0], mask=line, original=None))
    assert other is not None
    assert other < 0.4
    assert shapes.dice(replace(samples[0], provenance={"donor": None})) is None


def test_donors_that_are_not_at_hand_are_not_compared(shapes: DonorShapes) -> None:
    sample = next(iter(Dataset(GOLDEN).samples()))
    elsewhere = {**sample.provenance["donor"], "source": "others"}
    lent = replace(sample, provenance={**sample.provenance, "donor": elsewhere})
    assert shapes.dice(lent) is None
