"""Hand-made tumours: their shape, their place, and every reason to refuse one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import make_tiny_case, oblique_affine
from orientations import read_in_all_ways
from pydantic import ValidationError

from synthct.errors import MaskError
from synthct.masks.base import Mask, PlacementError
from synthct.masks.deform import Velocity, flow
from synthct.masks.ellipsoid import RADIUS_MM, Ellipsoid
from synthct.volume import Volume
from synthct.volume.case import Case
from synthct.volume.regions import components

KIDNEY, TUMOR = 1, 2
SPACING = (0.9, 0.7, 3.0)


def case(*boxes: tuple[int, tuple[slice, slice, slice]], case_id: str = "host") -> Case:
    """90 x 91 x 90 mm, oblique: an organ that leaves a rim of 9 mm, and boxes on top."""
    shape = (100, 130, 30)
    labels = np.zeros(shape, dtype=np.uint8)
    for value, where in boxes or ((KIDNEY, np.s_[10:90, 13:117, 3:27]),):
        labels[where] = value
    affine = oblique_affine(SPACING)
    ct = Volume(np.full(shape, 40, dtype=np.int16), affine)
    names = {"kidney": KIDNEY, "tumor": TUMOR}
    return Case(case_id, case_id, "hosts", ct, Volume(labels, affine), names)


def ellipsoid(**fields: Any) -> Ellipsoid:
    return Ellipsoid.model_validate({"name": "e", "label": "tumor", "into": "kidney", **fields})


def built(kind: Ellipsoid, host: Case, seed: int = 0) -> Mask:
    return kind.build(host, None, kind.draw(host, None, np.random.default_rng(seed)))


def reason_of(kind: Ellipsoid, host: Case) -> str:
    with pytest.raises(PlacementError) as error:
        kind.draw(host, None, np.random.default_rng(0))
    assert len(error.value.reasons) == 1
    return error.value.reason


@pytest.mark.parametrize("size", ["tiny", "small", "medium"])
def test_a_plain_ellipsoid_has_the_volume_of_its_drawn_axes(size: str) -> None:
    host = case()
    kind = ellipsoid(sizes=[size], elastic=0, inside_fraction=1, clearance_mm=0)
    ratios = []
    for seed in range(5):
        params = kind.draw(host, None, np.random.default_rng(seed))
        assert params["velocity"] is None
        radii = np.asarray(params["radii_mm"])
        assert (radii >= 0.75 * RADIUS_MM[params["size"]]).all()
        assert (radii <= 1.25 * RADIUS_MM[params["size"]]).all()
        mask = kind.build(host, None, params)
        ratios.append(mask.volume_ml / (4 / 3 * np.pi * radii.prod() / 1000))
        centre = np.asarray(params["centre_mm"])
        mass = np.argwhere(mask.region.array).mean(axis=0)
        mass_mm = mask.region.affine[:3, :3] @ mass + mask.region.affine[:3, 3]
        assert np.linalg.norm(mass_mm - centre) < max(SPACING)
    assert np.mean(ratios) == pytest.approx(1, abs=0.12 if size == "tiny" else 0.05)


def test_every_size_that_fits_is_drawn() -> None:
    host = case()
    kind = ellipsoid(sizes=["tiny", "small", "medium"])
    assert {built(kind, host, seed).facts["size"] for seed in range(7)} == set(kind.sizes)


def test_an_elastic_surface_is_folded_nowhere_and_moved_by_no_more_than_it_may() -> None:
    host = case()
    kind = ellipsoid(sizes=["medium"], elastic=0.3)
    for seed in range(3):
        params = kind.draw(host, None, np.random.default_rng(seed))
        bend = flow(Velocity.from_json(params["velocity"]), params["reach_mm"])
        assert bend.jacobian_min > 0
        moved = np.linalg.norm(bend.field_mm, axis=-1).max()
        assert kind.build(host, None, params).facts["jacobian_min"] > 0
        assert 0 < moved <= 0.3 * RADIUS_MM["medium"] + 1e-6


def test_it_is_one_piece_within_one_part_of_the_organ() -> None:
    two = case((KIDNEY, np.s_[5:45, 13:117, 3:27]), (KIDNEY, np.s_[55:95, 13:117, 3:27]))
    kind = ellipsoid(sizes=["small"], inside_fraction=0.6)
    sides = set()
    for seed in range(10):
        mask = built(kind, two, seed)
        where = mask.in_host(two.labels.shape)
        assert (two.labels.array[where] == KIDNEY).all()
        assert len(components(mask.region.array)[1]) == 1
        sides.add(bool(where[:50].any()))
        assert mask.facts["inside_fraction"] >= 0.6
        part_ml = (two.labels.array[:50] == KIDNEY).sum() * two.labels.voxel_volume_ml
        assert mask.facts["organ_fraction"] == pytest.approx(mask.volume_ml / part_ml, rel=1e-2)
    assert sides == {True, False}


def test_it_keeps_clear_of_other_lesions() -> None:
    host = case((KIDNEY, np.s_[10:90, 13:117, 3:27]), (TUMOR, np.s_[40:60, 50:80, 12:18]))
    kind = ellipsoid(sizes=["small"], clearance_mm=5)
    lesion = np.argwhere(host.labels.array == TUMOR) * SPACING
    for seed in range(5):
        mine = np.argwhere(built(kind, host, seed).in_host(host.labels.shape)) * SPACING
        gaps = np.linalg.norm(mine[::7, None] - lesion[None, ::7], axis=-1)
        assert gaps.min() > 5
        assert mine.size


@pytest.mark.parametrize(
    ("expected", "fields", "host"),
    [
        ("inside_fraction", {"sizes": ["small"], "organ_fraction": 1},
         case((KIDNEY, np.s_[45:55, 60:70, 14:16]))),
        ("organ_fraction", {"sizes": ["medium"], "organ_fraction": 0.001, "inside_fraction": 0.1},
         case((KIDNEY, np.s_[40:60, 50:80, 11:19]))),
        ("too_small", {"sizes": ["tiny"], "min_volume_ml": 5, "inside_fraction": 0.1},
         case((KIDNEY, np.s_[30:70, 40:90, 8:22]))),
        ("field_of_view", {"sizes": ["medium"], "inside_fraction": 0.01, "organ_fraction": 1},
         case((KIDNEY, np.s_[0:6, 0:8, 0:3]))),
        ("clearance", {"sizes": ["tiny"], "clearance_mm": 50, "inside_fraction": 0.1},
         case((KIDNEY, np.s_[30:70, 40:90, 8:22]), (TUMOR, np.s_[48:52, 60:66, 14:16]))),
    ],
)  # fmt: skip
def test_every_limit_is_a_reason_to_refuse(
    expected: str, fields: dict[str, Any], host: Case
) -> None:
    assert reason_of(ellipsoid(tries=4, **fields), host) == expected


def test_an_organ_of_one_voxel_is_no_place() -> None:
    assert reason_of(ellipsoid(sizes=["tiny"], tries=3), case((KIDNEY, np.s_[50:51, 60:61, 15:16])))


def test_a_host_without_the_organ_is_refused() -> None:
    host = case()
    host.labels.array[:] = 0
    with pytest.raises(MaskError, match="'kidney' has no voxels"):
        ellipsoid().draw(host, None, np.random.default_rng(0))
    with pytest.raises(MaskError, match="'liver' is not in the label map"):
        ellipsoid(into="liver").draw(case(), None, np.random.default_rng(0))


def test_recorded_parameters_replay_the_same_mask_or_are_refused() -> None:
    host, kind = case(), ellipsoid(sizes=["small"])
    params = json.loads(json.dumps(kind.draw(host, None, np.random.default_rng(2))))
    one, two = kind.build(host, None, params), kind.build(case(), None, params)
    assert one.box == two.box
    assert np.array_equal(one.region.array, two.region.array)
    assert one.label == "tumor"
    with pytest.raises(MaskError, match="drawn for host host"):
        kind.build(case(case_id="other"), None, params)
    with pytest.raises(MaskError, match="breaks the limit organ_fraction"):
        kind.model_copy(update={"organ_fraction": 0.0001}).build(host, None, params)
    outside = {**params, "centre_mm": host.labels.affine[:3, 3].tolist()}
    with pytest.raises(MaskError, match="breaks the limit centre_outside"):
        kind.build(host, None, outside)


@pytest.mark.long
def test_the_mask_does_not_depend_on_how_the_scan_was_stored() -> None:
    host, kind = make_tiny_case(), ellipsoid(sizes=["tiny"], clearance_mm=0, inside_fraction=0.5)
    expected = built(kind, host, 5)
    for read in read_in_all_ways(host):
        mask = built(kind, read, 5)
        assert mask.box == expected.box
        assert np.array_equal(mask.region.array, expected.region.array)


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 0.8), (1, 1, 2.5), (2, 2, 5)])
def test_the_same_numbers_are_the_same_solid_on_any_grid(
    spacing: tuple[float, float, float],
) -> None:
    """The parameters are in millimetres of the patient, and voxels come in only at the end."""
    host, kind = case(), ellipsoid(sizes=["medium"], inside_fraction=1, clearance_mm=0)
    params = kind.draw(host, None, np.random.default_rng(1))
    size = [int(n * a / b) for n, a, b in zip(host.labels.shape, SPACING, spacing, strict=True)]
    affine = oblique_affine(spacing)
    labels = Volume(np.full(size, KIDNEY, dtype=np.uint8), affine)
    other = replace(host, ct=None, labels=labels)
    expected = kind.build(host, None, params).volume_ml
    assert kind.build(other, None, params).volume_ml == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    "fields",
    [{"sizes": []}, {"sizes": ["huge"]}, {"elastic": 0.5}, {"inside_fraction": 0}, {"label": None}],
)
def test_senseless_sections_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ellipsoid(**fields)


def test_what_the_plan_asks() -> None:
    kind = ellipsoid(sizes=["tiny", "small"])
    assert kind.required_labels() == ("kidney",)
    assert set(kind.optional_labels()) == {"tumor", "cyst", "lesion"}
    assert kind.likely_extent_mm(500) == 12
    assert kind.label_policy() == "paint"
    assert kind.changes_lesion == "added"
