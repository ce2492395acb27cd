"""Real processes of the real command: however many, killed or not, they make the same bytes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_recipe import tiny_recipe, write_data, write_recipe

from synthct.build.run import build
from synthct.errors import RecipeError, ResourceError
from synthct.processes.launch import processes_to_start
from synthct.recipe.recipe import Recipe

Start = Callable[..., subprocess.Popen[str]]

PYTHON = [sys.executable, "-m", "synthct"]
BIN = Path(sys.executable).parent

#: Twelve shards with enough to do in each that every process gets some.
SHAPE = {"masks_per_case": 12, "variants": 1, "samples_per_shard": 2}

#: Six shards of one volume each, whose slices are painted one after the other.
VOLUMES = {
    "view": "volume", "margin_mm": 4, "masks_per_case": 3, "variants": 1, "samples_per_shard": 1,
    "masks": [{"name": "blob", "kind": "blob", "radius_mm": [3, 5]}],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    write_data(folder / "data")
    inpaint = {"checkpoint": str(tiny_checkpoint), "num_inference_steps": 20, "batch_size": 2}
    write_recipe(folder / "tiny.yaml", folder / "data", tiny_checkpoint, inpaint=inpaint, **SHAPE)
    write_recipe(folder / "volumes.yaml", folder / "data", tiny_checkpoint, **VOLUMES)
    return folder


def finish_here(
    folder: Path, checkpoint: Path, output: str, fields: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Build, or go on, in this process; every file with its hash."""
    inpaint = {"checkpoint": str(checkpoint), "num_inference_steps": 20, "batch_size": 2}
    fields = {"inpaint": inpaint, **SHAPE} if fields is None else fields
    recipe = Recipe.model_validate(tiny_recipe(folder / "data", checkpoint, **fields))
    return files_of(build(recipe, folder / output, cache_dir=folder / "cache", workers=0))


@pytest.fixture(scope="module")
def wanted(folder: Path, tiny_checkpoint: Path) -> dict[str, str]:
    """The version as one process makes it."""
    return finish_here(folder, tiny_checkpoint, "alone")


