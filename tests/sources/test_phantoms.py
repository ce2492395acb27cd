"""Phantoms: same bytes from the same seed, and truth that holds on any grid."""

from __future__ import annotations

import json
from functools import cache

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

from synthct.errors import SourceError
from synthct.sources.phantoms import PHANTOM_LABELS, Phantom, make_phantom
from synthct.sources.phantoms.scene import draw_patient

Bool = npt.NDArray[np.bool_]

#: Plausible medians of HU in each phase: none, arterial, portal, delayed.
MEDIAN_HU = {
    "liver": {"none": (25, 75), "arterial": (30, 90), "portal": (70, 130), "delayed": (60, 110)},
    "spleen": {"none": (35, 60), "arterial": (85, 160), "portal": (100, 145), "delayed": (75, 110)},
    "kidney_left": {
        "none": (20, 45),
        "arterial": (110, 230),
        "portal": (160, 240),
        "delayed": (110, 180),
    },
    "aorta": {"none": (30, 55), "arterial": (210, 400), "portal": (120, 200), "delayed": (90, 140)},
    "lung_right": dict.fromkeys(("none", "arterial", "portal", "delayed"), (-920, -780)),
    "vertebrae": dict.fromkeys(("none", "arterial", "portal", "delayed"), (120, 520)),
    "gallbladder": dict.fromkeys(("none", "arterial", "portal", "delayed"), (-5, 45)),
}


@cache
def abdomen(patient: int) -> Phantom:
    return make_phantom(3, patient, spacing_mm=(3.2, 3.2, 5.0), oblique=patient % 2 == 1)


def region(phantom: Phantom, name: str) -> Bool:
    return np.asarray(phantom.labels == PHANTOM_LABELS[name])


def volume_ml(phantom: Phantom, name: str) -> float:
    voxel_ml = abs(np.linalg.det(phantom.affine[:3, :3])) / 1000
    return float(np.count_nonzero(region(phantom, name)) * voxel_ml)


def centre_mm(phantom: Phantom, name: str) -> npt.NDArray[np.float64]:
    middle = np.argwhere(region(phantom, name)).mean(axis=0)
    return np.asarray(phantom.affine[:3, :3] @ middle + phantom.affine[:3, 3])


def test_same_arguments_give_the_same_bytes() -> None:
    first, again = (make_phantom(1, 2, shape=(24, 20, 12)) for _ in range(2))
    assert first.ct.tobytes() == again.ct.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()
    assert first.facts == again.facts


@pytest.mark.long
def test_other_patients_and_seeds_are_other_people() -> None:
    shapes = [make_phantom(s, p, shape=(24, 20, 12)).labels for s, p in ((1, 0), (1, 1), (2, 0))]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.mean(shapes[a] != shapes[b]) > 0.05


@pytest.mark.long
def test_arrays_have_the_types_of_the_contract() -> None:
    phantom = abdomen(0)
    assert phantom.ct.dtype == np.int16
    assert phantom.labels.dtype == np.uint8
    assert phantom.affine.shape == (4, 4)
    assert phantom.affine.dtype == np.float64
    assert phantom.ct.shape == phantom.labels.shape
    assert set(np.unique(phantom.labels)) <= {0, *PHANTOM_LABELS.values()}
    assert phantom.ct.min() >= -1024
    assert json.loads(json.dumps(phantom.facts)) == phantom.facts


def test_shape_and_spacing_are_what_was_asked_for() -> None:
    phantom = make_phantom(0, 0, shape=(24, 20, 12), spacing_mm=(5.0, 6.0, 8.0), oblique=True)
    assert phantom.ct.shape == (24, 20, 12)
    assert np.linalg.norm(phantom.affine[:3, :3], axis=0) == pytest.approx([5, 6, 8])
    assert nib.aff2axcodes(phantom.affine) == ("R", "A", "S")
    assert not np.allclose(phantom.affine[:3, :3], np.diag([5, 6, 8]))


