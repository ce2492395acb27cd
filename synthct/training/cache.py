"""The patch cache: training patches are cut once and kept on disk.

A folder with an Arrow file of training patches and one of held-out slices, named by the cache key
of their inputs and renamed into place when complete. The digests of both files are checked at
every start.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from synthct.errors import MaskError, counted
from synthct.models.patch import PatchRules
from synthct.processes.workers import map_ahead
from synthct.sources import CaseEntry, Index, label_table
from synthct.sources.keys import case_facts
from synthct.storage.cache import DamageError, check_files, warn_damaged, write_digests
from synthct.storage.defaults import default_workers
from synthct.storage.files import make_folder, resource_error, sync_file, sync_folder
from synthct.storage.keys import cache_key
from synthct.storage.lock import exclusive
from synthct.training.draw import MaskedSlice, Tally, draw_masks
from synthct.training.plan import HostJob, hold_out, plan_jobs
from synthct.training.recipe import TrainingRecipe
from synthct.training.rows import (
    PATCH_SCHEMA,
    SLICE_SCHEMA,
    PatchCache,
    patch_row,
    read_slices,
    slice_row,
)

logger = logging.getLogger(__name__)

PATCHES, HELD_OUT = "patches.arrow", "held-out.arrow"

#: Fields of a recipe that patches do not depend on. Sources and network are part of the key as the
#: index's cases and the patch rules.
_NOT_DATA: dict[str, Any] = {
    "name": True, "description": True, "licence": True, "from_checkpoint": True, "revision": True,
    "sources": True, "model": True, "noise": True, "optim": True, "sample_every": True,
    "save_every": True, "adapt": True,
    "data": {"flip", "join_masks", "label_dropout"},
    "validation": {"every", "scheduler", "num_inference_steps", "early_stopping"},
}  # fmt: skip

#: Slices of training scans in the sample strip if no patient is held out.
SAMPLES = 6


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The data of a training.

    Attributes:
        patches: What is trained on.
        slices: What is painted for validation and samples: from held-out patients if there are any.
        trained_on: The cases that patches or shapes came from.
        held_out: The cases of held-out patients.
    """

    patches: PatchCache
    slices: tuple[MaskedSlice, ...]
    trained_on: tuple[CaseEntry, ...]
    held_out: tuple[CaseEntry, ...]


def open_training_set(
    recipe: TrainingRecipe,
    index: Index,
    rules: PatchRules,
    *,
    cache_dir: Path,
    workers: int | None = None,
    progress: bool = False,
) -> TrainingSet:
    """Load patches and held-out slices from the cache, or cut them.

    Args:
        recipe: What is trained.
        index: The cases of its sources.
        rules: The patches that its network takes.
        cache_dir: Where caches are kept.
        workers: Processes that draw masks; by default one less than there are cores.
        progress: Show a progress bar.

    Raises:
        RecipeError, MaskError, SourceError: If there is nothing to train on.
        ResourceError: If the cache cannot be written.
    """
    trained_on, held_out = hold_out(recipe, index)
    jobs = plan_jobs(recipe, trained_on, masks_to_draw(recipe), "train")
    if held_out.hosts and recipe.validation is not None:
        slice_jobs = plan_jobs(recipe, held_out, recipe.validation.masks, "held-out")
    else:
        slice_jobs = plan_jobs(recipe, trained_on, SAMPLES, "samples")
    names = label_table(recipe.sources, recipe.all_labels())
    key = _key(recipe, rules, names, [*trained_on.cases, *held_out.cases])
    folder = cache_dir / "patches" / key
    if not _is_intact(folder):  # many processes check at the same time, one of them builds
        make_folder(folder.parent)
        lock = folder.with_name(f".{folder.name}.lock")
        with exclusive(lock, f"cutting of the patches of {recipe.name}", waits=True):
            if not _is_intact(folder, warn=True):
                draw = _RowMaker(recipe, rules, names)
                _build(folder, draw, jobs, slice_jobs, workers, progress)
    return TrainingSet(
        patches=PatchCache(folder / PATCHES),
        slices=read_slices(folder / HELD_OUT, rules),
        trained_on=trained_on.cases,
        held_out=held_out.cases,
    )