@pytest.fixture
def start(folder: Path) -> Start:
    """Starts the command, alone or under a launcher; its output goes to one stream."""

    def run(
        output: str,
        *options: str,
        launcher: Sequence[str] = (),
        recipe: str = "tiny.yaml",
        **environment: str,
    ) -> subprocess.Popen[str]:
        paths = ["--output", str(folder / output), "--cache-dir", str(folder / "cache")]
        return subprocess.Popen(
            [*launcher, *PYTHON, "build", str(folder / recipe), *paths, *options],
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


@pytest.mark.parametrize(
    ("count", "launcher", "options", "environment"),
    [
        pytest.param(
            2, (), ("--num-processes", "2"),
            {"TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "1", "LC_ALL": "C"},
            marks=pytest.mark.long,
        ),
        pytest.param(
            3, ("torchrun", "--nproc-per-node", "3", "--no-python"), (),
            {"TZ": "America/St_Johns", "PYTHONHASHSEED": "2", "LC_ALL": "C.UTF-8"},
            marks=pytest.mark.full,
        ),
        pytest.param(
            4, ("accelerate", "launch", "--multi_gpu", "--num_processes", "4", "--no_python"),
            ("--num-processes", "4"), {"TZ": "UTC", "PYTHONHASHSEED": "3"},
            marks=pytest.mark.full,
        ),
    ],
    ids=["two", "three-torchrun", "four-accelerate"],
)  # fmt: skip
def test_the_number_of_processes_changes_no_byte(
    start: Start, folder: Path, wanted: dict[str, str], count: int,
    launcher: tuple[str, ...], options: tuple[str, ...], environment: dict[str, str],
) -> None:  # fmt: skip
    words = [str(BIN / launcher[0]), *launcher[1:]] if launcher else []
    process = start(f"by-{count}", *options, "--workers", "0", launcher=words, **environment)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert files_of(folder / f"by-{count}/tiny/1.0.0") == wanted
    painters = re.findall(r"process (\d+)$", said, re.MULTILINE)
    assert len(painters) == 12
    assert len(set(painters)) >= 2, said
    assert said.count("from datasets import load_dataset") == 1  # one speaks for all
    assert [path.name for path in (folder / f"by-{count}/tiny").iterdir()] == ["1.0.0"]


@pytest.mark.full
def test_four_processes_make_the_same_volumes_as_one(
    start: Start, folder: Path, tiny_checkpoint: Path
) -> None:
    inpaint = {"checkpoint": str(tiny_checkpoint), "num_inference_steps": 40, "batch_size": 2}
    fields = {**VOLUMES, "inpaint": inpaint, "masks_per_case": 6}
    write_recipe(folder / "many.yaml", folder / "data", tiny_checkpoint, **fields)
    alone = finish_here(folder, tiny_checkpoint, "many-alone", fields)
    options = ("--num-processes", "4", "--workers", "0")
    process = start("volumes-by-4", *options, recipe="many.yaml")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert files_of(folder / "volumes-by-4/tiny/1.0.0") == alone
    painters = re.findall(r"process (\d+)$", said, re.MULTILINE)
    assert len(painters) == 12
    assert len(set(painters)) >= 2, said


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_killed_with_a_changing_number_of_processes_it_comes_to_the_same_bytes(
    start: Start, folder: Path, tiny_checkpoint: Path, wanted: dict[str, str]
) -> None:
    output = folder / "killed"
    # One of two dies: it is named, the other one stops.
    process = start("killed", "--num-processes", "2", "--workers", "0")
    wait_for_shards(output, 2, process)
    while "1" not in (pids := pids_of(output)):
        time.sleep(0.02)
    os.kill(pids["1"], signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 5, said
    assert f"process 1 of 2 (pid {pids['1']}) was killed by SIGKILL" in said
    assert "Traceback" not in said
    assert not pids_of(output)
    # All three die at once, with their launcher.
    process = start("killed", "--num-processes", "3", "--workers", "0")
    wait_for_shards(output, 6, process)
    for pid in (process.pid, *pids_of(output).values()):
        os.kill(pid, signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert re.search(r"going on: \d+ of 12 shards are done", said)
    assert finish_here(folder, tiny_checkpoint, "killed") == wanted
    assert [path.name for path in (output / "tiny").iterdir()] == ["1.0.0"]


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    "counts", [("2", "3"), pytest.param(("4", "1"), marks=pytest.mark.full)], ids=str
)
def test_volumes_killed_and_gone_on_with_come_to_the_same_bytes(
    start: Start, folder: Path, tiny_checkpoint: Path, counts: tuple[str, str]
) -> None:
    alone = finish_here(folder, tiny_checkpoint, "volumes-alone", VOLUMES)
    name = f"volumes-{counts[0]}"
    process = start(name, "--num-processes", counts[0], "--workers", "0", recipe="volumes.yaml")
    wait_for_shards(folder / name, 2, process)
    for pid in (process.pid, *pids_of(folder / name).values()):
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=60)
    process = start(name, "--num-processes", counts[1], "--workers", "0", recipe="volumes.yaml")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert re.search(r"going on: \d of 6 shards are done", said)
    assert files_of(folder / name / "tiny/1.0.0") == alone


@pytest.mark.long
def test_without_their_launcher_the_processes_end_and_an_interrupt_is_no_error(
    start: Start, folder: Path, tiny_checkpoint: Path, wanted: dict[str, str]
) -> None:
    output = folder / "interrupted"
    process = start("interrupted", "--num-processes", "2", "--workers", "0")
    wait_for_shards(output, 2, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    interrupted = r"^interrupted( by SIG\w+)?; run the same command again to continue$"
    assert len(re.findall(interrupted, said, re.MULTILINE)) == 1
    assert "Traceback" not in said
    process = start("interrupted", "--num-processes", "2", "--workers", "0")
    wait_for_shards(output, 4, process)
    process.kill()
    said, _ = process.communicate(timeout=60)  # returns when no process holds the stream any more
    assert "cannot be reached any more" in said
    assert finish_here(folder, tiny_checkpoint, "interrupted") == wanted


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
    said, _ = process.communicate(timeout=60)  # returns when no process holds the stream any more
    assert "Traceback" not in said
    assert not pids_of(folder / f"orphans-{after_s}")


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_hang_up_of_one_process_is_reported_as_such(start: Start, folder: Path) -> None:
    process = start("hang-up", "--num-processes", "2", "--workers", "0")
    wait_for_shards(folder / "hang-up", 1, process)
    os.kill(pids_of(folder / "hang-up")["1"], signal.SIGHUP)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.count("interrupted by SIGHUP; run the same command again to continue") == 1
    assert "memory" not in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_stopped_process_is_named(start: Start, folder: Path, rank: str) -> None:
    output = folder / f"stopped-{rank}"
    process = start(output.name, "--num-processes", "2", "--workers", "0")
    wait_for_shards(output, 2, process)
    pid = pids_of(output)[rank]
    os.kill(pid, signal.SIGSTOP)
    said, _ = process.communicate(timeout=120)
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
    start: Start, folder: Path, tiny_checkpoint: Path, wanted: dict[str, str],
    call: str, number: int,
) -> None:  # fmt: skip
    calls = f"{call},{call}at,{call}at2" if call == "rename" else call
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
    inject = ["-e", f"inject={calls}:signal=SIGKILL:when={number}"]
    name = f"strace-{call}"
    process = start(name, "--workers", "0", launcher=[*strace, *inject])
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0, said
    assert not (folder / name / "tiny/1.0.0").exists()
    assert (folder / name / "tiny/.1.0.0.building").is_dir()
    assert finish_here(folder, tiny_checkpoint, name) == wanted


@pytest.mark.long
def test_a_limit_of_the_system_on_files_is_told_and_nothing_is_lost(
    start: Start, folder: Path, tiny_checkpoint: Path, wanted: dict[str, str]
) -> None:
    """A real EFBIG, in the middle of a shard: the processes may write 8 KiB to a file."""
    # Coverage, where it is measured, could not write its own file.
    alone = "unset COVERAGE_PROCESS_START COVERAGE_PROCESS_CONFIG; ulimit -f 16"
    launcher = ["sh", "-c", f'{alone}; exec "$@"', "sh"]
    process = start("limited", "--workers", "0", launcher=launcher)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 5, said
    assert "File too large; mend it and run the same command again" in said
    assert "Traceback" not in said
    assert not (folder / "limited/tiny/1.0.0").exists()
    assert finish_here(folder, tiny_checkpoint, "limited") == wanted


def test_a_full_disk_is_told_before_a_model_is_asked_to_paint(
    folder: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr("synthct.storage.files.shutil.disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match=r"needs about [\d,]+ bytes, 1,000 are free"):
        finish_here(folder, tiny_checkpoint, "full")


def test_a_launcher_and_the_option_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [processes_to_start(asked) for asked in (None, 1, 2)] == [0, 0, 2]
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert [processes_to_start(asked) for asked in (None, 4)] == [0, 0]
    with pytest.raises(RecipeError, match="--num-processes 2: the launcher runs 4 processes"):
        processes_to_start(2)
