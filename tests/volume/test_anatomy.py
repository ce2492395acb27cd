"""Organs have sides and frames; lesions are measured in mm and described by their seat."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import ellipsoid, oblique_affine

from synthct.errors import MaskError
from synthct.volume import Volume
from synthct.volume.anatomy import Frame, LesionFacts, exophytic_share, lesions_of, organ_parts
from synthct.volume.case import Case

SHAPE, SPACING = (100, 60, 40), (1.0, 1.0, 2.0)
NAMES = {"kidney": 1, "tumor": 2}


def make_case(
    *regions: tuple[np.ndarray, int], names: dict[str, int] = NAMES, **unions: tuple[str, ...]
) -> Case:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for region, value in regions:
        labels[region] = value
    return Case("c", "c", "s", None, Volume(labels, oblique_affine(SPACING)), names, unions)


def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    return ellipsoid(SHAPE, SPACING, centre, (radius,) * 3)


def kidney(x: float, radii: tuple[float, float, float] = (12.0, 10.0, 26.0)) -> np.ndarray:
    return ellipsoid(SHAPE, SPACING, (x, 30.0, 40.0), radii)


# --- lesions ---


def test_a_ball_has_its_volume_diameter_depth_and_exophytic_share():
    inside = make_case((kidney(25, (20, 20, 34)), 1), (ball((25, 30, 40), 8), 2))
    (facts,) = lesions_of(inside, "tumor", "kidney")
    assert facts.volume_ml == pytest.approx(4 / 3 * np.pi * 8**3 / 1000, rel=0.04)
    assert facts.diameter_mm == pytest.approx(17, abs=1.2)
    assert facts.seat.exophytic_share == 0
    assert facts.seat.depth_mm == pytest.approx(20, abs=1.5)
    assert np.linalg.norm(facts.seat.place) < 0.05
    # Half of a ball sticks out of a flat organ.
    slab = np.zeros(SHAPE, dtype=bool)
    slab[10:40] = True
    (facts,) = lesions_of(make_case((slab, 1), (ball((39.5, 30, 40), 9), 2)), "tumor", "kidney")
    assert facts.seat.exophytic_share == pytest.approx(0.5, abs=0.04)
    assert facts.seat.depth_mm == pytest.approx(9, abs=1.5)
    assert facts.seat.outward == pytest.approx(slab_normal(), abs=0.05)
    # One that touches nothing is outside altogether.
    (facts,) = lesions_of(make_case((slab, 1), (ball((70, 30, 40), 9), 2)), "tumor", "kidney")
    assert facts.seat.exophytic_share == 1


def slab_normal() -> np.ndarray:
    axis = oblique_affine(SPACING)[:3, 0]
    return axis / np.linalg.norm(axis)


def test_exophytic_share_is_weighted_by_the_area_of_faces():
    lesion, organ = np.zeros((3, 3, 3), bool), np.zeros((3, 3, 3), bool)
    lesion[1, 1, 1] = organ[1, 1, 0] = True
    # One of two faces of 1 x 1 mm beside four of 1 x 5 mm.
    assert exophytic_share(lesion, organ, (1, 1, 5)) == pytest.approx(1 - 1 / 22)
    assert exophytic_share(lesion, np.ones_like(organ), (1, 1, 5)) == 0
    assert exophytic_share(np.ones_like(lesion), organ, (1, 1, 5)) == 1


def test_lesions_are_the_parts_of_a_label_the_largest_first_and_know_if_they_are_cut():
    case = make_case(
        (kidney(25), 1), (ball((20, 30, 40), 4), 2), (ball((33, 30, 50), 6), 2),
        (ball((60, 30, 1), 5), 2),
    )  # fmt: skip
    first, second, third = lesions_of(case, "tumor", "kidney")
    assert (first.number, second.number, third.number) == (1, 2, 3)
    assert first.volume_ml > second.volume_ml > third.volume_ml
    assert [one.is_cut for one in (first, second, third)].count(True) == 1
    cut = next(one for one in (first, second, third) if one.is_cut)
    assert cut.seat.exophytic_share == 1
    assert lesions_of(case, "tumor", "kidney")[0] is first, "found twice"


def test_a_lesion_without_its_organ_has_no_seat_and_one_voxel_is_a_lesion():
    labels = np.zeros(SHAPE, dtype=bool)
    labels[50, 30, 20] = True
    (facts,) = lesions_of(make_case((labels, 2)), "tumor", "kidney")
    assert facts.seat is None
    assert facts.volume_ml == 0.002
    assert facts.diameter_mm == 2.0
    (facts,) = lesions_of(make_case((labels, 2), names={"tumor": 2}), "tumor", "kidney")
    assert facts.seat is None
    with pytest.raises(MaskError, match="'tumor' has no voxels"):
        lesions_of(make_case((kidney(25), 1)), "tumor", "kidney")


def test_specks_beyond_the_largest_lesions_are_not_described():
    specks = np.zeros(SHAPE, dtype=bool)
    specks[2:98:3, 30, 4:36:4] = True
    assert len(lesions_of(make_case((specks, 2), (kidney(25), 1)), "tumor", "kidney")) == 32


def test_facts_survive_json():
    case = make_case((kidney(25), 1), (ball((33, 30, 50), 6), 2))
    (facts,) = lesions_of(case, "tumor", "kidney")
    assert LesionFacts.from_json(json.loads(json.dumps(facts.as_json()))) == facts


def test_seat_on_the_other_side_is_its_mirror_image():
    left = make_case((kidney(25), 1), (kidney(75), 1), (ball((15, 36, 52), 6), 2))
    straight = Volume(left.labels.array, np.diag([*SPACING, 1.0]))
    left = replace(left, labels=straight)
    right = replace(left, labels=Volume(straight.array[::-1].copy(), straight.affine))
    one, two = (lesions_of(case, "tumor", "kidney")[0].seat for case in (left, right))
    assert (one.side, two.side) == ("left", "right")
    mirrored = one.seen_from("right")
    assert mirrored.place == pytest.approx(two.place, abs=1e-3)
    assert mirrored.outward == pytest.approx(two.outward, abs=1e-3)
    assert one.seen_from("left") is one
    assert one.seen_from(None) is one


# --- organs ---


def test_sides_follow_names_then_pairs_then_the_scan():
    def sides(case: Case, organ: str = "kidney") -> list[str | None]:
        return [part.side for part in organ_parts(case, organ)]

    assert sides(make_case((kidney(25), 1), (kidney(75, (12, 9, 25)), 1))) == ["left", "right"]
    # A pair is told apart wherever in the scan it lies, a single organ by the scan's middle.
    assert sides(make_case((kidney(15), 1), (kidney(48, (11, 9, 25)), 1))) == ["left", "right"]
    assert sides(make_case((kidney(80), 1))) == ["right"]
    assert sides(make_case((kidney(50), 1))) == [None]
    names = {"kidney_left": 5, "kidney_right": 6}
    named = make_case(
        (kidney(25), 6), (kidney(75, (12, 9, 25)), 5), names=names, kidney=tuple(names)
    )
    assert sides(named) == ["right", "left"]
    assert sides(named, "kidney_left") == ["left"]


def test_organ_cut_in_two_on_one_side_stays_on_that_side_and_specks_are_no_parts():
    whole = kidney(20)
    whole[:, :, 20] = False
    whole[50, 50, 30] = True
    parts = organ_parts(make_case((whole, 1)), "kidney")
    assert [part.side for part in parts] == ["left", "left"]


def test_frame_is_the_ellipsoid_and_does_not_depend_on_the_grid():
    case = make_case((kidney(25, (12, 10, 26)), 1))
    (part,) = organ_parts(case, "kidney")
    values = np.sort(np.linalg.eigvalsh(part.frame.root_mm)) * np.sqrt(5)
    assert values == pytest.approx([10, 12, 26], rel=0.05)
    affine = case.labels.affine
    tip = affine[:3, :3] @ (25.0, 30.0, (40 + 26) / 2) + affine[:3, 3]
    assert np.linalg.norm(part.frame.place_of(tip)) == pytest.approx(np.sqrt(5), rel=0.05)
    axis = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    assert part.frame.outward(part.frame.place_of(tip)) == pytest.approx(axis, abs=0.05)
    assert np.allclose(part.frame.outward(np.zeros(3)), 0)
    one = Frame.of(np.ones((1, 1, 1), bool), affine)
    assert np.isfinite(one.place_of(tip)).all()
