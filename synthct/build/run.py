"""From a recipe to a dataset on disk: shard by shard, resumable, the same bytes every time.

One process or several paint, paste and write; each may have worker processes that read scans, draw
masks and cut patches ahead. What a shard holds is fixed by the plan, and batches never cross
shards, so neither the number of processes, nor which of them made which shard, nor an interruption
changes a byte.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from synthct.build.assemble import Order, Painted, ShardFile, assemble, find_finished
from synthct.build.check import Checked, check, require_adapted
from synthct.build.context import BuildContext, load_context, require_command
from synthct.build.documents import recipe_schema, write_documents
from synthct.build.draw import masks_of
from synthct.build.grades import tell_grades, tell_review
from synthct.build.outside_range import tell_outside_range
from synthct.build.painter import MODEL_FAULT, paint_samples
from synthct.build.progress import Progress
from synthct.build.verify.locked import lock_of, require_locked
from synthct.build.workers import prepared_shards
from synthct.dataset.digest import canonical_json
from synthct.dataset.manifest import Release
from synthct.dataset.version import Staging
from synthct.dataset.writer import ShardRecord, shard_name, writer_settings
from synthct.errors import QuarantineError, counted
from synthct.processes.join import join_group
from synthct.recipe.plan import SampleSpec
from synthct.recipe.recipe import Recipe
from synthct.storage.defaults import default_cache_dir, default_workers
from synthct.storage.files import require_writable
from synthct.storage.lock import version_lock, worker_lock
from synthct.version import __version__
from synthct.volume.views import VIEW_AXIS

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Share of the samples that a model may fail to paint before a build ends with an error.
MAX_FAULTY = 0.01

#: Bytes per pixel of a row, as measured on abdominal CT: 16-bit picture, masks, preview.
_BYTES_PER_PIXEL, _BYTES_OF_ORIGINAL = 1.75, 1.15

#: What a patch-only release takes of a full one, as measured on KiTS label maps.
_SHARE_OF_PATCH = 0.025

#: The share of the expected size that a dataset has in any case: smooth pictures take less.
_CERTAIN = 0.5


def build(
    recipe: Recipe,
    output: Path = Path("out"),
    *,
    cache_dir: Path | None = None,
    limit: int | None = None,
    lock: Path | None = None,
    workers: int | None = None,
    device: str | None = None,
    relabel: Sequence[str] | None = None,
    checkpoint: Path | None = None,
    strict: bool = False,
    progress: bool = False,
) -> Path:
    """Build a dataset; run again to go on where an earlier run stopped.

    Started by ``torchrun`` or the like, this is one of the processes that build it together.

    Args:
        recipe: From ``load_recipe``.
        output: Folder below which ``<name>/<version>`` is made.
        cache_dir: Where indexes and phantoms are kept; by default the user's cache folder.
        limit: Build only the first so many samples, as version ``<version>-first<limit>``.
        lock: A ``synthct.lock``, or a dataset's folder with one, from which nothing may differ.
        workers: Processes that prepare patches; 0 prepares in this one. Changes no byte.
        device: Where the model runs: ``cpu``, ``cuda`` or another of torch's; by default a GPU if
            there is one. Of several GPUs, each process takes its own.
        relabel: Your command that labels painted pictures, see ``relabel.parse_command``; for
            recipes with ``label_map: relabel``. No recipe can say it.
        checkpoint: The adapted checkpoint of a recipe with ``inpaint.adapt``; ``synthct adapt``
            makes it.
        strict: Refuse what lies outside the checkpoint's range instead of warning.
        progress: Show progress bars.

    Returns:
        The folder of the dataset, which ``datasets.load_dataset`` reads.

    Raises:
        QuarantineError: If the dataset is finished, but without more than 1 % of its samples
            because the checkpoint gave no painting of them.
        SynthCTError: Whatever the user can mend; nothing of an earlier version is touched.
    """
    require_command(recipe, relabel)
    name = recipe.version if limit is None else f"{recipe.version}-first{limit}"
    final = output / recipe.name / name
    with join_group(device) as group, ExitStack() as held:
        if group.is_first:
            require_writable(final.parent)
            held.enter_context(version_lock(final))
        else:  # takes seconds, in which the first process looks at the sources
            import synthct.models.painting  # noqa: F401
        with group.in_turn("check"):  # the first process fills the caches for the others
            checked = check(
                recipe,
                cache_dir=cache_dir or default_cache_dir(),
                limit=limit,
                checkpoint=checkpoint,
                progress=progress,
            )
            require_adapted(checked)
            if (release := find_finished(final, checked.work_id, group)) is not None:
                _require_few(release, final)
                return final
            if group.is_first or strict:
                tell_outside_range(checked, strict=strict)
            if group.is_first:
                _log_plan(checked, group.size)
            else:
                held.enter_context(worker_lock(final))
            context = load_context(
                checked,
                lambda: group.device,
                cache_dir=cache_dir,
                relabel=relabel,
                progress=progress and group.is_first,
            )
            lock_content = lock_of(checked, context.numerics, context.limits)
            if lock is not None:
                require_locked(lock, lock_content)
        order = _order(context, final)
        group.agree("the build", order.key)

        def paint(numbers: Iterator[int], progress: Progress) -> Iterator[Painted]:
            return paint_shards(context, order, numbers, progress, workers)

        def document(tree: Path, release: Release, shards: Sequence[ShardRecord]) -> None:
            write_documents(checked.recipe, lock_content, tree, release, shards)

        made = assemble(order, group, paint, document, progress=progress)
    if made is not None:
        tell_grades(final, context.standards)
        tell_review(made, final, checked.verdicts)
        _require_few(made, final)
    return final


def _require_few(release: Release, final: Path) -> None:
    """Tell, whenever it is asked for, of a finished dataset that lacks many paintings.

    Raises:
        QuarantineError: If they are more than ``MAX_FAULTY``.
    """
    faults = {why: n for why, n in release.rejected.items() if why.startswith(MODEL_FAULT)}
    total = release.rows + sum(release.rejected.values())
    if sum(faults.values()) > MAX_FAULTY * total:
        raise QuarantineError(
            f"{final} is finished, but {sum(faults.values())} of {total} samples are left out "
            f"since the checkpoint did not paint them ({', '.join(sorted(faults))}; see "
            "rejected.parquet); try dtype float32, another scheduler or another checkpoint, under "
            "a higher version"
        )


def paint_shards(
    context: BuildContext,
    order: Order,
    numbers: Iterator[int],
    progress: Progress,
    workers: int | None,
) -> Iterator[Painted]:
    """Paint the shards of these numbers; masks are prepared ahead, also of the shard to come."""
    checked = context.checked
    # Whole scans are not prepared ahead, so that few of them are in memory.
    count = 0 if checked.recipe.extent == "scan" else workers
    count = default_workers() if count is None else count
    shards = [masks_of(shard.specs) for shard in checked.plan.shards]
    progress.at("its first shard")
    for number, masks in prepared_shards(checked, shards, numbers, count):
        specs = checked.plan.shards[number].specs
        path = order.shards[number].path
        partial = Staging(order.final).partial(path)
        announced = _announced(path, shards[number], masks, progress)
        yield number, *paint_samples(specs, announced, context, progress, partial)
        partial.remove()  # the shard has been written
        progress.at("its next shard")


def _announced(
    path: str, groups: Sequence[Sequence[SampleSpec]], masks: Iterator[T], progress: Progress
) -> Iterator[T]:
    """The masks of a shard; tells the other processes which one this one waits for."""
    for group in groups:
        progress.at(f"{path}, case {group[0].host.case_id}, mask {group[0].mask_id}")
        yield next(masks)


def expected_bytes(checked: Checked, specs: Sequence[SampleSpec]) -> float:
    """About how large the rows of some samples are."""
    view = checked.recipe.view
    per_pixel = _BYTES_PER_PIXEL + (_BYTES_OF_ORIGINAL if checked.recipe.keep_original else 0.0)
    if checked.recipe.release == "patch":
        per_pixel *= _SHARE_OF_PATCH
    total = 0.0
    for spec in specs:
        pixels = spec.voxels
        if view != "volume":
            pixels = spec.slices * math.prod(spec.host.shape) / spec.host.shape[VIEW_AXIS[view]]
        total += pixels * per_pixel
    return total


def _order(context: BuildContext, final: Path) -> Order:
    """The version that a recipe comes to, made by this kind of machine."""
    checked = context.checked
    makers = [checked.work_id, __version__, dict(context.numerics), writer_settings()]
    plan, counts = checked.plan, Counter(shard.split for shard in checked.plan.shards)
    return Order(
        final=final,
        name=checked.recipe.name,
        plan_id=checked.work_id,
        key=hashlib.sha256(canonical_json({"makers": makers}).encode()).hexdigest(),
        shards=tuple(
            ShardFile(
                path=shard_name(shard.split, shard.index, counts[shard.split]),
                split=shard.split,
                samples=sum(spec.slices for spec in shard.specs),
                bytes=int(_CERTAIN * expected_bytes(checked, shard.specs)),
            )
            for shard in plan.shards
        ),
        schema=recipe_schema(checked.recipe),
    )


def _log_plan(checked: Checked, processes: int) -> None:
    """Say what is going to be built, by how many processes, and what was left out of it."""
    plan = checked.plan
    splits = ", ".join(f"{split} {count}" for split, count in plan.count("split").items())
    total = counted_samples(checked)
    logger.info("%s in %s  %s", total, counted(len(plan.shards), "shard"), splits)
    if processes > len(plan.shards):
        logger.warning(
            "note: %d processes for %s gain nothing, since each takes whole shards; a smaller "
            "samples_per_shard makes more of them",
            processes, counted(len(plan.shards), "shard"),
        )  # fmt: skip
    for note in (*plan.notes, *checked.index.notes):
        logger.info("note: %s", note)
    for skip in checked.index.skipped:
        logger.info("left out: %s %s: %s", skip.source, skip.case_id, skip.reason)


def counted_samples(checked: Checked) -> str:
    """``12 samples``, or ``about 12 samples`` where slices are counted when a mask is drawn.

    With a limit says so; slices of one mask and pairs stay whole, so there may be a few more.
    """
    plan, limit = checked.plan, checked.limit
    number = ("" if plan.is_exact else "about ") + counted(plan.num_samples, "sample")
    return number if limit is None else f"{number} (limited to the first {limit})"
