"""The masks of shards, in order, prepared by worker processes ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice

from synthct.build.check import Checked
from synthct.build.draw import CaseReader
from synthct.build.prepare import Outcome, prepare
from synthct.processes.workers import map_ahead
from synthct.recipe.plan import SampleSpec


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
        numbers: Which shards to prepare; one is taken a little before the last one is painted.
        workers: Number of processes; 0 prepares in this one.

    Yields:
        The number of a shard and its masks, which are to be used up before the next shard.

    Raises:
        ResourceError: If a worker process dies or is stopped.
        SynthCTError: What ``prepare`` raises.
    """
    reader = CaseReader(checked.label_names)

    def prepared(group: tuple[SampleSpec, ...]) -> Outcome:
        return prepare(group, checked, reader)

    if not workers:
        for number in numbers:
            yield number, map(prepared, shards[number])
        return
    groups = [group for shard in shards for group in shard]
    starts = [0, *accumulate(len(shard) for shard in shards)]
    taken: deque[int] = deque()

    def group_numbers() -> Iterator[int]:
        for number in numbers:
            taken.append(number)
            yield from range(starts[number], starts[number + 1])

    masks = map_ahead(
        lambda n: prepared(groups[n]),
        group_numbers(),
        workers=workers,
        describe=lambda n: f"case {groups[n][0].host.case_id}, mask {groups[n][0].mask_id}",
    )
    for first in masks:
        number = taken.popleft()
        yield number, chain([first], islice(masks, len(shards[number]) - 1))
