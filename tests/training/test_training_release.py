"""A finished checkpoint: the folder, what it says of its training, and its card."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from conftest import write_tiny_checkpoint
from ruamel.yaml import YAML
from training_recipes import TINY_MODEL, fresh_parts, index_of, tiny_recipe, unet_of

from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.folder import write_sums
from synthct.models.palette import PaletteInpaintPipeline
from synthct.training.loss import make_schedule
from synthct.training.plan import hold_out
from synthct.training.release import TrainingSummary, card, training_facts, write_checkpoint
from synthct.training.sections import NoiseSection
from synthct.training.validate import Measures

MEASURES = Measures(loss=0.5, mae_hu=40.0, mean_error_hu=20.0, seam_ratio=1.1, texture_ratio=0.9)


@pytest.fixture
def entries(kits_root, tmp_path):
    """The three cases of ``kits_root``, the first two of one person."""
    person = {"case_00000": "anna", "case_00001": "anna"}
    sources = {"scans": {"layout": "kits23", "root": kits_root, "patients": person}}
    recipe = tiny_recipe(kits_root, sources=sources)
    return index_of(recipe, tmp_path / "index").entries("scans")


def pipeline_of(recipe):
    noise = make_schedule(recipe.noise.painting_schedule, recipe.noise.prediction_type)
    return PaletteInpaintPipeline(unet_of(fresh_parts(recipe)), noise)


def card_of(recipe, summary):
    text = card(recipe, training_facts(recipe, summary, 5_300_000))
    assert text.startswith("---\n")
    header, body = text[4:].split("\n---\n", 1)
    return YAML(typ="safe", pure=True).load(header), body


# -- the folder -------------------------------------------------------------------------------


def test_checkpoint_folder_is_one_that_load_checkpoint_and_diffusers_load(
    kits_root, tmp_path, entries
):
    recipe = tiny_recipe(kits_root)
    pipeline = pipeline_of(recipe)
    folder = tmp_path / "checkpoint"
    write_checkpoint(pipeline, folder, recipe, TrainingSummary(7, trained_on=entries[:2]))
    loaded = load_checkpoint(str(folder))
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(loaded["unet"].state_dict()[name], value.half().float()), name
    assert loaded["unet"].config["labels"] == ["kidney", "tumor"]
    assert loaded["unet"].config["patch_sizes"] == [48, 64]
    assert loaded.files.scheduler_config["prediction_type"] == "v_prediction"
    seen = {one for entry in entries[:2] for one in (entry.voxel_sha256, entry.fingerprint)}
    assert loaded.files.trained_on == seen - {None}

    again = PaletteInpaintPipeline.from_pretrained(folder)
    weight = next(pipeline.unet.parameters())
    assert torch.allclose(next(again.unet.parameters()), weight, atol=1e-3)
    # Nobody but the owner could read what safetensors writes itself.
    config = folder / "unet" / "config.json"
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_mode == config.stat().st_mode
    numbers = sum(p.numel() for p in pipeline.unet.parameters())
    assert weights.stat().st_size < 2.2 * numbers + 20_000


def test_checkpoint_replaces_an_earlier_one_as_a_whole(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root)
    folder = tmp_path / "checkpoint"
    (tmp_path / ".checkpoint.tmp").mkdir()
    (tmp_path / ".checkpoint.tmp" / "junk").touch()
    write_checkpoint(pipeline_of(recipe), folder, recipe, TrainingSummary(1))
    (folder / "stray").touch()
    write_checkpoint(pipeline_of(recipe), folder, recipe, TrainingSummary(2))
    assert json.loads((folder / "training.json").read_text())["steps"] == 2
    assert not (folder / "stray").exists()
    assert [path.name for path in tmp_path.glob("*checkpoint*")] == ["checkpoint"]


def test_a_schedule_to_paint_with_is_the_one_that_is_stored(kits_root, tmp_path):
    palette = {"beta_schedule": "linear", "beta_start": 1e-6, "beta_end": 0.01}
    painting = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.09}
    recipe = tiny_recipe(
        kits_root,
        model={**TINY_MODEL, "noise_embedding": "level"},
        noise={**palette, "num_train_timesteps": 2000, "painting": painting},
    )
    write_checkpoint(pipeline_of(recipe), tmp_path / "checkpoint", recipe, TrainingSummary(1))
    files = find_checkpoint(str(tmp_path / "checkpoint"))
    assert files.scheduler_config["num_train_timesteps"] == 1000
    assert files.scheduler_config["beta_end"] == 0.09
    assert NoiseSection(**files.training["noise"]) == recipe.noise
    assert files.configs["unet"]["noise_embedding"] == "level"


# -- training.json ----------------------------------------------------------------------------


def test_training_json_names_voxels_by_hash_and_no_path(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root, validation={"masks": 1})
    cast, held = hold_out(recipe, index_of(recipe, tmp_path / "cache"))
    folder = tmp_path / "checkpoint"
    summary = TrainingSummary(1, trained_on=cast.cases, held_out=held.cases)
    write_checkpoint(pipeline_of(recipe), folder, recipe, summary)
    training = json.loads((folder / "training.json").read_text())
    cases = {case["case_id"]: case["voxel_sha256"] for case in training["cases"]}
    (unseen,) = training["held_out"]
    assert unseen["case_id"] not in cases
    (hosts,) = cast.hosts
    assert len(cases[hosts.case_id]) == 64
    # What was held out may be judged by, and is not called seen.
    assert find_checkpoint(str(folder)).trained_on == {hosts.voxel_sha256, hosts.fingerprint}
    assert training["licence"] == "CC-BY-NC-SA-4.0"
    for path in folder.rglob("*.*"):
        if path.suffix in {".json", ".md"}:
            assert str(tmp_path) not in path.read_text()


def test_what_the_first_checkpoint_saw_counts_as_seen(kits_root, tmp_path, entries):
    base_folder = write_tiny_checkpoint(tmp_path / "base")
    old = {
        "source": "elsewhere", "layout": "nifti", "case_id": "x", "patient_id": "x",
        "licence": "CC-BY-4.0", "voxel_sha256": "cd" * 32,
    }  # fmt: skip
    facts = json.loads((base_folder / "training.json").read_text())
    facts |= {"cases": [old], "attributions": ["Ada, 2020"], "licence": "CC-BY-4.0"}
    (base_folder / "training.json").write_text(json.dumps(facts))
    write_sums(base_folder)
    base = find_checkpoint(str(base_folder))
    recipe = tiny_recipe(kits_root, from_checkpoint=str(base_folder))
    made = training_facts(recipe, TrainingSummary(5, trained_on=entries[:1], base=base), 1000)
    assert [case["case_id"] for case in made["cases"]] == ["x", "case_00000"]
    assert made["attributions"][0] == "Ada, 2020"
    assert made["licence"] == "CC-BY-NC-SA-4.0"
    assert made["from_checkpoint"]["checkpoint_id"] == base.checkpoint_id
    body = card(recipe, made)
    assert "Started from `base`." in body
    assert "Credits of the checkpoint before: Ada, 2020." in body
    assert "| `elsewhere` | `nifti` | 1 | 1 | CC-BY-4.0 |" in body
    assert str(tmp_path) not in json.dumps(made) + body


# -- the card ---------------------------------------------------------------------------------


def test_card_lists_labels_spacing_sources_and_licences(kits_root, entries):
    recipe = tiny_recipe(kits_root)
    header, body = card_of(recipe, TrainingSummary(7, trained_on=entries[:2]))
    assert header["license"] == "cc-by-nc-sa-4.0"
    assert header["library_name"] == "diffusers"
    assert "5.3 M parameter" in body
    assert "Labels: `kidney`, `tumor`, and whatever fits." in body
    assert "In-plane spacing: 0.5 to 3.1 mm. Patches: 48, 64 pixels." in body
    attribution = recipe.sources["scans"].attribution
    assert attribution.split(",")[0] in body
    # Two cases, one patient.
    assert "| `scans` | `kits23` | 2 | 1 | CC-BY-NC-SA-4.0 |" in body
    assert "Validation" not in body
    assert str(kits_root) not in body


def test_card_tells_how_to_paint_and_how_it_fared(kits_root, entries):
    recipe = tiny_recipe(kits_root, noise={"few_steps": 10}, data={"label_dropout": 0.1})
    history = [(n, replace(MEASURES, loss=loss)) for n, loss in ((10, 0.9), (20, 0.3), (30, 0.4))]
    summary = TrainingSummary(
        30, entries[:1], held_out=entries[1:2], validations=[*history, (40, MEASURES)]
    )
    _, body = card_of(recipe, summary)
    assert "Paints in 10 steps (`num_inference_steps`) only." in body
    assert "`guidance_scale`" in body
    assert "patients that were held out (1):" in body
    steps = [line.split("|")[1].strip() for line in body.splitlines() if "| 40 | 20 |" in line]
    assert steps == ["10", "20", "40"]  # the first, the best, the last


def test_card_of_hostile_words_is_still_a_card(kits_root, entries):
    recipe = tiny_recipe(
        kits_root,
        sources={"scans": {"layout": "kits23", "root": kits_root, "licence": None}},
        description="---\nlicense: mit\n---\n# Buy <script>alert(1)</script> [x](http://x) ![y](z)",
        licence="weird: [licence",
    )
    unknown = [replace(entries[0], licence=None)]
    header, body = card_of(recipe, TrainingSummary(1, trained_on=unknown))
    assert (header["license"], header["license_name"]) == ("other", "weird: [licence")
    assert "<script" not in body
    assert "[x](" not in body
    assert "![y]" not in body
    assert body.count("\n# ") == 1
    assert "| unknown |" in body


def test_card_of_an_unknown_licence_says_so(kits_root):
    sources = {"scans": {"layout": "kits23", "root": kits_root, "licence": None}}
    header, _ = card_of(tiny_recipe(kits_root, sources=sources), TrainingSummary(1))
    assert header["license"] == "unknown"
