"""Removing lesions: what is painted, as what, and what the label map says afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import make_tiny_case
from orientations import read_in_all_ways
from pydantic import ValidationError

from synthct.errors import MaskError
from synthct.masks.base import Mask, PlacementError, SliceRule
from synthct.masks.grow import grow
from synthct.masks.removal import Removal
from synthct.masks.slicing import draw_slices, paint_labels, slice_of
from synthct.volume import Volume
from synthct.volume.case import Case
from synthct.volume.views import IGNORE

KIDNEY, TUMOR, LIVER = 1, 2, 3


def removal(**fields: Any) -> Removal:
    return Removal.model_validate({"name": "r", "lesion": "tumor", **fields})


def built(kind: Removal, case: Case, seed: int = 0) -> Mask:
    return kind.build(case, None, kind.draw(case, None, np.random.default_rng(seed)))


def labelled(names: dict[str, int], *boxes: tuple[int, tuple[slice, slice, slice]]) -> Case:
    """The tiny case's grid with boxes of labels, later ones on top."""
    case = make_tiny_case()
    labels = np.zeros(case.labels.shape, dtype=np.uint8)
    for value, where in boxes:
        labels[where] = value
    return replace(case, labels=Volume(labels, case.labels.affine), label_names=names)


def after(case: Case, mask: Mask, kind: Removal) -> np.ndarray:
    return paint_labels(case.labels, mask, kind.label_policy(), None)


def test_the_lesion_and_a_margin_in_the_organ_are_painted_as_the_organ() -> None:
    case, kind = make_tiny_case(), removal(margin_mm=3)
    mask = built(kind, case)
    labels = case.labels.array
    reach = grow(labels == TUMOR, 3, case.labels.affine)
    expected = (labels == TUMOR) | (reach & (labels == KIDNEY))
    assert np.array_equal(mask.in_host(labels.shape), expected)
    assert mask.label == "kidney"
    assert mask.facts["lesions"] == 1
    assert mask.facts["lesions_left"] == 0
    lesion_ml = (labels == TUMOR).sum() * case.labels.voxel_volume_ml
    assert mask.facts["lesion_volume_ml"] == pytest.approx(lesion_ml, abs=1e-4)
    new = after(case, mask, kind)
    assert np.array_equal(new, np.where(labels == TUMOR, KIDNEY, labels))


def test_a_margin_into_the_surroundings_is_unknown_in_the_label_map() -> None:
    case = make_tiny_case()
    kind = removal(margin_mm=3, margin_into="surroundings")
    mask = built(kind, case)
    labels = case.labels.array
    where = mask.in_host(labels.shape)
    assert np.array_equal(where, grow(labels == TUMOR, 3, case.labels.affine))
    new = after(case, mask, kind)
    assert (new[where & (labels == 0)] == IGNORE).all()
    assert (where & (labels == 0)).any()
    assert (new[labels > 0] == KIDNEY).all()
    assert kind.leaves_unknown()
    assert not removal().leaves_unknown()


@pytest.mark.parametrize(("label_map", "inside"), [("keep", TUMOR), ("ignore", IGNORE)])
def test_the_label_map_can_be_left_or_ignored(label_map: str, inside: int) -> None:
    case, kind = make_tiny_case(), removal(label_map=label_map)
    mask = built(kind, case)
    new = after(case, mask, kind)
    assert (new[case.labels.array == TUMOR] == inside).all()


def test_a_slice_of_the_mask_carries_its_label_values() -> None:
    case, kind = make_tiny_case(), removal(margin_into="surroundings")
    mask = built(kind, case)
    whole = after(case, mask, kind)
    for k in range(mask.box.start_ijk[2], mask.box.stop_ijk[2]):
        flat = slice_of(mask, "axial", {"slice_index": k, "part": None})
        plane = paint_labels(case.labels, flat, "paint", None)
        assert np.array_equal(plane[..., k], whole[..., k])
        assert np.array_equal(np.delete(plane, k, 2), np.delete(case.labels.array, k, 2))


def test_each_voxel_becomes_the_nearest_part_of_the_organ() -> None:
    case = labelled(
        {"left": KIDNEY, "right": LIVER, "tumor": TUMOR},
        (KIDNEY, np.s_[5:20, 10:30, 5:19]),
        (LIVER, np.s_[28:43, 10:30, 5:19]),
        (TUMOR, np.s_[18:30, 16:24, 9:15]),
    )
    case = replace(case, unions={"lung": ("left", "right")})
    kind = removal(label="lung", margin_mm=0)
    new = after(case, built(kind, case), kind)
    assert (new[18:24, 16:24, 9:15] == KIDNEY).all()
    assert (new[24:30, 16:24, 9:15] == LIVER).all()


