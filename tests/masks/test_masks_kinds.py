"""Organ, box and blob masks on a small oblique phantom of known truth."""

import json

import numpy as np
import pytest
from conftest import make_tiny_case
from orientations import read_in_all_ways
from pydantic import TypeAdapter, ValidationError

from synthct.errors import MaskError
from synthct.masks import MaskKind, organ
from synthct.masks.base import PlacementError
from synthct.masks.blob import Blob
from synthct.masks.box import BoxMask
from synthct.masks.grow import grow, grow_within
from synthct.volume import Volume
from synthct.volume.case import Case
from synthct.volume.regions import components, structure

KINDS = [
    {"kind": "organ", "label": "kidney"},
    {"kind": "organ", "label": "kidney", "margin_mm": 3},
    {"kind": "organ", "organs": ["kidney", "tumor"]},
    {"kind": "organ", "organs": ["kidney", "tumor"], "paint": "one_by_one", "margin_mm": -1},
    {"kind": "box", "around": "kidney", "margin_mm": [1, 4], "jitter_mm": 2},
    {"kind": "box", "around": "kidney", "margin_mm": [1, 4], "in_plane": "coronal"},
    {"kind": "blob", "radius_mm": [3, 6]},
    {"kind": "blob", "radius_mm": [3, 6], "within": "kidney"},
    {"kind": "free_form", "box_share": 1, "box_mm": [8, 12], "frame_mm": 20},
    {"kind": "free_form", "box_share": 0, "width_mm": [2, 4], "segment_mm": 6, "frame_mm": 20},
]


def section(**fields: object) -> MaskKind:
    return TypeAdapter(MaskKind).validate_python({"name": "m", **fields})


def two_kidneys(gap: bool = True) -> Case:
    case = make_tiny_case()
    labels = np.zeros((48, 40, 24), dtype=np.uint8)
    labels[6:16, 10:20, 5:15] = 1
    labels[26:40, 12:24, 8:18] = 1
    if not gap:
        labels[16:26, 14:18, 9:12] = 1
    labels[20, 30, 20] = 1  # a speck
    return Case(
        case.case_id,
        case.patient_id,
        case.source,
        case.ct,
        Volume(labels, case.labels.affine),
        {"kidney": 1},
    )


@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_recorded_parameters_replay_the_same_mask(fields):
    case, kind = make_tiny_case(), section(**fields)
    params = kind.draw(case, None, np.random.default_rng(4))
    one = kind.build(case, None, params)
    two = kind.build(make_tiny_case(), None, json.loads(json.dumps(params)))
    assert one.box == two.box
    assert np.array_equal(one.region.array, two.region.array)
    assert one.region.array.any()
    assert np.allclose(one.region.affine, case.labels.crop(one.box).affine)
    assert json.loads(json.dumps(one.facts)) == two.facts


@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_parameters_of_another_host_are_refused(fields):
    kind = section(**fields)
    params = kind.draw(make_tiny_case(), None, np.random.default_rng(4))
    with pytest.raises(MaskError, match="drawn for host tiny"):
        kind.build(make_tiny_case("other"), None, params)


def test_organ_mask_is_the_label():
    case = make_tiny_case()
    mask = section(kind="organ", label="kidney").build(
        case, None, {"host": "tiny", "organs": ["kidney"], "missing": [], "margin_mm": 0}
    )
    assert np.array_equal(mask.in_host(case.labels.shape), case.labels.array == 1)
    assert mask.label == "kidney"
    assert mask.facts["volume_ml"] == pytest.approx(mask.volume_ml, abs=1e-4)


@pytest.mark.parametrize("margin_mm", [1.0, 3.0, 5.5])
def test_grown_region_reaches_exactly_its_margin(margin_mm):
    spacing = (0.8, 1.1, 2.5)
    region = np.zeros((21, 21, 21), dtype=bool)
    region[10, 10, 10] = True
    away = [(np.arange(21) - 10) * s for s in spacing]
    distance = np.sqrt(sum(x**2 for x in np.meshgrid(*away, indexing="ij")))
    assert np.array_equal(grow(region, margin_mm, np.diag([*spacing, 1])), distance <= margin_mm)


