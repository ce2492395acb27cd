"""Results of worker processes come in order; one that dies or is stopped is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from synthct.errors import ResourceError, SourceError
from synthct.processes import workers as pool
from synthct.processes.workers import exit_reason, map_ahead


def mapped(compute: Callable[[int], Any], count: int = 20, workers: int = 2) -> Iterator[Any]:
    return map_ahead(compute, iter(range(count)), workers=workers, describe=lambda n: f"case c{n}")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order(workers: int) -> None:
    def slow_first(n: int) -> tuple[int, bytes]:
        time.sleep(0.2 if n == 0 else 0)
        return n, bytes(300_000)  # more than a pipe holds

    assert list(mapped(slow_first, workers=workers)) == [(n, bytes(300_000)) for n in range(20)]


def test_little_is_taken_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for n in range(100):
            taken.append(n)
            yield n

    results = map_ahead(lambda n: n, items(), workers=2, describe=str)
    assert next(results) == 0
    assert len(taken) <= 5


def test_an_error_arrives_as_it_was_raised() -> None:
    def fail(n: int) -> None:
        raise SourceError(f"case c{n}: damaged")

    with pytest.raises(SourceError, match="case c0: damaged"):
        list(mapped(fail))


def test_a_bug_arrives_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(mapped(lambda n: 1 // n))


def test_a_killed_worker_is_named_with_its_case() -> None:
    def die(n: int) -> int:
        if n == 5:
            time.sleep(1)  # what it computed before is on its way
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    with pytest.raises(ResourceError, match=r"pid \d+\) was killed by SIGKILL.* at case c5"):
        list(mapped(die))


def test_a_stopped_worker_is_named_with_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SILENT_S", 2)
    pids: list[int] = []

    def stop(n: int) -> int:
        if n == 5:
            os.kill(os.getpid(), signal.SIGSTOP)
        return os.getpid()

    with pytest.raises(ResourceError, match="has not answered for 2 s at case c5"):
        pids.extend(mapped(stop))
    for pid in pids:
        assert not is_alive(pid)


def test_a_hang_up_is_not_taken_for_lack_of_memory() -> None:
    assert exit_reason(-signal.SIGHUP).startswith("was killed by SIGHUP (hang-up")
    assert "memory" not in exit_reason(-signal.SIGHUP)
    assert "memory" in exit_reason(-signal.SIGKILL)


PARENT = """
import os, time
from synthct.processes.workers import map_ahead
def compute(n):
    os.write(1, b"%d\\n" % os.getpid())  # print would write the line break by itself
    return bytes(10_000_000)
for _ in map_ahead(compute, iter(range(9)), workers=2, describe=str):
    time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_end_with_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = {int(parent.stdout.readline()) for _ in range(4)}
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if is_alive(pid)]
    parent.stdout.close()
