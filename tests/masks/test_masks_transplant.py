"""Transplants: physical truth, replay, every limit of ``accept``, and the real KiTS23 shapes."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ellipsoid, oblique_affine
from orientations import stored_in_all_ways
from scipy import ndimage

from synthct.errors import MaskError
from synthct.masks.accept import Accept
from synthct.masks.base import Mask, Params, PlacementError
from synthct.masks.lesion import TransformedLesion, find_lesion, transform_lesion
from synthct.masks.organ_site import OrganSite
from synthct.masks.place import PlacementTarget, find_place
from synthct.masks.placement import check_placement
from synthct.masks.transplant import Transplant
from synthct.volume import Box, Volume, read_ct, read_labels
from synthct.volume.anatomy import lesions_of
from synthct.volume.case import Case

NAMES = {"kidney": 1, "tumor": 2, "cyst": 3, "liver": 4}
FAT_HU, KIDNEY_HU = -100, 120
HOST_SHAPE, HOST_SPACING = (90, 70, 30), (1.0, 1.0, 3.0)
KIDNEYS = [((24.0, 35.0, 45.0), (14.0, 13.0, 30.0)), ((66.0, 35.0, 45.0), (15.0, 13.0, 30.0))]
STILL = {"scale": 1.0, "rotation": [1, 0, 0, 0], "mirror": False, "velocity": None}
RIGID = {"max_displacement_mm": 0, "scale": [1, 1], "rotate_deg": 0, "flip": False}


def make_host(background_hu: int = FAT_HU) -> Case:
    labels = np.zeros(HOST_SHAPE, dtype=np.uint8)
    for centre, radii in KIDNEYS:
        labels[ellipsoid(HOST_SHAPE, HOST_SPACING, centre, radii)] = 1
    hu = np.where(labels == 1, KIDNEY_HU, background_hu).astype(np.int16)
    affine = oblique_affine(HOST_SPACING)
    return Case("host", "host", "hosts", Volume(hu, affine), Volume(labels, affine), NAMES)


def make_donor(
    radii_mm: tuple[float, float, float] = (8.0, 6.0, 9.0),
    spacing: tuple[float, float, float] = (0.8, 0.8, 4.0),
) -> Case:
    """A lumpy tumour in the middle of the scan, on the medial side of a left kidney."""
    i, j, k = (int(length / s) + 4 for length, s in zip((90, 60, 76), spacing, strict=True))
    shape, middle = (i, j, k), (i * spacing[0] / 2, j * spacing[1] / 2, k * spacing[2] / 2)
    bump = (middle[0] + 0.8 * radii_mm[0], middle[1], middle[2])
    kidney = (middle[0] - 10.0 - 0.2 * radii_mm[0], middle[1] - 3.0, middle[2] + 8.0)
    solid = ellipsoid(shape, spacing, middle, radii_mm)
    half = (radii_mm[0] / 2, radii_mm[1] / 2, radii_mm[2] / 2)
    solid |= ellipsoid(shape, spacing, bump, half)
    organ = ellipsoid(shape, spacing, kidney, (14.0, 12.0, 28.0))
    labels = np.select([solid, organ], [2, 1], 0).astype(np.uint8)
    volume = Volume(labels, oblique_affine(spacing))
    return Case("donor", "donor", "donors", None, volume, NAMES)


def transplant(**fields: object) -> Transplant:
    return Transplant.model_validate(
        {"name": "t", "kind": "transplant", "label": "tumor", "into": "kidney", **fields}
    )


def site_of(host: Case, **limits: object) -> OrganSite:
    return transplant(accept=limits)._organ_sites(host)[0]


def transformed_of(donor: Case, scale: float = 1.0) -> TransformedLesion:
    return transform_lesion(find_lesion(donor, "tumor", 1), {**STILL, "scale": scale})


def at_mm(host: Case, ijk: tuple[float, float, float]) -> np.ndarray:
    return host.labels.affine[:3, :3] @ ijk + host.labels.affine[:3, 3]


def drawn(kind: Transplant, host: Case, donor: Case, seed: int = 0) -> tuple[Params, Mask]:
    params = kind.draw(host, donor, np.random.default_rng(seed))
    return params, kind.build(host, donor, params)


def in_all_ways(case: Case) -> Iterator[Case]:
    """The case on all axes on which it may be stored, not made canonical."""
    labels = stored_in_all_ways(case.labels)
    images = stored_in_all_ways(case.ct) if case.ct else [None] * 48
    for ct, own in zip(images, labels, strict=True):
        yield Case(case.case_id, case.patient_id, case.source, ct, own, NAMES)


def centres_mm(mask: Mask) -> set[tuple[float, float, float]]:
    voxels = np.argwhere(mask.region.array)
    places = voxels @ mask.region.affine[:3, :3].T + mask.region.affine[:3, 3]
    return {tuple(place) for place in places.round(1).tolist()}


def check_limits(host: Case, mask: Mask, accept: Accept, organ: str = "kidney") -> None:
    """The limits anew, from voxels only and without any code of the placement."""
    where = mask.in_host(host.labels.shape)
    kidney = host.region(organ)
    numbers, _ = ndimage.label(kidney)
    centre = tuple(np.rint(np.argwhere(where).mean(axis=0)).astype(int))
    assert kidney[centre]
    assert (where & kidney).sum() >= accept.inside_fraction * where.sum()
    assert where.sum() <= accept.organ_fraction * (numbers == numbers[centre]).sum()
    assert ndimage.label(where)[1] == 1
    assert not (where & ~kidney & (host.labels.array > 0)).any()
    assert where.sum() * host.labels.voxel_volume_ml >= accept.min_volume_ml
    outside = where & ~kidney
    # Whatever is within the rim (2 mm, or a voxel) is within four voxels.
    beyond = outside & ~ndimage.binary_dilation(kidney, np.ones((3, 3, 3), bool), iterations=4)
    low, high = accept.outside_hu
    assert (host.scan().array[outside] >= low).all()
    assert (host.scan().array[beyond] <= high).all()
    soft = (host.scan().array > -30) & beyond
    assert soft.sum() <= accept.soft_tissue_fraction * where.sum()
    assert mask.facts["jacobian_min"] > 0


@pytest.mark.parametrize("placement", ["random", pytest.param("matched", marks=pytest.mark.long)])
def test_accepted_transplants_keep_every_limit(placement: str) -> None:
    host, donor, kind = make_host(), make_donor(), transplant(placement=placement)
    for seed in range(8):
        params, mask = drawn(kind, host, donor, seed)
        check_limits(host, mask, kind.accept)
        assert mask.label == "tumor"
        assert 0.7 <= params["scale"] <= 1.4
        assert mask.facts["volume_ml"] == pytest.approx(
            mask.facts["donor_lesion"]["volume_ml"] * params["scale"] ** 3, rel=0.06
        )


def test_recorded_parameters_replay_the_same_mask():
    kind = transplant()
    for seed in range(5):
        params, mask = drawn(kind, make_host(), make_donor(), seed)
        again = kind.build(make_host(), make_donor(), json.loads(json.dumps(params)))
        assert mask.box == again.box
        assert np.array_equal(mask.region.array, again.region.array)
        assert json.loads(json.dumps(mask.facts)) == json.loads(json.dumps(again.facts))


def test_draws_differ_by_seed_and_are_the_same_for_one():
    host, donor, kind = make_host(), make_donor(), transplant()
    one, two, other = (kind.draw(host, donor, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one == two
    assert one["origin_mm"] != other["origin_mm"]


# --- physical truth ---


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (0.8, 0.8, 5.0), (2.0, 2.0, 2.0), (1, 3, 2)])
@pytest.mark.parametrize(
    "target",
    [
        0.5, 1.0, 1.5, (0.6, 0.6, 5.0), (0.5, 0.5, 1.0),
        pytest.param(5.0, marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_volume_is_kept_on_any_grid_where_the_lesion_has_400_voxels(spacing, target):
    fine = target if isinstance(target, tuple) else (target,) * 3
    size = (27.0, 24.0, 28.0) if fine == (5.0,) * 3 else (9.0, 7.0, 11.0)
    donor = make_donor(size, spacing)
    transformed = transformed_of(donor)
    longest_mm = np.ptp(transformed.corners_mm, axis=0).max()
    i, j, k = shape = tuple(int(longest_mm * 1.3 / s) for s in fine)
    host = Case("h", "h", "h", None, Volume(np.zeros(shape, np.uint8), oblique_affine(fine)), {})
    affine = host.labels.affine.copy()
    affine[:3, 3] -= at_mm(host, (i / 2, j / 2, k / 2))
    region = transformed.voxels(Box((0, 0, 0), (i, j, k)), affine)
    numbers, _ = ndimage.label(region)
    largest = np.bincount(numbers.ravel())[1:].max()
    assert largest >= 400
    volume_ml = (donor.labels.array == 2).sum() * donor.labels.voxel_volume_ml
    assert largest * host.labels.voxel_volume_ml == pytest.approx(volume_ml, rel=0.05)


def test_rigid_lesion_keeps_place_and_shape():
    donor = make_donor((9.0, 7.0, 11.0), (0.8, 0.8, 1.0))
    transformed = transformed_of(donor)
    solid = donor.labels.array == 2
    affine = donor.labels.affine.copy()
    affine[:3, 3] -= transformed.lesion.centre_mm
    again = transformed.voxels(Box((0, 0, 0), donor.labels.shape), affine)
    assert 2 * (solid & again).sum() / (solid.sum() + again.sum()) > 0.97


def test_thin_arms_of_a_contour_are_not_transplanted_but_thin_lesions_are():
    donor = make_donor((9.0, 7.0, 11.0), (0.8, 0.8, 1.0))
    plain = transformed_of(donor)
    i, j, k = (n // 2 for n in donor.labels.shape)
    donor.labels.array[i - 25 : i, j, k] = 2
    with_arm = transformed_of(make_case(donor.labels, "armed"))
    box, affine = Box((-40, -30, -30), (30, 30, 30)), np.eye(4)
    affine[:3, 3] = plain.lesion.centre_mm - with_arm.lesion.centre_mm
    one, two = plain.voxels(box, np.eye(4)), with_arm.voxels(box, affine)
    assert 2 * (one & two).sum() / (one.sum() + two.sum()) > 0.95
    sheet = make_donor((9.0, 7.0, 1.5), (0.8, 0.8, 1.0))
    region = transformed_of(sheet).voxels(box, np.eye(4))
    assert np.ptp(np.argwhere(region)[:, 0]) > 15


def make_case(labels: Volume, name: str, names: dict[str, int] = NAMES) -> Case:
    return Case(name, name, "donors", None, Volume(labels.array.copy(), labels.affine), names)


def test_mirroring_exchanges_left_and_right_only():
    lesion = find_lesion(make_donor(), "tumor", 1)
    plain, mirrored = (transform_lesion(lesion, {**STILL, "mirror": m}) for m in (False, True))
    grid = np.diag([1.0, 1.0, 1.0, 1.0])
    box = Box((-25, -25, -25), (26, 26, 26))
    one, two = plain.voxels(box, grid), mirrored.voxels(box, grid)
    assert 2 * (one & two[::-1]).sum() / (one.sum() + two.sum()) > 0.98
    assert (one & two).sum() < 0.98 * one.sum()


@pytest.mark.long
def test_all_48_orientations_of_host_and_donor_give_the_same_physical_mask():
    kind, host, donor = transplant(), make_host(), make_donor()
    params, mask = drawn(kind, host, donor)
    expected = centres_mm(mask)
    # Files are made canonical when they are read; the masks do not even need that.
    for one, other in zip(in_all_ways(host), reversed(list(in_all_ways(donor))), strict=True):
        assert centres_mm(kind.build(one, other, params)) == expected


# --- matched and random places ---


@pytest.mark.long
def test_matched_placement_keeps_place_depth_and_exophytic_share_on_either_side():
    host, donor = make_host(), make_donor()
    kind = transplant(
        deform={"scale": [0.9, 1.1], "max_displacement_mm": 2}, accept={"inside_fraction": 0.2}
    )
    (facts,) = lesions_of(donor, "tumor", "kidney")
    seen = set()
    for seed in range(8):
        _, mask = drawn(kind, host, donor, seed)
        side = mask.facts["organ_side"]
        seat = facts.seat.seen_from(side)
        assert np.linalg.norm(np.subtract(mask.facts["place"], seat.place)) < 1.0
        assert mask.facts["exophytic_share"] == pytest.approx(seat.exophytic_share, abs=0.15)
        kidneys = sorted(KIDNEYS)
        kidney_x = kidneys[side == "right"][0][0]
        lesion_x = np.argwhere(mask.in_host(HOST_SHAPE))[:, 0].mean()
        assert (lesion_x > kidney_x) == (side == "left"), "not on the medial side"
        seen.add(side)
    assert seen == {"left", "right"}


@pytest.mark.long
def test_lesion_is_mirrored_where_the_side_differs_and_flipped_where_asked():
    host, donor = make_host(), make_donor()
    kind = transplant(deform=RIGID)
    for seed in range(6):
        params, mask = drawn(kind, host, donor, seed)
        assert params["mirror"] == (mask.facts["organ_side"] == "right")
    flipping = transplant(deform={**RIGID, "flip": True})
    flips = set()
    for seed in range(10):
        params, mask = drawn(flipping, host, donor, seed)
        flips.add(params["mirror"] != (mask.facts["organ_side"] == "right"))
    assert flips == {True, False}


def test_outer_side_of_the_lesion_stays_outside():
    host = make_host()
    host.labels.array[:45] = 0
    donor = make_donor()
    # The donor's kidney is a left one and its tumour medial; an arm marks the outer side.
    i, j, k = (n // 2 for n in donor.labels.shape)
    donor.labels.array[i : i + 25, j - 3 : j + 4, k - 1 : k + 1] = 2
    kind = transplant(deform=RIGID, accept={"inside_fraction": 0.2})
    for seed in range(4):
        _, mask = drawn(kind, host, donor, seed)
        where = mask.in_host(HOST_SHAPE)
        middle = np.argwhere(where)[:, 0].mean()
        ends = np.argwhere(where)[:, 0].min(), np.argwhere(where)[:, 0].max()
        # Medial of a right kidney is towards lower i: the arm points there.
        assert middle - ends[0] > 1.3 * (ends[1] - middle)


@pytest.mark.long
def test_random_placement_needs_no_organ_in_the_donor_and_goes_everywhere():
    host = make_host()
    bare = make_donor()
    bare.labels.array[bare.labels.array == 1] = 0
    kind = transplant(placement="random", deform=RIGID)
    places = np.array([drawn(kind, host, bare, seed)[1].facts["place"] for seed in range(12)])
    assert np.ptp(places, axis=0).min() > 1.0
    assert kind.donor_labels() == ("tumor",)
    assert transplant().donor_labels() == ("tumor", "kidney")
    with pytest.raises(PlacementError, match="no tumor that matches the query") as error:
        transplant().draw(host, bare, np.random.default_rng(0))
    assert error.value.reasons == {"no_lesion": 1}


# --- limits and reasons ---


@pytest.mark.long
def test_lesion_is_scaled_down_to_its_share_of_the_organ():
    host, donor = make_host(), make_donor((15.0, 14.0, 16.0))
    kind = transplant(deform={"scale": [0.5, 1.4]})
    for seed in range(5):
        params, mask = drawn(kind, host, donor, seed)
        assert params["scale"] < 0.9
        assert mask.facts["organ_fraction"] <= 0.25


def test_lesion_too_large_for_the_organ_is_rejected_before_any_try():
    with pytest.raises(PlacementError, match=r"even at scale 0\.9") as error:
        transplant(deform={"scale": [0.9, 1.4]}).draw(
            make_host(), make_donor((18.0, 16.0, 19.0)), np.random.default_rng(0)
        )
    assert error.value.reason == "organ_fraction"


def blocked(reason: str) -> tuple[Case, dict[str, object]]:
    """A host in which nothing can be placed, and the limits that make it so."""
    host = make_host()
    labels, hu = host.labels.array, host.scan().array
    if reason == "inside_fraction":
        # Kidneys of loose sheets: large enough, but no place is filled to 0.6.
        labels[:, ::2] = 0
        labels[24, 23:48, 8:22] = labels[66, 23:48, 8:22] = 1
        return host, {"organ_fraction": 1.0, "inside_fraction": 0.6}
    if reason == "field_of_view":
        keep = Box((0, 0, 14), (90, 70, 16))
        host = Case("host", "host", "hosts", host.scan().crop(keep), host.labels.crop(keep), NAMES)
        return host, {"organ_fraction": 1.0, "inside_fraction": 0.05}
    if reason == "other_structure":
        labels[labels == 0] = 4
        return host, {"inside_fraction": 0.6}
    if reason in ("air", "bone", "soft_tissue"):
        hu[labels == 0] = {"air": -1000, "bone": 600, "soft_tissue": 40}[reason]
        return host, {"inside_fraction": 0.6}
    assert reason == "clearance"
    labels[:, ::8, ::3][labels[:, ::8, ::3] == 1] = 3
    return host, {"clearance_mm": 6.0, "inside_fraction": 0.3, "organ_fraction": 1.0}


@pytest.mark.parametrize("reason", ["field_of_view", "inside_fraction", "clearance"])
def test_impossible_placements_are_rejected_with_their_reason(reason):
    host, limits = blocked(reason)
    kind = transplant(accept=limits, deform=RIGID, tries=3)
    with pytest.raises(PlacementError) as error:
        kind.draw(host, make_donor(), np.random.default_rng(0))
    assert error.value.reasons == {reason: 3}


@pytest.mark.parametrize("reason", ["other_structure", "air", "bone", "soft_tissue"])
def test_obstacles_around_the_organ_keep_lesions_inside(reason):
    host, limits = blocked(reason)
    kind = transplant(accept=limits)
    # Up to the rim, bright voxels and soft tissue are the organ's own blurred edge.
    least = {"other_structure": 0.99, "air": 0.99, "bone": 0.9, "soft_tissue": 0.75}[reason]
    for seed in range(4):
        _, mask = drawn(kind, host, make_donor(), seed)
        assert mask.facts["inside_fraction"] > least
    full = {**limits, "organ_fraction": 1.0, "soft_tissue_fraction": 0.03}
    big = transplant(accept=full, deform=RIGID, tries=2)
    with pytest.raises(PlacementError) as error:
        big.draw(host, make_donor((16.0, 15.0, 20.0)), np.random.default_rng(0))
    assert error.value.reasons == {reason: 2}


def test_each_limit_is_judged_on_the_hosts_voxels():
    host, donor = make_host(), make_donor()
    transformed = transformed_of(donor)
    inside = at_mm(host, (66, 35, 15))

    def reason(
        place: np.ndarray = inside,
        lesion: TransformedLesion = transformed,
        on: Case = host,
        **limits: object,
    ) -> str | None:
        return check_placement(site_of(on, **limits), lesion, np.asarray(place)).reason

    assert reason() is None
    assert reason(at_mm(host, (66, 35, 0))) == "field_of_view"
    # It lies within the scan, but ends in the last slice, as a lesion that is cut would.
    at_border = Box((0, 0, 12), (90, 70, 18))
    slab = Case("h", "h", "h", host.scan().crop(at_border), host.labels.crop(at_border), NAMES)
    assert (
        check_placement(site_of(slab, organ_fraction=1), transformed, inside).reason
        == "field_of_view"
    )
    assert reason(at_mm(host, (66, 18, 15))) == "inside_fraction"
    assert reason(organ_fraction=0.01) == "organ_fraction"
    assert reason(min_volume_ml=50.0) == "too_small"
    assert reason(min_slices=10) == "too_small"
    for name in ("other_structure", "air", "bone"):
        assert reason(at_mm(host, (66, 23, 15)), on=blocked(name)[0], rim_mm=0) == name
    muscle = blocked("soft_tissue")[0]
    assert reason(at_mm(host, (66, 23, 15)), on=muscle, soft_tissue_fraction=0) == "soft_tissue"
    assert reason(at_mm(host, (66, 23, 15)), on=muscle, soft_tissue_fraction=0.5) is None
    near = make_host()
    near.labels.array[66, 35, 15] = 3
    assert reason(on=near) == "clearance"
    hollow = make_host()
    hollow.labels.array[64:69, 33:38, 14:17] = 0
    assert reason(on=hollow, inside_fraction=0.01, organ_fraction=1.0) == "centre_outside"
    # A velocity far too strong for its grid folds; none like it is ever drawn.
    wild = {
        "frequencies": [[2.0, 0, 0], [0, 2.0, 0.5]],
        "phases": [0.3, 1.0],
        "amplitudes_mm": [[10.0, 0, 0], [0, 10.0, 10.0]],
    }
    folded = transform_lesion(transformed.lesion, {**STILL, "velocity": wild})
    assert folded.bend.jacobian_min < 0
    assert reason(lesion=folded) == "folded"


def test_vessels_that_are_named_are_kept_clear_of():
    host = make_host()
    names = {**NAMES, "renal_artery": 9}
    host.labels.array[60:66, 34:37, 14:17] = 9
    host = Case("host", "host", "hosts", host.ct, host.labels, names)
    away = ndimage.distance_transform_edt(host.labels.array != 9, HOST_SPACING)
    kind = transplant(accept={"clearance_mm": 5.0, "avoid": ["renal_artery"]})
    for seed in range(4):
        _, mask = drawn(kind, host, make_donor(), seed)
        assert away[mask.in_host(HOST_SHAPE)].min() > 5.0


def test_lesion_that_falls_apart_on_a_coarse_grid_is_torn():
    donor = make_donor((5.0, 5.0, 5.0), (1.0, 1.0, 1.0))
    labels = donor.labels.array
    labels[:] = 0
    labels[10:22, 26:38, 26:38] = labels[42:54, 26:38, 26:38] = 2
    labels[22:42, 32, 32] = 2
    place = at_mm(make_host(), (66, 35, 15))
    site = site_of(make_host(), inside_fraction=0.01, organ_fraction=1.0)
    assert check_placement(site, transformed_of(donor), place).reason == "torn"


def test_bright_rim_belongs_to_the_blurred_organ_but_bone_does_not():
    host = make_host()
    kidney = host.labels.array == 1
    host.scan().array[ndimage.binary_dilation(kidney) & ~kidney] = 260
    lesion, place = transformed_of(make_donor()), at_mm(host, (66, 25, 15))
    assert check_placement(site_of(host), lesion, place).facts["clipped_fraction"] == 0
    assert check_placement(site_of(host, rim_mm=0), lesion, place).reason == "bone"


def test_lesion_is_clipped_where_it_only_touches_an_obstacle():
    host, lesion = make_host(), transformed_of(make_donor())
    host.scan().array[:, :14] = -1000
    shares = []
    for j in np.arange(17.0, 23.0, 0.5):
        placement = check_placement(
            site_of(host, inside_fraction=0.01), lesion, at_mm(host, (66, j, 15))
        )
        if placement.reason in (None, "centre_outside"):
            shares.append(placement.facts["clipped_fraction"])
            assert host.scan().array[placement.box.slices][placement.region].min() >= -200
            assert ndimage.label(placement.region)[1] == 1
        else:
            assert placement.reason == "air"
    assert min(shares) == 0
    assert 0 < max(shares) <= 0.05


def test_other_lesions_of_the_host_are_kept_clear_of():
    host = make_host()
    host.labels.array[62:68, 30:36, 8:14] = 3
    kind = transplant(accept={"clearance_mm": 4.0})
    away = ndimage.distance_transform_edt(host.labels.array != 3, HOST_SPACING)
    for seed in range(5):
        _, mask = drawn(kind, host, make_donor(), seed)
        assert away[mask.in_host(HOST_SHAPE)].min() > 4.0


def test_organ_in_two_pieces_takes_each_and_measures_it_alone():
    host, donor, kind = make_host(), make_donor(), transplant()
    host.labels.array[45, 5, 5] = 1  # a speck is no organ
    seen = {kind.draw(host, donor, np.random.default_rng(seed))["organ_part"] for seed in range(5)}
    assert seen == {1, 2}
    assert len(kind._organ_sites(host)) == 2


# --- donors ---


def test_query_chooses_among_the_lesions_of_a_donor():
    host, donor = make_host(), make_donor()
    i, j, k = (n // 2 for n in donor.labels.shape)
    donor.labels.array[i - 30 : i - 20, j - 8 : j + 2, k : k + 3] = 2
    donor.labels.array[-2, -2, -2] = 2  # a speck
    large = lesions_of(donor, "tumor", "kidney")[0].volume_ml

    def taken(**query: object) -> set[int]:
        kind = transplant(query=query)
        draws = (kind.draw(host, donor, np.random.default_rng(seed)) for seed in range(3))
        return {params["part"] for params in draws}

    assert taken() == {1, 2}
    assert taken(volume_ml=[0.1, large - 0.1]) == {2}
    assert taken(volume_ml=[large, 100]) == {1}
    assert taken(diameter_mm=[18, 60]) == {1}
    assert taken(exophytic_share=[0.2, 1.0]) == {1}
    whole = transplant(part="largest")
    assert {whole.draw(host, donor, np.random.default_rng(s))["part"] for s in range(3)} == {1}
    nobody = transplant(query={"side": "right"})
    with pytest.raises(PlacementError, match="widen the query") as error:
        nobody.draw(host, donor, np.random.default_rng(0))
    assert error.value.reason == "no_lesion"
    with pytest.raises(ValueError, match="must rise"):
        transplant(query={"volume_ml": [5, 2]})


def test_one_voxel_lesion_is_a_speck_and_too_small_if_asked_for():
    donor = make_donor()
    donor.labels.array[donor.labels.array == 2] = 1
    donor.labels.array[30, 30, 8] = 2
    with pytest.raises(PlacementError) as error:
        transplant().draw(make_host(), donor, np.random.default_rng(0))
    assert error.value.reasons == {"no_lesion": 1}
    kind = transplant(query={"volume_ml": [0, 1]}, placement="random", tries=2)
    with pytest.raises(PlacementError) as error:
        kind.draw(make_host(), donor, np.random.default_rng(0))
    assert error.value.reasons == {"too_small": 2}


def test_donors_without_a_usable_lesion_are_refused():
    kind, host = transplant(), make_host()
    rng = np.random.default_rng(0)
    empty = make_donor()
    empty.labels.array[:] = 0
    with pytest.raises(PlacementError, match="'tumor' has no voxels") as error:
        kind.draw(host, empty, rng)
    assert error.value.reason == "no_lesion"
    cut = make_donor()
    cut.labels.array[:] = 0
    cut.labels.array[30:40, 30:40, :4] = 2
    with pytest.raises(PlacementError, match="cut by the field of view") as error:
        kind.draw(host, cut, rng)
    assert error.value.reason == "no_lesion"
    unknown = make_case(empty.labels, "donor", {"kidney": 1})
    with pytest.raises(PlacementError, match="'tumor' is not in the label map") as error:
        kind.draw(host, unknown, rng)
    assert error.value.reason == "no_lesion"
    with pytest.raises(MaskError, match="needs a donor"):
        kind.draw(host, None, rng)


def test_host_without_the_organ_is_refused():
    host = make_host()
    host.labels.array[:] = 0
    with pytest.raises(PlacementError, match="'kidney' has no voxels") as error:
        transplant().draw(host, make_donor(), np.random.default_rng(0))
    assert error.value.reasons == {"no_organ": 1}
    other = Case("host", "host", "hosts", host.ct, host.labels, {"tumor": 2})
    with pytest.raises(PlacementError, match="'kidney' is not in the label map") as error:
        transplant().draw(other, make_donor(), np.random.default_rng(0))
    assert error.value.reason == "no_organ"


def test_host_and_donor_are_never_the_same_patient():
    host, donor = make_host(), make_donor()
    same = Case("donor", "host", "donors", None, donor.labels, NAMES)
    with pytest.raises(MaskError, match="same patient"):
        transplant().draw(host, same, np.random.default_rng(0))


def test_parameters_of_other_cases_or_broken_limits_are_refused():
    host, donor, kind = make_host(), make_donor(), transplant()
    params, _ = drawn(kind, host, donor)
    with pytest.raises(MaskError, match="drawn for donor donor"):
        kind.build(host, make_case(donor.labels, "d2"), params)
    with pytest.raises(MaskError, match="has 1 part but part 7"):
        kind.build(host, donor, {**params, "part": 7})
    with pytest.raises(MaskError, match="has 2 parts but part 9"):
        kind.build(host, donor, {**params, "organ_part": 9})
    with pytest.raises(PlacementError, match="breaks the limit organ_fraction") as error:
        transplant(accept={"organ_fraction": 0.001}).build(host, donor, params)
    assert error.value.reason == "organ_fraction"


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6])
def test_found_places_are_legal_on_the_hosts_own_grid_and_bulge_out_as_targeted(
    share: float,
) -> None:
    host, rng = make_host(), np.random.default_rng(0)
    lesion, site = transformed_of(make_donor()), site_of(host)
    legal, shares = 0, []
    for _ in range(8):
        place, reason = find_place(site, lesion, PlacementTarget(share), rng)
        assert place is not None, reason
        placement = check_placement(site, lesion, place)
        legal += placement.reason is None
        shares.append(placement.facts["exophytic_share"])
    assert legal >= 6
    assert np.mean(shares) == pytest.approx(share, abs=0.1)


@pytest.mark.long
@pytest.mark.realdata
def test_real_kits_lesions_are_placed_in_a_real_host(shared_data: Path) -> None:
    root = shared_data / "kits23" / "dataset"

    def read(name: str, source: str) -> Case:
        image = root / name / "imaging.nii.gz"
        labels = read_labels(root / name / "segmentation.nii.gz")
        scan = read_ct(image) if image.exists() else None
        return Case(name, name, source, scan, labels, {"kidney": 1, "tumor": 2, "cyst": 3})

    host, kind = read("case_90003", "hosts"), transplant()
    for name in ("case_00004", "case_00106", "case_00467"):
        _, mask = drawn(kind, host, read(name, "donors"))
        check_limits(host, mask, kind.accept)
        seat = mask.facts["donor_lesion"]["seat"]
        assert mask.facts["exophytic_share"] == pytest.approx(seat["exophytic_share"], abs=0.25)
