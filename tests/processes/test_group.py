"""What the processes of a build tell each other, and what they say of one that fell silent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from torch.distributed import HashStore, Store

from synthct.errors import ConflictError, ResourceError, SourceError
from synthct.processes.group import Group, Interrupt, LaunchedGroup
from synthct.processes.join import join_group


def groups(size: int, **options: Any) -> list[LaunchedGroup]:
    store = HashStore()
    return [LaunchedGroup(store, rank, size, **options) for rank in range(size)]


def peer(store: Store, rank: int, **changes: Any) -> None:
    """Another process, as it has last described itself."""
    state = {"pid": 1, "host": "other", "machine": "other", "beat": 7, "tick": 3, "over": False,
             "place": "data/train-00002-of-00004.parquet, case c7"}  # fmt: skip
    store.set(f"process/{rank}", json.dumps(state | changes))


def test_alone_a_process_does_everything_in_order() -> None:
    with join_group() as group:
        assert type(group) is Group
        with group.in_turn("x"):
            group.agree("y", "z")
        assert group.share("todo", lambda: [3, 1]) == [3, 1]
        assert list(group.take([3, 1])) == [3, 1]
        assert [group.count("samples", 2), group.count("samples", 1)] == [2, 3]


def test_each_shard_is_given_away_once() -> None:
    taken: list[int] = []

    def work(group: LaunchedGroup) -> None:
        todo = group.share("todo", lambda: list(range(500)))
        for number in group.take(todo):
            taken.append(number)
            group.count("shards", 1)
        if group.is_first:
            group.wait_for_count("shards", len(todo), lambda: None)
            assert sorted(taken) == todo

    threads = [threading.Thread(target=work, args=(group,)) for group in groups(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(taken) == list(range(500))


def test_the_first_process_goes_first() -> None:
    order: list[int] = []

    def work(group: LaunchedGroup) -> None:
        with group.in_turn("check"):
            if group.is_first:
                time.sleep(0.3)
            order.append(group.rank)

    threads = [threading.Thread(target=work, args=(group,)) for group in reversed(groups(3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert order[0] == 0
    assert sorted(order) == [0, 1, 2]


def test_a_process_that_would_make_other_samples_is_refused() -> None:
    first, second = groups(2)
    first.agree("the build", "a" * 64)
    second.agree("the build", "a" * 64)
    with pytest.raises(ConflictError, match=r"process 1 of 2 .* bbbbbbbbbbbb, process 0 has aaaaa"):
        second.agree("the build", "b" * 64)


def test_a_silent_process_is_named_with_what_it_was_at() -> None:
    first, _ = groups(2, beat_s=0.01, silent_beats=10)
    peer(first._store, 1)
    with pytest.raises(ResourceError) as err, first:
        time.sleep(30)
    assert "process 1 of 2 (pid 1 on other) has not answered for 0 s at data/train-00002" in str(
        err.value
    )
    assert "case c7" in str(err.value)


def test_one_that_is_stopped_after_the_others_are_done_is_named() -> None:
    first, _ = groups(2, beat_s=0.01, silent_beats=30)
    peer(first._store, 1)
    with pytest.raises(ResourceError, match=r"process 1 of 2 .* has not answered"), first:
        first.part()  # all shards are taken, and this process has nothing left to do


@pytest.mark.long
def test_a_process_that_waits_where_no_signal_reaches_it_ends_all_the_same() -> None:
    """As in a collective operation of torch's; here in a lock of the C library."""
    code = """
import ctypes, json, logging
from torch.distributed import HashStore
from synthct.processes import group
group.GRACE_S = 0.2
logging.basicConfig()
store = HashStore()
state = {"pid": 1, "host": "other", "machine": "other", "beat": 7, "tick": 3, "over": False}
store.set("process/1", json.dumps(state | {"place": ""}))
lock = (ctypes.c_byte * 64)()
libc = ctypes.CDLL(None)
with group.LaunchedGroup(store, 0, 2, beat_s=0.01, silent_beats=10):
    libc.pthread_mutex_lock(lock)
    libc.pthread_mutex_lock(lock)
"""
    # Traced, as coverage does it, a thread of Python 3.11 that enters a function goes no further
    # while a signal waits for the main thread.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=120, check=False, env=plain,
    )  # fmt: skip
    assert done.returncode == ResourceError.exit_code, done.stderr
    assert "process 1 of 2 (pid 1 on other) has not answered" in done.stderr
    assert "Traceback" not in done.stderr


