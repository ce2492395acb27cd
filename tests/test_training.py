"""Training: the loss, states and resuming, the finished checkpoint and its card, whole runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from ruamel.yaml import YAML
from safetensors.torch import load_file
from training_recipes import (
    TINY_MODEL,
    batches_of,
    fresh_parts,
    noise_schedule,
    read_set,
    tiny_fields,
    tiny_recipe,
)
from typer.testing import CliRunner

from synthct.cli import app
from synthct.errors import CheckpointError, PolicyError, RecipeError, ResourceError
from synthct.models import load_checkpoint
from synthct.models.palette import PaletteInpaintPipeline
from synthct.training.checkpoint import Progress, latest_state, load_state, save_state
from synthct.training.log import LOG_EVERY, Log
from synthct.training.loop import draw_steps, learning_rate_factor, masked_loss, snr_weight, train
from synthct.training.recipe import TrainingRecipe, load_training_recipe
from synthct.training.release import card, write_checkpoint
from synthct.yaml_model import dump_yaml

RECIPES = Path(__file__).resolve().parents[1] / "recipes" / "training"


@pytest.fixture(autouse=True)
def forget_accelerate():
    """Accelerate remembers the precision and device of the first run in a process."""
    yield
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()


@pytest.fixture
def batch(kits_root, tmp_path):
    """One batch of training patches."""
    recipe = tiny_recipe(kits_root)
    batches = batches_of(recipe, read_set(recipe, tmp_path / "cache"))
    return next(iter(batches))


class Stub:
    """In place of a network: predicts a fixed picture and keeps what it was given."""

    def __init__(self, root, predicted, **model):
        self.predicted = predicted
        unet = fresh_parts(tiny_recipe(root, model={**TINY_MODEL, **model}))[0]
        self.surroundings, self.to_diffused = unet.surroundings, unet.to_diffused

    def __call__(self, noisy, timestep, masked, mask, label, spacing_mm):
        self.given = SimpleNamespace(noisy=noisy, timestep=timestep, masked=masked, mask=mask)
        return self.predicted


def seeded():
    return torch.Generator().manual_seed(5)


# -- the loss ---------------------------------------------------------------------------------


def test_loss_is_taken_inside_the_mask_only(kits_root, batch):
    stub = Stub(kits_root, torch.zeros_like(batch["image"]).requires_grad_())
    loss = masked_loss(stub, noise_schedule(), batch, seeded())
    loss.backward()
    outside = batch["mask"] < 0.5
    assert (stub.predicted.grad[outside] == 0).all()
    assert (stub.predicted.grad[~outside] != 0).all()

    elsewhere = {**batch, "image": torch.where(outside, -batch["image"] + 0.3, batch["image"])}
    other = masked_loss(stub, noise_schedule(), elsewhere, seeded())
    assert other.item() == loss.item()


@pytest.mark.parametrize("residual_scale", [None, 2.0])
def test_known_region_goes_in_clean_and_the_painted_one_hidden(kits_root, batch, residual_scale):
    stub = Stub(kits_root, torch.zeros_like(batch["image"]), residual_scale=residual_scale)
    masked_loss(stub, noise_schedule(), batch, seeded())
    inside, given = batch["mask"] > 0.5, stub.given
    assert torch.equal(given.masked[~inside], batch["image"][~inside])
    clean = stub.to_diffused(batch["image"], given.masked)
    assert torch.equal(given.noisy[~inside], clean[~inside])
    assert (given.noisy[inside] != clean[inside]).float().mean() > 0.99
    assert given.timestep.unique().numel() > 1  # one noise level per patch
    # What is hidden has no way into what is shown.
    other = {**batch, "image": torch.where(inside, 0.9, batch["image"])}
    masked_loss(stub, noise_schedule(), other, seeded())
    assert torch.equal(stub.given.masked, given.masked)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_network_that_knows_the_answer_has_no_loss(kits_root, batch, prediction):
    noise = noise_schedule()
    noise.register_to_config(prediction_type=prediction)
    generator = seeded()
    eps = torch.randn(batch["image"].shape, generator=generator)
    steps = draw_steps(noise, len(eps), generator, 1.0)
    velocity = noise.get_velocity(batch["image"], eps, steps)
    answer = eps if prediction == "epsilon" else velocity
    assert masked_loss(Stub(kits_root, answer), noise, batch, seeded()).item() == 0
    # One unit off everywhere is a mean square of one, however small the mask.
    off = Stub(kits_root, answer + 1)
    assert masked_loss(off, noise, batch, seeded()).item() == pytest.approx(1)


def test_weight_of_nearly_clean_steps_is_capped():
    noise = noise_schedule()
    steps = torch.arange(0, 1000, 37)
    weight = snr_weight(noise, steps, 5.0)
    snr = noise.alphas_cumprod[steps] / (1 - noise.alphas_cumprod[steps])
    torch.testing.assert_close(weight * (snr + 1), torch.clamp(snr + 1, max=5.0))
    assert weight[-1] == 1  # pure noise counts in full


def test_capped_loss_is_the_plain_one_where_the_cap_is_never_reached(kits_root, batch):
    stub = Stub(kits_root, torch.zeros_like(batch["image"]))
    plain = masked_loss(stub, noise_schedule(), batch, seeded())
    assert masked_loss(stub, noise_schedule(), batch, seeded(), 1e9) == plain
    assert masked_loss(stub, noise_schedule(), batch, seeded(), 2.0) < plain


def test_a_few_dozen_steps_lower_the_loss_on_a_fixed_batch(kits_root, batch):
    unet, _, optimizer = fresh_parts(tiny_recipe(kits_root))
    losses = []
    for _ in range(40):
        loss = masked_loss(unet, noise_schedule(), batch, seeded())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


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


# -- states -----------------------------------------------------------------------------------


def step_once(parts, batch, seed):
    unet, ema, optimizer = parts
    masked_loss(unet, noise_schedule(), batch, torch.Generator().manual_seed(seed)).backward()
    optimizer.step()
    optimizer.zero_grad()
    ema.step(unet.parameters())


def assert_equal_parts(one, two):
    (unet, ema, optimizer), (unet2, ema2, optimizer2) = one, two
    for a, b in zip(unet.parameters(), unet2.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(ema.shadow_params, ema2.shadow_params, strict=True):
        assert torch.equal(a, b)
    assert ema.optimization_step == ema2.optimization_step
    moments, moments2 = optimizer.state_dict()["state"], optimizer2.state_dict()["state"]
    assert moments.keys() == moments2.keys()
    for number in moments:
        for name, value in moments[number].items():
            assert torch.equal(value, moments2[number][name])


def test_a_loaded_state_goes_on_exactly_where_it_was_saved(kits_root, batch, tmp_path):
    recipe = tiny_recipe(kits_root)
    parts, fresh = fresh_parts(recipe), fresh_parts(recipe, seed=1)
    for seed in range(3):
        step_once(parts, batch, seed)
    save_state(tmp_path, Progress(3), *parts)
    assert load_state(latest_state(tmp_path), *fresh) == Progress(3)
    assert_equal_parts(parts, fresh)
    for each in (parts, fresh):
        step_once(each, batch, 7)
    assert_equal_parts(parts, fresh)


def test_only_the_last_two_states_are_kept_and_leftovers_go(kits_root, batch, tmp_path):
    parts = fresh_parts(tiny_recipe(kits_root))
    step_once(parts, batch, 0)
    half = tmp_path / "states" / ".step-00000002.tmp"
    half.mkdir(parents=True)
    (half / "unet.safetensors").write_bytes(b"cut short")
    assert latest_state(tmp_path) is None
    for step in (1, 5, 20):
        save_state(tmp_path, Progress(step), *parts)
    names = sorted(path.name for path in (tmp_path / "states").iterdir())
    assert names == ["step-00000005", "step-00000020"]
    assert latest_state(tmp_path).name == "step-00000020"


def test_a_state_is_committed_whole_or_not_at_all(kits_root, batch, tmp_path, monkeypatch):
    parts = fresh_parts(tiny_recipe(kits_root))
    step_once(parts, batch, 0)
    save_state(tmp_path, Progress(1), *parts)

    def full_disk(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full_disk)
        with pytest.raises(OSError, match="No space"):
            save_state(tmp_path, Progress(2), *parts)
    assert latest_state(tmp_path).name == "step-00000001"
    save_state(tmp_path, Progress(2), *parts)
    assert latest_state(tmp_path).name == "step-00000002"


def test_a_state_of_another_network_is_refused(kits_root, batch, tmp_path):
    parts = fresh_parts(tiny_recipe(kits_root))
    step_once(parts, batch, 0)
    save_state(tmp_path, Progress(1), *parts)
    wider = {**TINY_MODEL, "block_out_channels": [16, 16]}
    other = fresh_parts(tiny_recipe(kits_root, model=wider))
    with pytest.raises(CheckpointError, match="another network than the recipe's; use another out"):
        load_state(latest_state(tmp_path), *other)


@pytest.mark.parametrize("name", ["progress.json", "unet.safetensors", "optimizer.safetensors"])
def test_a_damaged_state_says_what_to_do(kits_root, batch, tmp_path, name):
    parts = fresh_parts(tiny_recipe(kits_root))
    step_once(parts, batch, 0)
    save_state(tmp_path, Progress(1), *parts)
    state = latest_state(tmp_path)
    (state / name).write_bytes((state / name).read_bytes()[:7])
    with pytest.raises(CheckpointError, match=r"step-00000001 is damaged .* delete it to go on"):
        load_state(state, *parts)


# -- the log ----------------------------------------------------------------------------------


def read_log(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_log_forgets_what_a_resumed_run_does_once_more(kits_root, tmp_path):
    path, recipe = tmp_path / "log.jsonl", tiny_recipe(kits_root)
    first = Log(path, recipe, 0)
    for step in range(1, 2 * LOG_EVERY + 6):
        first.add(step, 1.0)
    with path.open("a") as file:
        file.write('{"step": 1')  # killed while it wrote
    second = Log(path, recipe, LOG_EVERY)
    for step in range(LOG_EVERY + 1, 2 * LOG_EVERY + 3):
        second.add(step, 0.5)
    second.close()
    lines = [(line["step"], line["loss"]) for line in read_log(path)]
    assert lines == [(LOG_EVERY, 1.0), (2 * LOG_EVERY, 0.5), (2 * LOG_EVERY + 2, 0.5)]


# -- the finished checkpoint ------------------------------------------------------------------

CASES = (
    {
        "source": "scans",
        "layout": "kits23",
        "case_id": "case_00000",
        "patient_id": "anna",
        "licence": "CC-BY-NC-SA-4.0",
        "voxel_sha256": "ab" * 32,
    },
    {
        "source": "scans",
        "layout": "kits23",
        "case_id": "case_00001",
        "patient_id": "anna",
        "licence": "CC-BY-NC-SA-4.0",
        "voxel_sha256": None,
    },
)


def facts(recipe: TrainingRecipe, **changes):
    known = {
        "steps": 7,
        "parameters": 5_300_000,
        "synthct_version": "0.1.0",
        "licence": recipe.resolved_licence(),
        "cases": CASES,
    }
    return {**known, **changes}


def front_matter(text):
    assert text.startswith("---\n")
    header, body = text[4:].split("\n---\n", 1)
    return YAML(typ="safe", pure=True).load(header), body


def test_checkpoint_folder_is_one_that_load_checkpoint_and_diffusers_load(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root)
    unet = fresh_parts(recipe)[0]
    pipeline = PaletteInpaintPipeline(unet, noise_schedule())
    folder = tmp_path / "checkpoint"
    write_checkpoint(pipeline, folder, recipe, CASES, 7)
    loaded = load_checkpoint(str(folder))
    for name, value in unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], value.half().float()), name
    assert loaded.config["labels"] == ["kidney", "tumor"]
    assert loaded.config["patch_sizes"] == [48, 64]
    assert loaded.files.scheduler_config["prediction_type"] == "v_prediction"
    assert loaded.files.trained_on == {"ab" * 32}

    again = PaletteInpaintPipeline.from_pretrained(folder)
    weight = next(unet.parameters())
    assert torch.allclose(next(again.unet.parameters()), weight, atol=1e-3)
    # Nobody but the owner could read what safetensors writes itself.
    config = folder / "unet" / "config.json"
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_mode == config.stat().st_mode
    assert weights.stat().st_size < 2.2 * sum(p.numel() for p in unet.parameters()) + 20_000


def test_checkpoint_replaces_an_earlier_one_as_a_whole(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root)
    pipeline = PaletteInpaintPipeline(fresh_parts(recipe)[0], noise_schedule())
    folder = tmp_path / "checkpoint"
    (tmp_path / ".checkpoint.tmp").mkdir()
    (tmp_path / ".checkpoint.tmp" / "junk").touch()
    write_checkpoint(pipeline, folder, recipe, CASES, 1)
    (folder / "stray").touch()
    write_checkpoint(pipeline, folder, recipe, CASES, 2)
    assert json.loads((folder / "training.json").read_text())["steps"] == 2
    assert not (folder / "stray").exists()
    assert [path.name for path in tmp_path.glob("*checkpoint*")] == ["checkpoint"]


def test_training_json_names_voxels_by_hash_and_no_path(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root)
    data = read_set(recipe, tmp_path / "cache")
    pipeline = PaletteInpaintPipeline(fresh_parts(recipe)[0], noise_schedule())
    folder = tmp_path / "checkpoint"
    write_checkpoint(pipeline, folder, recipe, data.facts, 1)
    training = json.loads((folder / "training.json").read_text())
    assert [case["case_id"] for case in training["cases"]] == [
        "case_00000", "case_00001", "case_00002",
    ]  # fmt: skip
    hashes = [case["voxel_sha256"] for case in training["cases"]]
    assert len(hashes[0]) == 64
    assert hashes[2] is None  # no image, nothing seen
    assert training["licence"] == "CC-BY-NC-SA-4.0"
    for path in folder.rglob("*.*"):
        if path.suffix in {".json", ".md"}:
            assert str(tmp_path) not in path.read_text()


def test_card_lists_labels_spacing_sources_and_licences(kits_root):
    recipe = tiny_recipe(kits_root)
    header, body = front_matter(card(recipe, facts(recipe)))
    assert header["license"] == "cc-by-nc-sa-4.0"
    assert header["library_name"] == "diffusers"
    assert "5.3 M parameter" in body
    assert "Labels: `kidney`, `tumor`, and whatever fits." in body
    assert "In-plane spacing: 0.5 to 3.1 mm. Patches: 48, 64 pixels." in body
    attribution = recipe.sources["scans"].attribution
    assert attribution.split(",")[0] in body
    # Two cases, one patient.
    assert "| `scans` | `kits23` | 2 | 1 | CC-BY-NC-SA-4.0 |" in body
    assert str(kits_root) not in body


def test_card_of_hostile_words_is_still_a_card(kits_root):
    recipe = tiny_recipe(
        kits_root,
        description="---\nlicense: mit\n---\n# Buy <script>alert(1)</script> [x](http://x) ![y](z)",
        licence="weird: [licence",
        sources={"scans": {"layout": "kits23", "root": str(kits_root), "licence": "hospital"}},
    )
    unknown = [{**CASES[0], "licence": None}]
    header, body = front_matter(card(recipe, facts(recipe, cases=unknown)))
    assert (header["license"], header["license_name"]) == ("other", "weird: [licence")
    assert "<script" not in body
    assert "[x](" not in body
    assert "![y]" not in body
    assert body.count("\n# ") == 1
    assert "| unknown |" in body


def test_card_of_an_unknown_licence_says_so(kits_root):
    recipe = tiny_recipe(kits_root)
    header, _ = front_matter(card(recipe, facts(recipe, licence=None)))
    assert header["license"] == "unknown"


# -- the recipe -------------------------------------------------------------------------------


def written(tmp_path: Path, root: Path, **changes) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_yaml(tiny_fields(root, **changes)))
    return path


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("*.yaml")))
def test_committed_recipes_load_and_may_have_their_licence(name):
    recipe = load_training_recipe(RECIPES / name)
    assert f"{recipe.name}.yaml" == name
    assert recipe.resolved_licence() == recipe.licence


BLOB = {"name": "blobs", "kind": "blob"}
MOVED = {"name": "moved", "kind": "transplant", "label": "tumor", "into": "kidney"}


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
            {"data": {"source_weights": {"scan": 2}}},
            "data.source_weights.scan: there is no source 'scan'; did you mean 'scans'",
        ),
        ({"data": {"views": {}}}, "data.views"),
        ({"masks": []}, "masks"),
        ({"masks": [BLOB, dict(BLOB)]}, r"masks\[1\].name: 'blobs' is already the name"),
        ({"masks": [MOVED]}, r"masks\[0\].*: 'sources' has no 'donors' to take shapes from"),
        (
            {"noise": {"prediction_type": "epsilon", "loss_weight_cap": 5}},
            "loss_weight_cap is for v_prediction",
        ),
        ({"optim": {"max_step": 3}}, "did you mean 'max_steps'"),
    ],
)  # fmt: skip
def test_faults_of_a_recipe_are_found_at_their_place(kits_root, tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message) as caught:
        load_training_recipe(written(tmp_path, kits_root, **changes))
    assert str(caught.value).startswith(f"{tmp_path / 'tiny.yaml'}:")


# -- whole runs -------------------------------------------------------------------------------


def test_run_writes_states_log_samples_and_a_checkpoint_and_goes_on(kits_root, tmp_path):
    output, cache = tmp_path / "run", tmp_path / "cache"
    recipe = tiny_recipe(kits_root)
    folder = train(recipe, output, cache_dir=cache, device="cpu")
    assert folder == output / "checkpoint"
    states = output / "states"
    assert sorted(path.name for path in states.iterdir()) == ["step-00000003", "step-00000004"]
    assert [line["step"] for line in read_log(output / "log.jsonl")] == [4]
    names = sorted(path.name for path in (output / "samples").iterdir())
    assert names == ["000002.png", "000004.png"]

    # The checkpoint holds the running mean, not the last weights.
    weights = load_checkpoint(str(folder)).unet.state_dict()
    mean = load_file(states / "step-00000004" / "ema.safetensors")
    last = load_file(states / "step-00000004" / "unet.safetensors")
    for name, value in mean.items():
        assert torch.equal(weights[name], value.half().float()), name
    assert any(not torch.equal(mean[name], last[name]) for name in mean)

    longer = recipe.model_copy(
        update={"optim": recipe.optim.model_copy(update={"max_steps": 6}), "save_every": 100}
    )
    train(longer, output, cache_dir=cache, device="cpu")
    # The run went on from step 4: it did no step twice and saved where it ended.
    assert sorted(path.name for path in states.iterdir()) == ["step-00000004", "step-00000006"]
    assert [line["step"] for line in read_log(output / "log.jsonl")] == [4, 6]
    assert json.loads((folder / "training.json").read_text())["steps"] == 6


def test_run_out_of_time_stops_and_saves(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root, save_every=100, sample_every=100)
    folder = train(recipe, tmp_path / "run", cache_dir=tmp_path, device="cpu", max_seconds=0)
    assert latest_state(tmp_path / "run").name == "step-00000001"
    assert json.loads((folder / "training.json").read_text())["steps"] == 1


def test_a_looser_licence_than_the_sources_is_refused_before_anything_is_read(tmp_path):
    recipe = tiny_recipe(tmp_path / "missing", licence="Apache-2.0")
    with pytest.raises(PolicyError, match=r"Apache-2.0 is looser than CC-BY-NC-SA-4\.0"):
        train(recipe, tmp_path / "run", cache_dir=tmp_path, device="cpu")
    assert not (tmp_path / "run").exists()


def test_half_precision_on_a_cpu_is_an_error_of_the_recipe(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root, optim={"mixed_precision": "fp16"})
    with pytest.raises(RecipeError, match="fp16 needs a GPU; choose bf16"):
        train(recipe, tmp_path / "run", cache_dir=tmp_path, device="cpu")


def test_an_output_that_cannot_be_written_is_a_resource_error(kits_root, tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(ResourceError, match="run"):
        train(tiny_recipe(kits_root), tmp_path / "run", cache_dir=tmp_path, device="cpu")
    output = tmp_path / "other"
    output.mkdir()
    (output / "states").write_text("in the way")
    with pytest.raises(ResourceError, match=r"other: cannot be written .* same command again"):
        train(tiny_recipe(kits_root), output, cache_dir=tmp_path, device="cpu")


def test_command_line_trains_and_prints_the_folder(kits_root, tmp_path):
    recipe = written(tmp_path, kits_root, optim={"max_steps": 2, "batch_size": 1})
    output = tmp_path / "run"
    result = CliRunner().invoke(
        app,
        ["train", str(recipe), "--output", str(output), "--cache-dir", str(tmp_path / "cache"),
         "--device", "cpu"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert str(output / "checkpoint") in result.output.replace("\n", "")
    assert load_checkpoint(str(output / "checkpoint")).files.training["steps"] == 2


def test_quick_check_recipe_takes_its_first_steps(tmp_path):
    recipe = load_training_recipe(RECIPES / "quick-check.yaml")
    few = recipe.model_copy(
        update={
            "sources": {
                name: source.model_copy(update={"patients": 1})
                for name, source in recipe.sources.items()
            },
            "data": recipe.data.model_copy(update={"shuffle_buffer": 16}),
            "optim": recipe.optim.model_copy(update={"max_steps": 3}),
        }
    )
    folder = train(few, tmp_path / "run", cache_dir=tmp_path / "cache", device="cpu")
    assert load_checkpoint(str(folder)).config["labels"] == list(recipe.labels)


TWO = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
    "--no-python", str(Path(sys.executable).with_name("synthct")),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [None, "0"])
def test_two_processes_train_one_checkpoint(kits_root, tmp_path, minutes):
    recipe = written(tmp_path, kits_root, optim={"max_steps": 2, "batch_size": 1}, save_every=100)
    output = tmp_path / "run"
    stop = [] if minutes is None else ["--max-minutes", minutes]
    done = subprocess.run(
        [*TWO, "train", str(recipe), "--output", str(output),
         "--cache-dir", str(tmp_path / "cache"), "--device", "cpu", *stop],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    steps = 2 if minutes is None else 1
    states = [path.name for path in (output / "states").iterdir()]
    assert states == [f"step-{steps:08d}"]
    assert [line["step"] for line in read_log(output / "log.jsonl")] == [steps]
    checkpoint = load_checkpoint(str(output / "checkpoint"))
    assert checkpoint.files.training["steps"] == steps
    assert len(checkpoint.files.training["cases"]) == 3


def test_noise_bias_trains_noisy_steps_more_often():
    noise = noise_schedule()
    even = draw_steps(noise, 20_000, seeded(), 1.0).float()
    noisy = draw_steps(noise, 20_000, seeded(), 2.0).float()
    assert even.mean().item() == pytest.approx(500, abs=10)
    assert (noisy >= 900).float().mean().item() == pytest.approx(0.1**0.5, abs=0.02)
    assert noisy.min() >= 0
    assert noisy.max() <= 999
