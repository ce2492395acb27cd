"""What a run keeps: states to go on from, the log, and when it is enough."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_recipes import TINY_MODEL, fresh_parts, saved_state, tiny_recipe

from synthct.errors import CheckpointError, RecipeError
from synthct.training.callbacks import is_best, should_stop
from synthct.training.checkpoint import Progress, latest_state, load_state, save_state
from synthct.training.log import LOG_EVERY, Log
from synthct.training.loss import masked_loss
from synthct.training.sections import EarlyStopping, NoiseSection
from synthct.training.validate import Measures

pytestmark = pytest.mark.usefixtures("one_thread")


# -- states -----------------------------------------------------------------------------------


def step_once(train_state, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    unet, optimizer = train_state.networks["unet"], train_state.optimizers["unet"]
    masked_loss(unet, NoiseSection(), batch, generator).backward()
    optimizer.step()
    optimizer.zero_grad()
    train_state.ema["unet"].step(unet.parameters())


def assert_equal_parts(one, two):
    ours, theirs = (each.networks["unet"].parameters() for each in (one, two))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(one.ema["unet"].shadow_params, two.ema["unet"].shadow_params, strict=True):
        assert torch.equal(a, b)
    assert one.ema["unet"].optimization_step == two.ema["unet"].optimization_step
    moments, moments2 = (each.optimizers["unet"].state_dict()["state"] for each in (one, two))
    assert moments.keys() == moments2.keys()
    for number in moments:
        for name, value in moments[number].items():
            assert torch.equal(value, moments2[number][name])


def test_a_loaded_state_goes_on_exactly_where_it_was_saved(kits_root, batch, tmp_path):
    recipe = tiny_recipe(kits_root)
    train_state, fresh = fresh_parts(recipe), fresh_parts(recipe, seed=1)
    for seed in range(3):
        step_once(train_state, batch, seed)
    save_state(tmp_path, Progress(3, "as it was"), train_state)
    assert load_state(saved_state(tmp_path), fresh) == Progress(3, "as it was")
    assert_equal_parts(train_state, fresh)
    for each in (train_state, fresh):
        step_once(each, batch, 7)
    assert_equal_parts(train_state, fresh)


def test_only_the_last_two_states_are_kept_and_leftovers_go(kits_root, batch, tmp_path):
    train_state = fresh_parts(tiny_recipe(kits_root))
    step_once(train_state, batch, 0)
    half = tmp_path / "states" / ".step-00000002.tmp"
    half.mkdir(parents=True)
    (half / "unet.safetensors").write_bytes(b"cut short")
    assert latest_state(tmp_path) is None
    for step in (1, 5, 20):
        save_state(tmp_path, Progress(step), train_state)
    names = sorted(path.name for path in (tmp_path / "states").iterdir())
    assert names == ["step-00000005", "step-00000020"]
    assert latest_state(tmp_path).name == "step-00000020"


def test_a_state_is_committed_whole_or_not_at_all(kits_root, batch, tmp_path, monkeypatch):
    train_state = fresh_parts(tiny_recipe(kits_root))
    step_once(train_state, batch, 0)
    save_state(tmp_path, Progress(1), train_state)

    def full_disk(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full_disk)
        with pytest.raises(OSError, match="No space"):
            save_state(tmp_path, Progress(2), train_state)
    assert latest_state(tmp_path).name == "step-00000001"
    save_state(tmp_path, Progress(2), train_state)
    assert latest_state(tmp_path).name == "step-00000002"


def test_a_state_of_another_network_is_refused(kits_root, batch, tmp_path):
    train_state = fresh_parts(tiny_recipe(kits_root))
    step_once(train_state, batch, 0)
    save_state(tmp_path, Progress(1), train_state)
    wider = {**TINY_MODEL, "block_out_channels": [16, 16]}
    other = fresh_parts(tiny_recipe(kits_root, model=wider))
    with pytest.raises(CheckpointError, match="another network than the recipe's; use another out"):
        load_state(saved_state(tmp_path), other)


STATE_FILES = ["progress.json", "unet.safetensors", "unet.optimizer.safetensors", "digests"]


@pytest.mark.parametrize("name", STATE_FILES)
def test_of_damaged_states_the_one_before_is_taken(kits_root, batch, tmp_path, name, caplog):
    train_state = fresh_parts(tiny_recipe(kits_root))
    step_once(train_state, batch, 0)
    for step in (1, 2):
        save_state(tmp_path, Progress(step), train_state)
    state = saved_state(tmp_path)
    damaged = bytearray((state / name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (state / name).write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"step-00000002 is damaged .* delete it to go on"):
        load_state(state, train_state)
    before = saved_state(tmp_path)
    assert load_state(before, train_state).step == 1
    assert [f"step-00000002 is damaged ({name}: " in line for line in caplog.messages] == [True]

    (before / name).unlink()
    with pytest.raises(CheckpointError, match=r"damaged \(step-00000001, step-00000002\); delete"):
        latest_state(tmp_path)


def test_a_damaged_state_is_replaced_when_training_comes_past_it(kits_root, batch, tmp_path):
    train_state = fresh_parts(tiny_recipe(kits_root))
    step_once(train_state, batch, 0)
    for step in (1, 2, 3):
        save_state(tmp_path, Progress(step), train_state)
    for name in ("step-00000002", "step-00000003"):
        (tmp_path / "states" / name / "unet.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="every training state is damaged"):
        latest_state(tmp_path)
    save_state(tmp_path, Progress(2), train_state)
    assert latest_state(tmp_path).name == "step-00000002"
    assert not (tmp_path / "states/step-00000003").exists()


def test_states_that_were_exchanged_are_refused(kits_root, batch, tmp_path):
    train_state = fresh_parts(tiny_recipe(kits_root))
    step_once(train_state, batch, 0)
    for step in (1, 2):
        save_state(tmp_path, Progress(step), train_state)
    one, two = sorted((tmp_path / "states").iterdir())
    one.rename(tmp_path / "one")
    two.rename(one)
    (tmp_path / "one").rename(two)
    with pytest.raises(CheckpointError, match="every training state is damaged"):
        latest_state(tmp_path)


# -- the log ----------------------------------------------------------------------------------

LOSS = torch.tensor(1.0)
MEASURES = Measures(0.5, 40.0, 20.0, 1.1, 0.9)


def read_log(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_log_forgets_what_a_resumed_run_does_once_more(kits_root, tmp_path):
    path, recipe = tmp_path / "log.jsonl", tiny_recipe(kits_root)
    first = Log(path, recipe, Progress())
    for step in range(1, 2 * LOG_EVERY + 6):
        first.add(step, {"unet": LOSS}, 0.1)
        if step in (LOG_EVERY, LOG_EVERY + 3):
            first.add_validation(MEASURES)
    with path.open("a") as file:
        file.write('{"step": 1')  # killed while it wrote
    second = Log(path, recipe, Progress(LOG_EVERY, validations=[(LOG_EVERY, MEASURES)]))
    assert second.validations == [(LOG_EVERY, MEASURES)]
    for step in range(LOG_EVERY + 1, 2 * LOG_EVERY + 3):
        second.add(step, {"unet": LOSS / 2}, 0.1)
    second.close()
    lines = [(line["step"], line.get("loss")) for line in read_log(path)]
    assert lines == [
        (LOG_EVERY, 1.0), (LOG_EVERY, None), (2 * LOG_EVERY, 0.5), (2 * LOG_EVERY + 2, 0.5),
    ]  # fmt: skip


def test_lines_of_the_log_that_are_no_text_are_left_out_and_told(kits_root, tmp_path, caplog):
    path, recipe = tmp_path / "log.jsonl", tiny_recipe(kits_root)
    path.write_bytes(
        b'{"step": 1, "loss": 1.0}\n{"step": 2, "\xff": 1}\n{"step": 3, "loss": 2.0}\n'
    )
    Log(path, recipe, Progress(3))
    assert [line["step"] for line in read_log(path)] == [1, 3]
    assert ["log.jsonl: lines that are no UTF-8" in line for line in caplog.messages] == [True]


def test_a_measure_that_could_not_be_taken_is_null_in_json(kits_root, tmp_path):
    path, recipe = tmp_path / "log.jsonl", tiny_recipe(kits_root)
    log = Log(path, recipe, Progress())
    log.step = 3
    log.add_validation(replace(MEASURES, texture_ratio=float("nan")))
    assert read_log(path)[0]["validation"]["texture_ratio"] is None


def test_validations_are_kept_with_the_state_and_not_in_the_log(kits_root, tmp_path):
    unknown = replace(MEASURES, texture_ratio=float("nan"))
    recipe = tiny_recipe(kits_root)
    parts = fresh_parts(recipe)
    save_state(tmp_path, Progress(3, "", [(2, MEASURES), (3, unknown)]), parts)
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 2, "validetion": {}}\n{"step": 3, "validation": {"maf_hu": 0}}\n')
    state = saved_state(tmp_path)
    log = Log(path, recipe, load_state(state, parts))
    (two, first), (three, second) = log.validations
    assert (two, three) == (2, 3)
    assert first == MEASURES
    assert second.texture_ratio != second.texture_ratio
    assert second.loss == MEASURES.loss


def test_a_tracker_gets_the_same_numbers(kits_root, tmp_path):
    told = []
    log = Log(
        tmp_path / "log.jsonl", tiny_recipe(kits_root), Progress(), lambda *args: told.append(args)
    )
    log.add(1, {"unet": LOSS}, 0.1)
    log.add_validation(MEASURES)
    log.close()
    assert told[0] == ({"loss": 1.0, "learning_rate": 0.1}, 1)
    assert told[1][0]["validation/mae_hu"] == 40.0


def test_a_loss_that_is_no_number_ends_the_run_with_advice(kits_root, tmp_path):
    log = Log(tmp_path / "log.jsonl", tiny_recipe(kits_root), Progress())
    log.add(1, {"unet": LOSS}, 0.1)
    log.add(2, {"unet": torch.tensor(float("nan"))}, 0.1)
    with pytest.raises(RecipeError, match=r"tiny: the loss is nan at step 2; lower optim.learning"):
        log.flush()


# -- early stopping ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "best", "enough"),
    [
        ([5], True, False),
        ([5, 4], True, False),
        ([5, 4, 4], False, False),
        ([5, 4, 6, 4.5], False, True),
        ([5, 4, 6, 3], True, False),
        ([5, 4, 6, 3, 3, 3], False, True),
    ],
)
def test_stops_when_no_new_best_came_for_so_many_validations(values, best, enough):
    history = [(n, replace(MEASURES, mae_hu=v)) for n, v in enumerate(values)]
    rule = EarlyStopping(measure="mae_hu", patience=2)
    assert is_best(history, rule) == best
    assert should_stop(history, rule) == enough
    assert not should_stop(history, None)
