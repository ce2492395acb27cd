import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from synthct.dataset.records import yaml_text
from synthct.errors import RecipeError
from synthct.models.methods import Diffusion
from synthct.recipe.recipe import Recipe, load_recipe, recipe_json_schema

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
NAMES = (
    "quickstart",
    "quickstart_volume",
    "kits_tumors",
    "kits_healthy",
    "totalsegmentator_organs",
)

TEXT = """\
name: kits-tumors
version: 1.0.0
seed: 7
sources:
  hosts: {layout: kits23, root: "${KITS23_ROOT:-data/kits23/dataset}"}
  donors: {layout: kits23, root: data/kits23/dataset, exclude: [case_00001]}
view: axial
masks_per_case: 8
masks:
  - name: tumors
    kind: transplant
    label: tumor
    into: kidney
    weight: 3
    deform: {max_displacement_mm: 6, scale: [0.7, 1.4], rotate_deg: 180}
    accept: {inside_fraction: 0.6, organ_fraction: 0.25, clearance_mm: 3}
  - name: boxes
    kind: box
    around: kidney
    margin_mm: [10, 25]
    max_extent_mm: 80
    slices: largest
  - {name: organs, kind: organ, organs: [kidney, tumor], margin_mm: 2, label_map: ignore}
  - {name: blobs, kind: blob, within: kidney, radius_mm: [5, 9], roughness: 0.2}
inpaint:
  checkpoint: package:starter-2d
  scheduler: dpmsolver++
  num_inference_steps: 20
  dtype: float32
variants: 4
splits: {train: 0.8, validation: 0.1, test: 0.1}
keep_original: true
"""