def test_the_organ_is_the_one_the_lesion_is_named_after() -> None:
    """A tumour that bulges out of its kidney may touch more liver than kidney."""
    boxes = (
        (LIVER, np.s_[5:40, 20:35, 4:20]),
        (KIDNEY, np.s_[20:30, 8:14, 8:16]),
        (TUMOR, np.s_[18:32, 14:20, 6:18]),
    )
    named = labelled({"kidney": KIDNEY, "kidney_tumor": TUMOR, "liver": LIVER}, *boxes)
    anywhere = {"max_exophytic_share": 1}
    assert built(removal(lesion="kidney_tumor", **anywhere), named).label == "kidney"
    plain = labelled({"kidney": KIDNEY, "tumor": TUMOR, "liver": LIVER}, *boxes)
    assert built(removal(), plain).label == "liver"
    assert built(removal(label="kidney", **anywhere), plain).label == "kidney"


def test_the_organ_is_asked_for_by_its_most_general_name() -> None:
    case = replace(make_tiny_case(), label_names={"kidney_left": KIDNEY, "tumor": TUMOR})
    case = replace(case, unions={"left": ("kidney_left",), "kidney": ("kidney_left", "other")})
    mask = built(removal(), case)
    assert mask.facts["organ"] == "kidney_left"
    assert mask.label == "kidney"


def test_neighbouring_lesions_and_structures_are_not_painted_over() -> None:
    names = {"kidney": KIDNEY, "tumor": TUMOR, "liver": LIVER, "cyst": 4}
    case = labelled(
        names,
        (KIDNEY, np.s_[8:40, 8:32, 4:20]),
        (TUMOR, np.s_[12:18, 12:18, 8:12]),
        (TUMOR, np.s_[20:30, 12:18, 8:12]),
        (4, np.s_[12:18, 19:24, 8:12]),
        (LIVER, np.s_[0:11, 8:32, 4:20]),
    )
    kind = removal(part="largest", margin_mm=6, margin_into="surroundings")
    mask = built(kind, case)
    where, labels = mask.in_host(case.labels.shape), case.labels.array
    assert where[20:30, 12:18, 8:12].all()
    assert not where[12:18, 12:18, 8:12].any()
    assert not where[(labels == LIVER) | (labels == 4)].any()
    assert mask.facts["lesions_left"] == 1
    assert mask.label == "kidney"


def test_all_lesions_of_the_largest_ones_organ_are_removed_together() -> None:
    names = {"kidney": KIDNEY, "tumor": TUMOR, "liver": LIVER}
    case = labelled(
        names,
        (KIDNEY, np.s_[4:20, 4:36, 4:20]),
        (LIVER, np.s_[28:44, 4:36, 4:20]),
        (TUMOR, np.s_[8:14, 8:14, 8:12]),
        (TUMOR, np.s_[8:14, 20:25, 8:12]),
        (TUMOR, np.s_[32:36, 8:12, 8:12]),
    )
    mask = built(removal(part="all", margin_mm=0), case)
    assert np.array_equal(
        mask.in_host(case.labels.shape),
        (case.labels.array == TUMOR) & (np.arange(48) < 24)[:, None, None],
    )
    assert (mask.facts["lesions"], mask.facts["lesions_left"]) == (2, 1)
    chosen = {built(removal(), case, seed).facts["lesion_volume_ml"] for seed in range(20)}
    assert len(chosen) == 3


def test_a_lesion_cut_by_the_field_of_view_is_removed_as_far_as_it_is_seen() -> None:
    case = labelled(
        {"kidney": KIDNEY, "tumor": TUMOR},
        (KIDNEY, np.s_[0:20, 8:32, 0:20]),
        (TUMOR, np.s_[0:8, 12:20, 0:5]),
    )
    mask = built(removal(margin_mm=4), case)
    assert mask.facts["touches_border"]
    assert mask.in_host(case.labels.shape)[0:8, 12:20, 0:5].all()


def test_a_single_voxel_is_too_small_unless_it_is_asked_for() -> None:
    case = labelled(
        {"kidney": KIDNEY, "tumor": TUMOR},
        (KIDNEY, np.s_[8:30, 8:32, 4:20]),
        (TUMOR, np.s_[15:16, 15:16, 9:10]),
    )
    with pytest.raises(PlacementError) as error:
        removal().draw(case, None, np.random.default_rng(0))
    assert error.value.reason == "too_small"
    assert "0.05 to 5000 ml" in str(error.value)
    kind = removal(volume_ml=[0, 1], margin_mm=0)
    mask = built(kind, case)
    assert mask.facts["voxels"] == 1
    assert (after(case, mask, kind)[8:30, 8:32, 4:20] == KIDNEY).all()