def masks_to_draw(recipe: TrainingRecipe) -> int:
    """How many 3D masks give the patches of a recipe, rounded up."""
    return -(-recipe.data.patches // recipe.data.patches_per_mask)


def draw_rows(
    recipe: TrainingRecipe, rules: PatchRules, names: Mapping[str, int], job: HostJob
) -> list[dict[str, Any]]:
    """The training patches of a job as rows of ``PATCH_SCHEMA``; ``names`` as in ``draw_masks``."""
    return _RowMaker(recipe, rules, names).patches(job)[0]


@dataclass(frozen=True, eq=False)
class _RowMaker:
    """Draws the masks of a job as rows of the cache's files."""

    recipe: TrainingRecipe
    rules: PatchRules
    names: Mapping[str, int]

    def patches(self, job: HostJob) -> tuple[list[dict[str, Any]], Tally]:
        """One random patch of each slice."""
        tally, rows = Tally(), []
        count = self.recipe.data.patches_per_mask
        for one, rng in draw_masks(
            self.recipe, self.rules, job, self.names, slices=count, tally=tally
        ):
            which = int(rng.integers(len(one.patches)))
            target = one.targets[which] if one.targets is not None else None
            # The first axis of a sagittal slice runs from back to front: no mirror symmetry there.
            flips = one.view != "sagittal"
            rows.append(patch_row(one.patches[which], target, one, job.host, flips=flips))
        return rows, tally

    def slices(self, job: HostJob) -> tuple[list[dict[str, Any]], Tally]:
        """One slice of each mask."""
        tally = Tally()
        drawn = draw_masks(self.recipe, self.rules, job, self.names, slices=1, tally=tally)
        return [slice_row(one) for one, _ in drawn], tally


def _build(
    folder: Path,
    draw: _RowMaker,
    jobs: Sequence[HostJob],
    slice_jobs: Sequence[HostJob],
    workers: int | None,
    progress: bool,
) -> None:
    """Draw all rows into a temporary folder and rename it."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    make_folder(temporary)
    count = default_workers() if workers is None else workers
    try:
        tally = _write(temporary / PATCHES, PATCH_SCHEMA, draw.patches, jobs, count, progress)
        _write(temporary / HELD_OUT, SLICE_SCHEMA, draw.slices, slice_jobs, count, progress=False)
        _require_some(draw.recipe, tally)
        for name in (PATCHES, HELD_OUT):
            sync_file(temporary / name)
        write_digests(temporary, (PATCHES, HELD_OUT), name=folder.name)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        temporary.rename(folder)
        sync_folder(folder.parent)
    except BaseException as err:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(err, OSError):
            raise resource_error(folder, err) from err
        raise
    megabytes = (folder / PATCHES).stat().st_size // 1_000_000
    cut = counted(tally.drawn.total(), "patch", "patches")
    logger.info("%s cut, %d MB", cut, megabytes)
    for reason, times in tally.left_out.most_common(5):
        logger.info("  %s left out: %s", counted(times, "mask"), reason)


def _write(
    path: Path, schema: pa.Schema, draw: Any, jobs: Sequence[HostJob], workers: int, progress: bool
) -> Tally:
    """Write the rows of each job, in the order of the jobs for any number of processes."""
    from tqdm import tqdm

    tally = Tally()
    drawn = map_ahead(
        lambda n: draw(jobs[n]),
        iter(range(len(jobs))),
        workers=min(workers, len(jobs)) if len(jobs) > 1 else 0,
        describe=lambda n: f"case {jobs[n].host.case_id}",
    )
    bar = tqdm(drawn, total=len(jobs), desc="patches", unit="scan", disable=not progress)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for rows, counts in bar:
            tally.drawn += counts.drawn
            tally.left_out += counts.left_out
            if rows:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    return tally


def _require_some(recipe: TrainingRecipe, tally: Tally) -> None:
    """Check that every section of masks gave patches.

    Of an adaptation only the first must: its organs are as the hosts have them.

    Raises:
        MaskError: With the commonest reason why a section gave none.
    """
    for section in recipe.masks if recipe.adapt is None else recipe.masks[:1]:
        if tally.drawn[section.name] == 0:
            own = f"{section.name}: "
            reasons = [text for text, _ in tally.left_out.most_common() if text.startswith(own)]
            reason = reasons[0] if reasons else f"{own}none was drawn"
            raise MaskError(
                f"{recipe.name}: no mask of a section could be drawn; {reason}. Change the "
                "section, or raise its weight or data.patches"
            )


def _is_intact(folder: Path, *, warn: bool = False) -> bool:
    """Whether the folder exists and its files match their digests."""
    if not folder.is_dir():
        return False
    try:
        check_files(folder)
    except DamageError as err:
        if warn:
            warn_damaged(folder, str(err))
        return False
    return True


def _key(
    recipe: TrainingRecipe,
    rules: PatchRules,
    names: Mapping[str, int],
    cases: Sequence[CaseEntry],
) -> str:
    """The cache key of patches and held-out slices."""
    data = recipe.model_dump(exclude=_NOT_DATA)
    facts = [case_facts(entry) for entry in cases]
    return cache_key(__name__, recipe=data, rules=rules, names=names, cases=facts)[:20]