def test_shrinking_is_growing_of_the_outside():
    region = np.zeros((20, 20, 20), dtype=bool)
    region[3:17, 4:16, 2:18] = True
    affine = np.diag([0.8, 1, 2.5, 1])
    assert np.array_equal(grow(region, -2.6, affine), ~grow(~region, 2.6, affine))


def test_organ_shrunk_to_nothing_is_refused():
    kind = section(kind="organ", label="kidney", margin_mm=-30)
    case = make_tiny_case()
    with pytest.raises(MaskError, match="leaves nothing of kidney"):
        kind.build(case, None, kind.draw(case, None, np.random.default_rng(0)))


def test_organs_are_looked_for_and_grown_once_per_case(monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args)
        return grow_within(*args)

    monkeypatch.setattr(organ, "grow_within", counted)
    case, kind = make_tiny_case(), section(kind="organ", label="kidney", margin_mm=3)
    masks = [
        kind.build(case, None, kind.draw(case, None, np.random.default_rng(n))) for n in range(3)
    ]
    assert len(calls) == 1
    assert all(np.array_equal(one.region.array, masks[0].region.array) for one in masks)
    region, _ = structure(case, ["kidney"])
    assert structure(case, iter(["kidney"]))[0] is region
    assert not region.flags.writeable  # nobody changes what others get


def test_several_organs_are_one_mask_and_missing_ones_are_recorded():
    case = make_tiny_case()
    kind = section(kind="organ", organs=["kidney", "spleen", "tumor"])
    mask = kind.build(case, None, kind.draw(case, None, np.random.default_rng(0)))
    assert np.array_equal(mask.in_host(case.labels.shape), case.labels.array > 0)
    assert mask.label is None
    assert mask.facts["missing"] == ["spleen"]
    assert kind.required_labels() == ()
    assert kind.optional_labels() == ("kidney", "spleen", "tumor")


def test_organs_one_by_one_are_each_painted_as_themselves():
    case = make_tiny_case()
    kind = section(kind="organ", organs=["kidney", "spleen", "tumor"], paint="one_by_one")
    drawn = set()
    for seed in range(12):
        params = kind.draw(case, None, np.random.default_rng(seed))
        mask = kind.build(case, None, params)
        assert mask.label is not None
        drawn.add(mask.label)
        assert np.array_equal(
            mask.in_host(case.labels.shape), case.labels.array == case.label_names[mask.label]
        )
        assert mask.facts["organs"] == [mask.label]
    assert drawn == {"kidney", "tumor"}
    assert kind.painted_labels() == ("kidney", "spleen", "tumor")
    assert section(kind="organ", organs=["kidney", "tumor"]).painted_labels() == ()


def test_an_organ_in_two_pieces_grows_and_shrinks_in_both():
    case = two_kidneys()
    affine, organ = case.labels.affine, case.labels.array == 1
    for margin_mm in (-1.7, 2.6):
        kind = section(kind="organ", label="kidney", margin_mm=margin_mm)
        mask = kind.build(case, None, kind.draw(case, None, np.random.default_rng(0)))
        assert np.array_equal(mask.in_host(organ.shape), grow(organ, margin_mm, affine))


def test_organ_is_not_shrunk_from_the_edge_of_the_scan():
    case = two_kidneys()
    labels = np.zeros_like(case.labels.array)
    labels[0:20, 10:30, 0:10] = 1
    case = Case("c", "c", "hosts", case.ct, Volume(labels, case.labels.affine), {"kidney": 1})
    kind = section(kind="organ", label="kidney", margin_mm=-2.6)
    mask = kind.build(case, None, kind.draw(case, None, np.random.default_rng(0)))
    expected = np.zeros_like(labels, dtype=bool)
    expected[0:17, 13:27, 0:9] = True  # 2.6 mm are three voxels of 0.8 mm, and one of 2.5 mm
    assert np.array_equal(mask.in_host(labels.shape), expected)


