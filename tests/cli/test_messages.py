"""What is said when something is not there: the thing itself, and what to do."""

from __future__ import annotations

import json
import logging
import runpy
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_tiny_case
from tiny_recipe import SECTIONS, tiny_recipe, write_data
from typer.testing import CliRunner, Result

from synthct.build.run import build
from synthct.cli import app
from synthct.evaluate.extractors import load_extractors
from synthct.processes.group import Group
from synthct.recipe.recipe import Recipe
from synthct.volume import Volume, write_volume

Run = Callable[..., Result]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHCT_CACHE", str(tmp_path / "cache"))
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def said_by(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in one shard."""
    root = tmp_path_factory.mktemp("messages")
    build(small(root), root / "out", cache_dir=root / "cache", workers=0)
    return root


def small(root: Path) -> Recipe:
    if not (root / "data").is_dir():
        write_data(root / "data")
    recipe = tiny_recipe(
        root / "data", root, masks=[{"name": "organ", **SECTIONS["organ"]}], masks_per_case=1,
        variants=1, inpaint={"method": "noise_fill"}, samples_per_shard=64,
    )  # fmt: skip
    return Recipe.model_validate(recipe)


@pytest.mark.parametrize(
    "words", [["report"], ["evaluate"], ["export", "--to", "nifti"], ["compose"]], ids=str
)
def test_a_folder_that_is_not_there_is_told_as_that(run: Run, words: list[str]) -> None:
    said = said_by(run(words[0], "nowhere/1.0.0", *words[1:]), 5)
    assert said.startswith("ResourceError: nowhere/1.0.0 does not exist; give the folder of a")


def test_levels_that_need_the_scans_ask_for_them(run: Run, folder: Path) -> None:
    said = said_by(run("verify", folder / "out/tiny/1.0.0", "--level", 2), 2)
    assert "--source hosts=FOLDER --source donors=FOLDER" in said
    assert "environment" not in said


def test_features_that_are_left_out_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    extractors = import_module("synthct.evaluate.extractors")
    monkeypatch.setattr(extractors, "is_installed", lambda: False)
    monkeypatch.setattr(extractors, "find_weights", lambda _: None)
    assert [one.name for one in load_extractors()] == ["radiomics"]
    assert "image features are left out" in caplog.text
    caplog.clear()
    load_extractors(["radiomics"])
    assert not caplog.text


WRONG = {
    "image": ({"image": "imgs/{case}.nii"}, 3, "the pattern imgs/{case}.nii matches no file"),
    "value": ({"label_names": {"kidney": 9}}, 2, "a voxel of value 9"),
    "structure": (
        {"labels": None, "label_names": {}, "structures": {"kidney": "no/{case}.nii"}}, 2,
        "its pattern no/{case}.nii matches no file",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "code", "message"), WRONG.values(), ids=WRONG)
def test_a_pattern_or_value_that_matches_nothing_is_named(
    run: Run, tmp_path: Path, changes: dict[str, Any], code: int, message: str
) -> None:
    for number in range(2):
        case = make_tiny_case(noise_seed=number)
        labels = case.labels.array.copy()
        labels[tuple(np.argwhere(labels)[number])] = 0  # two people
        for name, volume in (("ct", case.scan()), ("seg", Volume(labels, case.labels.affine))):
            (tmp_path / name).mkdir(exist_ok=True)
            write_volume(volume, tmp_path / name / f"p{number}.nii")
    hosts = {
        "layout": "nifti", "root": str(tmp_path), "image": "ct/{case}.nii",
        "labels": "seg/{case}.nii", "label_names": {"kidney": 1}, **changes,
    }  # fmt: skip
    recipe = {
        "name": "x", "version": "1.0.0", "sources": {"hosts": hosts},
        "masks": [{"name": "organ", **SECTIONS["organ"]}], "inpaint": {"method": "noise_fill"},
    }  # fmt: skip
    (tmp_path / "x.yaml").write_text(json.dumps(recipe))
    assert message in said_by(run("check", "x.yaml", "--no-sheet"), code)


def test_processes_that_gain_nothing_are_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Group, "size", 2)
    with caplog.at_level(logging.INFO, "synthct"):
        build(small(folder), folder / "two", cache_dir=folder / "cache", workers=0)
    assert "2 processes for 1 shard gain nothing" in caplog.text


def test_the_example_for_monai_says_that_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai", None)
    monkeypatch.setitem(sys.modules, "monai.data", None)
    with pytest.raises(SystemExit, match="not installed; run: pip install monai"):
        runpy.run_path(str(EXAMPLES / "read_monai.py"))
