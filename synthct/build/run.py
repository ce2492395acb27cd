"""From a recipe to a dataset on disk: shard by shard, resumable, the same bytes every time.

One process or several paint, paste and write; each may have worker processes that read scans, draw
masks and cut patches ahead. What a shard holds is fixed by the plan, and batches never cross
shards, so neither the number of processes, nor which of them made which shard, nor an interruption
changes a byte.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from synthct.build.assemble import Order, Painted, ShardFile, assemble, counted, is_finished
from synthct.build.check import Checked, check
from synthct.build.crew import join_crew
from synthct.build.documents import recipe_schema, write_documents
from synthct.build.draw import masks_of
from synthct.build.painter import (
    MODEL_FAULT,
    Painter,
    load_painter,
    paint_samples,
    require_command,
)
from synthct.build.progress import Progress
from synthct.build.verify.locked import lock_of, require_locked
from synthct.build.workers import prepared_shards, telling_of_killed_workers
from synthct.dataset.digest import canonical_json
from synthct.dataset.manifest import Release
from synthct.dataset.summary import rejections
from synthct.dataset.writer import ShardRecord, shard_name, writer_settings
from synthct.errors import QuarantineError, ResourceError
from synthct.recipe.plan import Plan, SampleSpec
from synthct.recipe.recipe import Recipe
from synthct.storage.defaults import default_cache_dir, default_workers
from synthct.storage.files import atomic_write, make_folder
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
    device: str = "cpu",
    relabel: Sequence[str] | None = None,
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
        device: Where the model runs; of several GPUs, each process takes its own.
        relabel: Your command that labels painted pictures, see ``relabel.parse_command``; for
            recipes with ``label_map: relabel``. No recipe can say it.
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
    device = _own_device(device)
    with join_crew() as crew, ExitStack() as held:
        if crew.is_first:
            _require_writable(final.parent)
            held.enter_context(version_lock(final))
        else:  # takes seconds, in which the first process looks at the sources
            import synthct.models.painting  # noqa: F401
        with crew.in_turn("check"):  # the first process fills the caches for the others
            checked = check(
                recipe, cache_dir=cache_dir or default_cache_dir(), limit=limit, progress=progress
            )
            if is_finished(final, checked.work_id, crew):
                return final
            if crew.is_first:
                _log_plan(checked)
            else:
                held.enter_context(worker_lock(final))
            painter = load_painter(checked, device, cache_dir=cache_dir, relabel=relabel)
            found = lock_of(checked, painter.numerics)
            if lock is not None:
                require_locked(lock, found)
        order = _order(checked, final, painter)
        crew.agree("the build", order.key)

        def paint(numbers: Iterator[int], progress: Progress) -> Iterator[Painted]:
            return paint_shards(checked, order, painter, numbers, progress, workers)

        faults: list[str] = []

        def document(tree: Path, release: Release, shards: Sequence[ShardRecord]) -> None:
            write_documents(checked.recipe, found, tree, release, shards)
            reasons = [rejection.reason for rejection in rejections(shards)]
            faults.extend(reason for reason in reasons if reason.startswith(MODEL_FAULT))

        assemble(order, crew, paint, document, progress=progress)
    _require_few(faults, order, final)
    return final


def _require_few(faults: Sequence[str], order: Order, final: Path) -> None:
    """Tell of a dataset that is finished, but for many samples of which there is no painting.

    Raises:
        QuarantineError: If they are more than ``MAX_FAULTY``.
    """
    total = sum(shard.samples for shard in order.shards)
    if len(faults) > MAX_FAULTY * total:
        reasons = ", ".join(sorted(set(faults)))
        raise QuarantineError(
            f"{final} is finished, but {len(faults)} of {total} samples are left out since the "
            f"checkpoint did not paint them ({reasons}; see rejected.parquet); try dtype float32, "
            "another scheduler or another checkpoint, under a higher version"
        )


def paint_shards(
    checked: Checked,
    order: Order,
    painter: Painter,
    numbers: Iterator[int],
    progress: Progress,
    workers: int | None,
) -> Iterator[Painted]:
    """Paint the shards of these numbers; masks are prepared ahead, also of the shard to come."""
    count = default_workers() if workers is None else workers
    shards = [masks_of(shard.specs) for shard in checked.plan.shards]
    with telling_of_killed_workers():
        progress.at("its first shard")
        for number, masks in prepared_shards(checked, shards, numbers, count):
            specs = checked.plan.shards[number].specs
            told = _telling(order.shards[number].path, shards[number], masks, progress)
            yield number, *paint_samples(checked, specs, told, painter, progress)
            progress.at("its next shard")


def _telling(
    path: str, groups: Sequence[Sequence[SampleSpec]], masks: Iterator[T], progress: Progress
) -> Iterator[T]:
    """The masks of a shard; before each is waited for, it is said which one."""
    for group in groups:
        progress.at(f"{path}, case {group[0].host.case_id}, mask {group[0].mask_id}")
        yield next(masks)


def expected_bytes(checked: Checked, specs: Sequence[SampleSpec]) -> float:
    """About how large the rows of some samples are."""
    axis = VIEW_AXIS[checked.recipe.view]
    per_pixel = _BYTES_PER_PIXEL + (_BYTES_OF_ORIGINAL if checked.recipe.keep_original else 0.0)
    if checked.recipe.release == "patch":
        per_pixel *= _SHARE_OF_PATCH
    total = 0.0
    for spec in specs:
        rows, columns = spec.host.shape[:axis] + spec.host.shape[axis + 1 :]
        total += spec.slices * rows * columns * per_pixel
    return total


def _own_device(device: str) -> str:
    """The device of this process: of several GPUs, each process on a machine takes its own."""
    if device == "cpu":  # is always there, and other errors are found faster without torch
        return device
    import torch

    own = device
    if device == "cuda" and (count := torch.cuda.device_count()):
        own = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % count}"
    try:
        torch.empty(1, device=own)
    except (RuntimeError, AssertionError) as err:  # torch raises either
        reason = str(err).split("\n")[0]
        raise ResourceError(f"--device {device}: {reason}; use cpu, or another device") from err
    return own


def _require_writable(folder: Path) -> None:
    """Make the output folder and write into it, before any work is put into what goes there.

    Raises:
        ResourceError: If it cannot be written.
    """
    make_folder(folder)
    probe = folder / ".writable"
    atomic_write(probe, b"")
    probe.unlink(missing_ok=True)


def _order(checked: Checked, final: Path, painter: Painter) -> Order:
    """The version that a recipe comes to, made by this kind of machine."""
    makers = [checked.work_id, __version__, dict(painter.numerics), writer_settings()]
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