def test_organ_that_no_host_has_is_refused_with_what_there_is():
    with pytest.raises(MaskError, match=r"none of spleen.*knows: kidney, tumor"):
        section(kind="organ", label="spleen").draw(make_tiny_case(), None, np.random.default_rng())


@pytest.mark.parametrize(
    ("fields", "policy"),
    [
        ({"kind": "organ", "label": "kidney"}, "keep"),
        ({"kind": "organ", "label": "kidney", "margin_mm": -2}, "keep"),
        ({"kind": "organ", "label": "kidney", "margin_mm": 2}, "ignore"),
        ({"kind": "organ", "label": "kidney", "margin_mm": 2, "label_map": "paint"}, "paint"),
        ({"kind": "box", "around": "kidney", "margin_mm": [1, 2]}, "ignore"),
        ({"kind": "blob"}, "ignore"),
        ({"kind": "transplant", "label": "tumor", "into": "kidney"}, "paint"),
        ({"kind": "transplant", "label": "tumor", "into": "kidney", "label_map": "keep"}, "keep"),
    ],
)
def test_label_policy_suits_the_kind(fields, policy):
    assert section(**fields).label_policy() == policy


@pytest.mark.parametrize("policy", ["paint", "ignore", "keep"])
@pytest.mark.parametrize(
    ("fields", "has_truth"),
    [
        ({"kind": "organ", "label": "kidney"}, True),
        ({"kind": "counterpart", "label": "tumor", "into": "kidney"}, True),
        ({"kind": "transplant", "label": "tumor", "into": "kidney"}, False),
        ({"kind": "ellipsoid", "label": "tumor", "into": "kidney"}, False),
        ({"kind": "removal", "lesion": "tumor"}, False),
    ],
)
def test_what_was_there_is_no_truth_for_a_lesion_whatever_the_label_map_says(
    fields, has_truth, policy
):
    assert section(**fields, label_map=policy).has_truth() == (has_truth and policy != "paint")


def test_box_holds_one_kidney_with_margins_in_range():
    case = two_kidneys()
    kind = section(kind="box", around="kidney", margin_mm=[2, 5])
    inner = {(26, 12, 8): (40, 24, 18), (6, 10, 5): (16, 20, 15)}
    seen = set()
    for seed in range(12):
        mask = kind.build(case, None, kind.draw(case, None, np.random.default_rng(seed)))
        assert mask.region.array.all()
        start = next(
            s
            for s in inner
            if all(np.subtract(s, mask.box.start_ijk) >= 0)
            and all(np.subtract(mask.box.stop_ijk, inner[s]) >= 0)
        )
        seen.add(start)
        for axis, spacing in enumerate((0.8, 0.8, 2.5)):
            before = (start[axis] - mask.box.start_ijk[axis]) * spacing
            after = (mask.box.stop_ijk[axis] - inner[start][axis]) * spacing
            assert 2 - spacing / 2 <= before <= 5 + spacing / 2
            assert 2 - spacing / 2 <= after <= 5 + spacing / 2
    assert len(seen) == 2


def test_a_part_that_is_not_there_any_more_is_refused():
    case = two_kidneys()
    kind = section(kind="box", around="kidney", margin_mm=[2, 5])
    params = kind.draw(case, None, np.random.default_rng(0))
    with pytest.raises(MaskError, match="has 2 parts but part 3 was drawn"):
        kind.build(case, None, {**params, "part": 3})


def test_box_around_a_missing_or_empty_structure_is_refused():
    case = two_kidneys()
    kind = section(kind="box", around="liver", margin_mm=[2, 5])
    with pytest.raises(MaskError, match="'liver' is not in the label map"):
        kind.draw(case, None, np.random.default_rng(0))
    case.labels.array[:] = 0
    kind = section(kind="box", around="kidney", margin_mm=[2, 5])
    with pytest.raises(MaskError, match="'kidney' has no voxels"):
        kind.draw(case, None, np.random.default_rng(0))


