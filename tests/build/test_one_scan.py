"""A mask of several slices is painted as one by a checkpoint that takes neighbouring slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import KITS_AXES, oblique_affine
from scipy import ndimage

import synthct
from synthct.build import one_scan
from synthct.models.painting import Inpainter
from synthct.models.patch import FloatArray, Patch
from synthct.volume import Volume, restore_orientation

SHAPE = (80, 72, 9)
STARTER: dict[str, Any] = {
    "checkpoint": "package:starter-2d", "num_inference_steps": 1, "together": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def ct() -> Volume:
    """An organ with grain, on thick slices."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE), (0.7, 0.7, 0))
    hu = np.rint(120 + 12 * noise / noise.std()).astype(np.int16)
    return Volume(hu, oblique_affine((1.0, 1.0, 4.0)))


def mask_of(ct: Volume, *boxes: tuple[slice, slice, slice]) -> Volume:
    region = np.zeros(ct.shape, dtype=bool)
    for box in boxes:
        region[box] = True
    return Volume(region, ct.affine)


BALL = np.s_[30:46, 30:46, 3:7]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[Patch]]:
    """The patches that the network was given at a time."""
    noted: list[list[Patch]] = []
    paint = Inpainter.paint

    def noting(
        self: Inpainter, patches: Sequence[Patch], seeds: Sequence[int], *more: Any
    ) -> list[FloatArray]:
        noted.append(list(patches))
        return paint(self, patches, seeds, *more)

    monkeypatch.setattr(Inpainter, "paint", noting)
    return noted


def knows_within(patch: Patch) -> bool:
    """Whether anything is known of the slices beside it, within the mask."""
    return patch.neighbours is not None and bool(np.isfinite(patch.neighbours[:, patch.own]).any())


def test_each_slice_is_told_those_that_are_painted(ct: Volume, calls: list[list[Patch]]) -> None:
    out = synthct.inpaint(ct, mask_of(ct, BALL), label="kidney", **STARTER)
    assert [len(call) for call in calls] == [2, 1, 1]
    assert all(knows_within(patch) for call in calls for patch in call)
    assert {patch.level_hu for call in calls for patch in call} == {None}
    inside = mask_of(ct, BALL).array
    assert np.array_equal(out.array[~inside], ct.array[~inside])
    assert (out.array[inside] != ct.array[inside]).mean() > 0.9


def test_apart_they_know_nothing_of_each_other(ct: Volume, calls: list[list[Patch]]) -> None:
    """Slices that are no neighbours may be painted at once."""
    apart = {**STARTER, "together": False}
    out = synthct.inpaint(ct, mask_of(ct, BALL), label="tumor", **apart)
    ((*patches,),) = calls
    assert [patch.neighbours for patch in patches] == [None] * 4
    single = synthct.inpaint(ct, mask_of(ct, np.s_[30:46, 30:46, 4:5]), label="tumor", **apart)
    assert np.array_equal(single.array[:, :, 4:5], out.array[:, :, 4:5])


def test_the_slices_of_a_lesion_have_one_level(ct: Volume, calls: list[list[Patch]]) -> None:
    """The starter guides tumours away from whatever fits."""
    out = synthct.inpaint(ct, mask_of(ct, BALL), label="tumor", grain="checkpoint", **STARTER)
    (alone,), *later = calls
    assert alone.level_hu is None
    assert alone.neighbours is None
    (level,) = {patch.level_hu for call in later for patch in call}
    assert level is not None
    medians = [float(np.median(out.array[30:46, 30:46, k])) for k in range(3, 7)]
    assert medians == pytest.approx([level] * 4, abs=3)


def test_a_stated_level_is_that_of_every_slice(ct: Volume, calls: list[list[Patch]]) -> None:
    stated = {"level_hu": {"tumor": 60.0}, "label": "tumor", **STARTER}
    out = synthct.inpaint(ct, mask_of(ct, BALL), **stated)
    assert {patch.level_hu for call in calls for patch in call} == {60}
    assert float(np.median(out.array[BALL])) == pytest.approx(60, abs=1)


def test_a_single_slice_is_painted_without_the_others(ct: Volume, calls: list[list[Patch]]) -> None:
    synthct.inpaint(ct, mask_of(ct, np.s_[30:46, 30:46, 3:4]), **STARTER)
    ((patch,),) = calls
    assert patch.neighbours is None


@pytest.mark.parametrize("most_voxels", [one_scan._MOST_VOXELS, 1])
def test_parts_far_apart_are_all_painted(
    ct: Volume, monkeypatch: pytest.MonkeyPatch, most_voxels: int
) -> None:
    """Also where a part is so large that its grain is made slice by slice."""
    monkeypatch.setattr(one_scan, "_MOST_VOXELS", most_voxels)
    mask = mask_of(ct, np.s_[2:8, 2:8, 0:2], np.s_[66:76, 60:70, 6:9])
    out = synthct.inpaint(ct, mask, label="kidney", **STARTER)
    assert np.array_equal(out.array[~mask.array], ct.array[~mask.array])
    for box in (np.s_[2:8, 2:8, 0:2], np.s_[66:76, 60:70, 6:9]):
        assert (out.array[box] != ct.array[box]).mean() > 0.9


def test_how_the_scan_is_stored_makes_no_difference(ct: Volume) -> None:
    mask = mask_of(ct, BALL)
    plain = synthct.inpaint(ct, mask, label="tumor", **STARTER)
    turned = [restore_orientation(v, KITS_AXES) for v in (ct, Volume(mask.array * 1, mask.affine))]
    again = synthct.inpaint(*turned, label="tumor", **STARTER)
    assert np.array_equal(restore_orientation(plain, KITS_AXES).array, again.array)


def test_parts_of_a_mask_are_together_where_they_lie_near() -> None:
    region: npt.NDArray[np.bool_] = np.zeros((100, 70, 40), dtype=bool)
    region[3:5, 3:5, 3:5], region[40:42, 3:5, 3:5] = True, True  # in cubes beside each other
    region[99, 69, 39] = True
    numbers, boxes = one_scan._together(region)
    assert np.array_equal(numbers > 0, region)
    assert sorted((box.start_ijk, box.stop_ijk) for box in boxes) == [
        ((3, 3, 3), (42, 5, 5)),
        ((99, 69, 39), (100, 70, 40)),
    ]
