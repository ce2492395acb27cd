"""Writes painted samples as a version on disk, by one process or several; survives kills.

Shards are made in any order by whichever process is free; the first process then puts them
together in the order of the plan. What was finished before an interruption is kept. Nothing here
knows how samples are painted, so that ``synthct selftest crash`` can run the very same steps.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from synthct.build.progress import Progress
from synthct.dataset.journal import record_shard
from synthct.dataset.manifest import Release, release_of, write_manifest
from synthct.dataset.summary import rejections
from synthct.dataset.version import Staging, commit, discard, find_release, open_staging
from synthct.dataset.writer import Rejection, ShardRecord, write_shard
from synthct.errors import ConflictError, MaskError, counted
from synthct.processes.group import Group
from synthct.storage.cache import warn_damaged
from synthct.storage.files import require_space

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardFile:
    """A file that the plan asks for.

    Attributes:
        path: Relative to the dataset's folder.
        split: The split of its samples.
        samples: How many are planned.
        bytes: About how large it will be at least.
    """

    path: str
    split: str
    samples: int
    bytes: int


@dataclass(frozen=True)
class Order:
    """A version that is to be made.

    Attributes:
        final: Where it will stand: ``<output>/<name>/<version>``.
        name: Of the dataset.
        plan_id: Of all that the content depends on.
        key: Of all that the bytes depend on; an unfinished build with another key is not gone on
            with.
        shards: Its files, in the order of the plan.
        schema: The columns of its rows.
    """

    final: Path
    name: str
    plan_id: str
    key: str
    shards: tuple[ShardFile, ...]
    schema: pa.Schema


#: A row by column.
Row = Mapping[str, Any]

#: A shard's number with its rows, in the order of the plan, and what was rejected.
Painted = tuple[int, Sequence[Row], Sequence[Rejection]]

#: Paints the shards of these numbers, in their order.
Paint = Callable[[Iterator[int], Progress], Iterator[Painted]]

#: Writes the files beside the shards into the dataset's folder.
Document = Callable[[Path, Release, Sequence[ShardRecord]], None]


def find_finished(final: Path, plan_id: str, group: Group) -> Release | None:
    """The version if it is there already; what its build may have left beside it is removed.

    Raises:
        ConflictError: If it is there with other content.
        VerifyError: If its manifest is damaged.
    """
    if (release := find_release(final)) is None:
        return None
    if release.plan_id != plan_id:
        raise ConflictError(
            f"{final}: version {release.label} was built from another recipe, checkpoint or "
            "sources; versions never change, so give the recipe a higher version"
        )
    if group.is_first:
        discard(Staging(final))
    logger.info("%s is there already, nothing to do", release.label)
    return release


def assemble(
    order: Order, group: Group, paint: Paint, document: Document, *, progress: bool = False
) -> Release | None:
    """Make what is missing of a version, and put it in its place.

    The first process holds the version's lock. Each process takes shards until none is left.

    Args:
        order: The version.
        group: The processes; all of them call this with the same order.
        paint: Makes samples.
        document: Writes what stands beside them.
        progress: Show a progress bar.

    Returns:
        The release, from the first process; None from the others.

    Raises:
        ConflictError: If an unfinished build with another key is in the way.
        MaskError: If every sample was rejected.
        ResourceError: If the disk has or gets too little room, or fails.
    """
    staging = Staging(order.final)
    todo: list[int] = group.share("todo", lambda: _begin(order, staging))
    kept = set(range(len(order.shards))) - set(todo)
    total = sum(shard.samples for shard in order.shards)
    with Progress(group, total, sum(order.shards[n].samples for n in kept), shown=progress) as bar:
        started = time.monotonic()
        for number, rows, rejected in paint(group.take(todo), bar):
            shard = order.shards[number]
            record = write_shard(
                staging.tree,
                shard.path,
                rows,
                split=shard.split,
                schema=order.schema,
                rejected=rejected,
            )
            record_shard(staging.journal, record)
            done = len(order.shards) - len(todo) + group.count("shards", 1)
            if not bar.is_shown:
                _log_shard(done, order, group, rows, rejected, time.monotonic() - started)
            started = time.monotonic()
            del rows, rejected  # not in memory beside those of the next
        if not group.is_first:
            return None
        group.wait_for_count("shards", len(todo), bar.show)
    return _complete(order, staging, document)


def _begin(order: Order, staging: Staging) -> list[int]:
    """Begin the build or go on with an interrupted one; the numbers of the missing shards."""
    try:
        open_staging(order.final, order.key)
    except ConflictError as err:
        raise ConflictError(
            f"{staging.folder} holds an unfinished build from another recipe, checkpoint, "
            "sources or machine; delete that folder, or give the recipe a higher version"
        ) from err
    done = staging.finished()
    todo = [number for number, shard in enumerate(order.shards) if shard.path not in done]
    partial = [staging.partial(order.shards[number].path) for number in todo]
    for one in partial:
        if one.is_damaged:
            warn_damaged(one.path, f"after {counted(len(one.made), 'sample')}")
    samples = sum(len(one.made) for one in partial)
    if done or samples:
        also = f", and {counted(samples, 'sample')} of the others" if samples else ""
        kept = len(order.shards) - len(todo)
        logger.info("going on: %d of %d shards are done%s", kept, len(order.shards), also)
    require_space(order.final.parent, sum(order.shards[number].bytes for number in todo))
    return todo


def _complete(order: Order, staging: Staging, document: Document) -> Release:
    """Put the finished shards together, with all that stands beside them."""
    recorded = staging.recorded()
    records = [recorded[shard.path] for shard in order.shards]
    if not any(record.rows for record in records):
        discard(staging)
        planned = sum(shard.samples for shard in order.shards)
        all_were = "the only sample was" if planned == 1 else f"all {planned:,} samples were"
        raise MaskError(
            f"{all_were} rejected ({_reasons(records)}); 'synthct check' says why for some of them"
        )
    release = release_of(
        staging.tree,
        name=order.name,
        version=order.final.name,
        plan_id=order.plan_id,
        shards=records,
    )
    document(staging.tree, release, records)
    commit(staging, write_manifest(staging.tree, release, records))
    rejected = _reasons(records)
    logger.info(
        "%s %s: %s%s", order.name, release.label, counted(release.rows, "sample"),
        f", rejected {rejected}" if rejected else "",
    )  # fmt: skip
    return release


def _reasons(shards: Sequence[ShardRecord]) -> str:
    """How many samples were rejected for which reason; empty if none was."""
    counts = Counter(rejection.reason for rejection in rejections(shards))
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _log_shard(
    number: int,
    order: Order,
    group: Group,
    rows: Sequence[Row],
    rejected: Sequence[Rejection],
    seconds: float,
) -> None:
    seams = sorted(row["seam_ratio"] or 0.0 for row in rows)
    logger.info(
        "shard %05d/%05d  %s  rejected %d  %.1f s  %.2f samples/s  seam ratio %.2f%s",
        number, len(order.shards), counted(len(rows), "sample"), len(rejected), seconds,
        len(rows) / seconds, seams[len(seams) // 2] if seams else float("nan"),
        f"  process {group.rank}" if group.size > 1 else "",
    )  # fmt: skip
