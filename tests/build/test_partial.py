"""An interrupted shard: its finished samples are kept, and the dataset is the same bytes."""

from __future__ import annotations

import hashlib
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_recipe import SECTIONS, tiny_recipe, write_data, write_recipe

from synthct.build.run import build
from synthct.dataset.partial import Made, PartialShard
from synthct.dataset.writer import Rejection
from synthct.recipe.recipe import Recipe

painter = import_module("synthct.build.painter")

SHARD = "tiny/.1.0.0.building/partial/train-00000-of-00001.samples"

#: One shard: 16 samples in batches of two, some of them rejected, some compared with each other.
ONE_SHARD: dict[str, Any] = {
    "samples_per_shard": 64,
    "quality": {"variant_diversity": {"min": 90.0}, "seam_ratio": {"max": 40.0}},
}

RECIPES: dict[str, dict[str, Any]] = {
    "full": {},
    "patch": {"release": "patch", "keep_original": False},
    "pairs": {
        "masks": [{"name": "tumors", **SECTIONS["tumors"], "pair": True}],
        "masks_per_case": 4,
        "quality": {},
    },
    "control": {"inpaint": {"method": "noise_fill"}, "quality": {}},
}

Make = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("partial")
    write_data(folder / "data")
    return folder


@pytest.fixture(scope="module")
def make(folder: Path, tiny_checkpoint: Path) -> Make:
    """Builds a recipe, or goes on with it; every file with its hash."""

    def run(output: str, **changes: Any) -> dict[str, str]:
        written = tiny_recipe(folder / "data", tiny_checkpoint, **{**ONE_SHARD, **changes})
        recipe = Recipe.model_validate(written)
        version = build(recipe, folder / output, cache_dir=folder / "cache", workers=0)
        return {
            path.relative_to(version).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(version.rglob("*"))
            if path.is_file()
        }

    return run


@pytest.fixture(scope="module")
def whole(make: Make) -> dict[str, str]:
    """``ONE_SHARD`` without any interruption."""
    return make("whole")


