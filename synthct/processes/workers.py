"""Worker processes that compute ahead of their use; a dead or stopped one is named.

Libraries' pools do not: with ``multiprocessing.Pool`` a killed worker is waited for without end,
and neither torch's ``DataLoader`` nor ``concurrent.futures`` says what it was at or sees one that
is stopped.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from synthct.errors import ResourceError, SynthCTError

Item = TypeVar("Item")
Result = TypeVar("Result")

#: How often a worker says that it is alive.
BEAT_S = 1.0

#: After so many seconds of waiting without a word from it, a worker counts as stopped.
SILENT_S = 60


def map_ahead(
    compute: Callable[[Item], Result],
    items: Iterator[Item],
    *,
    workers: int,
    describe: Callable[[Item], str],
) -> Iterator[Result]:
    """Apply a function to each item, in order, in worker processes and ahead of use.

    The workers are forked, so ``compute`` may be any function; items are sent to them and results
    back. Workers end with this process, however it ends, or with the generator. Where there is no
    fork (on Windows) this process computes everything itself.

    Args:
        compute: What to do with an item.
        items: Small things, such as numbers; at most two per worker are taken ahead.
        workers: Number of processes; 0 computes in this one.
        describe: What to call an item whose worker died.

    Yields:
        One result per item.

    Raises:
        ResourceError: If a worker dies, or gives no sign of life for ``SILENT_S``.
        SynthCTError: What ``compute`` raises.
    """
    if not workers or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(compute, items)
        return
    inbox: queue.SimpleQueue[tuple[_Worker, Any]] = queue.SimpleQueue()
    pool = _start(compute, workers, inbox)
    ahead: deque[_Task] = deque()
    try:
        while True:
            while len(ahead) < 2 * workers:
                try:
                    item = next(items)
                except StopIteration:
                    break
                ahead.append(_Task(describe(item)))
                min(pool, key=lambda worker: len(worker.tasks)).begin(ahead[-1], item)
            if not ahead:
                return
            _wait_for(ahead[0], inbox, pool)
            result = ahead.popleft().result
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        for worker in pool:
            worker.end()


class _Task:
    """An item that a worker was sent, and its result once it is there."""

    def __init__(self, name: str) -> None:
        self.name, self.is_done = name, False
        self.result: Any = None


class _Worker:
    """A worker process as its parent sees it."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process, self.pipe = process, pipe
        self.tasks: deque[_Task] = deque()
        self.silent_s = 0

    def begin(self, task: _Task, item: object) -> None:
        self.tasks.append(task)
        try:
            self.pipe.send(item)
        except OSError:
            raise self.fault("died") from None

    def read(self, inbox: queue.SimpleQueue[tuple[_Worker, Any]]) -> None:
        """Pass on what the worker says; a thread, so that no half message holds up its parent."""
        try:
            while True:
                inbox.put((self, self.pipe.recv()))
        except (EOFError, OSError):
            inbox.put((self, EOFError))

    def fault(self, what: str) -> ResourceError:
        place = f" at {self.tasks[0].name}" if self.tasks else ""
        return ResourceError(
            f"a worker process (pid {self.process.pid}) {what}{place}; run the same command again, "
            "with fewer --workers if memory ran out; what is finished is kept"
        )

    def end(self) -> None:
        self.process.kill()  # it holds nothing, and one that is stopped obeys nothing else
        self.process.join()


def _start(
    compute: Callable[[Any], Any], workers: int, inbox: queue.SimpleQueue[tuple[_Worker, Any]]
) -> list[_Worker]:
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in range(workers)]
    pool = []
    for number, (ours, _) in enumerate(pipes):
        arguments = (compute, number, pipes, os.getpid())
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        pool.append(_Worker(process, ours))
    for _, theirs in pipes:
        theirs.close()
    for worker in pool:  # only now: a fork leaves threads behind
        threading.Thread(target=worker.read, args=(inbox,), daemon=True).start()
    return pool


def _wait_for(
    task: _Task, inbox: queue.SimpleQueue[tuple[_Worker, Any]], pool: list[_Worker]
) -> None:
    """Take what the workers say until a task is done.

    Silence is counted in seconds of waiting, so that the time in which this process was busy, or
    stopped together with its workers, is none.
    """
    second = time.monotonic()
    while not task.is_done:
        if time.monotonic() - second >= 1:
            second = time.monotonic()
            for worker in pool:
                worker.silent_s += 1
                if worker.silent_s > SILENT_S:
                    raise worker.fault(f"has not answered for {SILENT_S} s")
        try:
            worker, message = inbox.get(timeout=1)
        except queue.Empty:
            continue
        worker.silent_s = 0
        if message is EOFError:
            worker.process.join(5)
            raise worker.fault(exit_reason(worker.process.exitcode or 1))
        if message is not None:
            done = worker.tasks.popleft()
            done.is_done, (done.result,) = True, message


def exit_reason(exit_code: int) -> str:
    """``died``, or which signal ended a process, with its usual reason."""
    if exit_code >= 0:
        return "died"
    name = signal.Signals(-exit_code).name
    reasons = {
        "SIGKILL": ", most often for lack of memory",
        "SIGHUP": " (hang-up: its terminal or connection was closed)",
        "SIGTERM": " (a user or the system ended it)",
    }
    return f"was killed by {name}{reasons.get(name, '')}"


def _work(
    compute: Callable[[Any], Any],
    number: int,
    pipes: list[tuple[Connection, Connection]],
    parent: int,
) -> None:
    """The life of a worker: from item to result until its parent ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    pipe = pipes[number][1]
    for end in (end for both in pipes for end in both if end is not pipe):
        end.close()  # else this worker would keep its siblings' pipes open when their parent died
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)  # what OpenMP had of threads did not survive the fork
    outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_send, args=(pipe, outbox, parent), daemon=True).start()
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            os._exit(1)
        try:
            result: Any = compute(item)
        except (SynthCTError, OSError, MemoryError) as err:
            result = err
        except Exception:  # a bug: its traceback would not survive the way to the parent
            result = RuntimeError(traceback.format_exc())
        outbox.put((result,))


def _send(pipe: Connection, outbox: queue.SimpleQueue[Any], parent: int) -> None:
    """Send results, or a sign of life every second; end this process when its parent is gone."""
    try:
        while os.getppid() == parent:
            try:
                message = outbox.get(timeout=BEAT_S)
            except queue.Empty:
                message = None
            pipe.send(message)
    finally:
        os._exit(1)
