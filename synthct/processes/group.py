"""The processes of one launch, as one of them sees it: who does what, and who does not answer.

Rank, size and device come from Accelerate's ``PartialState``. What it lacks is here: units of work
taken one by one by whichever process is free, and a dead, stopped or stuck process named with what
it was at. All of it goes through a small key-value store of torch's, since a process that waits in
a barrier of torch's hears no signal and ends with a traceback when another one dies.

A dead process of this machine is seen at once; a stopped one, or a lost machine, after a minute.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from synthct.errors import ConflictError, ResourceError, SynthCTError
from synthct.processes.device import choose_device
from synthct.processes.launch import GONE, interrupt

if TYPE_CHECKING:
    from torch.distributed import Store

#: So long a process waits for the others to start.
START_S = 600

#: The same for the store of a launcher that has started this process, so must be there.
STORE_S = 30

#: So long it may take until the launcher has seen that a process is dead.
_REAPED_S = 5.0

#: After a signal a process has so long to end by itself.
GRACE_S = 10.0

logger = logging.getLogger(__name__)


class Interrupt(KeyboardInterrupt):
    """An interrupt that this process is to report for the whole launch."""


class Group:
    """The group of a command that runs in one process.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    rank, size = 0, 1

    def __init__(self, wanted_device: str | None = None) -> None:
        self._wanted_device = wanted_device
        self._counts: Counter[str] = Counter()

    @cached_property
    def device(self) -> str:
        """Where this process runs networks; of several GPUs, each process takes its own.

        Raises:
            ResourceError: If the named device cannot be used.
        """
        return choose_device(self._wanted_device)

    @property
    def is_first(self) -> bool:
        """Whether this process does what is done once."""
        return self.rank == 0

    @contextmanager
    def in_turn(self, name: str) -> Iterator[None]:
        """Run a block in the first process, and then in the others, which find what it cached."""
        del name
        yield

    def agree(self, what: str, value: str) -> None:
        """Make sure that a value is the first process's own.

        Raises:
            ConflictError: If it is not.
        """
        first = self.share(f"agree/{what}", lambda: value)
        if first != value:
            raise ConflictError(
                f"process {self.rank} of {self.size} on {socket.gethostname()} has {what} "
                f"{value[:12]}, process 0 has {first[:12]}, so their samples would differ; let all "
                "processes see the same sources, packages and kind of processor"
            )

    def share(self, name: str, make: Callable[[], Any]) -> Any:
        """What the first process makes, for all; must be JSON."""
        del name
        return make()

    def take(self, numbers: Sequence[int]) -> Iterator[int]:
        """Each of ``numbers`` for one process, one after the other."""
        return iter(numbers)

    def at(self, place: str) -> None:
        """Tell the others what this process is at; named if it dies there."""

    def count(self, what: str, amount: int) -> int:
        """Add to what all processes count together, and return the sum."""
        self._counts[what] += amount
        return self._counts[what]

    def wait_for_count(self, what: str, least: int, meanwhile: Callable[[], None]) -> None:
        """Wait until all processes together have counted ``least``; call ``meanwhile`` often."""


