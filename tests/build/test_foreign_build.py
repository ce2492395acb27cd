"""Datasets painted by checkpoints of other makers: only the mask changes, and all is told."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_tiny_case
from datasets import load_dataset
from foreign_checkpoints import write_text_model, write_unconditional
from tiny_recipe import tiny_recipe, write_data, write_recipe
from typer.testing import CliRunner, Result

import synthct
from synthct.build.run import build
from synthct.cli import app
from synthct.dataset.lockfile import read_lock
from synthct.dataset.manifest import read_manifest
from synthct.errors import CheckpointError, PolicyError, RecipeError
from synthct.publish.hub.gate import pack
from synthct.recipe.recipe import Recipe, load_recipe, stored_recipe
from synthct.volume import Volume

#: What each recipe says of its checkpoint.
REPAINT = {
    "scheduler": "repaint",
    "num_inference_steps": 4,
    "jump_length": 1,
    "jump_n_sample": 2,
    "codecs": {"default": "full_range", "kidney": "soft_tissue", "tumor": "soft_tissue"},
    "labels": ["kidney", "tumor"],
}
TEXT = {
    "scheduler": "ddim",
    "num_inference_steps": 2,
    "guidance_scale": 2.0,
    "codecs": {"default": "soft_tissue"},
    "prompt": {"default": "ct slice", "tumor": "a {label} of a kidney", "kidney": "a {label}"},
}
SAID = {"ddpm": REPAINT, "text": TEXT}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans and both checkpoints."""
    folder = tmp_path_factory.mktemp("world")
    write_data(folder / "data")
    write_unconditional(folder / "ddpm", channels=3)
    write_text_model(folder / "text")
    return folder


def recipe_of(world: Path, kind: str, **inpaint: Any) -> dict[str, Any]:
    told = {"checkpoint": str(world / kind), "batch_size": 2, **SAID[kind], **inpaint}
    said = {name: value for name, value in told.items() if value is not ...}
    return tiny_recipe(world / "data", world / kind, inpaint=said)


