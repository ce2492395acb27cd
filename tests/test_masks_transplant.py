"""Transplants: physical truth, replay, every limit of ``accept``, and the real KiTS23 shapes."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ellipsoid, oblique_affine
from scipy import ndimage

from synthct.case import Case
from synthct.errors import MaskError
from synthct.masks import PlacementError, Transplant
from synthct.masks.lesion import DonorParts, carry
from synthct.masks.place import Accept, Ground, find_place, settle
from synthct.volume import Box, Volume, read_ct, read_labels

NAMES = {"kidney": 1, "tumor": 2, "cyst": 3, "liver": 4}
FAT_HU, KIDNEY_HU = -100, 120
HOST_SHAPE, HOST_SPACING = (90, 70, 30), (1.0, 1.0, 3.0)
KIDNEYS = [((24.0, 35.0, 45.0), (14.0, 13.0, 30.0)), ((66.0, 35.0, 45.0), (15.0, 13.0, 30.0))]
RIGID = {"max_displacement_mm": 0, "scale": [1, 1], "rotate_deg": 0, "mirror": False}


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
    shape = tuple(int(60 / s) + 4 for s in spacing)
    middle = tuple(n * s / 2 for n, s in zip(shape, spacing, strict=True))
    bump = (middle[0] + 0.8 * radii_mm[0], middle[1], middle[2])
    solid = ellipsoid(shape, spacing, middle, radii_mm)
    solid |= ellipsoid(shape, spacing, bump, tuple(0.5 * r for r in radii_mm))
    volume = Volume(np.where(solid, 2, 0).astype(np.uint8), oblique_affine(spacing))
    return Case("donor", "donor", "donors", None, volume, NAMES)


def transplant(**fields: object) -> Transplant:
    return Transplant.model_validate(
        {"name": "t", "kind": "transplant", "label": "tumor", "into": "kidney", **fields}
    )


def ground_of(host: Case, **limits: object) -> Ground:
    return transplant(accept=limits)._grounds(host)[0]


def carried_of(donor: Case, scale: float = 1.0):
    lesion = DonorParts.find(donor, "tumor").lesion(1)
    still = {"scale": scale, "rotation": [1, 0, 0, 0], "mirror": False, "velocity": None}
    return carry(lesion, still)


def at_mm(host: Case, ijk: tuple[float, float, float]) -> np.ndarray:
    return host.labels.affine[:3, :3] @ ijk + host.labels.affine[:3, 3]


def drawn(kind: Transplant, host: Case, donor: Case, seed: int = 0):
    params = kind.draw(host, donor, np.random.default_rng(seed))
    return params, kind.build(host, donor, params)


def reoriented(case: Case, axes: tuple[int, ...], flips: tuple[bool, ...]) -> Case:
    """The same scan stored with its axes in another order and direction."""

    def turn(volume: Volume | None) -> Volume | None:
        if volume is None:
            return None
        array, affine = volume.array.transpose(axes), volume.affine.copy()
        affine[:3, :3] = volume.affine[:3, list(axes)]
        for axis, flip in enumerate(flips):
            if flip:
                array = np.flip(array, axis)
                affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
                affine[:3, axis] *= -1
        return Volume(np.ascontiguousarray(array), affine)

    return Case(case.case_id, case.patient_id, case.source, turn(case.ct), turn(case.labels), NAMES)


def centres_mm(mask) -> np.ndarray:
    voxels = np.argwhere(mask.region.array)
    places = voxels @ mask.region.affine[:3, :3].T + mask.region.affine[:3, 3]
    return places[np.lexsort(places.round(3).T)]


def check_limits(host: Case, mask, accept: Accept, organ: str = "kidney") -> None:
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
    beyond = outside & ~ndimage.binary_dilation(kidney, np.ones((3, 3, 3)), iterations=4)
    low, high = accept.outside_hu
    assert (host.scan().array[outside] >= low).all()
    assert (host.scan().array[beyond] <= high).all()
    assert mask.facts["jacobian_min"] > 0


def test_accepted_transplants_keep_every_limit():
    host, donor, kind = make_host(), make_donor(), transplant()
    for seed in range(12):
        params, mask = drawn(kind, host, donor, seed)
        check_limits(host, mask, kind.accept)
        assert mask.label == "tumor"
        assert 0.7 <= params["scale"] <= 1.4
        assert mask.facts["volume_ml"] == pytest.approx(
            mask.facts["donor_volume_ml"] * params["scale"] ** 3, rel=0.06
        )


def test_recorded_parameters_replay_the_same_mask():
    kind = transplant()
    for seed in range(5):
        params, mask = drawn(kind, make_host(), make_donor(), seed)
        again = kind.build(make_host(), make_donor(), json.loads(json.dumps(params)))
        assert mask.box == again.box
        assert np.array_equal(mask.region.array, again.region.array)
        assert json.loads(json.dumps(mask.facts)) == again.facts


def test_draws_differ_by_seed_and_are_the_same_for_one():
    host, donor, kind = make_host(), make_donor(), transplant()
    one, two, other = (kind.draw(host, donor, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one == two
    assert one["origin_mm"] != other["origin_mm"]


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (0.8, 0.8, 5.0), (2.0, 2.0, 2.0), (1, 3, 2)])
@pytest.mark.parametrize("target", [(0.6, 0.6, 5.0), (1.5, 1.5, 1.5), (0.5, 0.5, 1.0)])
def test_volume_is_kept_on_any_grid(spacing, target):
    carried = carried_of(make_donor((9.0, 7.0, 11.0), spacing))
    shape = tuple(int(80 / s) for s in target)
    host = Case("h", "h", "h", None, Volume(np.zeros(shape, np.uint8), oblique_affine(target)), {})
    affine = host.labels.affine.copy()
    affine[:3, 3] -= at_mm(host, tuple(n / 2 for n in shape))
    region = carried.voxels(Box((0, 0, 0), shape), affine)
    numbers, _ = ndimage.label(region)
    largest = np.bincount(numbers.ravel())[1:].max() * host.labels.voxel_volume_ml
    assert largest == pytest.approx(carried.lesion.volume_ml, rel=0.05)


def test_rigid_lesion_keeps_place_and_shape():
    donor = make_donor((9.0, 7.0, 11.0), (0.8, 0.8, 1.0))
    carried = carried_of(donor)
    solid = donor.labels.array == 2
    affine = donor.labels.affine.copy()
    affine[:3, 3] -= carried.lesion.centre_mm
    again = carried.voxels(Box((0, 0, 0), donor.labels.shape), affine)
    assert 2 * (solid & again).sum() / (solid.sum() + again.sum()) > 0.97


def test_mirroring_exchanges_left_and_right_only():
    donor = make_donor()
    lesion = DonorParts.find(donor, "tumor").lesion(1)
    base = {"scale": 1.0, "rotation": [1, 0, 0, 0], "velocity": None}
    plain, mirrored = (carry(lesion, {**base, "mirror": m}) for m in (False, True))
    grid = np.diag([1.0, 1.0, 1.0, 1.0])
    box = Box((-25, -25, -25), (26, 26, 26))
    one, two = plain.voxels(box, grid), mirrored.voxels(box, grid)
    assert 2 * (one & two[::-1]).sum() / (one.sum() + two.sum()) > 0.98
    assert (one & two).sum() < 0.98 * one.sum()


ORIENTATIONS = list(
    itertools.product(itertools.permutations(range(3)), itertools.product([False, True], repeat=3))
)


def test_all_48_orientations_give_the_same_physical_mask():
    kind, host, donor = transplant(), make_host(), make_donor()
    params, mask = drawn(kind, host, donor)
    expected = centres_mm(mask)
    assert len(ORIENTATIONS) == 48
    for axes, flips in ORIENTATIONS:
        turned = reoriented(host, axes, flips), reoriented(donor, axes[::-1], flips)
        other = centres_mm(kind.build(*turned, params))
        assert abs(len(other) - len(expected)) <= 2
        common = {tuple(p) for p in expected.round(1)} & {tuple(p) for p in other.round(1)}
        assert len(common) >= 0.99 * len(expected)


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
        return host, {"organ_fraction": 1.0}
    if reason == "field_of_view":
        keep = Box((0, 0, 14), (90, 70, 16))
        host = Case("host", "host", "hosts", host.scan().crop(keep), host.labels.crop(keep), NAMES)
        return host, {"organ_fraction": 1.0, "inside_fraction": 0.05}
    if reason == "other_structure":
        labels[labels == 0] = 4
        return host, {"inside_fraction": 0.6}
    if reason == "outside_tissue":
        hu[labels == 0] = -1000
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


@pytest.mark.parametrize("reason", ["other_structure", "outside_tissue"])
def test_obstacles_around_the_organ_keep_lesions_inside(reason):
    host, limits = blocked(reason)
    kind = transplant(accept=limits)
    for seed in range(5):
        _, mask = drawn(kind, host, make_donor(), seed)
        assert mask.facts["inside_fraction"] > 0.99
    big = transplant(accept={**limits, "organ_fraction": 1.0}, deform=RIGID, tries=2)
    with pytest.raises(PlacementError) as error:
        big.draw(host, make_donor((16.0, 15.0, 20.0)), np.random.default_rng(0))
    assert error.value.reasons == {reason: 2}


def test_each_limit_is_judged_on_the_hosts_voxels():
    host, donor = make_host(), make_donor()
    carried = carried_of(donor)
    inside = at_mm(host, (66, 35, 15))

    def reason(place=inside, lesion=carried, on=host, **limits: object) -> str | None:
        return settle(ground_of(on, **limits), lesion, np.asarray(place)).reason

    assert reason() is None
    assert reason(at_mm(host, (66, 35, 0))) == "field_of_view"
    assert reason(at_mm(host, (66, 18, 15))) == "inside_fraction"
    assert reason(organ_fraction=0.01) == "organ_fraction"
    assert reason(min_volume_ml=50.0) == "too_small"
    assert reason(min_slices=10) == "too_small"
    for name in ("other_structure", "outside_tissue"):
        assert reason(at_mm(host, (66, 24, 15)), on=blocked(name)[0]) == name
    near = make_host()
    near.labels.array[66, 35, 15] = 3
    assert reason(on=near) == "clearance"
    hollow = make_host()
    hollow.labels.array[64:69, 33:38, 14:17] = 0
    assert reason(on=hollow, inside_fraction=0.01, organ_fraction=1.0) == "centre_outside"


def test_lesion_that_falls_apart_on_a_coarse_grid_is_torn():
    donor = make_donor((5.0, 5.0, 5.0), (1.0, 1.0, 1.0))
    labels = donor.labels.array
    labels[:] = 0
    labels[10:22, 26:38, 26:38] = labels[42:54, 26:38, 26:38] = 2
    labels[22:42, 32, 32] = 2
    place = at_mm(make_host(), (66, 35, 15))
    ground = ground_of(make_host(), inside_fraction=0.01, organ_fraction=1.0)
    assert settle(ground, carried_of(donor), place).reason == "torn"


def test_bright_rim_belongs_to_the_blurred_organ_but_bone_does_not():
    host = make_host()
    kidney = host.labels.array == 1
    host.scan().array[ndimage.binary_dilation(kidney) & ~kidney] = 260
    lesion, place = carried_of(make_donor()), at_mm(host, (66, 25, 15))
    assert settle(ground_of(host), lesion, place).facts["clipped_fraction"] == 0
    assert settle(ground_of(host, rim_mm=0), lesion, place).reason == "outside_tissue"


def test_lesion_is_clipped_where_it_only_touches_an_obstacle():
    host, lesion = make_host(), carried_of(make_donor())
    host.scan().array[:, :14] = -1000
    shares = []
    for j in np.arange(17.0, 23.0, 0.5):
        verdict = settle(ground_of(host, inside_fraction=0.01), lesion, at_mm(host, (66, j, 15)))
        if verdict.reason in (None, "centre_outside"):
            shares.append(verdict.facts["clipped_fraction"])
            assert host.scan().array[verdict.box.slices][verdict.region].min() >= -200
            assert ndimage.label(verdict.region)[1] == 1
        else:
            assert verdict.reason == "outside_tissue"
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
    seen = {drawn(kind, host, donor, seed)[0]["organ_part"] for seed in range(10)}
    assert seen == {1, 2}
    assert len(kind._grounds(host)) == 2


def test_random_part_is_any_lesion_of_the_donor_and_recorded():
    donor = make_donor()
    donor.labels.array[5:15, 5:15, 3:7] = 2
    donor.labels.array[70, 70, 10] = 2  # one voxel is no lesion of its own
    kind = transplant(part="random")
    parts = [drawn(kind, make_host(), donor, seed)[0]["part"] for seed in range(6)]
    assert set(parts) == {1, 2}
    assert {drawn(transplant(), make_host(), donor, s)[0]["part"] for s in range(2)} == {1}


def test_one_voxel_lesion_is_too_small():
    donor = make_donor()
    donor.labels.array[:] = 0
    donor.labels.array[30, 30, 8] = 2
    with pytest.raises(PlacementError) as error:
        transplant(tries=2).draw(make_host(), donor, np.random.default_rng(0))
    assert error.value.reasons == {"too_small": 2}


def test_donors_without_a_usable_lesion_are_refused():
    kind, host = transplant(), make_host()
    rng = np.random.default_rng(0)
    empty = make_donor()
    empty.labels.array[:] = 0
    with pytest.raises(MaskError, match="'tumor' has no voxels"):
        kind.draw(host, empty, rng)
    cut = make_donor()
    cut.labels.array[:] = 0
    cut.labels.array[30:40, 30:40, :4] = 2
    with pytest.raises(MaskError, match="cut by the field of view"):
        kind.draw(host, cut, rng)
    unknown = Case("donor", "donor", "donors", None, empty.labels, {"kidney": 1})
    with pytest.raises(MaskError, match="'tumor' is not in the label map"):
        kind.draw(host, unknown, rng)
    with pytest.raises(MaskError, match="needs a donor"):
        kind.draw(host, None, rng)


def test_host_and_donor_are_never_the_same_patient():
    host, donor = make_host(), make_donor()
    same = Case("donor", "host", "donors", None, donor.labels, NAMES)
    with pytest.raises(MaskError, match="same patient"):
        transplant().draw(host, same, np.random.default_rng(0))


def test_parameters_of_other_cases_or_broken_limits_are_refused():
    host, donor, kind = make_host(), make_donor(), transplant()
    params, _ = drawn(kind, host, donor)
    with pytest.raises(MaskError, match="drawn for donor donor"):
        kind.build(host, Case("d2", "d2", "donors", None, donor.labels, NAMES), params)
    with pytest.raises(MaskError, match="has 1 parts but part 7"):
        kind.build(host, donor, {**params, "part": 7})
    with pytest.raises(MaskError, match="has 2 parts but part 9"):
        kind.build(host, donor, {**params, "organ_part": 9})
    with pytest.raises(MaskError, match="breaks the limit organ_fraction"):
        transplant(accept={"organ_fraction": 0.001}).build(host, donor, params)


def test_found_places_are_legal_on_the_hosts_own_grid():
    host, rng = make_host(), np.random.default_rng(0)
    lesion = carried_of(make_donor())
    ground = ground_of(host)
    legal = 0
    for _ in range(20):
        place, reason = find_place(ground, lesion, rng)
        assert place is not None, reason
        legal += settle(ground, lesion, place).reason is None
    assert legal >= 16


@pytest.mark.realdata
def test_real_kits_lesions_are_placed_in_a_real_host(shared_data: Path):
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