@pytest.mark.parametrize("patient", range(3))
def test_organs_have_the_hu_of_their_phase(patient: int) -> None:
    phantom = abdomen(patient)
    for name, by_phase in MEDIAN_HU.items():
        inside = region(phantom, name)
        if np.count_nonzero(inside) < 60:
            continue
        low, high = by_phase[phantom.facts["phase"]]
        assert low <= np.median(phantom.ct[inside]) <= high, name


def test_all_phases_occur() -> None:
    phases = {draw_patient(0, patient).phase for patient in range(24)}
    assert phases == {"none", "arterial", "portal", "delayed"}


@pytest.mark.parametrize("patient", range(3))
def test_organs_lie_on_their_side_in_ras(patient: int) -> None:
    phantom = abdomen(patient)
    assert centre_mm(phantom, "liver")[0] > 20
    assert centre_mm(phantom, "spleen")[0] < -30
    assert centre_mm(phantom, "kidney_right")[0] > 30
    assert centre_mm(phantom, "kidney_left")[0] < -30
    assert centre_mm(phantom, "inferior_vena_cava")[0] > centre_mm(phantom, "aorta")[0]
    assert centre_mm(phantom, "vertebrae")[1] < centre_mm(phantom, "aorta")[1]
    assert centre_mm(phantom, "lung_right")[2] > centre_mm(phantom, "kidney_right")[2]


@pytest.mark.parametrize("patient", range(3))
def test_organ_volumes_are_human(patient: int) -> None:
    phantom = abdomen(patient)
    assert 550 < volume_ml(phantom, "liver") < 2200
    assert 40 < volume_ml(phantom, "spleen") < 450
    for side in ("left", "right"):
        assert 65 < volume_ml(phantom, f"kidney_{side}") < 320


@pytest.mark.long
def test_anatomy_and_lesions_do_not_depend_on_the_grid() -> None:
    one = make_phantom(5, 2, spacing_mm=(2.0, 2.0, 3.0), oblique=False, tumours=True)
    two = make_phantom(5, 2, spacing_mm=(2.6, 1.9, 4.0), oblique=True, tumours=True)
    for name in ("kidney_left", "kidney_right", "spleen"):
        assert volume_ml(two, name) == pytest.approx(volume_ml(one, name), rel=0.05), name
        assert centre_mm(two, name) == pytest.approx(centre_mm(one, name), abs=1.5), name
    assert one.facts["phase"] == two.facts["phase"]
    large = [lesion for lesion in one.facts["lesions"] if lesion["volume_ml"] > 2]
    assert large
    for lesion in large:
        gaps = [np.subtract(lesion["centre_mm"], b["centre_mm"]) for b in two.facts["lesions"]]
        nearest = two.facts["lesions"][int(np.argmin(np.linalg.norm(gaps, axis=1)))]
        assert nearest["kind"] == lesion["kind"]
        assert nearest["volume_ml"] == pytest.approx(lesion["volume_ml"], rel=0.12)


@pytest.mark.parametrize("patient", range(3))
def test_lesion_volumes_of_the_facts_are_those_of_the_label_map(patient: int) -> None:
    phantom = abdomen(patient)
    for kind in ("kidney_tumor", "kidney_cyst", "liver_tumor", "liver_cyst"):
        stated = sum(x["volume_ml"] for x in phantom.facts["lesions"] if x["kind"] == kind)
        assert stated == pytest.approx(volume_ml(phantom, kind))


@pytest.mark.long
def test_tumours_can_be_asked_for_and_forbidden() -> None:
    sick = make_phantom(0, 1, spacing_mm=(4.0, 4.0, 5.0), tumours=True)
    assert any(lesion["kind"] == "kidney_tumor" for lesion in sick.facts["lesions"])
    well = make_phantom(3, 0, shape=(40, 32, 20), tumours=False)
    assert well.facts["lesions"] == []


