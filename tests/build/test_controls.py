"""Controls: copied voxels and noise, against tissue whose HU are known."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BODY_HU, KIDNEY_HU, TINY_LABELS, TUMOR_HU, ellipsoid, oblique_affine
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter
from tiny_recipe import SECTIONS, tiny_recipe, write_data, write_recipe

from synthct.build.check import check
from synthct.build.context import BuildContext
from synthct.build.controls import control_for
from synthct.build.controls.grain import measure_grain
from synthct.build.controls.tissue import shift_hu
from synthct.build.draw import CaseReader, DrawnMask, masks_of
from synthct.build.prepare import Draft, prepare
from synthct.build.run import build
from synthct.build.sample import finish
from synthct.dataset.lockfile import read_lock
from synthct.dataset.png import decode_hu, decode_labels, decode_mask
from synthct.dataset.rows import encode
from synthct.dataset.writer import read_shard
from synthct.errors import MaskError, RecipeError
from synthct.masks.base import voxel_centres
from synthct.masks.box import BoxMask
from synthct.masks.organ import Organ
from synthct.masks.slicing import draw_slices, slice_of
from synthct.masks.transplant import Transplant
from synthct.models.methods import CopyPaste, Inpaint, NoiseFill
from synthct.recipe.recipe import Recipe, load_recipe
from synthct.volume import Affine, Array, Box, Volume
from synthct.volume.case import Case
from synthct.volume.views import Plane, from_picture

SPACING = (0.9, 0.8, 2.0)
SHAPE = (80, 72, 30)
CENTRE = (36.0, 29.0, 30.0)
TUMORS = Transplant(
    name="tumors", label="tumor", into="kidney", accept={"organ_fraction": 0.9, "clearance_mm": 0}
)


def make_case(
    case_id: str,
    *,
    tumor: bool = True,
    image: bool = True,
    kidney_hu: float = KIDNEY_HU,
    tumor_hu: float = TUMOR_HU,
    noise: Array | float = 0.0,
    affine: Affine | None = None,
) -> Case:
    """A kidney, with a tumour at its side or without, in a body; noise is added to the kidney."""
    body = ellipsoid(SHAPE, SPACING, CENTRE, (34.0, 27.0, 90.0))
    kidney = ellipsoid(SHAPE, SPACING, CENTRE, (20.0, 16.0, 22.0))
    hu = np.where(body, float(BODY_HU), -1000.0)
    labels = kidney.astype(np.uint8) * TINY_LABELS["kidney"]
    hu[kidney] = kidney_hu
    if tumor:
        lesion = ellipsoid(SHAPE, SPACING, (26.0, 29.0, 30.0), (9.0, 7.0, 10.0))
        hu[lesion], labels[lesion] = tumor_hu, TINY_LABELS["tumor"]
    hu += noise
    affine = oblique_affine(SPACING) if affine is None else affine
    ct = Volume(np.rint(hu).clip(-1024, 3071).astype(np.int16), affine)
    return Case(
        case_id, case_id, "hosts", ct if image else None, Volume(labels, affine), TINY_LABELS
    )


def drawn_in(
    host: Case, section: Any, donor: Case | None = None, view: Plane = "axial", seed: int = 0
) -> DrawnMask:
    rng = np.random.default_rng(seed)
    params = section.draw(host, donor, rng)
    mask = section.build(host, donor, params)
    slices = tuple(draw_slices(mask, view, section.slices, None, rng))
    return DrawnMask((), section, host, donor, None, mask, params, slices)


def painted(
    drawn: DrawnMask, method: CopyPaste | NoiseFill, view: Plane = "axial", seed: int = 0
) -> tuple[Array, Array]:
    """HU of the masked voxels of all slices, and where those voxels are, RAS+ mm."""
    control = control_for(drawn, method, view)
    values, places = [], []
    for number, chosen in enumerate(drawn.slices):
        flat = slice_of(drawn.mask, view, chosen)
        values.append(control.paint(flat, np.random.default_rng([seed, number])))
        whole = Box((0, 0, 0), flat.box.shape)
        places.append(voxel_centres(whole, flat.region.affine)[flat.region.array])
    return np.concatenate(values), np.concatenate(places)


ALL = TUMORS.model_copy(update={"slices": "all"})


@pytest.mark.parametrize("view", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("seed", range(2))
def test_a_copied_voxel_is_the_one_that_the_mask_came_from(view: Plane, seed: int) -> None:
    """A donor whose HU rise linearly through the lesion: each pasted value tells its origin."""
    affine = np.diag([-1.0, 1, -1, 1]) @ oblique_affine(SPACING)  # mirrored and upside down
    donor = make_case("donor", affine=affine)
    centres = voxel_centres(Box((0, 0, 0), SHAPE), affine)
    slope = np.array([4.0, -2.5, 1.5])
    level = 100 - slope @ centres[donor.region("tumor")].mean(axis=0)
    assert donor.ct is not None
    donor.ct.array[:] = np.rint(centres @ slope + level)
    drawn = drawn_in(make_case("host", tumor=False), ALL, donor, view, seed)
    hu, places = painted(drawn, CopyPaste(border_mm=0), view)
    origins = ALL.origins(donor, drawn.params, places)
    shift = control_for(drawn, CopyPaste(), view).facts["shift_hu"] or 0.0
    expected = origins @ slope + level + shift
    inverse = np.linalg.inv(affine)
    i, j, k = np.rint(origins @ inverse[:3, :3].T + inverse[:3, 3]).astype(int).T
    deep = binary_erosion(donor.region("tumor"))[i, j, k]
    assert deep.mean() > 0.3
    assert np.abs(hu - expected)[deep].max() < 2.0
    # At the rim too: nothing but the lesion's own voxels is pasted.
    assert np.abs(hu - expected).max() < np.abs(slope) @ SPACING * 2.5


def test_nothing_around_the_donors_lesion_is_pasted() -> None:
    donor = make_case("donor", kidney_hu=1500, tumor_hu=90)
    for seed in range(3):
        drawn = drawn_in(make_case("host", tumor=False, kidney_hu=1500), ALL, donor, seed=seed)
        hu, _ = painted(drawn, CopyPaste(border_mm=0))
        assert np.abs(hu - 90).max() < 1


@pytest.mark.parametrize(
    ("own", "other", "lesion", "expected"),
    [
        (180, 180, 90, 0.0),
        (107.5, 180, 90, -27.5),  # half as enhanced: 35 + 55 / 2
        (30, 180, 90, -55.0),  # a plain scan: 35
        (180, 107.5, 71.25, 36.25),  # twice as enhanced: 35 + 2 * 36.25
        (180, 107.5, 10, 0.0),  # a cyst takes up nothing
        (180, 40, 40, None),  # a plain donor tells nothing of enhancement
    ],
)
def test_lesions_are_as_enhanced_as_the_host_is(
    own: float, other: float, lesion: float, expected: float | None
) -> None:
    host = make_case("host", tumor=False, kidney_hu=own)
    donor = make_case("donor", kidney_hu=other, tumor_hu=lesion)
    assert shift_hu(lesion, own, other) == (None if expected is None else pytest.approx(expected))
    drawn = drawn_in(host, ALL, donor)
    hu, _ = painted(drawn, CopyPaste(border_mm=0))
    assert np.median(hu) == pytest.approx(lesion + (expected or 0), abs=1.5)


def test_a_donor_without_the_organ_is_not_shifted() -> None:
    donor = make_case("donor")
    donor.labels.array[donor.labels.array == TINY_LABELS["kidney"]] = 0
    anywhere = ALL.model_copy(update={"placement": "random"})
    drawn = drawn_in(make_case("host", tumor=False, kidney_hu=60), anywhere, donor)
    control = control_for(drawn, CopyPaste(border_mm=0), "axial")
    assert control.facts == {"shift_hu": None}


@pytest.mark.parametrize("method", [CopyPaste(border_mm=4), NoiseFill(border_mm=4)])
def test_the_host_fades_into_the_paint_from_the_edge_inwards(method: Any) -> None:
    host = make_case("host", tumor=False, kidney_hu=BODY_HU)
    donor = make_case("donor", kidney_hu=BODY_HU, tumor_hu=400)
    drawn = drawn_in(host, ALL, donor)
    hu, places = painted(drawn, method)
    inverse = np.linalg.inv(host.labels.affine)
    voxels = np.rint(places @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    depth = distance_transform_edt(drawn.mask.in_host(SHAPE), SPACING)[tuple(voxels.T)]
    expected = BODY_HU + np.clip(depth / 4, 0, 1) * (400 - BODY_HU)
    assert np.abs(hu - expected).max() < 2
    assert hu.min() < 180
    assert hu.max() > 398


def noise_of(seed: int, sigma_px: float, std: float) -> Array:
    """Noise of a known standard deviation, blurred in the plane."""
    white = np.random.default_rng(seed).standard_normal(SHAPE)
    blurred = gaussian_filter(white, (sigma_px, sigma_px, 0), mode="wrap")
    return np.asarray(std * blurred / blurred.std())


def neighbours(values: Array, mask: Array, axis: int) -> float:
    """Correlation of neighbours along an axis within a mask."""
    first = [slice(None)] * 3
    second = list(first)
    first[axis], second[axis] = slice(0, -1), slice(1, None)
    both = mask[tuple(first)] & mask[tuple(second)]
    return float(np.corrcoef(values[tuple(first)][both], values[tuple(second)][both])[0, 1])


@pytest.mark.parametrize("view", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("sigma_px", [0.0, 1.0])
def test_noise_has_the_level_spread_and_grain_of_the_organ(view: Plane, sigma_px: float) -> None:
    host = make_case("host", tumor=False, noise=noise_of(1, sigma_px, 12.0))
    section = Organ(name="kidneys", label="kidney", slices="all")
    drawn = drawn_in(host, section, view=view)
    hu, places = painted(drawn, NoiseFill(border_mm=0), view)
    inverse = np.linalg.inv(host.labels.affine)
    voxels = np.rint(places @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    out = np.zeros(SHAPE)
    out[tuple(voxels.T)] = hu
    mask = drawn.mask.in_host(SHAPE)
    before = host.scan().array.astype(float)
    assert hu.mean() == pytest.approx(KIDNEY_HU, abs=2)
    assert hu.std() == pytest.approx(12.0, rel=0.12)
    for axis in range(3):
        if axis != {"axial": 2, "coronal": 1, "sagittal": 0}[view]:
            found = neighbours(out, mask, axis), neighbours(before, mask, axis)
            assert found[0] == pytest.approx(found[1], abs=0.1)


def test_edges_within_the_organ_are_no_grain() -> None:
    host = make_case("host", tumor=False, noise=noise_of(1, 1.0, 10.0))
    sinus = ellipsoid(SHAPE, SPACING, CENTRE, (9.0, 6.0, 15.0))
    host.scan().array[sinus] -= 250
    drawn = drawn_in(host, Organ(name="kidneys", label="kidney"))
    facts = control_for(drawn, NoiseFill(), "axial").facts
    assert facts["fill_of"] == "host"
    assert facts["fill_hu"] == pytest.approx(KIDNEY_HU, abs=6)
    assert facts["grain_std_hu"] == pytest.approx(10, rel=0.25)  # with the edge it is 70


def test_grain_is_measured_of_the_region_alone() -> None:
    rng = np.random.default_rng(0)
    plane = np.rint(20 * gaussian_filter(rng.standard_normal((90, 110)), 0.8)).astype(np.int16)
    region = ellipsoid((90, 110, 1), (1, 1, 1), (45.0, 50.0, 0.0), (30.0, 25.0, 1.0))[..., 0]
    elsewhere = np.where(region, plane, rng.integers(-1000, 3000, plane.shape)).astype(np.int16)
    first = measure_grain([plane], [region], (1.0, 1.0))
    second = measure_grain([elsewhere], [region], (1.0, 1.0))
    assert first.std_hu == pytest.approx(second.std_hu, rel=1e-6)
    assert np.allclose(first.correlation, second.correlation, atol=1e-6)
    again = measure_grain(
        [np.rint(8 * first.field((90, 110), rng)).astype(np.int16)], [region], (1.0, 1.0)
    )
    assert again.std_hu == pytest.approx(8 * first.std_hu, rel=0.1)
    assert np.abs(again.correlation - first.correlation).max() < 0.15


def test_a_flat_tissue_is_filled_flat() -> None:
    drawn = drawn_in(make_case("host", tumor=False), Organ(name="kidneys", label="kidney"))
    hu, _ = painted(drawn, NoiseFill(border_mm=0))
    assert np.abs(hu - KIDNEY_HU).max() < 1


def test_noise_takes_the_level_from_where_the_label_is() -> None:
    noise = noise_of(2, 0.5, 8.0)
    bare = make_case("host", tumor=False, noise=noise)
    own = make_case("own", tumor_hu=50, noise=noise)
    lender = make_case("donor", tumor_hu=120, noise=noise)
    plain = make_case("plain", tumor=False, kidney_hu=30, noise=noise)
    shape = make_case("shape", tumor_hu=120, image=False)

    def facts(host: Case, donor: Case, **fields: Any) -> dict[str, Any]:
        return control_for(drawn_in(host, TUMORS, donor), NoiseFill(**fields), "axial").facts

    for host, donor, fields, source, level in (
        (own, lender, {}, "host", 50),
        (bare, lender, {}, "donor", 120),
        (plain, lender, {}, "donor", 35),
        (bare, shape, {}, "reference", 35 + 33 * 145 / 72),  # of 107 HU in kidneys, twice enhanced
        (plain, shape, {}, "reference", 35),
        (bare, lender, {"reference_hu": {"tumor": 33}}, "recipe", 33),
    ):
        found = facts(host, donor, **fields)
        assert found["fill_of"] == source
        assert found["fill_hu"] == pytest.approx(level, abs=2)
        assert found["grain_std_hu"] == pytest.approx(8, rel=0.2)


def test_whatever_fits_is_the_tissue_around() -> None:
    host = make_case("host", tumor=False, noise=noise_of(3, 0.5, 8.0))
    section = BoxMask(name="boxes", around="kidney", margin_mm=(0, 0))
    facts = control_for(drawn_in(host, section), NoiseFill(), "axial").facts
    assert facts["fill_of"] == "around"
    assert facts["fill_hu"] == pytest.approx(BODY_HU, abs=2)


def test_a_label_of_which_nothing_is_known_is_refused() -> None:
    host, shape = make_case("host", tumor=False), make_case("shape", image=False)
    section = TUMORS.model_copy(update={"label": "mass"})
    names = {"kidney": 1, "mass": 2}
    host, shape = (
        Case(c.case_id, c.patient_id, c.source, c.ct, c.labels, names) for c in (host, shape)
    )
    drawn = drawn_in(host, section, shape)
    with pytest.raises(MaskError, match=r"nothing says what 'mass' looks like.*reference_hu"):
        control_for(drawn, NoiseFill(), "axial")


# The whole walk.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controls")
    write_data(folder / "data")
    return folder


def control_recipe(folder: Path, method: str, **changes: Any) -> dict[str, Any]:
    """The tiny recipe, painted by a control; hosts, which have images, are donors too."""
    root = {"layout": "kits23", "root": str(folder / "data/hosts")}
    names = ["tumors"] if method == "copy_paste" else ["tumors", "box"]
    fields = {
        "sources": {"hosts": root, "donors": root},
        "masks": [{"name": name, **SECTIONS[name]} for name in names],
        "masks_per_case": len(names),
        "inpaint": {"method": method},
        "variants": 1 if method == "copy_paste" else 2,
    }
    return tiny_recipe(folder / "data", Path("nowhere"), **(fields | changes))


@pytest.mark.parametrize("method", ["copy_paste", "noise_fill"])
def test_a_control_changes_masked_voxels_only_and_says_what_it_did(
    folder: Path, method: str
) -> None:
    recipe = Recipe.model_validate(control_recipe(folder, method))
    checked = check(recipe, cache_dir=folder / "cache")
    assert checked.checkpoint is None
    reader = CaseReader(checked.label_names)
    rows: list[dict[str, Any]] = []
    for group in masks_of(checked.plan.specs):
        for draft in prepare(group, checked, reader):
            assert isinstance(draft, Draft)
            row = encode(finish(draft, [], BuildContext(checked, {})), keep_original=True)
            rows.append(row)
            image = from_picture(decode_hu(row["image"]["bytes"]), "axial")
            before = from_picture(decode_hu(row["original"]["bytes"]), "axial")
            region = from_picture(decode_mask(row["mask"]["bytes"]), "axial")
            assert np.array_equal(image[~region], before[~region])
            assert (image[region] != before[region]).mean() > 0.5
    assert {row["clipped_fraction"] for row in rows} == {None}
    assert all(row["host_in_training"] is False for row in rows)
    generation = json.loads(rows[0]["provenance"])["generation"]
    assert {"shift_hu"} <= set(generation) or {"fill_hu", "fill_of"} <= set(generation)
    if method == "noise_fill":
        first, second = rows[:2]
        assert first["mask_id"] == second["mask_id"]
        assert first["image"] != second["image"]


@pytest.mark.long
@pytest.mark.parametrize("method", ["copy_paste", "noise_fill"])
def test_a_control_builds_without_torch_and_with_the_same_masks(
    folder: Path, tiny_checkpoint: Path, method: str
) -> None:
    data = control_recipe(folder, method, version="1.0.0")
    path = folder / f"{method}.yaml"
    path.write_text(json.dumps({**data, "name": method.replace("_", "-")}))
    script = (
        "import sys; from pathlib import Path; from synthct.build.run import build; "
        "from synthct.recipe.recipe import load_recipe; "
        f"build(load_recipe({str(path)!r}), Path({str(folder / 'out')!r}), workers=0, "
        f"cache_dir=Path({str(folder / 'cache')!r})); print(sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "'torch'" not in done.stdout
    control = folder / "out" / method.replace("_", "-") / "1.0.0"
    assert "diffusion" not in (control / "README.md").read_text()
    # The last bits of measures depend on the kind of processor.
    assert re.match(r"\w+ \w+", read_lock(control).numerics["arch"])
    columns = ["sample_id", "mask", "label_map"]
    tables = [read_shard(p, columns) for p in sorted((control / "data").glob("*.parquet"))]
    rows = {row["sample_id"]: row for table in tables for row in table.to_pylist()}
    # What a model would be given: the very same masks and label maps.
    inpaint = {"checkpoint": str(tiny_checkpoint), "num_inference_steps": 2, "batch_size": 2}
    checked = check(Recipe.model_validate({**data, "inpaint": inpaint}), cache_dir=folder / "cache")
    reader = CaseReader(checked.label_names)
    for group in masks_of(checked.plan.specs):
        for draft in prepare(group, checked, reader):
            assert isinstance(draft, Draft)
            row = rows.pop(draft.spec.sample_id)
            found = from_picture(decode_mask(row["mask"]["bytes"]), "axial")
            assert np.array_equal(found, draft.sample.mask)
            labels = from_picture(decode_labels(row["label_map"]["bytes"]), "axial")
            assert np.array_equal(labels, draft.sample.labels)
    assert not rows
    again = Recipe.model_validate({**data, "name": method.replace("_", "-")})
    twin = build(again, folder / "twin", cache_dir=folder / "cache", workers=2)
    names = sorted(p.relative_to(control) for p in control.rglob("*.parquet"))
    assert [(control / n).read_bytes() for n in names] == [(twin / n).read_bytes() for n in names]


def test_donors_without_images_are_named_before_anything_is_drawn(folder: Path) -> None:
    donors = {"layout": "kits23", "root": str(folder / "data/donors")}
    hosts = {"layout": "kits23", "root": str(folder / "data/hosts")}
    changes = {"sources": {"hosts": hosts, "donors": donors}}
    recipe = Recipe.model_validate(control_recipe(folder, "copy_paste", **changes))
    with pytest.raises(RecipeError, match=r"inpaint\.method: .*3 of 3 have no image: case_00002"):
        check(recipe, cache_dir=folder / "cache")


def test_what_copy_paste_cannot_do_is_said_at_its_place(folder: Path, tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path / "r.yaml", folder / "data", Path("x"), inpaint={"method": "copy_paste"}
    )
    with pytest.raises(RecipeError) as info:
        load_recipe(path)
    message = str(info.value)
    assert "kind 'organ' has no donor; use noise_fill" in message
    assert "gives the same picture 2 times; set variants to 1" in message
    assert message.count("r.yaml:") == 4


@pytest.mark.parametrize(
    ("inpaint", "expected"),
    [
        ({"method": "copypaste"}, "did you mean 'copy_paste'"),
        ({"method": "copy_paste", "checkpoint": "x"}, "inpaint.checkpoint: "),
        ({"method": "noise_fill", "border": 2}, "did you mean 'border_mm'"),
        ({"method": "noise_fill", "border_mm": -1}, "at least 0"),
        ({"method": "noise_fill", "reference_hu": {"tumor": "60 HU"}}, "did you mean 60"),
    ],
)
def test_slips_in_the_section_are_told_with_a_hint(
    tmp_path: Path, inpaint: Inpaint, expected: str
) -> None:
    path = tmp_path / "r.yaml"
    masks = [{"name": "tumors", "kind": "transplant", "label": "tumor", "into": "kidney"}]
    source = {"layout": "phantom"}
    data = {"name": "a", "version": "1.0.0", "sources": {"hosts": source, "donors": source}}
    path.write_text(json.dumps({**data, "masks": masks, "inpaint": inpaint}))
    with pytest.raises(RecipeError, match=r"r\.yaml:1:") as info:
        load_recipe(path)
    assert expected in str(info.value)


def test_a_label_without_any_statistics_is_named_before_anything_is_drawn(folder: Path) -> None:
    """Kidneys are there; of 'mass' nobody knows anything."""
    box = {"kind": "box", "name": "b", "around": "kidney", "margin_mm": [1, 2]}
    known = control_recipe(folder, "noise_fill", masks=[{**box, "label": "cyst"}])
    check(Recipe.model_validate(known), cache_dir=folder / "cache")  # of cysts there is a reference
    unknown = control_recipe(folder, "noise_fill", masks=[{**box, "label": "mass"}])
    with pytest.raises(RecipeError, match=r"nothing says what 'mass' looks like: host case_00000"):
        check(Recipe.model_validate(unknown), cache_dir=folder / "cache")


def test_the_control_recipe_differs_in_the_paint_alone() -> None:
    folder = Path(__file__).resolve().parents[2] / "recipes"
    model, control = (
        load_recipe(folder / f"{name}.yaml").model_dump(
            exclude={"name", "description", "inpaint", "variants", "quality"}
        )
        for name in ("kits_tumors", "kits_tumors_copy_paste")
    )
    assert model == control