def test_box_around_a_single_voxel_has_its_margins():
    case = two_kidneys()
    case.labels.array[:] = 0
    case.labels.array[20, 18, 12] = 1
    kind = section(kind="box", around="kidney", margin_mm=[4, 4])
    mask = kind.build(case, None, kind.draw(case, None, np.random.default_rng(0)))
    assert mask.box.shape == (11, 11, 5)  # 4 mm are 5 voxels of 0.8 mm and 2 of 2.5 mm


def test_jitter_moves_the_box_by_no_more_than_it_may():
    case = make_tiny_case()
    kind = section(kind="box", around="kidney", margin_mm=[1, 1], jitter_mm=3)
    kidney = np.argwhere(case.labels.array == 1).min(axis=0)
    shifts = []
    for seed in range(12):
        box = kind.build(case, None, kind.draw(case, None, np.random.default_rng(seed))).box
        shifts.append((box.start_ijk - kidney) * (0.8, 0.8, 2.5) + 1)
    assert (np.abs(shifts).max(axis=0) <= np.add(3, (0.4, 0.4, 1.25))).all()
    assert np.ptp(shifts, axis=0).min() > 2


def test_box_around_all_parts_and_clipped_to_the_scan():
    case = two_kidneys()
    kind = section(kind="box", around="kidney", margin_mm=[60, 60], part="all")
    mask = kind.build(case, None, kind.draw(case, None, np.random.default_rng(0)))
    assert mask.box.shape == case.labels.shape
    assert mask.facts["touches_border"]


def test_box_in_plane_follows_every_slice():
    case = make_tiny_case()
    kind = section(kind="box", around="kidney", margin_mm=[2, 2], in_plane="axial")
    mask = kind.build(case, None, kind.draw(case, None, np.random.default_rng(0)))
    inside, kidney = mask.in_host(case.labels.shape), case.labels.array == 1
    widths = []
    for k in range(inside.shape[2]):
        if not inside[..., k].any():
            continue
        rows = np.flatnonzero(inside[..., k].any(axis=1))
        columns = np.flatnonzero(inside[..., k].any(axis=0))
        assert inside[np.ix_(rows, columns)][..., k].all()
        assert rows.size == np.ptp(rows) + 1
        widths.append(rows.size)
        if kidney[..., k].any():
            assert inside[..., k][kidney[..., k]].all()
    assert len(set(widths)) > 2


def test_blobs_lie_in_tissue_and_keep_their_radii():
    case = make_tiny_case()
    kind = section(kind="blob", radius_mm=[3, 5], tissue_fraction=0.9)
    for seed in range(25):
        mask = kind.build(case, None, kind.draw(case, None, np.random.default_rng(seed)))
        hu = case.scan().crop(mask.box).array[mask.region.array]
        assert (hu > -200).mean() >= 0.9
        assert len(components(mask.region.array)[1]) == 1
        extent = np.multiply(mask.box.shape, (0.8, 0.8, 2.5)) - (0.8, 0.8, 2.5)
        assert extent.max() <= 2 * 5 * 1.3 + 0.01


def test_blob_within_an_organ_never_leaves_it():
    case = make_tiny_case()
    kind = section(kind="blob", radius_mm=[4, 8], within="kidney")
    for seed in range(10):
        mask = kind.build(case, None, kind.draw(case, None, np.random.default_rng(seed)))
        assert (case.labels.crop(mask.box).array[mask.region.array] == 1).all()


def test_plain_blob_has_the_volume_of_its_ellipsoid():
    case = make_tiny_case()
    kind = section(kind="blob", radius_mm=[6, 6], flatness=1, roughness=0, tissue_fraction=0)
    volumes = []
    for seed in range(20):
        mask = kind.build(case, None, kind.draw(case, None, np.random.default_rng(seed)))
        if not mask.facts["touches_border"]:
            volumes.append(mask.volume_ml)
    assert np.mean(volumes) == pytest.approx(4 / 3 * np.pi * 6**3 / 1000, rel=0.05)