class Counted:
    """Counts the samples that are finished, and interrupts the build in place of one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> None:
        self.count, self.stop_at = 0, stop_at
        self._finish = painter.finish
        monkeypatch.setattr(painter, "finish", self)

    def __call__(self, *arguments: Any) -> Any:
        if self.count == self.stop_at:
            raise KeyboardInterrupt
        self.count += 1
        return self._finish(*arguments)


@pytest.mark.parametrize(
    "name",
    ["full", "control", *[pytest.param(n, marks=pytest.mark.full) for n in ("patch", "pairs")]],
)
def test_an_interrupted_shard_goes_on_with_what_it_has(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    changes = RECIPES[name]
    with monkeypatch.context() as patched:
        counted = Counted(patched)
        wanted = make(f"{name}-whole", **changes)
        total = counted.count
    output = f"{name}-stopped"
    done = 0
    for stop_at in (total // 3 + 1, total // 4):  # the second run is interrupted too
        with monkeypatch.context() as patched:
            counted = Counted(patched, stop_at)
            with pytest.raises(KeyboardInterrupt):
                make(output, **changes)
        done += counted.count
        assert len(PartialShard(folder / output / SHARD).made) == done
    with monkeypatch.context() as patched:
        counted = Counted(patched)
        assert make(output, **changes) == wanted
        assert counted.count == total - done  # nothing was made twice
    left = {path.name for path in (folder / output / "tiny").iterdir()} - {"1.0.0.worst"}
    assert left == {"1.0.0"}


@pytest.mark.long
def test_batches_stay_those_of_a_build_that_was_not_interrupted(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inpainter = import_module("synthct.models.painting.inpainter").Inpainter
    paint, batches = inpainter._batch, list[tuple[Any, ...]]()

    def watch(self: Any, jobs: Any) -> Any:
        if not all(job.is_done for job in jobs):
            batches.append(tuple(job.key for job in jobs))
        yield from paint(self, jobs)

    monkeypatch.setattr(inpainter, "_batch", watch)
    make("batches-whole")
    whole = batches.copy()
    batches.clear()
    with monkeypatch.context() as patched:
        Counted(patched, 7)
        with pytest.raises(KeyboardInterrupt):
            make("batches-stopped")
    batches.clear()
    make("batches-stopped")
    assert batches == whole[-len(batches) :]
    assert len(whole) // 2 < len(batches) < len(whole)


@pytest.mark.long
def test_what_is_damaged_is_made_again(
    make: Make,
    folder: Path,
    whole: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patched:
        Counted(patched, 9)
        with pytest.raises(KeyboardInterrupt):
            make("damaged")
    path = folder / "damaged" / SHARD
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 9
    lines[5] = lines[5][:-40] + b"x" + lines[5][-39:]
    path.write_bytes(b"".join(lines))
    with caplog.at_level(logging.INFO, "synthct"):
        assert make("damaged") == whole
    assert "going on: 0 of 1 shards are done, and 5 samples of the others" in caplog.text
    assert f"{path} is damaged and made anew (after 5 samples)" in caplog.text


def test_a_disk_that_takes_no_more_samples_is_told_and_harms_nothing(
    make: Make,
    whole: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: Any) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("synthct.dataset.partial._sealed", full)
    assert make("full-disk") == whole
    assert caplog.text.count("No space left on device; an interruption would lose") == 1


def test_every_cut_leaves_the_samples_before_it(tmp_path: Path) -> None:
    path = tmp_path / "deep/x.samples"
    rows = [{"bytes": bytes([n] * 20), "x": 0.1 * n, "y": -0.0, "z": None} for n in range(3)]
    partial = PartialShard(path)
    for n, row in enumerate(rows):
        partial.add(Made(f"s{n}", row, inside=np.array([n, -n], np.int16)))
    partial.add(Made("s3", rejection=Rejection("s3", "seam", "seam_ratio", np.float64(2.5))))
    data = path.read_bytes()
    ends = [n + 1 for n, byte in enumerate(data) if byte == 10]
    for cut in range(0, len(data) + 1, 7):
        path.write_bytes(data[:cut])
        again = PartialShard(path)
        count = sum(end <= cut for end in ends)
        assert list(again.made) == [f"s{n}" for n in range(count)]
        assert again.is_damaged == (cut not in {0, *ends})
        again.add(Made("late"))  # in place of the torn line
        assert list(PartialShard(path).made) == [*again.made, "late"]
    other = path.with_name("y.samples")
    other.write_bytes(data)
    assert PartialShard(other).is_damaged
    path.write_bytes(data)
    made = PartialShard(path).made
    assert [made[f"s{n}"].row for n in range(3)] == rows
    assert str(made["s0"].row["y"]) == "-0.0"  # type: ignore[index]
    assert made["s3"].rejection == Rejection("s3", "seam", "seam_ratio", 2.5)
    assert made["s2"].inside.tolist() == [2, -2]
    partial.remove()
    assert not path.exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("kill", "processes", "name"),
    [
        (signal.SIGTERM, 1, "control"),
        pytest.param(signal.SIGINT, 1, "full", marks=pytest.mark.full),
        pytest.param(signal.SIGKILL, 1, "full", marks=pytest.mark.full),
        pytest.param(signal.SIGINT, 2, "full", marks=pytest.mark.full),
    ],
)
def test_a_killed_command_loses_no_finished_sample(
    make: Make, folder: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch,
    kill: signal.Signals, processes: int, name: str,
) -> None:  # fmt: skip
    network = {"checkpoint": str(tiny_checkpoint), "num_inference_steps": 40, "batch_size": 2}
    slow = {"inpaint": network} if name == "full" else {"masks_per_case": 8}
    changes = {**ONE_SHARD, **RECIPES[name], **slow, "samples_per_shard": 64 // processes}
    with monkeypatch.context() as patched:
        counted = Counted(patched)
        wanted = make(f"{kill.name}-{name}-{processes}-whole", **changes)
    recipe = write_recipe(folder / "tiny.yaml", folder / "data", tiny_checkpoint, **changes)
    output = folder / f"{kill.name}-{name}-{processes}"
    options = ["--output", output, "--cache-dir", folder / "cache", "--workers", "0"]
    options += ["--num-processes", processes]
    words = [sys.executable, "-m", "synthct", "build", recipe, *options]
    command = subprocess.Popen(
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    parts = output / "tiny/.1.0.0.building/partial"

    def kept() -> int:
        return sum(len(PartialShard(path).made) for path in parts.glob("*.samples"))

    while command.poll() is None and kept() < 3:
        time.sleep(0.01)
    command.send_signal(kill)
    said, _ = command.communicate(timeout=60)
    assert command.returncode == (-kill if kill == signal.SIGKILL else 130), said
    assert "Traceback" not in said
    done = kept()
    assert 3 <= done < counted.count
    with monkeypatch.context() as patched:
        again = Counted(patched)
        assert make(output.name, **changes) == wanted
        assert again.count == counted.count - done