#: What is written instead of what, and what the message must say. Each replaces the first match.
MUTATIONS = [
    ("seed: 7", "sed: 7", "'seed'"),
    ("version: 1.0.0", "versoin: 1.0.0", "'version'"),
    ("version: 1.0.0", "version: 1.0", "1.0.0"),
    ("version: 1.0.0", "version: v1.0.0", "1.0.0"),
    ("name: kits-tumors", "name: Kits Tumors", "'kits-tumors'"),
    ("name: kits-tumors", "nmae: kits-tumors", "'name'"),
    ("name: kits-tumors\n", "", "missing"),
    ("seed: 7", "seed: '7'", "7, without quotes"),
    ("seed: 7", "seed: 7.0", "7?"),
    ("seed: 7", "seed: -7", "at least 0"),
    ("sources:", "source:", "'sources'"),
    ("  hosts:", "  host:", "'hosts'"),
    ("  donors:", "  donor:", "'donor'"),
    ("layout: kits23", "layout: kits32", "'kits23'"),
    ("layout: kits23", "layout: KiTS23", "'kits23'"),
    ("layout: kits23", "layuot: kits23", "'layout'"),
    ("layout: kits23", "kind: kits23", "choose one of"),
    ("exclude: [", "exlude: [", "'exclude'"),
    ("exclude: [case_00001]", "exclude: case_00001", "[case_00001]"),
    ("root: data", "path: data", "root"),
    ("view: axial", "view: axail", "'axial'"),
    ("view: axial", "view: Axial", "'axial'"),
    ("view: axial", "veiw: axial", "'view'"),
    ("view: axial", "view: volume", "axial, coronal, sagittal"),
    ("masks_per_case: 8", "masks_per_cse: 8", "'masks_per_case'"),
    ("masks_per_case: 8", "masks-per-case: 8", "'masks_per_case'"),
    ("masks_per_case: 8", "masksPerCase: 8", "'masks_per_case'"),
    ("masks_per_case: 8", "masks_per_case: 0", "at least 1"),
    ("masks:\n", "mask:\n", "'masks'"),
    ("kind: transplant", "kind: transplnt", "'transplant'"),
    ("kind: transplant", "kind: Transplant", "'transplant'"),
    ("kind: transplant", "kind: transplantation", "'transplant'"),
    ("kind: transplant", "type: transplant", "choose one of"),
    ("kind: box", "kind: boxes", "'box'"),
    ("label: tumor", "lable: tumor", "'label'"),
    ("label: tumor", "labels: tumor", "'label'"),
    ("label: tumor", "label: [tumor]", "expected text"),
    ("into: kidney", "in_to: kidney", "'into'"),
    ("into: kidney", "organ: kidney", "into"),
    ("weight: 3", "wieght: 3", "'weight'"),
    ("weight: 3", "weight: 0", "greater than 0"),
    ("weight: 3", "weight: three", "expected a number"),
    ("max_displacement_mm: 6", "max_displacement: 6", "'max_displacement_mm'"),
    ("max_displacement_mm: 6", "max_displacement_cm: 6", "'max_displacement_mm'"),
    ("max_displacement_mm: 6", "max_displacement_mm: 6mm", "did you mean 6?"),
    ("rotate_deg: 180", "rotate: 180", "'rotate_deg'"),
    ("rotate_deg: 180", "rotate_rad: 3", "'rotate_deg'"),
    ("scale: [0.7, 1.4]", "scales: [0.7, 1.4]", "'scale'"),
    ("scale: [0.7, 1.4]", "scale: 1.4", "expected a list"),
    ("scale: [0.7, 1.4]", "scale: [1.4, 0.7]", "must rise"),
    ("scale: [0.7, 1.4]", "scale: [0.7]", "too short"),
    ("inside_fraction", "inside_fracton", "'inside_fraction'"),
    ("inside_fraction: 0.6", "inside_fraction: 60", "at most 1"),
    ("organ_fraction", "organ_frac", "'organ_fraction'"),
    ("clearance_mm: 3", "clearence_mm: 3", "'clearance_mm'"),
    ("name: boxes", "name: tumors", "already the name of masks[0]"),
    ("around: kidney", "arround: kidney", "'around'"),
    ("around: kidney\n    margin_mm", "margin_mm", "missing"),
    ("margin_mm: [10, 25]", "margin: [10, 25]", "'margin_mm'"),
    ("margin_mm: [10, 25]", "margn_mm: [10, 25]", "'margin_mm'"),
    ("margin_mm: [10, 25]", "margin_mm: [25, 10]", "must rise"),
    ("max_extent_mm: 80", "max_extend_mm: 80", "'max_extent_mm'"),
    ("slices: largest", "slices: largets", "'largest'"),
    ("slices: largest", "slice: largest", "'slices'"),
    ("organs: [kidney, tumor]", "organ: [kidney, tumor]", "'organs'"),
    ("organs: [kidney, tumor]", "organs: kidney", "[kidney]"),
    ("label_map: ignore", "label_map: ignor", "'ignore'"),
    ("label_map: ignore", "labelmap: ignore", "'label_map'"),
    ("roughness: 0.2", "roughnes: 0.2", "'roughness'"),
    ("within: kidney", "wihtin: kidney", "'within'"),
    ("checkpoint: package", "chekpoint: package", "'checkpoint'"),
    ("checkpoint: package:starter-2d", "checkpoint: package:a\n  revision: main", "remove it"),
    ("checkpoint: package:starter-2d", "checkpoint: a b\n  revision: main", "owner/name"),
    ("checkpoint: package:", "checkpoint: pakcage:", "'package:starter-2d'"),
    ("scheduler: dpmsolver++", "scheduler: dpmsolver+", "'dpmsolver++'"),
    ("scheduler: dpmsolver++", "scheduler: eular", "'euler'"),
    ("scheduler: dpmsolver++", "scheduler: DDIM", "'ddim'"),
    ("scheduler: dpmsolver++", "sheduler: ddim", "'scheduler'"),
    ("num_inference_steps: 20", "num_inference_step: 20", "'num_inference_steps'"),
    ("num_inference_steps: 20", "steps: 20", "'num_inference_steps'"),
    ("num_inference_steps: 20", "num_inference_steps: many", "expected a whole number"),
    ("dtype: float32", "dtype: flaot32", "'float32'"),
    ("dtype: float32", "dtype: bf16", "'bfloat16'"),
    ("inpaint:", "inpainting:", "'inpaint'"),
    ("variants: 4", "variant: 4", "'variants'"),
    ("variants: 4", "variants: [4]", "expected a whole number"),
    ("validation: 0.1", "val: 0.1", "'validation'"),
    ("validation: 0.1", "valid: 0.1", "'validation'"),
    ("train: 0.8", "train: 0.7", "add up to 0.9"),
    ("train: 0.8", "train: 80%", "did you mean 80?"),
    ("test: 0.1", "tset: 0.1", "'test'"),
    ("splits:", "split:", "'splits'"),
    ("keep_original: true", "keep_original: yes", "true?"),
    ("keep_original: true", "keep_orignal: true", "'keep_original'"),
    ("keep_original: true", "scheduler: ddim", "it belongs in 'inpaint'"),
]