def test_blob_without_a_place_is_counted():
    case = make_tiny_case()
    kind = section(kind="blob", radius_mm=[20, 20], tissue_fraction=1, tries=3)
    with pytest.raises(PlacementError) as error:
        kind.draw(case, None, np.random.default_rng(0))
    assert error.value.reasons == {"outside_tissue": 3}
    case.scan().array[:] = -1000
    with pytest.raises(PlacementError, match="no_tissue 3"):
        kind.draw(case, None, np.random.default_rng(0))


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "organ"},
        {"kind": "organ", "organs": ["kidney"], "paint": "one_by_one"},
        {"kind": "organ", "organs": ["a", "b"], "label": "a", "paint": "one_by_one"},
        {"kind": "box", "around": "kidney", "margin_mm": [5, 1]},
        {"kind": "blob", "radius_mm": [5, 1]},
        {"kind": "organ", "label": "kidney", "name": "Not A Slug"},
        {"kind": "organ", "label": "kidney", "weight": 0},
        {"kind": "organ", "label": "kidney", "weight": float("inf")},
        {"kind": "organ", "label": "kidney", "margn_mm": 1},
        {"kind": "transplant", "label": "tumor", "into": "kidney", "deform": {"scale": [2, 1]}},
        {"kind": "transplant", "label": "t", "into": "k", "accept": {"outside_hu": [9, 1]}},
    ],
    ids=str,
)
def test_senseless_sections_are_refused(fields):
    with pytest.raises(ValidationError):
        section(**fields)


@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_masks_do_not_depend_on_how_the_scan_was_stored(fields):
    case, kind = make_tiny_case(), section(**fields)
    expected = kind.build(case, None, kind.draw(case, None, np.random.default_rng(3)))
    for read in read_in_all_ways(case):
        mask = kind.build(read, None, kind.draw(read, None, np.random.default_rng(3)))
        assert mask.box == expected.box
        assert np.array_equal(mask.region.array, expected.region.array)
        assert np.allclose(mask.region.affine, expected.region.affine)


def test_box_and_blob_say_which_labels_they_need():
    assert BoxMask(name="b", around="liver", margin_mm=(1, 2)).required_labels() == ("liver",)
    assert Blob(name="b").required_labels() == ()
    assert Blob(name="b", within="lung").required_labels() == ("lung",)


def test_a_free_form_is_the_same_in_all_its_slices_and_stays_in_its_frame():
    case = make_tiny_case()
    for seed in range(6):
        kind = section(kind="free_form", frame_mm=20, segment_mm=6, box_mm=[8, 12],
                       width_mm=[2, 4], depth_mm=6, tissue_fraction=0)  # fmt: skip
        mask = kind.build(case, None, kind.draw(case, None, np.random.default_rng(seed)))
        region = mask.region.array
        drawn = [region[:, :, k] for k in range(region.shape[2])]
        assert all(np.array_equal(one, drawn[0]) for one in drawn)
        i_mm, j_mm = (n * s for n, s in zip(region.shape, case.labels.spacing_mm[:2], strict=False))
        assert max(i_mm, j_mm) <= 20 + 2 * 0.8
        assert region.shape[2] * case.labels.spacing_mm[2] <= 6 + 2 * 2.5


@pytest.mark.parametrize(("share", "is_box"), [(1, True), (0, False)])
def test_a_free_form_is_a_box_or_strokes(share, is_box):
    case = make_tiny_case()
    kind = section(kind="free_form", box_share=share, frame_mm=20, segment_mm=6, box_mm=[8, 12],
                   width_mm=[2, 3], tissue_fraction=0, strokes=[3, 3])  # fmt: skip
    params = kind.draw(case, None, np.random.default_rng(1))
    assert ("half_mm" in params["lines"][0]) is is_box
    assert len(params["lines"]) == (1 if is_box else 3)
    region = kind.build(case, None, params).region.array
    assert bool(region.all()) is is_box


def test_a_free_form_lies_in_tissue_or_is_told():
    case = make_tiny_case()
    air = Case(case.case_id, case.patient_id, case.source,
               Volume(np.full_like(case.ct.array, -1000), case.ct.affine),
               case.labels, case.label_names)  # fmt: skip
    with pytest.raises(PlacementError, match=r"no place for a free form after 30 tries \(no_tis"):
        section(kind="free_form").draw(air, None, np.random.default_rng(0))
