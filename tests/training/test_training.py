"""Whole training runs: what they write, how they go on, and who takes part."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from killed_training import kill_at_first_state
from PIL import Image
from safetensors.torch import load_file
from scipy import ndimage
from training_recipes import (
    TINY_MODEL,
    objective_with,
    open_set,
    saved_state,
    tiny_fields,
    tiny_recipe,
)
from typer.testing import CliRunner

from synthct.cli import app
from synthct.dataset.records import yaml_text
from synthct.errors import ConflictError, PolicyError, RecipeError, ResourceError
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.painting import Inpainter
from synthct.models.training_index import read_index
from synthct.storage.lock import exclusive
from synthct.training.checkpoint import latest_state
from synthct.training.loop import learning_rate_factor, train
from synthct.training.objectives.palette import PaletteObjective
from synthct.training.recipe import TrainingRecipe, load_training_recipe
from synthct.training.sheet import COLUMNS, TILE_PX, choose_slices
from synthct.training.validate import Measures, Validation
from synthct.volume import Volume
from synthct.volume.intensity import FULL_RANGE

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "training"

#: With everything that draws random numbers, so that going on exactly is put to the test.
RANDOM = {
    "model": {**TINY_MODEL, "dropout": 0.2},
    "data": {"patches": 48, "patches_per_mask": 2, "join_masks": 0.5, "label_dropout": 0.2},
    "optim": {
        "max_steps": 8, "batch_size": 1, "gradient_accumulation": 2, "warmup_steps": 2,
        "decay_steps": 4,
    },
    "validation": {"every": 4, "masks": 2, "num_inference_steps": 1},
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def nothing_remembered():
    """Accelerate remembers the first run in a process."""
    yield
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()


def read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(tmp_path: Path, root: Path, **changes: Any) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml_text(tiny_fields(root, **changes)))
    return path


def changed(recipe: TrainingRecipe, **optim: Any) -> TrainingRecipe:
    return recipe.model_copy(update={"optim": recipe.optim.model_copy(update=optim)})


def states_of(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "states").iterdir())


def assert_equal_states(one: Path, two: Path) -> None:
    assert one.name == two.name
    for name in ("unet", "unet.ema", "unet.optimizer"):
        first, second = (load_file(state / f"{name}.safetensors") for state in (one, two))
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert torch.equal(value, second[key]), (name, key)


# -- one run ----------------------------------------------------------------------------------


def test_run_writes_states_log_samples_and_a_checkpoint_and_goes_on(
    kits_root, patch_cache, tmp_path
):
    output = tmp_path / "run"
    recipe = tiny_recipe(kits_root)
    folder = train(recipe, output, cache_dir=patch_cache, device="cpu", workers=0)
    assert folder == output / "checkpoint"
    assert states_of(output) == ["step-00000003", "step-00000004"]
    assert {line["step"] for line in read_log(output / "log.jsonl")} == {1, 2, 3, 4}
    names = sorted(path.name for path in (output / "samples").iterdir())
    assert names == ["step-00000002.png", "step-00000004.png"]

    # The checkpoint holds the running mean, not the last weights.
    weights = load_checkpoint(str(folder))["unet"].state_dict()
    state = output / "states" / "step-00000004"
    mean, last = load_file(state / "unet.ema.safetensors"), load_file(state / "unet.safetensors")
    for name, value in mean.items():
        assert torch.equal(weights[name], value.half().float()), name
    assert any(not torch.equal(mean[name], last[name]) for name in mean)

    # What was painted is in the privacy index, under the names of the member list.
    regions = read_index(find_checkpoint(str(folder)))
    assert regions is not None
    members = json.loads((folder / "training.json").read_text())["cases"]
    identity = ("source", "case_id", "patient_id", "fingerprint")
    named = {tuple(case[name] for name in identity) for case in members}
    assert {tuple(one[name] for name in identity) for one in regions.to_pylist()} == named
    assert set(regions["label"].to_pylist()) == {None, "kidney", "tumor"}

    longer = changed(recipe, max_steps=6).model_copy(update={"save_every": 100})
    train(longer, output, cache_dir=patch_cache, device="cpu", workers=0)
    # The run went on from step 4: it did no step twice and saved where it ended.
    assert states_of(output) == ["step-00000004", "step-00000006"]
    assert [line["step"] for line in read_log(output / "log.jsonl")] == [1, 2, 3, 4, 6]
    assert json.loads((folder / "training.json").read_text())["steps"] == 6


@pytest.mark.long
def test_validation_measures_held_out_patients_as_samples_are_measured(
    kits_root, patch_cache, tmp_path
):
    recipe = tiny_recipe(kits_root, **RANDOM)
    folder = train(recipe, tmp_path / "run", cache_dir=patch_cache, device="cpu", workers=0)
    found = [line for line in read_log(tmp_path / "run" / "log.jsonl") if "validation" in line]
    assert [line["step"] for line in found] == [4, 8]
    facts = json.loads((folder / "training.json").read_text())
    assert [row["step"] for row in facts["validation"]] == [4, 8]
    # Whoever has the checkpoint finds the same figures, but for its weights being halved.
    data = open_set(recipe, patch_cache)
    validation = Validation(recipe, data.slices)
    weights = load_checkpoint(str(folder))["unet"].state_dict()
    measured = validation.measure(objective_with(recipe, weights))
    for name, value in found[-1]["validation"].items():
        assert getattr(measured, name) == pytest.approx(value, rel=0.02)
    assert measured == validation.measure(objective_with(recipe, weights))


def test_perfect_paint_has_perfect_measures(kits_root, patch_cache, tmp_path, monkeypatch):
    recipe = tiny_recipe(kits_root, validation={"masks": 4})
    data = open_set(recipe, patch_cache)
    monkeypatch.setattr(Inpainter, "paint", lambda self, patches, seeds: [p.image for p in patches])
    measured = Validation(recipe, data.slices).measure(PaletteObjective(recipe))
    assert measured.mae_hu < 12  # the codec clips air in the patches, and rounds
    assert measured.seam_ratio == pytest.approx(1, abs=0.01)
    assert measured.texture_ratio == pytest.approx(1, abs=0.01)


def test_noise_at_the_hidden_level_is_measured_as_what_a_network_has_to_beat(
    kits_root, patch_cache, tmp_path
):
    recipe = tiny_recipe(kits_root, validation={"masks": 4})
    slices = open_set(recipe, patch_cache).slices

    def shown_as(make):
        planes = (Volume(make(one).astype(np.int16), one.plane.affine) for one in slices)
        return [replace(one, plane=plane) for one, plane in zip(slices, planes, strict=True)]

    def grain(one):
        return 60 + np.random.default_rng(0).normal(0, 10, one.plane.shape).round()

    measured = Validation(recipe, shown_as(grain)).noise_fill()
    # Two draws of the same noise differ by 1.41 times as much as a draw and the mean.
    assert measured.mae_hu == pytest.approx(np.sqrt(2) * 10 * np.sqrt(2 / np.pi), rel=0.15)
    assert measured.texture_ratio == pytest.approx(1, abs=0.15)
    assert measured.mean_error_hu < 3
    bright = shown_as(lambda one: np.where(np.indices(one.plane.shape)[0] % 10, grain(one), 200))
    # A vessel is no part of the level, nor of the spread.
    assert Validation(recipe, bright).noise_fill().mae_hu < 30
    assert recipe.validation is not None
    output = tmp_path / "run"
    train(recipe, output, cache_dir=patch_cache, device="cpu", workers=0, max_seconds=0)
    (line,) = [line for line in read_log(output / "log.jsonl") if "noise_fill" in line]
    assert line["noise_fill"]["loss"] is None
    assert line["noise_fill"] == Validation(recipe, slices).noise_fill().as_json()


def test_lung_painted_in_full_range_is_measured_in_its_own_window(
    kits_root, patch_cache, tmp_path, monkeypatch
):
    recipe = tiny_recipe(kits_root, validation={"masks": 4})

    def as_lung(one):
        hu = np.clip(one.plane.array - 850, -1024, 3071).astype(np.int16)
        patches = tuple(
            replace(p, codec=FULL_RANGE, image=FULL_RANGE.encode(p.codec.decode(p.image) - 850))
            for p in one.patches
        )
        return replace(one, plane=Volume(hu, one.plane.affine), patches=patches)

    monkeypatch.setattr(Inpainter, "paint", lambda self, patches, seeds: [p.image for p in patches])
    slices = [as_lung(one) for one in open_set(recipe, patch_cache).slices]
    measured = Validation(recipe, slices).measure(PaletteObjective(recipe))
    assert measured.seam_ratio == pytest.approx(1, abs=0.1)
    assert measured.texture_ratio == pytest.approx(1, abs=0.1)


def test_early_stopping_ends_the_run_and_keeps_the_best(
    kits_root, patch_cache, tmp_path, monkeypatch
):
    losses = iter([0.5, 0.3, 0.4, 0.35, 0.2, 0.1])
    monkeypatch.setattr(
        Validation, "measure", lambda *_: Measures(next(losses), 1.0, 1.0, 1.0, 1.0)
    )
    rule = {"every": 1, "masks": 1, "early_stopping": {"measure": "loss", "patience": 2}}
    recipe = tiny_recipe(kits_root, validation=rule, optim={"max_steps": 6, "batch_size": 1})
    folder = train(recipe, tmp_path / "run", cache_dir=patch_cache, device="cpu", workers=0)
    assert latest_state(tmp_path / "run").name == "step-00000004"
    assert json.loads((folder / "training.json").read_text())["steps"] == 2
    # Enough is enough, however often it is run.
    train(recipe, tmp_path / "run", cache_dir=patch_cache, device="cpu", workers=0)
    assert latest_state(tmp_path / "run").name == "step-00000004"


@pytest.mark.long
def test_strip_shows_the_same_masks_at_every_interval(kits_root, patch_cache, tmp_path):
    output = tmp_path / "run"
    recipe = tiny_recipe(kits_root, validation={"masks": 9, "num_inference_steps": 1})
    recipe = recipe.model_copy(update={"sample_every": 1})
    train(recipe, output, cache_dir=patch_cache, device="cpu", workers=0)
    strip = np.array(Image.open(output / "samples.png"))
    slices = choose_slices(open_set(recipe, patch_cache).slices)
    assert {one.section for one in slices} == {"blobs", "kidneys", "tumors"}
    assert strip.shape[1] == (4 + 2) * TILE_PX  # masked, four columns, original
    columns = np.split(strip[strip.shape[0] - len(slices) * TILE_PX :], 6, axis=1)
    for row, one in enumerate(slices):
        mask = Image.fromarray(one.patches[0].mask[::-1, ::-1].T)
        inside = np.array(mask.resize((TILE_PX, TILE_PX)))
        tiles = [column[row * TILE_PX : (row + 1) * TILE_PX] for column in columns]
        far = ~np.array(mask.resize((TILE_PX, TILE_PX), Image.Resampling.BILINEAR)) & ~inside
        edge = np.pad(inside, 3)
        near = ndimage.binary_dilation(edge, np.ones((7, 7), bool))[3:-3, 3:-3]
        known = far & ~near
        assert known.any()
        for tile in tiles[1:]:
            assert np.array_equal(tile[known], tiles[-1][known])
    assert COLUMNS >= 4


@pytest.mark.long
def test_tensorboard_gets_curves_and_samples(kits_root, patch_cache, tmp_path):
    pytest.importorskip("tensorboard")
    recipe = tiny_recipe(kits_root, **{**RANDOM, "optim": {"max_steps": 4, "batch_size": 1}})
    output = tmp_path / "run"
    train(recipe, output, cache_dir=patch_cache, device="cpu", workers=0, tensorboard=True)
    (events,) = (output / "tensorboard").rglob("events.out.tfevents.*")
    raw = events.read_bytes()
    for name in (b"loss", b"learning_rate", b"validation/mae_hu", b"samples"):
        assert name in raw


def test_run_out_of_time_stops_and_saves(kits_root, patch_cache, tmp_path):
    recipe = tiny_recipe(kits_root, save_every=100, sample_every=100)
    folder = train(
        recipe, tmp_path / "run", cache_dir=patch_cache, device="cpu", workers=0, max_seconds=0
    )
    assert latest_state(tmp_path / "run").name == "step-00000001"
    assert json.loads((folder / "training.json").read_text())["steps"] == 1


def test_gradients_of_several_passes_make_one_step(kits_root, patch_cache, tmp_path):
    """Two passes over the same patches and noise must step as one pass does."""
    recipe = tiny_recipe(kits_root, optim={"max_steps": 1, "batch_size": 1, "warmup_steps": 0})
    recipe = changed(recipe, decay_steps=0)
    twice = changed(recipe, gradient_accumulation=2)
    finished = {}
    for name, one in (("once", recipe), ("twice", twice)):
        train(one, tmp_path / name, cache_dir=patch_cache, device="cpu", workers=0)
        finished[name] = load_file(saved_state(tmp_path / name) / "unet.optimizer.safetensors")
        for state in (AcceleratorState, PartialState, GradientState):
            state._reset_state()
    steps = {name: {int(v) for k, v in moments.items() if k.endswith(".step")}
             for name, moments in finished.items()}  # fmt: skip
    assert steps == {"once": {1}, "twice": {1}}
    # A mean of two gradients is as long as one, not twice as long.
    lengths = [
        torch.cat([v.flatten() for k, v in moments.items() if k.endswith("exp_avg")]).norm()
        for moments in finished.values()
    ]
    assert lengths[1] < 1.5 * lengths[0]


def test_fine_tuning_goes_on_from_the_weights_of_a_checkpoint(
    kits_root, patch_cache, tmp_path, tiny_checkpoint
):
    fields = tiny_fields(
        kits_root,
        from_checkpoint=str(tiny_checkpoint),
        masks=[{"name": "cysts", "kind": "blob", "label": "cyst", "radius_mm": [3, 6]}],
        optim={"max_steps": 1, "batch_size": 1, "learning_rate": 1e-3, "warmup_steps": 0},
        noise={"few_steps": 4},
    )
    del fields["model"]
    path = tmp_path / "tuned.yaml"
    path.write_text(yaml_text(fields))
    recipe = load_training_recipe(path)
    folder = train(recipe, tmp_path / "run", cache_dir=patch_cache, device="cpu", workers=0)
    tuned, base = load_checkpoint(str(folder)), load_checkpoint(str(tiny_checkpoint))
    assert tuned["unet"].config["labels"] == ["kidney", "tumor", "lung", "cyst"]
    assert tuned["unet"].config["trained_steps"] == 4
    weights, before = tuned["unet"].state_dict(), base["unet"].state_dict()
    moved = [name for name in before if weights[name].shape == before[name].shape]
    for name in moved:
        assert torch.allclose(weights[name], before[name], atol=5e-3), name
    assert any(not torch.equal(weights[name], before[name]) for name in moved)
    assert tuned.files.training["from_checkpoint"]["checkpoint_id"] == base.files.checkpoint_id


# -- what ends a run at once ------------------------------------------------------------------


def test_a_looser_licence_than_the_sources_is_refused_before_anything_is_read(tmp_path):
    recipe = tiny_recipe(tmp_path / "missing", licence="Apache-2.0")
    with pytest.raises(PolicyError, match=r"Apache-2.0 is looser than CC-BY-NC-SA-4\.0"):
        train(recipe, tmp_path / "run", cache_dir=tmp_path, device="cpu")
    assert not (tmp_path / "run").exists()


def test_half_precision_on_a_cpu_is_an_error_of_the_recipe(kits_root, patch_cache, tmp_path):
    recipe = tiny_recipe(kits_root, optim={"mixed_precision": "fp16"})
    with pytest.raises(RecipeError, match="fp16 needs a GPU; choose bf16"):
        train(recipe, tmp_path / "run", cache_dir=patch_cache, device="cpu")


def test_an_output_that_cannot_be_written_is_a_resource_error(kits_root, patch_cache, tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(ResourceError, match="run"):
        train(tiny_recipe(kits_root), tmp_path / "run", cache_dir=patch_cache, device="cpu")
    output = tmp_path / "other"
    output.mkdir()
    (output / "log.jsonl").mkdir()
    with pytest.raises(ResourceError, match=r"other: cannot be written .* same command again"):
        train(tiny_recipe(kits_root), output, cache_dir=patch_cache, device="cpu", workers=0)


# -- the command line -------------------------------------------------------------------------


def test_command_line_trains_and_prints_the_folder(kits_root, tmp_path):
    presets = {"small": {"optim": {"max_steps": 2}}}
    recipe = written(tmp_path, kits_root, presets=presets)
    output = tmp_path / "run"
    result = CliRunner().invoke(
        app,
        ["train", str(recipe), "--preset", "small", "--output", str(output),
         "--cache-dir", str(tmp_path / "cache"), "--device", "cpu", "--workers", "0"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert str(output / "checkpoint") in result.output.replace("\n", "")
    assert load_checkpoint(str(output / "checkpoint")).files.training["steps"] == 2


@pytest.mark.long
def test_quick_check_recipe_takes_its_first_steps(tmp_path):
    recipe = load_training_recipe(RECIPES / "quick-check.yaml")
    sources = {
        name: source.model_copy(update={"patients": 1}) for name, source in recipe.sources.items()
    }
    data = recipe.data.model_copy(update={"patches": 48})
    few = changed(recipe, max_steps=3).model_copy(update={"sources": sources, "data": data})
    folder = train(few, tmp_path / "run", cache_dir=tmp_path / "cache", device="cpu", workers=0)
    assert load_checkpoint(str(folder))["unet"].config["labels"] == list(recipe.labels)


# -- the learning rate ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.01), (49, 0.5), (99, 1.0), (100, 1.0), (800, 1.0), (900, 0.5), (999, 0.005)],
)
def test_learning_rate_rises_stays_and_falls(kits_root, step, factor):
    optim = {"max_steps": 1000, "warmup_steps": 100, "decay_steps": 200}
    recipe = tiny_recipe(kits_root, optim=optim)
    assert learning_rate_factor(recipe, step) == pytest.approx(factor)


def test_learning_rate_is_constant_without_warm_up_and_decay(kits_root):
    recipe = tiny_recipe(kits_root)
    assert [learning_rate_factor(recipe, step) for step in range(4)] == [1.0] * 4


# -- killed, and gone on ----------------------------------------------------------------------


def command(recipe: Path, output: Path, cache: Path) -> list[str]:
    return [
        sys.executable, "-m", "synthct", "train", str(recipe), "--output", str(output),
        "--cache-dir", str(cache), "--device", "cpu", "--threads", "1", "--workers", "0",
    ]  # fmt: skip


@pytest.mark.long
def test_a_killed_run_goes_on_to_the_very_same_weights(kits_root, patch_cache, tmp_path):
    path = written(tmp_path, kits_root, **RANDOM)
    recipe = load_training_recipe(path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(recipe, whole, cache_dir=patch_cache, device="cpu", workers=0)
    said = kill_at_first_state(command(path, killed, patch_cache), killed)
    left = latest_state(killed)
    assert left is not None, said
    assert left.name < "step-00000008"
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()
    train(recipe, killed, cache_dir=patch_cache, device="cpu", workers=0)
    assert_equal_states(saved_state(killed), saved_state(whole))
    weights = "checkpoint/unet/diffusion_pytorch_model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()
    histories = [
        [(line["step"], line.get("validation")) for line in read_log(run / "log.jsonl")]
        for run in (killed, whole)
    ]
    assert histories[0] == histories[1]
    for column in (whole / "samples").iterdir():
        assert (killed / "samples" / column.name).read_bytes() == column.read_bytes()


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_killed_while_it_cuts_patches_it_leaves_no_process_and_no_lock(kits_root, tmp_path):
    path = written(tmp_path, kits_root, data={"patches": 100_000, "patches_per_mask": 2})
    words = [*command(path, tmp_path / "run", tmp_path / "cache")[:-1], "2"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not (folders := list((tmp_path / "cache/patches").glob(".*.tmp"))):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    time.sleep(0.5)
    process.kill()
    process.communicate(timeout=30)  # returns when its workers have ended too
    lock = folders[0].with_suffix(".lock")
    assert lock.exists()
    with exclusive(lock, "cutting"):
        pass


def test_a_worker_killed_while_it_cuts_patches_is_named(kits_root, tmp_path, monkeypatch):
    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("synthct.training.cache.draw_masks", die)
    with pytest.raises(ResourceError, match=r"was killed by SIGKILL.* at case case_0000\d"):
        open_set(tiny_recipe(kits_root), tmp_path / "cache", workers=2)


def test_two_trainings_into_one_folder_are_kept_apart(
    kits_root, patch_cache, tmp_path, monkeypatch
):
    monkeypatch.setattr("synthct.storage.lock._WORKERS_END_S", 0.1)
    with (
        exclusive(tmp_path / ".run.lock", "training"),
        pytest.raises(ConflictError, match=r"another training into .*run is running \(process"),
    ):
        train(tiny_recipe(kits_root), tmp_path / "run", cache_dir=patch_cache, device="cpu")


def test_going_on_with_another_recipe_is_said(kits_root, patch_cache, tmp_path, caplog):
    recipe = tiny_recipe(kits_root)
    output = tmp_path / "run"
    train(changed(recipe, max_steps=1), output, cache_dir=patch_cache, device="cpu", workers=0)
    with caplog.at_level("WARNING", logger="synthct"):
        other = changed(recipe, max_steps=2, learning_rate=1e-2)
        train(other, output, cache_dir=patch_cache, device="cpu", workers=0)
    assert "not to the very same weights" in caplog.text


# -- several processes ------------------------------------------------------------------------


@pytest.mark.full  # three processes that import everything; builds start some by default
@pytest.mark.parametrize("noise", [{}, {"adversarial": {}}])
def test_two_processes_train_one_checkpoint(kits_root, patch_cache, tmp_path, caplog, noise):
    changes = {
        **RANDOM,
        "noise": noise,
        "optim": {"max_steps": 3, "batch_size": 1},
        "save_every": 100,
    }
    path, output = written(tmp_path, kits_root, **changes), tmp_path / "run"
    launch = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
    ]  # fmt: skip
    done = subprocess.run(
        [*launch, *command(path, output, patch_cache)[1:]],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert states_of(output) == ["step-00000003"]
    assert done.stdout.strip().endswith(str(output / "checkpoint"))
    assert done.stdout.count("checkpoint") == 1  # said by one process only
    checkpoint = load_checkpoint(str(output / "checkpoint"))
    assert checkpoint.files.training["steps"] == 3

    # They were two: going on alone is another way to go on.
    with caplog.at_level("WARNING", logger="synthct"):
        train(load_training_recipe(path), output, cache_dir=patch_cache, device="cpu")
    assert "number of processes" in caplog.text


#: The program, which misses a stopped process after 20 s instead of a minute.
IMPATIENT = """
from synthct.cli.program import main
from synthct.processes.group import LaunchedGroup
LaunchedGroup.__init__.__kwdefaults__["silent_beats"] = 20
main()
"""


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGSTOP, "has not answered for 20 s"), (signal.SIGKILL, "died")]
)
def test_a_process_of_a_training_that_is_stopped_or_dies_is_named(
    kits_root, patch_cache, tmp_path, number, said
):
    changes = {**RANDOM, "optim": {"max_steps": 100_000, "batch_size": 1}, "save_every": 1}
    path, output = written(tmp_path, kits_root, **changes), tmp_path / "run"
    launch = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
    ]  # fmt: skip
    program = tmp_path / "impatient.py"
    program.write_text(IMPATIENT)
    process = subprocess.Popen(
        [*launch, str(program), *command(path, output, patch_cache)[3:]],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while not list((output / "states").glob("step-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (second,) = [
        int(pid) for pid in children if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()
    ]
    os.kill(second, number)
    _, told = process.communicate(timeout=150)
    assert process.returncode != 0
    assert f"process 1 of 2 (pid {second} on " in told
    assert said in told