CHECKPOINT = "  checkpoint: package:starter-2d"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, text))
    return str(caught.value).replace(str(tmp_path) + "/", "")


def place_of(text: str, word: str) -> tuple[int, int]:
    before = text[: text.index(word)]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def test_mutated_recipes_are_located_and_their_repair_is_named(tmp_path: Path) -> None:
    unnamed = []
    for old, new, hint in MUTATIONS:
        assert old in TEXT
        text = TEXT.replace(old, new, 1)
        message = refusal(tmp_path, text)
        for line in message.split("\n"):
            assert re.match(r"x\.yaml:\d+:\d+: \S", line), line
        if hint not in message:
            unnamed.append((new, message))
    assert len(MUTATIONS) >= 60
    assert len(unnamed) <= 0.05 * len(MUTATIONS), unnamed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (CHECKPOINT, "  level_hu: {kidney: [35]}", "kidney: the list [35] is too short"),
        (CHECKPOINT, "  level_hu: {kidney: [3, 4, 5]}", "kidney: a list of 3; it takes at most"),
        ("keep_original: true", "quality: strict", "'strict' is not known; choose one of: none"),
        (CHECKPOINT, "  level_hu: {kidney: [9, 1]}", "hu.kidney: 9 exceeds 1; write the lesser"),
        (CHECKPOINT, "  method: copy_paste", "scheduler: unknown key; it is of method diffusion"),
        ("    around: kidney", "    around: kidney\n    deform: {}",
         "masks[1].deform: unknown key; it is of kind transplant, counterpart"),
        ("keep_original: true", "quality: {seam_ratio: {min: 3, max: 2}}",
         "x.yaml:32:29: quality.seam_ratio.min: min 3 is above max 2"),
    ],
)  # fmt: skip
def test_a_value_of_a_union_is_answered_for_the_member_that_is_meant(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in TEXT
    lines = refusal(tmp_path, TEXT.replace(old, new, 1)).split("\n")
    assert message in lines[0]


@pytest.mark.parametrize(
    ("old", "new", "word", "line"),
    [
        (
            "weight: 3",
            "wieght: 3",
            "wieght",
            "masks[0].wieght: unknown key; did you mean 'weight'?",
        ),
        ("kind: box", "kind: bx", "bx", "masks[1].kind: 'bx' is not known; did you mean 'box'?"),
        ("clearance_mm: 3", "clearance_mm: x", "x}", "masks[0].accept.clearance_mm: expected a"),
        ("[10, 25]", "[10, wide]", "wide", "masks[1].margin_mm[1]: expected a number, not 'wide'"),
        ("    into: kidney\n", "", "name: tumors", "masks[0].into: this key is missing; add it"),
        ("train: 0.8", "train: 0.7", "{train", "splits: the fractions add up to 0.9, not to 1"),
        (
            "    weight: 3",
            "    donors: doners",
            "doners",
            "masks[0].donors: kind 'transplant' takes",
        ),
        (
            "name: boxes",
            "name: tumors",
            "tumors\n    kind: box",
            "masks[1].name: 'tumors' is already",
        ),
    ],
)
def test_a_fault_is_reported_at_its_line_and_column(
    tmp_path: Path, old: str, new: str, word: str, line: str
) -> None:
    text = TEXT.replace(old, new, 1)
    row, column = place_of(text, word)
    assert refusal(tmp_path, text).startswith(f"x.yaml:{row}:{column}: {line}")


@pytest.mark.long
def test_random_slips_of_the_finger_get_the_right_suggestion(tmp_path: Path) -> None:
    """Two hundred keys and words, each with a letter dropped, doubled, swapped or replaced."""
    rng = random.Random(0)
    words = re.findall(r"(?<=[{ \n,])([a-z_0-9]{4,}):", TEXT)
    words += ["transplant", "axial", "dpmsolver++", "float32", "ignore", "largest", "kits23"]
    words = [w for w in words if w not in {"hosts", "donors", "organs", "package"}]
    right = total = 0
    while total < 200:
        word, at = rng.choice(words), rng.randrange(1, 3)
        slip = rng.choice(
            [
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                word[:at] + rng.choice("aeioustrn") + word[at + 1 :],
            ]
        )
        text = re.sub(rf"(?<=[{{ \n]){re.escape(word)}(?=[:,\n}}])", slip, TEXT, count=1)
        if slip == word or text == TEXT:
            continue
        total += 1
        message = refusal(tmp_path, text)
        assert re.match(r"x\.yaml:\d+:\d+: ", message)
        right += f"did you mean '{word}'?" in message
    assert right >= 0.95 * total


def test_a_transplant_without_donors_is_reported_at_its_section(tmp_path: Path) -> None:
    text = re.sub(r"  donors:.*\n", "", TEXT)
    row, column = place_of(text, "name: tumors")
    assert refusal(tmp_path, text) == (
        f"x.yaml:{row}:{column}: masks[0].donors: kind 'transplant' takes shapes from the source "
        "'donors', which 'sources' does not have; choose one of: hosts"
    )


def test_no_hosts_are_reported_at_the_sources(tmp_path: Path) -> None:
    message = refusal(tmp_path, TEXT.replace("  hosts:", "  scans:"))
    assert message.startswith("x.yaml:4:1: sources: the source 'hosts' is missing")


def test_the_document_of_the_design_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITS23_ROOT", "/somewhere")
    recipe = load_recipe(write(tmp_path, TEXT))
    assert recipe.sources["hosts"].root == Path("/somewhere")
    assert recipe.sources["donors"].root == Path("data/kits23/dataset")
    assert [section.kind for section in recipe.masks] == ["transplant", "box", "organ", "blob"]
    assert recipe.splits.fractions == {"train": 0.8, "validation": 0.1, "test": 0.1}
    assert {"kidney", "tumor"} <= set(recipe.all_labels())


def test_a_root_of_the_command_line_wins_over_an_unset_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KITS23_ROOT", raising=False)
    path = write(tmp_path, TEXT.replace(":-data/kits23/dataset", ""))
    with pytest.raises(
        RecipeError, match=r"x.yaml:5:33: sources.hosts.root: .* KITS23_ROOT is not"
    ):
        load_recipe(path)
    recipe = load_recipe(path, sources={"hosts": Path("/a")})
    assert recipe.sources["hosts"].root == Path("/a")
    with pytest.raises(RecipeError, match="no source 'host'; did you mean 'hosts'"):
        load_recipe(path, sources={"host": Path("/a")})
    with pytest.raises(RecipeError, match=r"sources.hosts has no root that could be replaced"):
        load_recipe(RECIPES / "quickstart.yaml", sources={"hosts": Path("/a")})


def test_the_resolved_recipe_names_no_path_and_is_a_recipe_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TEXT.replace("package:starter-2d", "/secret/runs/mine")
    here = load_recipe(write(tmp_path, text), sources={"hosts": Path("/secret/a")})
    there = load_recipe(write(tmp_path, text), sources={"donors": Path("~/b")})
    assert here.recipe_id == there.recipe_id
    assert "secret" not in yaml_text(here.resolved())
    assert here.resolved()["inpaint"]["checkpoint"] == "./mine"
    monkeypatch.setenv("HOSTS_ROOT", "/x")
    again = load_recipe(write(tmp_path, yaml_text(here.resolved())), sources={"donors": Path("/y")})
    assert again.recipe_id == here.recipe_id
    assert again.resolved() == here.resolved()


def test_comments_and_spelling_of_defaults_do_not_change_the_recipe_id(tmp_path: Path) -> None:
    first = load_recipe(write(tmp_path, TEXT))
    spelt = TEXT.replace("weight: 3", "weight: 3.0  # three").replace("    slices: largest\n", "")
    second = load_recipe(
        write(tmp_path, spelt.replace("seed: 7", "seed: 7\nsamples_per_shard: 256"))
    )
    assert second.recipe_id != first.recipe_id
    assert load_recipe(write(tmp_path, TEXT.replace("weight: 3", "weight: 3.0"))) == first
    assert load_recipe(write(tmp_path, TEXT + "samples_per_shard: 256 # x\n")) == first


def test_a_licence_taken_away_is_not_the_default_again(tmp_path: Path) -> None:
    text = TEXT.replace("exclude: [case_00001]", "licence: null")
    recipe = load_recipe(write(tmp_path, text))
    again = load_recipe(
        write(tmp_path, yaml_text(recipe.resolved())),
        sources={"hosts": Path("a"), "donors": Path("a")},
    )
    assert again.sources["donors"].licence is None


@pytest.mark.parametrize("name", NAMES)
def test_the_recipes_of_the_project_load(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("KITS23_ROOT", "TOTALSEGMENTATOR_ROOT"):
        monkeypatch.delenv(variable, raising=False)
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    assert recipe.name == name.replace("_", "-")
    assert Recipe.model_validate_json(json.dumps(recipe.resolved())).recipe_id == recipe.recipe_id


def test_the_json_schema_describes_every_kind() -> None:
    schema = recipe_json_schema()
    kinds = schema["properties"]["masks"]["items"]["discriminator"]["mapping"]
    assert set(kinds) == {
        "organ", "box", "transplant", "counterpart", "ellipsoid", "removal", "blob", "free_form",
        "own",
    }  # fmt: skip
    assert schema["additionalProperties"] is False
    json.dumps(schema)


def test_a_recipe_made_in_python_is_checked_alike() -> None:
    data: dict[str, Any] = {
        "name": "a",
        "version": "1.0.0",
        "sources": {"hosts": {"layout": "phantom"}},
        "masks": [{"name": "t", "kind": "transplant", "label": "tumor", "into": "kidney"}],
    }
    with pytest.raises(ValueError, match="takes shapes from the source 'donors'"):
        Recipe.model_validate(data)


def test_importing_recipes_loads_nothing_heavy() -> None:
    heavy = "('torch', 'scipy', 'nibabel', 'diffusers', 'datasets')"
    code = f"import sys, synthct.recipe.recipe; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_resolved_recipe_of_an_earlier_release_keeps_the_grain_as_painted() -> None:
    stated = {
        "method": "diffusion", "checkpoint": "package:starter-2d", "revision": None,
        "scheduler": "ddim", "num_inference_steps": 20, "guidance_scale": 1.0,
        "dtype": "float32", "batch_size": 4,
    }  # fmt: skip
    earlier = Diffusion(**stated)
    assert earlier.grain == "checkpoint"
    assert earlier.model_dump() == stated  # so the recipe's id is what it was
    assert Diffusion(checkpoint="package:starter-2d").grain == "surroundings"
    assert Diffusion(**Diffusion().model_dump()).grain == "surroundings"
