"""From a recipe to a dataset on disk: shard by shard, resumable, the same bytes every time.

Worker processes read scans, draw masks and cut patches while this process paints, pastes and
writes. What a shard holds is fixed by the plan, and batches never cross shards, so neither the
number of workers nor an interruption changes a byte.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from synthct.check import Checked, check, default_cache_dir
from synthct.dataset.digest import canonical_json
from synthct.dataset.files import atomic_write, make_folder
from synthct.dataset.manifest import release_of, write_manifest
from synthct.dataset.schema import Row, arrow_schema
from synthct.dataset.summary import rejections
from synthct.dataset.version import Staging, commit, discard, find_release, open_staging
from synthct.dataset.writer import (
    Rejection,
    ShardRecord,
    record_shard,
    shard_name,
    write_shard,
    writer_settings,
)
from synthct.documents import write_documents
from synthct.draw import masks_of
from synthct.errors import ConflictError, MaskError, ResourceError
from synthct.locked import lock_of, require_locked
from synthct.painter import Painter, load_painter, paint_samples
from synthct.plan import Plan, Shard
from synthct.recipe import Recipe
from synthct.version import __version__
from synthct.workers import default_workers, prepared_masks, telling_of_killed_workers

logger = logging.getLogger(__name__)


def build(
    recipe: Recipe,
    output: Path = Path("out"),
    *,
    cache_dir: Path | None = None,
    limit: int | None = None,
    lock: Path | None = None,
    workers: int | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> Path:
    """Build a dataset; run again to go on where an earlier run stopped.

    Args:
        recipe: From ``load_recipe``.
        output: Folder below which ``<name>/<version>`` is made.
        cache_dir: Where indexes and phantoms are kept; by default the user's cache folder.
        limit: Build only the first so many samples, as version ``<version>-first<limit>``.
        lock: A ``synthct.lock``, or a dataset's folder with one, from which nothing may differ.
        workers: Processes that prepare patches; 0 prepares in this one. Changes no byte.
        device: Where the model runs.
        progress: Show progress bars.

    Returns:
        The folder of the dataset, which ``datasets.load_dataset`` reads.

    Raises:
        SynthCTError: Whatever the user can mend; nothing of an earlier version is touched.
    """
    name = recipe.version if limit is None else f"{recipe.version}-first{limit}"
    final = output / recipe.name / name
    _require_device(device)
    _require_writable(final.parent)
    checked = check(
        recipe, cache_dir=cache_dir or default_cache_dir(), limit=limit, progress=progress
    )
    if (release := find_release(final)) is not None:
        if release.plan_id == checked.work_id:
            logger.info("%s is there already, nothing to do", release.label)
            return final
        raise ConflictError(
            f"{final}: version {release.label} was built from another recipe, checkpoint or "
            "sources; versions never change, so give the recipe a higher version"
        )
    _log_plan(checked)
    painter = load_painter(checked, device, cache_dir=cache_dir)
    found = lock_of(checked, painter.numerics)
    if lock is not None:
        require_locked(lock, found)
    staging = _open_staging(final, checked, painter)
    shards = _shards(checked, staging, painter, workers, progress)
    if not any(shard.rows for shard in shards):
        discard(staging)
        raise MaskError(
            f"all {checked.plan.num_samples} samples were rejected ({_reasons(shards)}); "
            "'synthct check' says why for some of them"
        )
    tree = staging.tree
    release = release_of(
        tree, name=recipe.name, version=name, plan_id=checked.work_id, shards=shards
    )
    write_documents(recipe, found, tree, release, shards)
    folder = commit(staging, write_manifest(tree, release, shards))
    rejected = _reasons(shards)
    logger.info(
        "%s %s: %s%s", recipe.name, release.label, counted(release.rows, "sample"),
        f", rejected {rejected}" if rejected else "",
    )  # fmt: skip
    return folder


def _require_device(device: str) -> None:
    """Make sure that the model can run there, before any work is put into it.

    Raises:
        ResourceError: If torch does not know the device or cannot use it.
    """
    if device == "cpu":  # is always there, and other errors are found faster without torch
        return
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as err:  # torch raises either
        reason = str(err).split("\n")[0]
        raise ResourceError(f"--device {device}: {reason}; use cpu, or another device") from err


def _require_writable(folder: Path) -> None:
    """Make the output folder and write into it, before any work is put into what goes there.

    Raises:
        ResourceError: If it cannot be written.
    """
    make_folder(folder)
    probe = folder / ".writable"
    atomic_write(probe, b"")
    probe.unlink(missing_ok=True)


def _open_staging(final: Path, checked: Checked, painter: Painter) -> Staging:
    """Begin the build or go on with an interrupted one, if that one's bytes would be the same.

    Raises:
        ConflictError: If they would not.
        ResourceError: If the folder cannot be written.
    """
    makers = [checked.work_id, __version__, dict(painter.numerics), writer_settings()]
    key = hashlib.sha256(canonical_json({"makers": makers}).encode()).hexdigest()
    try:
        return open_staging(final, key)
    except ConflictError as err:
        raise ConflictError(
            f"{Staging(final).folder} holds an unfinished build from another recipe, checkpoint, "
            "sources or machine; delete that folder, or give the recipe a higher version"
        ) from err


def _shards(
    checked: Checked, staging: Staging, painter: Painter, workers: int | None, progress: bool
) -> list[ShardRecord]:
    """Make every shard that is not there yet; all of them, in the order of the plan."""
    from tqdm import tqdm

    names = _shard_names(checked.plan)
    tree = staging.tree
    done = staging.finished()
    todo = [(shard, name) for shard, name in names if name not in done]
    if done:
        logger.info("going on: %d of %d shards are done", len(done), len(names))
    groups = [group for shard, _ in todo for group in masks_of(shard.specs)]
    count = default_workers() if workers is None else workers
    masks = prepared_masks(checked, groups, count)
    total = checked.plan.num_samples
    kept = total - sum(spec.slices for shard, _ in todo for spec in shard.specs)
    make_folder(tree / "data")
    bar = tqdm(total=total, initial=kept, unit="sample", disable=None if progress else True)
    with telling_of_killed_workers(), bar:
        for number, (shard, name) in enumerate(todo, start=len(done) + 1):
            started = time.monotonic()
            rows, rejected = paint_samples(checked, shard.specs, masks, painter, bar)
            record = write_shard(
                tree,
                name,
                rows,
                split=shard.split,
                schema=arrow_schema(checked.recipe.keep_original),
                rejected=rejected,
            )
            record_shard(staging.journal, record)
            done[name] = record
            if bar.disable:
                _log_shard(number, len(names), rows, rejected, time.monotonic() - started)
    return [done[name] for _, name in names]


def _shard_names(plan: Plan) -> list[tuple[Shard, str]]:
    counts: dict[str, int] = {}
    for shard in plan.shards:
        counts[shard.split] = counts.get(shard.split, 0) + 1
    return [(s, shard_name(s.split, s.index, counts[s.split])) for s in plan.shards]


def _log_plan(checked: Checked) -> None:
    """Say what is going to be built, and what was left out of it."""
    plan = checked.plan
    splits = ", ".join(f"{split} {count}" for split, count in plan.count("split").items())
    total = counted_samples(plan)
    logger.info("%s in %s  %s", total, counted(len(plan.shards), "shard"), splits)
    for note in (*plan.notes, *checked.index.notes):
        logger.info("note: %s", note)
    for skip in checked.index.skipped:
        logger.info("left out: %s %s: %s", skip.source, skip.case_id, skip.reason)


def counted_samples(plan: Plan) -> str:
    """``12 samples``, or ``about 12 samples`` where slices are counted when a mask is drawn."""
    return ("" if plan.is_exact else "about ") + counted(plan.num_samples, "sample")


def counted(number: int, noun: str) -> str:
    """``1 sample``, ``2 samples``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _reasons(shards: Sequence[ShardRecord]) -> str:
    """How many samples were rejected for which reason; empty if none was."""
    counts = Counter(rejection.reason for rejection in rejections(shards))
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _log_shard(
    number: int, total: int, rows: Sequence[Row], rejected: Sequence[Rejection], seconds: float
) -> None:
    seams = sorted(r.metrics.seam_ratio or 0.0 for r in rows)
    logger.info(
        "shard %05d/%05d  %s  rejected %d  %.1f s  %.2f samples/s  seam ratio %.2f",
        number, total, counted(len(rows), "sample"), len(rejected), seconds, len(rows) / seconds,
        seams[len(seams) // 2] if seams else float("nan"),
    )  # fmt: skip
