"""Training recipes: faults found at their place, presets, and starting from a checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_PAINTS, write_tiny_checkpoint
from training_recipes import TINY_MODEL, tiny_fields, tiny_recipe

from synthct.dataset.records import yaml_text
from synthct.errors import CheckpointError, PolicyError, RecipeError
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.folder import write_sums
from synthct.recipe.yaml_model import read_yaml
from synthct.training.denoising import make_network
from synthct.training.objectives import make_objective
from synthct.training.recipe import load_training_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "training"
NAMES = sorted(path.name for path in RECIPES.glob("*.yaml"))
BLOB = {"name": "blobs", "kind": "blob"}
MOVED = {"name": "moved", "kind": "transplant", "label": "tumor", "into": "kidney"}


def written(tmp_path: Path, root: Path, **changes: Any) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml_text(tiny_fields(root, **changes)))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_committed_recipes_load_with_every_preset_and_may_have_their_licence(name):
    recipe = load_training_recipe(RECIPES / name)
    assert f"{recipe.name}.yaml" == name.replace("_", "-")
    assert recipe.resolved_licence() == recipe.licence
    for preset in read_yaml(RECIPES / name).value.get("presets", {}):
        small = load_training_recipe(RECIPES / name, preset=preset)
        assert {name: small.sources[name] for name in recipe.sources} == recipe.sources
        assert small.resolved_licence() == small.licence
        assert small.labels == recipe.labels
        assert make_objective(small).rules == small.rules


def test_a_checkpoint_that_is_given_brings_its_shape(tmp_path, kits_root, tiny_checkpoint):
    path = written(tmp_path, kits_root, model={}, revision="main")
    recipe = load_training_recipe(path, from_checkpoint=str(tiny_checkpoint))
    assert (recipe.from_checkpoint, recipe.revision) == (str(tiny_checkpoint), None)
    config = find_checkpoint(str(tiny_checkpoint)).configs["unet"]
    assert list(recipe.model.model_dump()["block_out_channels"]) == config["block_out_channels"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {**TINY_MODEL, "patch_sizes": [50]}}, r"\[50\] are not multiples of 4"),
        ({"model": {**TINY_MODEL, "patch_sizes": []}}, "patch_sizes"),
        ({"model": {**TINY_MODEL, "patch_sizes": [4]}}, "patch_sizes.* at least 8"),
        ({"model": {**TINY_MODEL, "spacing_range_mm": [3, 1]}}, r"\[3, 1\] must rise"),
        ({"model": {**TINY_MODEL, "codecs": {"kidney": "lung"}}}, "needs a codec named 'default'"),
        (
            {"model": {**TINY_MODEL, "codecs": {"default": "lung", "kidny": "lung"}}},
            "model.codecs.kidny: no mask paints 'kidny'; did you mean 'kidney'",
        ),
        (
            {"model": {**TINY_MODEL, "strengths": {"tumour": 0.5}}},
            "model.strengths.tumour: no mask paints 'tumour'; did you mean 'tumor'",
        ),
        (
            {
                "model": {**TINY_MODEL, "guidance": {"kidney": 2.0}},
                "masks": [{"name": "kidneys", "kind": "organ", "label": "kidney"}],
            },
            "model.guidance: there is nothing to be guided away from",
        ),
        (
            {"data": {"source_weights": {"scan": 2}}},
            "data.source_weights.scan: there is no source 'scan'; did you mean 'scans'",
        ),
        ({"data": {"views": {}}}, "data.views"),
        ({"masks": []}, "masks"),
        ({"masks": [BLOB, dict(BLOB)]}, r"masks\[1\].name: 'blobs' is already the name"),
        ({"masks": [{"name": "r", "kind": "removal", "lesion": "tumor"}]},
         r"masks\[0\].kind: under a removal the scan shows the lesion"),
        ({"masks": [{"name": "o", "kind": "own", "source": "hosts"}]},
         r"masks\[0\].kind: training sees scans on other grids"),
        ({"masks": [MOVED]}, r"masks\[0\].*: 'sources' has no 'donors' to take shapes from"),
        (
            {"noise": {"prediction_type": "epsilon", "loss_weight_cap": 5}},
            "loss_weight_cap is for v_prediction; use min_snr_gamma",
        ),
        ({"noise": {"min_snr_gamma": 5, "loss_weight_cap": 5}}, "exclude each other"),
        ({"noise": {"min_snr_gamma": 5, "loss": "l1"}}, "weigh squared errors; use loss l2"),
        ({"noise": {"beta_start": 0.2, "beta_end": 0.1}}, "beta_start 0.2 exceeds beta_end 0.1"),
        ({"noise": {"few_steps": 10, "num_train_timesteps": 5}}, "few_steps 10 exceeds"),
        ({"noise": {"few_steps": 10, "painting": {}}}, "remove painting"),
        (
            {"noise": {"painting": {"beta_schedule": "linear"}}},
            "noise.painting: only a network that is given .*noise_embedding to level",
        ),
        (
            {"noise": {"adversarial": {}}, "model": {"kind": "volume"}},
            "noise.adversarial: a network of kind volume is not judged; remove it",
        ),
        ({"validation": {"share": 0.2, "patients": ["a"]}}, "exclude each other; remove one"),
        ({"revision": "main"}, "revision: belongs to a Hub repository in from_checkpoint"),
        ({"optim": {"max_step": 3}}, "did you mean 'max_steps'"),
    ],
)  # fmt: skip
def test_faults_of_a_recipe_are_found_at_their_place(kits_root, tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message) as caught:
        load_training_recipe(written(tmp_path, kits_root, **changes))
    assert str(caught.value).startswith(f"{tmp_path / 'tiny.yaml'}:")


# -- presets ----------------------------------------------------------------------------------

SMALL = {
    "small": {"optim": {"max_steps": 2}, "model": {"patch_sizes": [32]}, "masks": [BLOB]},
    "large": {},
}


def test_a_preset_replaces_the_fields_it_names_and_no_others(kits_root, tmp_path):
    path = written(tmp_path, kits_root, presets=SMALL)
    plain, small = load_training_recipe(path), load_training_recipe(path, preset="small")
    assert plain == tiny_recipe(kits_root)
    assert (plain.optim.max_steps, small.optim.max_steps) == (4, 2)
    assert small.optim.batch_size == 1
    assert small.model.patch_sizes == (32,)
    assert small.model == plain.model.model_copy(update={"patch_sizes": (32,)})
    assert [section.name for section in small.masks] == ["blobs"]


@pytest.mark.parametrize(
    ("presets", "preset", "message"),
    [
        (SMALL, "smal", r"no preset 'smal'; did you mean 'small'\? \(there is: small, large\)"),
        ({}, "small", r"no preset 'small' \(it has none\)"),
        ([1], None, "presets: expected names"),
        ({"small": 3}, None, "presets.small: expected the fields"),
    ],
)
def test_presets_that_are_not_there_or_no_fields_are_an_error(
    kits_root, tmp_path, presets, preset, message
):
    with pytest.raises(RecipeError, match=message):
        load_training_recipe(written(tmp_path, kits_root, presets=presets), preset=preset)


def test_a_fault_in_a_preset_is_shown_where_it_stands(kits_root, tmp_path):
    path = written(tmp_path, kits_root, presets={"small": {"optim": {"max_steps": -1}}})
    lines = path.read_text().splitlines()
    (line,) = [n for n, text in enumerate(lines, start=1) if "max_steps: -1" in text]
    load_training_recipe(path)
    with pytest.raises(RecipeError, match=rf"tiny.yaml:{line}:\d+: optim.max_steps"):
        load_training_recipe(path, preset="small")


# -- starting from a checkpoint ---------------------------------------------------------------

TUNED = {"codecs": {"default": "full_range", "kidney": "soft_tissue", "cyst": "soft_tissue"}}
CYSTS = {"name": "cysts", "kind": "blob", "label": "cyst"}


def tuned(tmp_path, kits_root, checkpoint, **changes):
    fields = tiny_fields(kits_root, from_checkpoint=str(checkpoint), **changes)
    if "model" not in changes:
        del fields["model"]
    path = tmp_path / "tuned.yaml"
    path.write_text(yaml_text(fields))
    return load_training_recipe(path)


def test_network_and_schedule_come_from_the_checkpoint(kits_root, tmp_path, tiny_checkpoint):
    recipe = tuned(tmp_path, kits_root, tiny_checkpoint, masks=[CYSTS], model=TUNED)
    assert recipe.model.block_out_channels == (8, 16)
    assert recipe.model.patch_sizes == (32, 64)
    assert recipe.noise.prediction_type == "v_prediction"
    assert recipe.labels == (*TINY_PAINTS, "cyst")
    assert recipe.model.codecs["lung"]["level_hu"] == -600  # not named here


def test_labels_keep_their_weights_and_new_ones_start_as_whatever_fits(
    kits_root, tmp_path, tiny_checkpoint
):
    kidneys = {"name": "kidneys", "kind": "organ", "label": "kidney"}
    recipe = tuned(tmp_path, kits_root, tiny_checkpoint, masks=[CYSTS, kidneys])
    unet, base = make_network(recipe)
    old = load_checkpoint(str(tiny_checkpoint))
    assert base.checkpoint_id == old.files.checkpoint_id
    rows, before = unet.label_embedding.weight, old["unet"].label_embedding.weight
    assert torch.equal(rows[:4], before)
    assert torch.equal(rows[4], before[0])
    for name, value in old["unet"].state_dict().items():
        if name != "label_embedding.weight":
            assert torch.equal(unet.state_dict()[name], value), name


def test_the_label_for_not_told_is_added_and_kept(kits_root, tmp_path, tiny_checkpoint):
    recipe = tuned(tmp_path, kits_root, tiny_checkpoint, data={"label_dropout": 0.1})
    unet, _ = make_network(recipe)
    assert unet.null_label == 4
    assert torch.equal(unet.label_embedding.weight[4], unet.label_embedding.weight[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"block_out_channels": [8, 32]}},
            r"model.block_out_channels: 'tiny', which training starts from, has \[8, 16\]; leave",
        ),
        ({"noise": {"prediction_type": "epsilon"}}, "noise.prediction_type: .* has v_prediction"),
    ],
)
def test_another_network_than_the_checkpoints_is_an_error(
    kits_root, tmp_path, tiny_checkpoint, changes, message
):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    with pytest.raises(RecipeError, match=message):
        tuned(tmp_path, kits_root, folder, **changes)


def test_a_checkpoint_that_is_not_there_is_an_error(kits_root, tmp_path):
    with pytest.raises(CheckpointError, match=r"neither a folder nor 'package:NAME'"):
        tuned(tmp_path, kits_root, tmp_path / "missing")
    with pytest.raises(CheckpointError, match="'package:nothing' does not ship with synthct"):
        tuned(tmp_path, kits_root, "package:nothing")


def test_weights_of_another_shape_are_refused_without_a_recipe_file(kits_root, tiny_checkpoint):
    wider = {**TINY_MODEL, "block_out_channels": [16, 16]}
    recipe = tiny_recipe(kits_root, model=wider, from_checkpoint=str(tiny_checkpoint))
    with pytest.raises(CheckpointError, match=r"tensor unet\.\S+ is \(8.* needs \(16"):
        make_network(recipe)


def test_a_network_that_learns_of_neighbours_starts_as_it_was(kits_root, tiny_checkpoint, caplog):
    recipe = tiny_recipe(
        kits_root, model={**TINY_MODEL, "neighbours": 2}, from_checkpoint=str(tiny_checkpoint)
    )
    with caplog.at_level("INFO"):
        wide, base = make_network(recipe)
    assert "knows no neighbouring slices" in caplog.text
    old = load_checkpoint(str(base.folder))["unet"]
    g = torch.Generator().manual_seed(0)
    noisy, known, told = (torch.randn((1, n, 16, 16), generator=g) for n in (1, 1, 2))
    given = (noisy, torch.tensor([300]), known, torch.ones_like(noisy), torch.tensor([1]))
    with torch.no_grad():
        before = old(*given, torch.ones(1, 2))
        assert torch.allclose(wide(*given, torch.ones(1, 2), told), before, atol=1e-5)


def test_licence_of_the_checkpoint_binds_what_is_made_from_it(kits_root, tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "base")
    facts = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps({**facts, "licence": "CC-BY-NC-4.0"}))
    write_sums(folder)
    phantoms = {"scans": {"layout": "phantom", "patients": 1}}
    recipe = tuned(tmp_path, kits_root, folder, sources=phantoms)
    assert recipe.resolved_licence(base="CC-BY-NC-4.0") == "CC-BY-NC-4.0"
    looser = recipe.model_copy(update={"licence": "Apache-2.0"})
    with pytest.raises(PolicyError, match=r"Apache-2\.0 is looser"):
        make_network(looser)


def test_a_schedule_to_paint_with_leads_back_to_the_one_trained_on(kits_root, tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "base")
    trained = {
        "num_train_timesteps": 2000,
        "beta_schedule": "linear",
        "beta_start": 1e-6,
        "beta_end": 0.01,
    }
    facts = json.loads((folder / "training.json").read_text())
    facts["noise"] = {**facts["noise"], **trained}
    (folder / "training.json").write_text(json.dumps(facts))
    write_sums(folder)
    noise = tuned(tmp_path, kits_root, folder).noise
    assert noise.model_dump(include=set(trained)) == trained


def test_a_network_without_steps_refuses_what_belongs_to_them(tmp_path: Path) -> None:
    path = tmp_path / "gan.yaml"
    path.write_text(
        "name: gan\n"
        "sources: {phantoms: {layout: phantom, patients: 2}}\n"
        "masks: [{name: blobs, kind: blob, radius_mm: [15, 40]}]\n"
        "model: {kind: pix2pix, levels: 6, patch_sizes: [64]}\n"
        "noise: {loss: l1}\n"
        "data: {label_dropout: 0.1}\n"
        "validation: {scheduler: ddim}\n"
    )
    with pytest.raises(RecipeError) as refused:
        load_training_recipe(path)
    lines = str(refused.value).splitlines()
    places = [line.removeprefix(f"{path}:").split(": ")[:2] for line in lines]
    assert [place for _, place in places] == [
        "noise", "data.label_dropout", "validation.scheduler",
    ]  # fmt: skip
    assert all("of kind pix2pix paints in one pass" in line for line in lines)


def test_an_unknown_kind_of_network_is_told_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "gan.yaml"
    path.write_text(
        "name: gan\n"
        "sources: {phantoms: {layout: phantom, patients: 2}}\n"
        "masks: [{name: blobs, kind: blob, radius_mm: [15, 40]}]\n"
        "model: {kind: pixpix}\n"
    )
    with pytest.raises(RecipeError, match=r"4:15: model\.kind: 'pixpix' is not known"):
        load_training_recipe(path)
