"""``synthct check`` of a training recipe, and recipes that are given to the wrong command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_recipes import tiny_fields
from typer.testing import CliRunner, Result

from synthct.cli import app
from synthct.recipe.kinds import DATASET_KEYS, TRAINING_KEYS
from synthct.recipe.recipe import Recipe
from synthct.training.recipe import TrainingRecipe

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHCT_CACHE", str(tmp_path / "cache"))
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def write(path: Path, fields: dict[str, Any]) -> Path:
    path.write_text(json.dumps(fields))
    return path


def test_a_training_recipe_is_checked(run: Run, tmp_path: Path, kits_root: Path) -> None:
    recipe = write(tmp_path / "t.yaml", tiny_fields(kits_root))
    result = run("check", recipe)
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0].startswith("tiny: 4 steps, 0.0")
    assert "paints kidney, tumor" in lines
    assert "cases 2 to train on, 0 held out" in lines
    assert "licence CC-BY-NC-SA-4.0" in lines
    assert lines[-1] == f"run: synthct train {recipe}"
    facts = json.loads(run("check", recipe, "--json").stdout)
    assert sum(facts["patches"].values()) == 48
    assert facts["refused"] == []
    assert facts["bytes"] == 48 * 64**2 * 2.125
    assert not list(tmp_path.glob("cache/patches"))


def test_what_training_would_stumble_over_is_told(
    run: Run, tmp_path: Path, kits_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks: list[dict[str, Any]] = [{"name": "livers", "kind": "organ", "label": "liver"}]
    result = run("check", write(tmp_path / "a.yaml", tiny_fields(kits_root, masks=masks)))
    assert result.exit_code in (2, 3)
    assert "liver" in result.stderr
    masks = [{"name": "kidneys", "kind": "organ", "label": "kidney", "margin_mm": -29}]
    recipe = write(tmp_path / "b.yaml", tiny_fields(kits_root, masks=masks))
    result = run("check", recipe, "--json")
    facts = json.loads(result.stdout)
    assert len(facts.get("refused", ())) == 1, result.output
    assert "kidneys: " in facts["refused"][0]
    assert run("check", tmp_path / "b.yaml", "--preset", "none").exit_code == 2
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("synthct.storage.files.shutil.disk_usage", lambda _: usage)
    assert run("check", write(tmp_path / "c.yaml", tiny_fields(kits_root))).exit_code == 5


@pytest.mark.parametrize("verb", ["build", "train"])
def test_a_recipe_of_the_other_kind_is_told_with_the_command_that_takes_it(
    run: Run, tmp_path: Path, kits_root: Path, verb: str
) -> None:
    training = write(tmp_path / "t.yaml", tiny_fields(kits_root))
    masks = [{"name": "b", "kind": "blob", "radius_mm": [3, 4]}]
    hosts = {"hosts": {"layout": "kits23", "root": str(kits_root)}}
    fields = {"name": "d", "version": "1.0.0", "sources": hosts, "masks": masks}
    dataset = write(tmp_path / "d.yaml", fields)
    wrong, right = (training, "train") if verb == "build" else (dataset, "build")
    result = run(verb, wrong)
    assert result.exit_code == 2
    assert f"run: synthct {right} {wrong}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_keys_that_tell_recipes_apart_are_theirs() -> None:
    ours, theirs = Recipe.model_fields.keys(), TrainingRecipe.model_fields.keys()
    assert ours - theirs == DATASET_KEYS
    assert (theirs - ours) | {"presets"} == TRAINING_KEYS
