"""Real processes of the real command: however many, killed or not, they make the same bytes."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tiny_recipe import write_data, write_recipe

from synthct.build.run import build
from synthct.errors import RecipeError, ResourceError
from synthct.processes.launch import processes_to_start
from synthct.recipe.recipe import load_recipe

Start = Callable[..., subprocess.Popen[str]]

PYTHON = [sys.executable, "-m", "synthct"]
BIN = Path(sys.executable).parent

Finish = Callable[[str, str], dict[str, str]]
Wanted = Callable[[str], dict[str, str]]

#: By the name of its file, what a recipe has beside ``tiny_recipe``: enough to do in each shard
#: that every process gets some.
RECIPES: dict[str, dict[str, Any]] = {
    # twelve shards
    "slices": {"masks_per_case": 12, "variants": 1, "samples_per_shard": 2},
    # twelve of one volume each, whose slices are painted one after the other
    "volumes": {
        "view": "volume", "margin_mm": 4, "masks_per_case": 6, "variants": 1,
        "samples_per_shard": 1, "masks": [{"name": "blob", "kind": "blob", "radius_mm": [3, 5]}],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    write_data(folder / "data")
    inpaint = {"checkpoint": str(tiny_checkpoint), "num_inference_steps": 20, "batch_size": 2}
    for name, fields in RECIPES.items():
        path = folder / f"{name}.yaml"
        write_recipe(path, folder / "data", tiny_checkpoint, inpaint=inpaint, **fields)
    return folder


@pytest.fixture(scope="module")
def finish_here(folder: Path) -> Finish:
    """Builds a recipe, or goes on with it, in this process; every file with its hash."""

    def run(output: str, name: str) -> dict[str, str]:
        recipe = load_recipe(folder / f"{name}.yaml")
        return files_of(build(recipe, folder / output, cache_dir=folder / "cache", workers=0))

    return run


@pytest.fixture(scope="module")
def wanted(finish_here: Finish) -> Wanted:
    """The version of a recipe as one process makes it."""
    return cache(lambda name: finish_here(f"alone-{name}", name))


@pytest.fixture
def start(folder: Path) -> Start:
    """Starts the command, alone or under a launcher; its output goes to one stream."""

    def run(
        output: str,
        *options: str,
        launcher: Sequence[str] = (),
        recipe: str = "slices",
        **environment: str,
    ) -> subprocess.Popen[str]:
        paths = ["--output", str(folder / output), "--cache-dir", str(folder / "cache")]
        return subprocess.Popen(
            [*launcher, *PYTHON, "build", str(folder / f"{recipe}.yaml"), *paths, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )

    return run


def files_of(version: Path) -> dict[str, str]:
    return {
        path.relative_to(version).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(version.rglob("*"))
        if path.is_file()
    }


def wait_for_shards(output: Path, count: int, process: subprocess.Popen[str]) -> None:
    journal = output / "tiny/.1.0.0.building/journal"
    while process.poll() is None and len(list(journal.glob("*.shard"))) < count:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]


def pids_of(output: Path) -> dict[str, int]:
    """The processes of a build by their rank; the launcher itself has none."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            environment = dict(
                word.split(b"=", 1)
                for word in (entry / "environ").read_bytes().split(b"\0")
                if b"=" in word
            )
        except (OSError, ValueError):
            continue
        if os.fsencode(output) in words and b"RANK" in environment and words[1:2] == [b"-m"]:
            found[environment[b"RANK"].decode()] = int(entry.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("count", "launcher", "options", "environment", "recipe"),
    [
        pytest.param(
            2, (), ("--num-processes", "2"),
            {"TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "1", "LC_ALL": "C"}, "slices",
            marks=pytest.mark.long,
        ),
        pytest.param(
            3, ("torchrun", "--nproc-per-node", "3", "--no-python"), (),
            {"TZ": "America/St_Johns", "PYTHONHASHSEED": "2", "LC_ALL": "C.UTF-8"}, "slices",
            marks=pytest.mark.full,
        ),
        pytest.param(
            4, ("accelerate", "launch", "--multi_gpu", "--num_processes", "4", "--no_python"),
            ("--num-processes", "4"), {"TZ": "UTC", "PYTHONHASHSEED": "3"}, "volumes",
            marks=pytest.mark.full,
        ),
    ],
    ids=["two", "three-torchrun", "four-accelerate"],
)  # fmt: skip
def test_the_number_of_processes_changes_no_byte(
    start: Start, folder: Path, wanted: Wanted, count: int,
    launcher: tuple[str, ...], options: tuple[str, ...], environment: dict[str, str], recipe: str,
) -> None:  # fmt: skip
    words = [str(BIN / launcher[0]), *launcher[1:]] if launcher else []
    given: dict[str, Any] = {"launcher": words, "recipe": recipe, **environment}
    process = start(f"by-{count}", *options, "--workers", "0", **given)
    # The first process, which checks before the others, may be done before they have checked.
    wait_for_shards(folder / f"by-{count}", 1, process)
    first = pids_of(folder / f"by-{count}")["0"]
    os.kill(first, signal.SIGSTOP)
    try:
        wait_for_shards(folder / f"by-{count}", 4, process)
    finally:
        os.kill(first, signal.SIGCONT)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert files_of(folder / f"by-{count}/tiny/1.0.0") == wanted(recipe)
    painters = re.findall(r"process (\d+)$", said, re.MULTILINE)
    assert len(painters) == 12
    assert len(set(painters)) >= 2, said
    assert said.count("from datasets import load_dataset") == 1  # one speaks for all
    assert [path.name for path in (folder / f"by-{count}/tiny").iterdir()] == ["1.0.0"]


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_killed_with_a_changing_number_of_processes_it_comes_to_the_same_bytes(
    start: Start, folder: Path, finish_here: Finish, wanted: Wanted
) -> None:
    output = folder / "killed"
    # One of two dies: it is named, the other one stops.
    process = start("killed", "--num-processes", "2", "--workers", "0")
    wait_for_shards(output, 2, process)
    while "1" not in (pids := pids_of(output)):
        time.sleep(0.02)
    os.kill(pids["1"], signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 5, said
    assert f"process 1 of 2 (pid {pids['1']}) was killed by SIGKILL" in said
    assert "Traceback" not in said
    assert not pids_of(output)
    # The launcher of three dies: they end by themselves.
    process = start("killed", "--num-processes", "3", "--workers", "0")
    wait_for_shards(output, 6, process)
    process.kill()
    said, _ = process.communicate(timeout=300)  # returns when no process holds the stream any more
    assert re.search(r"going on: \d+ of 12 shards are done", said)
    assert "cannot be reached any more" in said
    assert finish_here("killed", "slices") == wanted("slices")
    assert [path.name for path in (output / "tiny").iterdir()] == ["1.0.0"]


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_volumes_whose_processes_are_all_killed_come_to_the_same_bytes(
    start: Start, folder: Path, finish_here: Finish, wanted: Wanted,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    options = ("--num-processes", "2", "--workers", "0")
    process = start("volumes", *options, recipe="volumes")
    wait_for_shards(folder / "volumes", 2, process)
    for pid in (process.pid, *pids_of(folder / "volumes").values()):
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=300)
    with caplog.at_level(logging.INFO, "synthct"):
        assert finish_here("volumes", "volumes") == wanted("volumes")
    assert re.search(r"going on: \d+ of 12 shards are done", caplog.text)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_an_interrupt_or_a_hang_up_of_one_process_is_no_error(
    start: Start, folder: Path, finish_here: Finish, wanted: Wanted
) -> None:
    output = folder / "interrupted"
    process = start("interrupted", "--num-processes", "2", "--workers", "0")
    wait_for_shards(output, 2, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130, said
    interrupted = r"^interrupted( by SIG\w+)?; run the same command again to continue$"
    assert len(re.findall(interrupted, said, re.MULTILINE)) == 1
    assert "Traceback" not in said
    process = start("interrupted", "--num-processes", "2", "--workers", "0")
    wait_for_shards(output, 6, process)
    os.kill(pids_of(output)["1"], signal.SIGHUP)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert said.count("interrupted by SIGHUP; run the same command again to continue") == 1
    assert "memory" not in said
    assert "Traceback" not in said
    assert finish_here("interrupted", "slices") == wanted("slices")


@pytest.mark.long
@pytest.mark.parametrize("after_s", [pytest.param(0.5, marks=pytest.mark.full), 1.5])
def test_processes_whose_launcher_is_killed_at_the_start_end(
    start: Start, folder: Path, after_s: float
) -> None:
    process = start(f"orphans-{after_s}", "--num-processes", "2", "--workers", "0")
    while not pids_of(folder / f"orphans-{after_s}") and process.poll() is None:
        time.sleep(0.02)
    time.sleep(after_s)
    process.kill()
    said, _ = process.communicate(timeout=300)  # returns when no process holds the stream any more
    assert "Traceback" not in said
    assert not pids_of(folder / f"orphans-{after_s}")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_stopped_process_is_named(start: Start, folder: Path, rank: str) -> None:
    output = folder / f"stopped-{rank}"
    process = start(output.name, "--num-processes", "2", "--workers", "0")
    wait_for_shards(output, 2, process)
    pid = pids_of(output)[rank]
    os.kill(pid, signal.SIGSTOP)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 5, said
    assert f"process {rank} of 2 (pid {pid} on" in said
    assert "has not answered for 60 s" in said
    assert "Traceback" not in said
    assert not pids_of(output)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(
    ("call", "number"), [("fsync", 25), pytest.param("rename", 9, marks=pytest.mark.full)]
)
def test_killed_at_a_system_call_it_comes_to_the_same_bytes(
    start: Start, folder: Path, finish_here: Finish, wanted: Wanted,
    call: str, number: int,
) -> None:  # fmt: skip
    calls = f"{call},{call}at,{call}at2" if call == "rename" else call
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
    inject = ["-e", f"inject={calls}:signal=SIGKILL:when={number}"]
    name = f"strace-{call}"
    process = start(name, "--workers", "0", launcher=[*strace, *inject])
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0, said
    assert not (folder / name / "tiny/1.0.0").exists()
    assert (folder / name / "tiny/.1.0.0.building").is_dir()
    assert finish_here(name, "slices") == wanted("slices")


@pytest.mark.long
def test_a_limit_of_the_system_on_files_is_told_and_nothing_is_lost(
    start: Start, folder: Path, finish_here: Finish, wanted: Wanted
) -> None:
    """A real EFBIG, in the middle of a shard: the processes may write 8 KiB to a file."""
    # Coverage, where it is measured, could not write its own file.
    alone = "unset COVERAGE_PROCESS_START COVERAGE_PROCESS_CONFIG; ulimit -f 16"
    launcher = ["sh", "-c", f'{alone}; exec "$@"', "sh"]
    process = start("limited", "--workers", "0", launcher=launcher)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 5, said
    assert "File too large; mend it and run the same command again" in said
    assert "Traceback" not in said
    assert not (folder / "limited/tiny/1.0.0").exists()
    assert finish_here("limited", "slices") == wanted("slices")


def test_a_full_disk_is_told_before_a_model_is_asked_to_paint(
    folder: Path, finish_here: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr("synthct.storage.files.shutil.disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match=r"needs about [\d,]+ bytes, 1,000 are free"):
        finish_here("full", "slices")


def test_a_launcher_and_the_option_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [processes_to_start(asked) for asked in (None, 1, 2)] == [0, 0, 2]
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert [processes_to_start(asked) for asked in (None, 4)] == [0, 0]
    with pytest.raises(RecipeError, match="--num-processes 2: the launcher runs 4 processes"):
        processes_to_start(2)
