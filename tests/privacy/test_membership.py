"""The membership test of a checkpoint: planted and shuffled members, and whole runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState
from training_recipes import tiny_fields, tiny_recipe
from typer.testing import CliRunner

from synthct.cli import app
from synthct.dataset.privacy.results import read_membership, write_membership
from synthct.errors import CheckpointError, PolicyError, SourceError
from synthct.models.checkpoint import find_checkpoint
from synthct.privacy import membership
from synthct.privacy.membership import AttackOptions, attack, judged
from synthct.publish.hub.privacy import passed_test
from synthct.training.loop import train


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    """Accelerate remembers the first run in a process."""
    yield
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()


PATIENTS = [f"p{n // 10}" for n in range(200)]


def test_planted_members_are_told_and_shuffled_ones_are_not(tiny_checkpoint: Path) -> None:
    files, rng = find_checkpoint(str(tiny_checkpoint)), np.random.default_rng(0)
    others = rng.normal(0, 1, 200)
    who = [PATIENTS, [f"other-{name}" for name in PATIENTS]]
    planted = judged(files, [rng.normal(12, 1, 200), others], who, rng)
    assert (planted.auc.value, planted.true_positives.value) == (1, 1)
    assert planted.auc.low == 1
    shuffled = judged(files, [rng.normal(0, 1, 200), others], who, rng)
    assert shuffled.auc.value == pytest.approx(0.5, abs=0.05)
    assert shuffled.auc.low < 0.5 < shuffled.auc.high
    assert shuffled.true_positives.value < 0.05
    assert (shuffled.members.patients, shuffled.others.patches) == (20, 200)


def yaml_of(root: Path, path: Path, **changes: object) -> Path:
    """The recipe in a file; JSON is YAML."""
    path.write_text(json.dumps(tiny_fields(root, **changes)))
    return path


@pytest.mark.long
def test_a_checkpoint_is_tested_by_its_own_list(
    kits_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "RESAMPLED", 20)
    monkeypatch.setattr(membership, "LEVELS", 2)
    held_out = {"patients": ["case_00001"]}
    few = {"data": {"patches": 24, "patches_per_mask": 2}, "optim": {"max_steps": 1}}
    recipe = tiny_recipe(kits_root, validation=held_out, sample_every=9, **few)
    folder = train(recipe, tmp_path / "run", cache_dir=tmp_path, device="cpu", workers=0)
    path = yaml_of(kits_root, tmp_path / "train.yaml", **few)
    options = AttackOptions(path, masks=3)
    first = attack(str(folder), options, cache_dir=tmp_path)
    assert first.others.patients == 1
    assert first.members.patients >= 1
    assert first.auc.low <= first.auc.value <= first.auc.high

    words = ["privacy", str(folder), "--training", str(options.training), "--masks", "3"]
    done = CliRunner().invoke(app, [*words, "--cache-dir", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    written = read_membership(folder.with_name("checkpoint.privacy"))
    assert json.loads(done.stdout)["auc"]["value"] == written.auc.value == first.auc.value
    files = find_checkpoint(str(folder))
    sentence = passed_test(files, folder)
    assert sentence.startswith("Membership test by loss: AUC")
    told = written.model_copy(
        update={"auc": written.auc.model_copy(update={"low": 0.7, "value": 0.8, "high": 0.9})}
    )
    write_membership(folder.with_name("checkpoint.privacy"), told)
    with pytest.raises(PolicyError, match="tells whom it was trained on"):
        passed_test(files, folder)

    alone = yaml_of(
        kits_root,
        tmp_path / "alone.yaml",
        sources={"scans": {"layout": "kits23", "root": str(kits_root), "cases": ["case_00000"]}},
    )
    with pytest.raises(SourceError, match="no scan of patients others"):
        attack(str(folder), AttackOptions(alone), cache_dir=tmp_path)


def test_a_checkpoint_without_members_is_not_assessed(
    tiny_checkpoint: Path, kits_root: Path, tmp_path: Path
) -> None:
    options = AttackOptions(yaml_of(kits_root, tmp_path / "train.yaml"))
    with pytest.raises(CheckpointError, match="does not list whom"):
        attack(str(tiny_checkpoint), options, cache_dir=tmp_path)
    files = find_checkpoint(str(tiny_checkpoint))
    assert "not assessed" in passed_test(files, tiny_checkpoint)
