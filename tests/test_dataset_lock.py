"""One build of a version at a time, whoever was killed before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from synthct.dataset import lock as locks
from synthct.dataset.lock import version_lock, worker_lock
from synthct.errors import ConflictError

HOLDER = """
import sys, time
from pathlib import Path
from synthct.dataset.lock import version_lock, worker_lock
with {lock}(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

RACER = """
import sys, time
from pathlib import Path
from synthct.dataset.lock import version_lock
from synthct.errors import ConflictError
for number in range(int(sys.argv[2])):
    final = Path(sys.argv[1]) / f"{number}.0.0"
    while time.time() < float(sys.argv[3]) + 0.6 * number:
        pass
    try:
        with version_lock(final):
            time.sleep(0.55)
        print("won", flush=True)
    except ConflictError:
        print("lost", flush=True)
"""


@contextmanager
def holding(final: Path, lock: str = "version_lock") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock of a version."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(lock=lock), str(final)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_nothing_is_left(tmp_path: Path) -> None:
    for _ in range(2):
        with version_lock(tmp_path / "1.0.0"):
            assert [p.name for p in tmp_path.iterdir()] == [".1.0.0.lock"]
        assert not list(tmp_path.iterdir())


def test_a_second_build_is_told_who_holds_the_version(tmp_path: Path) -> None:
    final = tmp_path / "1.0.0"
    with holding(final) as process:
        with pytest.raises(ConflictError) as err, version_lock(final):
            pytest.fail("two builds at a time")
        assert f"process {process.pid} on {os.uname().nodename}, since 20" in str(err.value)
        with version_lock(tmp_path / "1.1.0"):  # another version is nobody's
            pass
        process.send_signal(signal.SIGSTOP)  # a stopped holder is a holder
        with pytest.raises(ConflictError), version_lock(final):
            pytest.fail("two builds at a time")


def test_a_killed_build_leaves_no_lock(tmp_path: Path) -> None:
    final = tmp_path / "1.0.0"
    with holding(final) as process:
        process.kill()
        process.wait()
        assert json.loads((tmp_path / ".1.0.0.lock").read_text())["pid"] == process.pid
        with version_lock(final):
            assert json.loads((tmp_path / ".1.0.0.lock").read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_new_build_waits_for_the_processes_of_a_killed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "1.0.0"
    (tmp_path / ".1.0.0.lock").write_text("")
    with holding(final, "worker_lock") as straggler:
        monkeypatch.setattr(locks, "PATIENCE_S", 0.3)
        with pytest.raises(ConflictError, match="earlier build"), version_lock(final):
            pytest.fail("a process of an earlier build is still at work")
        monkeypatch.setattr(locks, "PATIENCE_S", 30)
        straggler.kill()
        with version_lock(final):
            pass
    assert not list(tmp_path.iterdir())


def test_whoever_leaves_last_removes_the_file(tmp_path: Path) -> None:
    final = tmp_path / "1.0.0"
    with holding(final) as first:
        first.kill()
        first.wait()
        with holding(final, "worker_lock"), worker_lock(final):
            pass
        assert (tmp_path / ".1.0.0.lock").exists()
        with worker_lock(final):
            pass
    assert not list(tmp_path.iterdir())
    with worker_lock(final):  # the build is over, and stays so
        assert not list(tmp_path.iterdir())


def test_of_two_that_begin_together_one_wins(tmp_path: Path) -> None:
    rounds = 12
    start = str(time.time() + 1.5)
    command = [sys.executable, "-c", RACER, str(tmp_path), str(rounds), start]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [racer.communicate(timeout=60)[0].split() for racer in racers]
    for results in zip(*said, strict=True):
        assert sorted(results) == ["lost", "lost", "won"]