def test_a_lesion_above_the_greatest_volume_is_refused() -> None:
    with pytest.raises(PlacementError) as error:
        removal(volume_ml=[0, 0.1]).draw(make_tiny_case(), None, np.random.default_rng(0))
    assert error.value.reason == "too_large"


def test_a_lesion_in_no_organ_is_refused() -> None:
    case = labelled({"kidney": KIDNEY, "tumor": TUMOR}, (TUMOR, np.s_[12:20, 12:20, 8:14]))
    with pytest.raises(PlacementError) as error:
        removal().draw(case, None, np.random.default_rng(0))
    assert error.value.reason == "no_organ"
    assert "name the organ as label" in str(error.value)
    # Named, it is painted although nothing of it is left, but only if that is wanted.
    kind = removal(label="kidney", max_exophytic_share=1)
    assert (after(case, built(kind, case), kind)[12:20, 12:20, 8:14] == KIDNEY).all()


def test_a_lesion_that_hangs_on_its_organ_by_little_is_refused() -> None:
    case = labelled(
        {"kidney": KIDNEY, "tumor": TUMOR},
        (KIDNEY, np.s_[4:16, 8:32, 4:20]),
        (TUMOR, np.s_[16:26, 12:22, 8:14]),
    )
    with pytest.raises(PlacementError) as error:
        removal().draw(case, None, np.random.default_rng(0))
    assert error.value.reason == "exophytic"
    mask = built(removal(max_exophytic_share=0.9), case)
    # One of six faces; a voxel's faces are 0.8 x 2.5 mm at the sides and 0.8 x 0.8 mm on top.
    sides, top = 10 * 6 * 0.8 * 2.5, 10 * 10 * 0.8 * 0.8
    assert mask.facts["exophytic_share"] == pytest.approx(
        1 - sides / (4 * sides + 2 * top), abs=1e-4
    )


def test_a_host_without_the_lesion_or_the_organ_is_refused() -> None:
    empty = labelled({"kidney": KIDNEY, "tumor": TUMOR}, (KIDNEY, np.s_[8:30, 8:32, 4:20]))
    with pytest.raises(MaskError, match="'tumor' has no voxels"):
        removal().draw(empty, None, np.random.default_rng(0))
    with pytest.raises(MaskError, match="'spleen' is not in the label map"):
        built(removal(label="spleen"), make_tiny_case())


def test_parameters_replay_the_same_mask_and_only_on_their_host() -> None:
    case, kind = make_tiny_case(), removal(margin_into="surroundings")
    params = json.loads(json.dumps(kind.draw(case, None, np.random.default_rng(1))))
    one, two = kind.build(case, None, params), kind.build(make_tiny_case(), None, params)
    assert one.box == two.box
    assert np.array_equal(one.region.array, two.region.array)
    assert one.values is not None
    assert two.values is not None
    assert np.array_equal(one.values, two.values)
    with pytest.raises(MaskError, match="drawn for host tiny"):
        kind.build(make_tiny_case("other"), None, params)
    with pytest.raises(MaskError, match="was its label map changed"):
        kind.build(case, None, {**params, "parts": [2]})


def test_the_mask_does_not_depend_on_how_the_scan_was_stored() -> None:
    case, kind = make_tiny_case(), removal(margin_into="surroundings")
    expected = built(kind, case)
    assert expected.values is not None
    for read in read_in_all_ways(case):
        mask = built(kind, read)
        assert mask.values is not None
        assert mask.box == expected.box
        assert np.array_equal(mask.region.array, expected.region.array)
        assert np.array_equal(mask.values, expected.values)
        assert np.allclose(mask.region.affine, expected.region.affine)


@pytest.mark.parametrize(
    "fields",
    [
        {"label": "tumor"},
        {"max_extent_mm": 9},
        {"volume_ml": [2, 1]},
        {"margin_mm": -1},
        {"part": "second"},
    ],
)
def test_senseless_sections_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        removal(**fields)


def test_a_removal_says_which_labels_it_needs() -> None:
    assert removal().required_labels() == ("tumor",)
    assert "kidney" in removal().optional_labels()
    assert removal(label="kidney").required_labels() == ("tumor", "kidney")
    assert removal(label="kidney").optional_labels() == ()
    assert removal(label="kidney").painted_labels() == ("kidney",)


@pytest.mark.parametrize("rule", ["random", "largest", "all"])
def test_slices_show_the_lesion_and_not_only_its_margin(rule: SliceRule) -> None:
    case = make_tiny_case()
    mask = built(removal(margin_mm=8, slices=rule), case)
    lesion = np.flatnonzero((case.labels.array == TUMOR).any(axis=(0, 1)))
    assert mask.box.start_ijk[2] < lesion[0]
    for seed in range(20):
        chosen = draw_slices(mask, "axial", rule, None, np.random.default_rng(seed))
        assert {params["slice_index"] for params in chosen} <= set(lesion.tolist())
