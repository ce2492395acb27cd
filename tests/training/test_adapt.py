"""A checkpoint adapted to the hosts of a recipe."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny_recipe
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from conftest import make_tiny_case, write_kits
from foreign_checkpoints import write_unconditional
from killed_training import kill_at_first_state
from tiny_volume import write_tiny_volume

from synthct.build.check import check, require_adapted
from synthct.errors import CheckpointError, MaskError, RecipeError
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.methods import Adapt
from synthct.models.training_index import read_index
from synthct.recipe.recipe import load_recipe
from synthct.training.adapt import adapt, finished, folder_for, report, training_recipe
from synthct.training.denoising import make_network
from synthct.volume import Volume

STEPS = {"steps": 8}
SPLITS = {"train": 0.5, "test": 0.5}
WEIGHTS = "checkpoint/unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def data(tmp_path):
    hosts = [f"case_0000{n}" for n in (0, 1, 5, 6)]
    root = tmp_path / "data"
    for number, case_id in enumerate(hosts):
        write_kits(root / "hosts", make_tiny_case(case_id, noise_seed=number))
    return root


def written(data, checkpoint, *, settings=STEPS, **changes):
    """A recipe of blobs and kidneys that asks for an adaptation."""
    masks = [{"name": n, **tiny_recipe.SECTIONS[n]} for n in ("organ", "blob")]
    inpaint = {"checkpoint": str(checkpoint), "num_inference_steps": 2, "adapt": settings}
    given = {"masks": masks, "sources": sources(data), "inpaint": inpaint, "splits": SPLITS}
    path = data.parent / "recipe.yaml"
    tiny_recipe.write_recipe(path, data, checkpoint, **{**given, **changes})
    return path


def sources(data):
    return {"hosts": {"layout": "kits23", "root": str(data / "hosts")}}


def run(recipe, output, cache, **settings):
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()
    given = Adapt(**{**STEPS, **settings})
    return adapt(recipe, output, settings=given, cache_dir=cache, device="cpu", workers=0)


@pytest.mark.long
def test_a_killed_adaptation_goes_on_to_the_same_weights(data, tiny_checkpoint, tmp_path, caplog):
    path = written(data, tiny_checkpoint)
    recipe = load_recipe(path)
    whole, killed, cache = (tmp_path / name for name in ("whole", "killed", "cache"))
    made = run(recipe, whole, cache)
    command = [sys.executable, "-m", "synthct", "adapt", str(path), "--output", str(killed)]
    command += ["--cache-dir", str(cache), "--device", "cpu", "--threads", "1", "--workers", "0"]
    kill_at_first_state(command, killed)
    assert not finished(killed, Adapt(**STEPS))
    again = run(recipe, killed, cache)
    assert (killed / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert again.after.as_json() == made.after.as_json()
    assert finished(killed, Adapt(**STEPS))

    # Damage is told, and what was trained leads to the same checkpoint again.
    good = (killed / WEIGHTS).read_bytes()
    (killed / WEIGHTS).write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert not finished(killed, Adapt(**STEPS))
    assert f"{killed / 'checkpoint'} is damaged and made anew" in caplog.text
    run(recipe, killed, cache)
    assert (killed / WEIGHTS).read_bytes() == good

    # The checkpoint says of itself what any other does, and fits the recipe that asked for it.
    files = find_checkpoint(str(again.folder))
    checked = check(recipe, cache_dir=cache, checkpoint=again.folder)
    test = {p for p, split in checked.plan.splits.items() if split == "test"}
    members = {case["patient_id"] for case in files.training["cases"]}
    held_out = {case["patient_id"] for case in files.training["held_out"]}
    assert members
    assert held_out
    assert not test & (members | held_out)
    assert files.training["adapted"] == {"steps": 8, "include_test": False}
    assert files.training["licence"] == "CC-BY-NC-SA-4.0"
    assert files.training["from_checkpoint"]["name"] == tiny_checkpoint.name
    regions = read_index(files)
    assert regions is not None
    assert set(regions["patient_id"].to_pylist()) == members
    assert "scans of 2 test patients are not used" in report(again)
    assert "texture ratio" in report(again)
    assert again.before != again.after

    # Lock and samples name it, and the recipe stays the one that was written.
    require_adapted(checked)
    assert checked.checkpoint.name == "tiny-adapted"
    assert checked.checkpoint.checkpoint_id != find_checkpoint(str(tiny_checkpoint)).checkpoint_id
    assert checked.recipe.resolved()["inpaint"]["adapt"] == files.training["adapted"]
    assert checked.recipe.resolved()["inpaint"]["checkpoint"] == f"./{tiny_checkpoint.name}"


def test_a_recipe_is_not_built_with_a_checkpoint_that_was_not_adapted_for_it(
    data, tiny_checkpoint, tmp_path
):
    recipe = load_recipe(written(data, tiny_checkpoint))
    checked = check(recipe, cache_dir=tmp_path / "cache")
    assert checked.checkpoint is not None
    with pytest.raises(
        RecipeError, match=r"recipe\.yaml:\d+.*has not been adapted to the hosts in 8"
    ):
        require_adapted(checked)
    training = {**checked.checkpoint.training, "steps": 8, "adapted": Adapt(steps=8).model_dump()}
    require_adapted(replace(checked, checkpoint=replace(checked.checkpoint, training=training)))
    plain = load_recipe(written(data, tiny_checkpoint, settings=None))
    assert "adapt" not in plain.resolved()["inpaint"]
    require_adapted(check(plain, cache_dir=tmp_path / "cache"))


def test_the_training_follows_from_the_recipe(data, tiny_checkpoint, tmp_path):
    recipe = load_recipe(written(data, tiny_checkpoint))
    index = check(recipe, cache_dir=tmp_path / "cache").index
    base = find_checkpoint(str(tiny_checkpoint))
    made = training_recipe(recipe, base, index.entries("hosts"), Adapt(steps=8))
    assert [(one.name, one.label) for one in made.masks] == [("tissue", None), ("kidney", "kidney")]
    assert set(made.labels) == set(base.configs["unet"]["labels"])
    assert made.optim.max_steps == 8
    assert made.data.grain is not None
    assert not made.data.grain.painted


def test_the_starter_is_taken_over_with_its_guidance(data, tmp_path):
    recipe = load_recipe(written(data, "package:starter-2d"))
    index = check(recipe, cache_dir=tmp_path / "cache").index
    base = find_checkpoint("package:starter-2d")
    training = training_recipe(recipe, base, index.entries("hosts"), Adapt(steps=8))
    unet, _ = make_network(training)
    assert unet.config.guidance == base.configs["unet"]["guidance"]
    weights = load_checkpoint(base)["unet"].state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in unet.state_dict().items())


def test_an_adaptation_is_kept_under_all_that_it_follows_from(data, tiny_checkpoint, tmp_path):
    recipe, cache = load_recipe(written(data, tiny_checkpoint)), tmp_path / "cache"
    first = folder_for(recipe, Adapt(steps=8), cache)
    assert folder_for(recipe, Adapt(steps=8), cache) == first
    assert not finished(first, Adapt(steps=8))
    others = {folder_for(recipe, Adapt(steps=n, include_test=n > 8), cache) for n in (8, 9)}
    assert len(others | {first}) == 2
    write_kits(data / "hosts", make_tiny_case("case_00007", noise_seed=7))
    assert folder_for(recipe, Adapt(steps=8), cache) != first


@pytest.mark.long
def test_time_that_is_up_leaves_a_checkpoint_and_a_note(data, tiny_checkpoint, tmp_path):
    recipe = load_recipe(written(data, tiny_checkpoint))
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()
    made = adapt(
        recipe, tmp_path / "run", settings=Adapt(steps=8), cache_dir=tmp_path / "cache",
        device="cpu", workers=0, max_seconds=1e-6,
    )  # fmt: skip
    assert made.steps == 1
    assert "time was up after 1 of 8 steps" in report(made)
    assert not finished(tmp_path / "run", Adapt(steps=8))


@pytest.mark.long
def test_one_patient_is_adapted_to_and_told(tiny_checkpoint, tmp_path):
    root = tmp_path / "data"
    write_kits(root / "hosts", make_tiny_case("case_00000"))
    recipe = load_recipe(written(root, tiny_checkpoint))
    made = run(recipe, tmp_path / "run", tmp_path / "cache", steps=1)
    assert "nobody is held out" in report(made)


def test_what_cannot_be_adapted_is_refused_before_any_work(data, tiny_checkpoint, tmp_path):
    def refused(error, match, settings=None, **changes):
        recipe = load_recipe(written(data, tiny_checkpoint, **changes))
        with pytest.raises(error, match=match):
            adapt(
                recipe, tmp_path / "run", settings=Adapt(steps=1), cache_dir=tmp_path / "cache",
                workers=0, **(settings or {}),
            )  # fmt: skip
        assert not (tmp_path / "run").exists()

    refused(RecipeError, "nothing to adapt", inpaint={"method": "noise_fill"})
    refused(RecipeError, "0 minutes leave no time", {"max_seconds": 0})
    refused(RecipeError, r"every host is of a test patient.*include_test", splits={"test": 1.0})
    other = write_unconditional(tmp_path / "unconditional")
    settings = {"checkpoint": str(other), "scheduler": "repaint", "adapt": STEPS}
    refused(RecipeError, "cannot be trained on here", inpaint=settings)
    missing = {"checkpoint": str(tmp_path / "nowhere"), "adapt": STEPS}
    refused(CheckpointError, "nowhere", inpaint=missing)


def test_hosts_beyond_the_codec_are_refused(tiny_checkpoint, tmp_path, monkeypatch):
    # HU that are jittered downwards are back in the range, which ends where HU do.
    monkeypatch.setattr("synthct.training.adapt._OUTSIDE", 0.2)
    root = tmp_path / "data"
    for number in (0, 1):
        case = make_tiny_case(f"case_0000{number}", noise_seed=number)
        hu = np.where(case.ct.array > -200, 3071, case.ct.array)
        write_kits(root / "hosts", replace(case, ct=Volume(hu, case.ct.affine)))
    recipe = load_recipe(written(root, tiny_checkpoint, splits={"train": 1.0}))
    with pytest.raises(MaskError, match="outside the range of the checkpoint's codec"):
        run(recipe, tmp_path / "run", tmp_path / "cache")
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_the_command_build_adapts_first(data, tiny_checkpoint, tmp_path):
    path = written(data, tiny_checkpoint, settings={"steps": 1}, variants=1, quality="none")
    command = [sys.executable, "-m", "synthct", "build", str(path), "--output", str(tmp_path / "o")]
    command += ["--cache-dir", str(tmp_path / "cache"), "--limit", "1", "--workers", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "before" in done.stderr
    (lock,) = (tmp_path / "o").glob("tiny/*/synthct.lock")
    assert json.loads(lock.read_text())["checkpoint"]["name"] == "tiny-adapted"
    (folder,) = (tmp_path / "cache" / "adapted").glob("[0-9a-f]*")
    (state,) = (folder / "states").iterdir()
    assert state.name == "step-00000001"


@pytest.mark.slow
def test_a_network_in_3d_is_adapted_to_the_hosts_of_volumes(data, tmp_path):
    made = write_tiny_volume(tmp_path / "tiny-3d")
    recipe = load_recipe(written(data, made, settings={"steps": 1}, view="volume"))
    adapted = run(recipe, tmp_path / "out", tmp_path / "cache", steps=1)
    files = find_checkpoint(str(adapted.folder))
    assert files.training["adapted"]["steps"] == 1
    assert files.configs["unet"]["depth"] == 8
    assert np.isfinite(adapted.after.mae_hu)
