"""Masks prepared by worker processes, in order and ahead of their use."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, chain, islice
from typing import Any

from synthct.build.check import Checked
from synthct.build.draw import CaseReader
from synthct.build.prepare import Outcome, prepare
from synthct.errors import ResourceError, SynthCTError
from synthct.recipe.plan import SampleSpec


class MaskTasks:
    """The masks of some shards as a map-style dataset: item n is the n-th mask, prepared.

    An error that the user can mend is an item too: raised in a worker process, it would reach
    the user with torch's traceback around it.
    """

    def __init__(self, checked: Checked, groups: Sequence[tuple[SampleSpec, ...]]) -> None:
        self.recipe, self.rules, self.groups = checked.recipe, checked.rules, groups
        self.reader = CaseReader(checked.label_names)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, n: int) -> Outcome | SynthCTError:
        try:
            return prepare(self.groups[n], self.recipe, self.rules, self.reader)
        except SynthCTError as err:
            return err


def prepared_shards(
    checked: Checked,
    shards: Sequence[Sequence[tuple[SampleSpec, ...]]],
    numbers: Iterator[int],
    workers: int,
) -> Iterator[tuple[int, Iterator[Outcome]]]:
    """The masks of some shards, in order, prepared by worker processes ahead of their use.

    Args:
        checked: The recipe.
        shards: The samples of every shard of the plan, by mask.
        numbers: Which shards to prepare.
        workers: Number of processes; 0 prepares in this one.

    Yields:
        The number of a shard and its masks, which are to be used up before the next shard.

    Raises:
        SynthCTError: What ``prepare`` raises.
    """
    tasks = MaskTasks(checked, [group for groups in shards for group in groups])
    starts = [0, *accumulate(len(groups) for groups in shards)]
    places = {n: range(starts[n], starts[n + 1]) for n in range(len(shards))}
    if not workers:
        for number in numbers:
            yield number, _unless_failed(tasks[place] for place in places[number])
        return

    taken: deque[int] = deque()

    def ahead() -> Iterator[int]:
        """What to prepare next: a shard is taken a little before the last one is painted."""
        for number in numbers:
            taken.append(number)
            yield from places[number]

    # Workers start here, before there are threads that a fork would leave behind.
    masks = _unless_failed(_prepared_ahead(tasks, ahead(), workers))
    for first in masks:
        number = taken.popleft()
        yield number, chain([first], islice(masks, len(shards[number]) - 1))


def _prepared_ahead(
    tasks: MaskTasks, places: Iterator[int], workers: int
) -> Iterator[Outcome | SynthCTError]:
    from torch.utils.data import DataLoader

    dataset: Any = tasks
    loader = DataLoader(
        dataset,
        sampler=places,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="fork",
        worker_init_fn=partial(_end_with, os.getpid()),
    )
    return iter(loader)


def _end_with(parent: int, worker: int) -> None:
    """Let a worker process end when its parent was killed.

    Torch's own watch waits until what was prepared is fetched, which is then never.
    """
    del worker

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _unless_failed(loaded: Iterator[Outcome | SynthCTError]) -> Iterator[Outcome]:
    for outcome in loaded:
        if isinstance(outcome, SynthCTError):
            raise outcome
        yield outcome


@contextmanager
def telling_of_killed_workers() -> Iterator[None]:
    """Say what the death of a worker means; torch raises wherever this process happens to be.

    Raises:
        ResourceError: If a worker process was killed.
    """
    try:
        yield
    except RuntimeError as err:
        if not str(err).startswith("DataLoader worker"):
            raise
        raise ResourceError(
            "a process that prepares masks was killed, most often for lack of memory; run the "
            "same command again with fewer --workers, finished shards are kept"
        ) from err