def test_processes_part_when_all_are_done() -> None:
    threads = [threading.Thread(target=group.part) for group in groups(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_one_that_does_not_start_is_named() -> None:
    first, _ = groups(2)
    with pytest.raises(ResourceError, match="process 1 of 2 has not started for 0 s"), first:
        first.meet("cpu", patience_s=0.1)


def test_a_process_that_lives_but_gets_nowhere_is_named() -> None:
    first, _ = groups(2, beat_s=0.01, silent_beats=50, stuck_beats=20)
    done = threading.Event()

    def beat() -> None:
        for number in range(10_000):
            peer(first._store, 1, beat=number)
            if done.wait(0.01):
                return

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(ResourceError, match="not got ahead for 0 s at data/train"), first:
            time.sleep(30)
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("changes", [{"over": True}, {"place": ""}])
def test_whoever_has_ended_or_waits_is_not_missed(changes: dict[str, Any]) -> None:
    first, _ = groups(2, beat_s=0.01, silent_beats=10_000, stuck_beats=5)
    if changes.get("over"):
        first._limits["beat"] = 5
    with first:
        peer(first._store, 1, **changes)
        time.sleep(0.5)


def test_a_dead_process_of_this_machine_is_named_at_once() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    first, _ = groups(2, beat_s=0.01)
    peer(first._store, 1, pid=child, machine=first._state["machine"])
    with pytest.raises(ResourceError, match=rf"process 1 of 2 \(pid {child} on .*\) died"), first:
        time.sleep(30)


def test_what_torch_raises_when_another_process_dies_is_told_as_that() -> None:
    child = os.fork()
    if child == 0:
        time.sleep(0.5)
        os._exit(0)
    threading.Timer(1.0, os.waitpid, (child, 0)).start()  # until then it seems to live
    first, _ = groups(2)
    peer(first._store, 1, pid=child, machine=first._state["machine"])
    with pytest.raises(ResourceError, match=rf"process 1 of 2 \(pid {child} on .*\) died"), first:
        raise RuntimeError("Connection closed by peer")


def test_a_bug_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthct.processes.group._REAPED_S", 0.1)
    first, _ = groups(2)
    with pytest.raises(RuntimeError, match="a bug"), first:
        raise RuntimeError("a bug")


def test_an_error_elsewhere_stops_this_process_too() -> None:
    first, second = groups(2, beat_s=0.01)
    with pytest.raises(SourceError), second:
        raise SourceError("case c7: damaged")
    with pytest.raises(SystemExit) as end, first:  # the other one has told why
        time.sleep(30)
    assert end.value.code == 130
    assert first._get("failed") == "process 1 of 2 failed: case c7: damaged"


def test_one_process_reports_an_interrupt_for_all() -> None:
    first, second = groups(2, beat_s=0.01)
    with pytest.raises(Interrupt, match="SIGHUP"), second:
        raise KeyboardInterrupt("SIGHUP")
    assert json.loads(first._store.get("process/1"))["over"]
    with pytest.raises(SystemExit) as end, first:  # which its launcher has then stopped
        raise KeyboardInterrupt("SIGTERM")
    assert end.value.code == 130


def test_a_store_that_is_gone_is_told_as_such() -> None:
    from torch.distributed import DistNetworkError

    class Gone:
        def check(self, keys: list[str]) -> bool:
            raise DistNetworkError("broken pipe")

    group, _ = groups(2)
    group._store = Gone()  # type: ignore[assignment]
    with pytest.raises(ResourceError, match="cannot be reached any more"):
        group.share("todo", lambda: None) if not group.is_first else group._get("x")