def test_cysts_are_darker_than_the_kidney() -> None:
    phantom = next(
        phantom
        for phantom in map(abdomen, range(12))
        if volume_ml(phantom, "kidney_cyst") > 3 and phantom.facts["phase"] != "none"
    )
    kidney = region(phantom, "kidney_left") | region(phantom, "kidney_right")
    cyst = phantom.ct[binary_erosion(region(phantom, "kidney_cyst"))]
    assert -10 < np.median(cyst) < 40
    assert np.median(phantom.ct[kidney]) > np.median(cyst) + 60


@pytest.mark.parametrize("patient", range(3))
def test_kidneys_lie_in_fat(patient: int) -> None:
    phantom = abdomen(patient)
    kidney = region(phantom, "kidney_left") | region(phantom, "kidney_right")
    kidney |= region(phantom, "kidney_tumor") | region(phantom, "kidney_cyst")
    shell = binary_dilation(kidney, iterations=3) & ~binary_dilation(kidney)
    assert np.mean(phantom.ct[shell] < -40) > 0.4


def test_arterial_phase_parts_cortex_from_medulla() -> None:
    def spread(phase: str) -> float:
        patient = next(n for n in range(24) if draw_patient(3, n).phase == phase)
        phantom = abdomen(patient)
        inside = binary_erosion(region(phantom, "kidney_right"))
        low, high = np.percentile(phantom.ct[inside & (phantom.ct > 40)], (10, 90))
        return float(high - low)

    assert spread("arterial") > 2 * spread("portal")


@pytest.mark.long
def test_chest_has_air_blood_and_bone() -> None:
    phantom = make_phantom(2, 0, region="chest", spacing_mm=(3.0, 3.0, 5.0))
    assert volume_ml(phantom, "lung_left") > 700
    assert volume_ml(phantom, "lung_right") > 700
    lungs = region(phantom, "lung_left") | region(phantom, "lung_right")
    assert np.median(phantom.ct[lungs]) < -800
    assert np.count_nonzero(phantom.ct[lungs] > -500) > 100  # vessels
    assert 150 < volume_ml(phantom, "heart") < 800
    for name in ("ribs", "sternum", "trachea", "spinal_cord", "esophagus"):
        assert np.any(region(phantom, name)), name


@pytest.mark.long
def test_air_is_around_the_patient_and_a_table_below() -> None:
    phantom = make_phantom(0, 1, spacing_mm=(1.5, 1.5, 9.0), oblique=False)
    assert np.median(phantom.ct[:4, -4:]) == pytest.approx(-1000, abs=8)
    # From the spine down: tissue, air under the back, the couch.
    column = phantom.ct[phantom.ct.shape[0] // 2].mean(axis=1)
    below = column[: column.size // 3][::-1]
    back = int(np.argmax(below < -900))
    assert back > 3
    assert below[back:].max() > -600


@pytest.mark.long
def test_noise_is_correlated_and_stronger_in_thin_slices() -> None:
    def rms(thickness_mm: float) -> tuple[float, float]:
        phantom = make_phantom(4, 0, spacing_mm=(1.0, 1.0, thickness_mm), shape=(200, 140, 12))
        inside = binary_erosion(region(phantom, "liver"), iterations=3)
        ct = phantom.ct.astype(float)
        fine = ct - (np.roll(ct, 3, axis=0) + np.roll(ct, -3, axis=0)) / 2
        step = np.roll(ct, 1, axis=0)
        return float(fine[inside].std()), float(np.corrcoef(ct[inside], step[inside])[0, 1])

    thin, neighbours = rms(1.5)
    thick, _ = rms(5.0)
    assert thin > 1.25 * thick
    assert neighbours > 0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (4, 64, 64)}, "at least 8 voxels"),
        ({"spacing_mm": (0.0, 1.0, 1.0)}, "between 0.2 and 20"),
        ({"region": "knee"}, "not one of abdomen"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        make_phantom(0, 0, **arguments)  # type: ignore[arg-type]


def test_negative_patients_are_refused() -> None:
    with pytest.raises(SourceError, match="0 or more"):
        make_phantom(0, -1)
