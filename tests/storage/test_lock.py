"""One build of a version at a time, whoever was killed before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from synthct.errors import ConflictError
from synthct.storage import lock as locks
from synthct.storage.lock import exclusive, version_lock, worker_lock

HOLDER = """
import sys, time
from pathlib import Path
from functools import partial
from synthct.storage.lock import exclusive, version_lock, worker_lock
training = partial(exclusive, what="training")
with {lock}(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

RACER = """
import os, sys
from pathlib import Path
from synthct.storage import lock
from synthct.errors import ConflictError
lock._MOMENT_S = 0.02
inside, won = Path(sys.argv[1]) / "inside", 0
while won < int(sys.argv[2]):
    try:
        with lock.version_lock(Path(sys.argv[1]) / "1.0.0"):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if two are inside
            won += 1
            inside.unlink()
    except ConflictError:
        pass
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


class Clock:
    """Time that passes only while somebody sleeps, and what happens at its end.

    Args:
        end_s: After so many seconds ``alarm`` is called.
        alarm: What happens then.
    """

    def __init__(self, end_s: float, alarm: Callable[[], object]) -> None:
        self.now_s, self.end_s, self.alarm = 0.0, end_s, alarm

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s >= self.end_s:
            self.end_s = float("inf")
            self.alarm()


def test_processes_of_a_killed_build_get_a_minute_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker ends after the sample that it is at, which on a slow machine takes a minute."""
    (tmp_path / ".1.0.0.lock").write_text("")
    with holding(tmp_path / "1.0.0", "worker_lock") as straggler:

        def end() -> None:
            straggler.kill()
            straggler.wait()  # the clock of this test does not wait for it

        clock = Clock(60, end)
        monkeypatch.setattr(locks, "time", clock)
        with version_lock(tmp_path / "1.0.0"):
            assert 60 <= clock.now_s < 61


def test_a_process_that_never_ends_is_not_waited_for_longer_than_two_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".1.0.0.lock").write_text("")
    with holding(tmp_path / "1.0.0", "worker_lock"):
        clock = Clock(120, lambda: pytest.fail("waited for two minutes"))
        monkeypatch.setattr(locks, "time", clock)
        with pytest.raises(ConflictError, match="stop them"), version_lock(tmp_path / "1.0.0"):
            pytest.fail("a process of an earlier build is still at work")


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


def test_of_builds_that_race_one_is_inside_at_a_time(tmp_path: Path) -> None:
    """Each removes the file when it leaves, while the others are about to lock it."""
    command = [sys.executable, "-c", RACER, str(tmp_path), "300"]
    racers = [subprocess.Popen(command) for _ in range(3)]
    assert [racer.wait(timeout=120) for racer in racers] == [0, 0, 0]
    assert not list(tmp_path.iterdir())


def test_the_same_work_is_done_by_one_process_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "work.lock"
    with holding(path, "training") as process:
        monkeypatch.setattr(locks, "_WORKERS_END_S", 0.1)
        told = rf"another training is running \(process {process.pid} on .*, since 20.*wait for it"
        with pytest.raises(ConflictError, match=told), exclusive(path, "training"):
            pytest.fail("two at a time")
        process.kill()
        process.wait()
        with exclusive(path, "training"):
            pass


def test_who_waits_for_a_lock_says_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "_WORKERS_END_S", 0.1)
    path = tmp_path / "work.lock"
    with holding(path, "training") as process:
        threading.Timer(1, process.kill).start()
        with exclusive(path, "training", waits=True):
            assert f"process {process.pid} on" in caplog.text


def test_a_forked_child_does_not_keep_a_lock(tmp_path: Path) -> None:
    """A worker process may live a little longer than its parent."""
    with exclusive(tmp_path / "work.lock", "work"):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with exclusive(tmp_path / "work.lock", "work"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_locks_can_be_imported_where_there_is_no_fcntl() -> None:
    code = "import sys, filelock; sys.modules['fcntl'] = None; sys.platform = 'win32'; "
    code += "import synthct.storage.lock"
    subprocess.run([sys.executable, "-c", code], check=True)