def run(world: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setenv("SYNTHCT_CACHE", str(world / "cache"))
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("kind", SAID)
def test_a_build_changes_only_what_is_masked_and_says_with_what(
    world: Path, kind: str, tmp_path: Path
) -> None:
    # The grain of the surroundings knows no window.
    recipe = Recipe.model_validate(recipe_of(world, kind, grain="checkpoint"))
    folder = build(recipe, tmp_path / "out", cache_dir=world / "cache", workers=0)
    rows = load_dataset(str(folder), cache_dir=str(tmp_path / "hf"))["train"]
    assert rows.num_rows == 16
    assert set(rows["mask_kind"]) == {"organ", "box", "transplant", "blob"}
    for row in rows:
        mask = np.asarray(row["mask"]) > 0
        painted, original = (np.asarray(row[n]).astype(int) for n in ("image", "original"))
        assert np.array_equal(painted[~mask], original[~mask])
        assert (painted[mask] != original[mask]).mean() > 0.8
        if row["label"] in ("kidney", "tumor"):  # 1024 + the soft-tissue window
            assert painted[mask].min() >= 1024 - 150
            assert painted[mask].max() <= 1024 + 250
        told = row["provenance"]["generation"]
        assert {name: told[name] for name in SAID[kind] if name != "codecs"} == {
            name: value for name, value in SAID[kind].items() if name != "codecs"
        }
        assert row["host_in_training"] is None
    lock = read_lock(folder)
    assert lock.checkpoint is not None
    assert lock.checkpoint.licences == (None,)
    assert lock.licence is None
    assert ("transformers" in lock.versions) == (kind == "text")
    card = (folder / "README.md").read_text()
    assert "does not say what it was trained on" in card
    assert "license: unknown" in card
    assert ("a {label} of a kidney" in card) == (kind == "text")
    again = stored_recipe(folder / "recipe.yaml")
    assert again.resolved() == recipe.resolved()


@pytest.mark.long
@pytest.mark.parametrize("kind", SAID)
def test_commands_build_and_verify_to_the_same_bytes(
    world: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(world, kind)
    path = write_recipe(tmp_path / "r.json", world / "data", world / kind, **recipe)
    folder = build(load_recipe(path), tmp_path / "api", cache_dir=world / "cache", workers=0)
    options = ("--output", str(tmp_path / "cli"), "--workers", "1")
    done = run(world, "build", str(path), *options, monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    other = tmp_path / "cli/tiny/1.0.0"
    assert read_manifest(other) == read_manifest(folder)
    sources = [f"--source={name}={world / 'data' / name}" for name in ("hosts", "donors")]
    checkpoint = f"--checkpoint={world / kind}"
    done = run(
        world, "verify", str(other), "--level", "3", *sources, checkpoint, monkeypatch=monkeypatch
    )
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("kind", SAID)
def test_check_says_what_a_recipe_comes_to(
    world: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(recipe_of(world, kind)))
    done = run(world, "check", str(path), "--no-sheet", monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    assert "licence unknown: not to be published" in done.output
    assert "in patches of 32 pixels" in done.output
    assert ("prompt  tumor: a tumor of a kidney" in done.output) == (kind == "text")


@pytest.mark.parametrize(
    ("kind", "said", "code", "message"),
    [
        ("text", {"prompt": ...}, 2, r"inpaint: .* guided by text; give it a prompt .*'kidney' is"),
        ("text", {"prompt": {"kidney": "a"}}, 2, r"inpaint.prompt: .*what fits where a mask has"),
        ("text", {"prompt": "a {label}"}, 2, r"inpaint.prompt: .*what fits where a mask has no"),
        ("text", {"prompt": "a {lable}"}, 2, r"\{lable\} is no placeholder; only \{label\} is"),
        ("text", {"prompt": "kidney " * 90}, 4, r"reads 77 tokens and the prompt has 92; shorten"),
        ("text", {"labels": ["kidney"]}, 2, r"inpaint.labels: .*takes no 'labels'; remove it"),
        ("text", {"jump_length": 3}, 2, r"inpaint.jump_length: .*takes no 'jump_length'"),
        ("text", {"scheduler": "repaint"}, 2, r"inpaint.scheduler: 'repaint' is for unconditional"),
        ("text", {"codecs": ...}, 2, r"inpaint: .*codecs: \{default: soft_tissue\}"),
        ("ddpm", {"codecs": ...}, 2, r"inpaint: .*codecs: \{default: soft_tissue\}"),
        ("ddpm", {"codecs": {"kidney": "lung"}}, 2, "inpaint.codecs: needs a codec named 'defa"),
        ("ddpm", {"codecs": {"default": "mri"}}, 2, "inpaint.codecs: codec 'mri' is unknown"),
        (
            "ddpm",
            {"codecs": {"default": {"kind": "window", "level_hu": 9e4, "width_hu": 9}}},
            2,
            "inpaint.codecs.default: 'default' spans",
        ),
        (
            "ddpm",
            {"codecs": {"default": "lung", "tumour": "lung"}},
            2,
            "inpaint.codecs.tumour: no mask paints 'tumour'; did you mean 'tumor'",
        ),
        (
            "text",
            {"prompt": {"default": "a", "kidny": "b"}},
            2,
            "inpaint.prompt.kidny: no mask paints 'kidny'; did you mean 'kidney'",
        ),
        ("ddpm", {"prompt": "a"}, 2, r"inpaint.prompt: .*takes no 'prompt'; remove it"),
        ("ddpm", {"labels": ...}, 2, r"inpaint: .* that it paints 'kidney'; name it in labels if"),
        ("ddpm", {"labels": ["kidny"]}, 2, r"inpaint.labels: .* nothing says that it paints 'k"),
        ("ddpm", {"scheduler": "ddim"}, 2, "inpaint.scheduler: .* scheduler to repaint, not ddim"),
        ("ddpm", {"scheduler": ...}, 2, "scheduler: .* scheduler to repaint, not dpmsolver"),
        ("ddpm", {"jump_length": 4}, 2, "inpaint.jump_length: 4 is not below num_inference_steps"),
        ("ddpm", {"jump_length": ...}, 2, "jump_length: 10 is not below num_inference_steps 4"),
        ("ddpm", {"spacing_range_mm": [3, 1]}, 2, "3 exceeds 1; write the lesser first"),
    ],
    ids=str,
)
def test_what_does_not_go_with_the_checkpoint_is_refused_at_its_place(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    kind: str, said: dict[str, Any], code: int, message: str,
) -> None:  # fmt: skip
    path = tmp_path / "r.json"
    path.write_text(json.dumps(recipe_of(world, kind, **said), indent=1))
    done = run(world, "check", str(path), "--no-sheet", monkeypatch=monkeypatch)
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    text = " ".join(done.stderr.split())
    assert re.search(message, text), text
    if code == 2:
        assert f"{path.name}:" in text


def test_a_build_reads_no_tissue_for_a_model_that_cannot_paint_so(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = Recipe.model_validate(recipe_of(world, "ddpm", num_inference_steps=7))
    caplog.set_level("INFO", "synthct")
    with pytest.raises(CheckpointError, match="num_inference_steps 7 takes no even share"):
        build(recipe, tmp_path / "out", cache_dir=tmp_path / "cache", workers=0)
    assert "learning how" not in caplog.text


def test_a_misspelt_label_is_told_at_its_place(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.yaml"
    recipe = recipe_of(world, "text", prompt={"default": "a"})
    path.write_text(json.dumps(recipe, indent=1).replace('"default": "a"', '  "kidny": "b"'))
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "kidny" in text)
    done = run(world, "check", str(path), "--no-sheet", monkeypatch=monkeypatch)
    assert f"r.yaml:{line}:6: inpaint.prompt.kidny" in " ".join(done.stderr.split()), done.stderr


@pytest.mark.parametrize("said", [{"prompt": "a"}, {"codecs": {"default": "lung"}}], ids=str)
def test_a_checkpoint_of_synthct_takes_none_of_it(
    world: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    said: dict[str, Any],
) -> None:  # fmt: skip
    inpaint = {"checkpoint": str(tiny_checkpoint), **said}
    path = write_recipe(tmp_path / "r.json", world / "data", tiny_checkpoint, inpaint=inpaint)
    done = run(world, "check", str(path), "--no-sheet", monkeypatch=monkeypatch)
    assert done.exit_code == 2
    (key,) = said
    assert f"is a checkpoint of synthct, which takes no '{key}'; remove it" in done.stderr


def test_without_transformers_the_extra_is_named(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(recipe_of(world, "text")))
    done = run(world, "check", str(path), "--no-sheet", monkeypatch=monkeypatch)
    assert done.exit_code == 4
    assert "pip install '.[text]'" in done.stderr


def test_a_licence_is_stated_or_follows_from_what_the_checkpoint_says(
    world: Path, tmp_path: Path
) -> None:
    told = shutil.copytree(world / "ddpm", tmp_path / "told")
    (told / "training.json").write_text('{"licence": "CC-BY-4.0"}')
    stated = recipe_of(world, "ddpm") | {"licence": "CC-BY-NC-SA-4.0"}
    said = recipe_of(world, "ddpm", checkpoint=str(told))
    for name, recipe in {"stated": stated, "said": said}.items():
        asked = Recipe.model_validate(recipe)
        folder = build(asked, tmp_path / name, cache_dir=world / "cache", limit=1, workers=0)
        assert read_lock(folder).licence == "CC-BY-NC-SA-4.0"  # of KiTS
        card = (folder / "README.md").read_text()
        assert ("does not say what it was trained on" in card) == (name == "stated")
        if name == "stated":
            with pytest.raises(PolicyError, match="training data of checkpoint 'ddpm'"):
                pack(str(folder))
        else:
            assert pack(str(folder)).licence == "CC-BY-NC-SA-4.0"


def test_checkpoints_of_others_are_theirs_to_publish(world: Path) -> None:
    with pytest.raises(CheckpointError, match="only checkpoints of synthct are published"):
        pack(str(world / "ddpm"))


def test_unsaid_fields_have_no_part_in_a_recipe(world: Path, tiny_checkpoint: Path) -> None:
    """So that recipes of our own checkpoints keep the ids they always had."""
    plain = Recipe.model_validate(tiny_recipe(world / "data", tiny_checkpoint)).resolved()
    assert set(plain["inpaint"]) == {
        "method", "checkpoint", "revision", "scheduler", "num_inference_steps", "guidance_scale",
        "dtype", "batch_size", "grain",
    }  # fmt: skip
    told = Recipe.model_validate(recipe_of(world, "text"))
    assert Recipe.model_validate(told.model_dump()) == told
    other = Recipe.model_validate(recipe_of(world, "text", prompt="ct"))
    assert other.recipe_id != told.recipe_id


@pytest.mark.long
def test_one_scan_is_painted_from_python(world: Path) -> None:
    case = make_tiny_case()
    region = case.region("tumor")
    mask = Volume(region.astype(np.uint8), case.labels.affine)
    codecs: dict[str, Any] = {"default": "soft_tissue"}
    ddpm, text = str(world / "ddpm"), str(world / "text")
    repaint: dict[str, Any] = {"checkpoint": ddpm, "scheduler": "repaint"}
    told: dict[str, Any] = {"checkpoint": text, "label": "tumor", "prompt": "a {label}"}
    shows = {**repaint, "label": "tumor", "labels": ["tumor"], "jump_n_sample": 1}
    for given in (repaint, shows, told):
        painted = synthct.inpaint(case.scan(), mask, num_inference_steps=20, codecs=codecs, **given)
        assert np.array_equal(painted.array[~region], case.scan().array[~region])
        assert (painted.array != case.scan().array)[region].mean() > 0.9
    with pytest.raises(CheckpointError, match="does not say how HU become"):
        synthct.inpaint(case.scan(), mask, **repaint)
    with pytest.raises(CheckpointError, match=r"inpaint.jump_length: 10 is not below num_inf"):
        synthct.inpaint(case.scan(), mask, codecs=codecs, num_inference_steps=10, **repaint)
    with pytest.raises(CheckpointError, match=r"give it a prompt that tells what fits where a"):
        synthct.inpaint(case.scan(), mask, codecs=codecs, **{**told, "label": None})
    with pytest.raises(RecipeError, match=r"inpaint\.labls: unknown key; did you mean 'labels'"):
        synthct.inpaint(case.scan(), mask, labls=["tumor"])
    with pytest.raises(RecipeError, match=r"inpaint\.codecs.*codec 'mri' is unknown"):
        synthct.inpaint(case.scan(), mask, codecs={"default": "mri"}, **repaint)


def test_training_does_not_start_from_them(world: Path, tmp_path: Path) -> None:
    from synthct.training.recipe import load_training_recipe

    path = tmp_path / "t.yaml"
    path.write_text(f"name: x\nfrom_checkpoint: {world / 'ddpm'}\n")
    with pytest.raises(RecipeError, match=r"t.yaml:2:18: from_checkpoint: checkpoint 'ddpm' is an"):
        load_training_recipe(path)