class LaunchedGroup(Group):
    """The group of a process that a launcher has started with others.

    Args:
        store: Of this launch alone.
        rank: Number of this process, from 0.
        size: Number of processes.
        beat_s: How often each process says that it is alive.
        silent_beats: After so many of its own beats a process gives up on one that gives none.
        stuck_beats: The same for one that lives but does not get ahead with its shard.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        *,
        beat_s: float = 1.0,
        silent_beats: int = 60,
        stuck_beats: int = 1800,
    ) -> None:
        super().__init__()
        self.rank, self.size = rank, size
        self._store, self._beat_s = store, beat_s
        self._limits = {"beat": silent_beats, "tick": stuck_beats}
        self._state: dict[str, Any] = {
            "pid": os.getpid(), "host": socket.gethostname(), "machine": _machine(),
            "beat": 0, "tick": 0, "place": "", "over": False,
        }  # fmt: skip
        self._fault: str | None = None
        self._ended = threading.Event()
        self._pulse = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> LaunchedGroup:
        # What a launcher stops us with, and our own watch: it also ends what waits for a disk.
        self._before = signal.signal(signal.SIGTERM, interrupt)
        self._say()
        self._pulse.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._pulse.join()
        fault = self._fault
        is_cut_off = isinstance(err, RuntimeError)  # torch's, if another process died; else a bug
        deadline = time.monotonic() + _REAPED_S * is_cut_off
        if is_cut_off:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which the launcher sends meanwhile
        with contextlib.suppress(ResourceError):
            if isinstance(err, SynthCTError):
                self._set("failed", f"process {self.rank} of {self.size} failed: {err}")
            fault = fault or self._dead_neighbour()
            while fault is None and time.monotonic() < deadline:
                time.sleep(0.1)
                fault = self._dead_neighbour()
            self._say(over=True)
        signal.signal(signal.SIGTERM, self._before)
        if is_cut_off and fault:
            raise ResourceError(fault) from None
        if isinstance(err, KeyboardInterrupt):
            self._explain(err, fault)

    def meet(self, device: str, patience_s: float = START_S) -> None:
        """Wait until all processes are there, and let Accelerate say who is who.

        Args:
            device: From ``choose_device``.
            patience_s: For so long.

        Raises:
            ResourceError: If one does not come.
        """
        from accelerate import PartialState
        from torch.distributed import PrefixStore

        deadline = time.monotonic() + patience_s
        while missing := [n for n in range(self.size) if self._get(f"process/{n}") is None]:
            if time.monotonic() > deadline:
                raise ResourceError(
                    f"process {missing[0]} of {self.size} has not started for {patience_s:.0f} s; "
                    "see what its launcher says, and run the same command again"
                )
            time.sleep(0.05)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        with asking():
            state = PartialState(
                cpu=not device.startswith("cuda"),
                backend="gloo",  # goes with every device; nothing large is ever exchanged
                store=PrefixStore("accelerate", self._store),
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=STORE_S),
            )
        self.rank, self.size = state.process_index, state.num_processes
        self.device = str(state.device) if device == "cuda" else device

    def part(self) -> None:
        """Wait until the others are done too, so that one that is stopped does not go unseen."""
        self._say(place="")
        self.count("done", 1)
        self.wait_for_count("done", self.size, lambda: None)

    @contextmanager
    def in_turn(self, name: str) -> Iterator[None]:
        """The others wait until the first process has run its block."""
        if self.is_first:
            yield
            self._set(f"turn/{name}", "done")
        else:
            self._wait_for(f"turn/{name}")
            yield

    def share(self, name: str, make: Callable[[], Any]) -> Any:
        """The others wait until the first process has made it."""
        if self.is_first:
            value = make()
            self._set(name, json.dumps(value))
            return value
        return json.loads(self._wait_for(name))

    def take(self, numbers: Sequence[int]) -> Iterator[int]:
        """A counter in the store gives each number away once."""
        while (place := self._add("taken", 1) - 1) < len(numbers):
            yield numbers[place]

    def at(self, place: str) -> None:
        """Report now: the next step may end this process."""
        self._say(place=place, tick=self._state["tick"] + 1)

    def count(self, what: str, amount: int) -> int:
        """Count in the store; a process that counts makes progress."""
        self._say(tick=self._state["tick"] + 1)
        return self._add(what, amount)

    def wait_for_count(self, what: str, least: int, meanwhile: Callable[[], None]) -> None:
        """Ask the store until the others are done; our watch ends it if one dies."""
        self._say(place="")
        while self._add(what, 0) < least:
            meanwhile()
            time.sleep(0.2)

    def _explain(self, err: KeyboardInterrupt, fault: str | None) -> None:
        """Say why a launcher, or our own watch, ended this process; one says it for all."""
        with contextlib.suppress(ResourceError):
            if self._failed():  # which has reported it already
                raise SystemExit(130) from None
            if self._add("reported", 1) > 1:
                raise SystemExit(ResourceError.exit_code if fault else 130) from None
        if fault:
            raise ResourceError(fault) from None
        raise Interrupt(*err.args) from None

    def _beat(self) -> None:
        """Say that this process is alive, and watch the next one; runs in a thread of its own."""
        seen: dict[str, tuple[object, int]] = {}
        failed = 0
        while self._fault is None and not self._ended.wait(self._beat_s):
            try:
                self._say(beat=self._state["beat"] + 1)
                self._fault = self._dead_neighbour() or self._silence(seen)
                # A launcher stops us by itself when another process failed on this machine only.
                failed += self._failed() is not None
                if failed > 10 and self._fault is None:
                    self._fault = f"{self._failed()}; this process stops too"
            except ResourceError as err:
                self._fault = str(err)
        if self._fault is not None and not self._ended.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            if not self._ended.wait(GRACE_S):  # in a call of torch's that no signal interrupts
                logger.error("%s", self._fault)
                os._exit(ResourceError.exit_code)

    def _silence(self, seen: dict[str, tuple[object, int]]) -> str | None:
        """What is wrong with the next process that is still at work, if anything.

        Counted in beats of our own, so that the time in which all of us were stopped is none.
        """
        peer = next(self._others(), None)
        if peer is None:
            return None
        rank, state = peer
        for sign, limit in self._limits.items():
            mark = rank, state[sign]
            before, beats = seen.get(sign, (None, 0))
            beats = beats + 1 if before == mark else 0
            seen[sign] = mark, beats
            if beats >= limit and (sign == "beat" or state["place"]):
                what = "has not answered" if sign == "beat" else "has not got ahead"
                return self._describe(rank, state, f"{what} for {limit * self._beat_s:.0f} s")
        return None

    def _dead_neighbour(self) -> str | None:
        """The message about a process of this machine that died without reporting an end."""
        for rank, state in self._others():
            if state["machine"] == self._state["machine"] and not _is_alive(state["pid"]):
                return self._describe(rank, state, "died")
        return None

    def _describe(self, rank: int, state: dict[str, Any], what: str) -> str:
        place = f" at {state['place']}" if state["place"] else ""
        return (
            f"process {rank} of {self.size} (pid {state['pid']} on {state['host']}) {what}{place}; "
            "run the same command again, with fewer processes if memory ran out; finished samples "
            "are kept"
        )

    def _others(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The other processes that have begun and not ended, from the next one on."""
        for step in range(1, self.size):
            rank = (self.rank + step) % self.size
            if (text := self._get(f"process/{rank}")) is not None:
                state = json.loads(text)
                if not state["over"]:
                    yield rank, state

    def _failed(self) -> str | None:
        return self._get("failed")

    def _wait_for(self, key: str) -> str:
        while (value := self._get(key)) is None:
            time.sleep(0.1)
        return value

    def _say(self, **changes: Any) -> None:
        self._state.update(changes)
        self._set(f"process/{self.rank}", json.dumps(self._state))

    def _get(self, key: str) -> str | None:
        with asking():
            return self._store.get(key).decode() if self._store.check([key]) else None

    def _set(self, key: str, value: str) -> None:
        with asking():
            self._store.set(key, value)

    def _add(self, key: str, amount: int) -> int:
        with asking():
            return self._store.add(key, amount)


@contextmanager
def asking() -> Iterator[None]:
    """Say what it means if the store cannot be reached."""
    try:
        yield
    except RuntimeError as err:
        from torch.distributed import DistError

        if not isinstance(err, DistError):
            raise
        raise ResourceError(GONE) from err


def _machine() -> str:
    """What two processes share that can see each other's ids."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not on Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
