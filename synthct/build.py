"""From a recipe to a dataset on disk: shard by shard, resumable, the same bytes every time.

Worker processes read scans, draw masks and cut patches while this process paints, pastes and
writes. What a shard holds is fixed by the plan, and batches never cross shards, so neither the
number of workers nor an interruption changes a byte.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthct.dataset.files import atomic_write, make_folder
from synthct.dataset.manifest import release_of, write_manifest
from synthct.dataset.records import write_lock, write_recipe, write_rejected
from synthct.dataset.schema import Row
from synthct.dataset.summary import rejections, summarise
from synthct.dataset.version import commit, find_release, open_staging
from synthct.dataset.writer import (
    Rejection,
    ShardRecord,
    record_shard,
    shard_name,
    write_shard,
    writer_settings,
)
from synthct.card import CardFacts, SourceNote, attribution, dataset_card
from synthct.errors import ConflictError
from synthct.licence import licence_of
from synthct.models.checkpoint import CheckpointFiles, find_checkpoint, load_checkpoint
from synthct.patch import PatchRules
from synthct.plan import Plan, SampleSpec, Shard, plan_samples
from synthct.recipe import Recipe
from synthct.sample import CaseReader, Prepared, Refused, finish, noise_seed, prepare
from synthct.sheet import dataset_sheet
from synthct.sources import Index, index_sources, label_table
from synthct.version import __version__

if TYPE_CHECKING:
    from synthct.inpaint import Inpainter, Job

logger = logging.getLogger(__name__)

#: One thread per process: several such processes beat one with all threads, and the number of
#: threads changes low bits.
THREADS = 1

SHEET = "preview.png"


@dataclass(frozen=True, eq=False)
class Checked:
    """A recipe of which everything cheap has been checked.

    Attributes:
        recipe: The recipe.
        index: What its sources hold.
        plan: Its samples.
        label_names: Structure to value in the dataset's label maps.
        checkpoint: The files of the checkpoint, hashed.
        rules: What the checkpoint takes.
        licence: SPDX id that the dataset will have; None if a source's licence is unknown.
    """

    recipe: Recipe
    index: Index
    plan: Plan
    label_names: Mapping[str, int]
    checkpoint: CheckpointFiles
    rules: PatchRules
    licence: str | None

    @property
    def work_id(self) -> str:
        """Hash of all that the content depends on: recipe, plan, sources, checkpoint."""
        parts = [self.recipe.recipe_id, self.plan.plan_id, self.checkpoint.checkpoint_id]
        for source, entries in sorted(self.index.sources.items()):
            parts += [f"{source} {e.case_id} {e.voxel_sha256} {e.label_sha256}" for e in entries]
        return hashlib.sha256("\n".join(["synthct/work/v1", *parts]).encode()).hexdigest()


def check(
    recipe: Recipe, *, cache_dir: Path, limit: int | None = None, progress: bool = False
) -> Checked:
    """Check all of a recipe that can be checked without drawing a mask or loading weights.

    Args:
        recipe: The recipe.
        cache_dir: Where indexes and phantoms are kept.
        limit: Plan only the first so many samples.
        progress: Show a progress bar while sources are read for the first time.

    Raises:
        SynthCTError: Whatever is wrong with the sources, masks, checkpoint or licence.
    """
    wanted = recipe.wanted_labels()
    checkpoint = find_checkpoint(recipe.inpaint.checkpoint, revision=recipe.inpaint.revision)
    rules = PatchRules.from_config(checkpoint.config)
    for section in recipe.masks:
        rules.label_index(section.label)
    index = index_sources(recipe.sources, wanted, cache_dir=cache_dir, progress=progress)
    plan = plan_samples(recipe, index)
    trained_under = checkpoint.training.get("licence")
    used = [s.licence for s in recipe.sources.values()]
    licence = licence_of(
        [*used, trained_under] if trained_under else used, stated=recipe.licence
    )
    return Checked(
        recipe=recipe,
        index=index,
        plan=plan if limit is None else plan.limit(limit),
        label_names=label_table(recipe.sources, wanted),
        checkpoint=checkpoint,
        rules=rules,
        licence=licence,
    )


def build(
    recipe: Recipe,
    output: Path = Path("out"),
    *,
    cache_dir: Path | None = None,
    limit: int | None = None,
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
        workers: Processes that prepare patches; 0 prepares in this one. Changes no byte.
        device: Where the model runs.
        progress: Show progress bars.

    Returns:
        The folder of the dataset, which ``datasets.load_dataset`` reads.

    Raises:
        SynthCTError: Whatever the user can mend; nothing of an earlier version is touched.
    """
    checked = check(
        recipe, cache_dir=cache_dir or default_cache_dir(), limit=limit, progress=progress
    )
    name = recipe.version if limit is None else f"{recipe.version}-first{limit}"
    final = output / recipe.name / name
    if (release := find_release(final)) is not None:
        if release.plan_id == checked.work_id:
            logger.info("%s is there already, nothing to do", release.label)
            return final
        raise ConflictError(
            f"{final}: version {release.label} was built from another recipe, checkpoint or "
            "sources; versions never change, so give the recipe a higher version"
        )
    staging = open_staging(final, checked.work_id)
    painter = _painter(checked, device)
    shards = _shards(checked, staging.tree, staging.journal, painter, workers, progress)
    tree = staging.tree
    _write_records(checked, tree, shards, painter)
    release = release_of(
        tree, name=recipe.name, version=name, plan_id=checked.work_id, shards=shards
    )
    facts = _card_facts(checked, tree, shards)
    card = dataset_card(release, summarise(tree, shards), facts)
    atomic_write(tree / "README.md", card.encode())
    atomic_write(tree / "attribution.md", attribution(facts.sources).encode())
    folder = commit(staging, write_manifest(tree, release, shards))
    logger.info("%s %s: %d samples", recipe.name, release.label, release.rows)
    return folder


def default_cache_dir() -> Path:
    """``$SYNTHCT_CACHE``, or ``synthct`` in the user's cache folder."""
    if chosen := os.environ.get("SYNTHCT_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "synthct"


def default_workers() -> int:
    """One core is left to the model."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(4, (cores or 1) - 1))


@dataclass(frozen=True, eq=False)
class Painter:
    """The model, and what every sample's provenance says of it."""

    inpainter: Inpainter
    trained_on: frozenset[str] | None
    generation: Mapping[str, Any]
    numerics: Mapping[str, Any]


class MaskTasks:
    """The masks of some shards as a map-style dataset: item n is the n-th mask, prepared."""

    def __init__(self, checked: Checked, groups: Sequence[tuple[SampleSpec, ...]]) -> None:
        self.recipe, self.rules, self.groups = checked.recipe, checked.rules, groups
        self.reader = CaseReader(checked.label_names)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, n: int) -> Prepared | Refused:
        return prepare(self.groups[n], self.recipe, self.rules, self.reader)


def masks_of(specs: Sequence[SampleSpec]) -> list[tuple[SampleSpec, ...]]:
    """The samples by mask: those that differ in the variant only."""
    return [tuple(group) for _, group in groupby(specs, key=lambda spec: spec.mask_id)]


def prepared_masks(
    checked: Checked, groups: Sequence[tuple[SampleSpec, ...]], workers: int
) -> Iterator[Prepared | Refused]:
    """The masks in order, prepared by worker processes ahead of their use."""
    from torch.utils.data import DataLoader

    parallel: dict[str, Any] = (
        {"multiprocessing_context": "fork", "prefetch_factor": 2} if workers else {}
    )
    tasks: Any = MaskTasks(checked, groups)
    return iter(DataLoader(tasks, batch_size=None, num_workers=workers, **parallel))


def _painter(checked: Checked, device: str) -> Painter:
    from synthct.inpaint import Inpainter, numerics_class, pin_numerics

    pin_numerics(THREADS)
    asked = checked.recipe.inpaint
    inpainter = Inpainter(
        load_checkpoint(checked.checkpoint, device=device),
        scheduler=asked.scheduler,
        num_inference_steps=asked.num_inference_steps,
        batch_size=asked.batch_size,
        dtype=asked.dtype,
    )
    files = checked.checkpoint
    return Painter(
        inpainter=inpainter,
        trained_on=files.trained_on if files.training else None,
        generation={
            "method": asked.method,
            "checkpoint": files.name,
            "checkpoint_id": files.checkpoint_id,
            "revision": files.revision,
            "files": dict(files.hashes),
            "scheduler": asked.scheduler,
            "num_inference_steps": asked.num_inference_steps,
        },
        numerics=numerics_class(inpainter),
    )


def _shards(
    checked: Checked, tree: Path, journal: Path, painter: Painter, workers: int | None, bar: bool
) -> list[ShardRecord]:
    """Make every shard that is not there yet; all of them, in the order of the plan."""
    from tqdm import tqdm

    from synthct.dataset.writer import finished_shards

    names = _shard_names(checked.plan)
    done = finished_shards(journal, tree)
    todo = [(shard, name) for shard, name in names if name not in done]
    if done:
        logger.info("resumed: %d of %d shards kept", len(done), len(names))
    groups = [group for shard, _ in todo for group in masks_of(shard.specs)]
    count = default_workers() if workers is None else workers
    masks = prepared_masks(checked, groups, count)
    total = len(checked.plan.specs)
    kept = total - sum(len(shard.specs) for shard, _ in todo)
    make_folder(tree / "data")
    with tqdm(total=total, initial=kept, unit="sample", disable=None if bar else True) as progress:
        for number, (shard, name) in enumerate(todo, start=len(done) + 1):
            started = time.monotonic()
            rows, rejected = _paint_shard(checked, shard, masks, painter, progress)
            record = write_shard(
                tree,
                name,
                rows,
                split=shard.split,
                keep_original=checked.recipe.keep_original,
                rejected=rejected,
            )
            record_shard(journal, record)
            done[name] = record
            if progress.disable:
                _log_shard(number, len(names), rows, rejected, time.monotonic() - started)
    return [done[name] for _, name in names]


def _paint_shard(
    checked: Checked,
    shard: Shard,
    masks: Iterator[Prepared | Refused],
    painter: Painter,
    progress: Any,
) -> tuple[list[Row], list[Rejection]]:
    """Paint the samples of a shard, in batches as the prepared masks come in."""
    recipe = checked.recipe
    rejected: list[Rejection] = []
    waiting: dict[str, tuple[Prepared, SampleSpec]] = {}

    def jobs() -> Iterator[Job[tuple[str, int]]]:
        from synthct.inpaint import Job

        for _ in masks_of(shard.specs):
            mask = next(masks)
            if isinstance(mask, Refused):
                logger.debug("%s: %s", mask.specs[0].mask_id, mask.detail)
                rejected.extend(Rejection(s.sample_id, mask.reason) for s in mask.specs)
                progress.update(len(mask.specs))
                continue
            for spec in mask.specs:
                waiting[spec.sample_id] = mask, spec
                for n, patch in enumerate(mask.patches):
                    yield Job((spec.sample_id, n), patch, noise_seed(recipe, spec, n))

    painted: dict[str, dict[int, Any]] = {}
    rows: dict[str, Row] = {}
    for (sample_id, n), pixels in painter.inpainter.stream(jobs()):
        mask, spec = waiting[sample_id]
        pieces = painted.setdefault(sample_id, {})
        pieces[n] = pixels
        if len(pieces) < len(mask.patches):
            continue
        del waiting[sample_id], painted[sample_id]
        rows[sample_id] = finish(
            mask,
            spec,
            [pieces[i] for i in range(len(pieces))],
            recipe,
            trained_on=painter.trained_on,
            generation=painter.generation,
            numerics=painter.numerics,
        )
        progress.update()
    return [rows[s.sample_id] for s in shard.specs if s.sample_id in rows], rejected


def _shard_names(plan: Plan) -> list[tuple[Shard, str]]:
    counts: dict[str, int] = {}
    for shard in plan.shards:
        counts[shard.split] = counts.get(shard.split, 0) + 1
    return [(s, shard_name(s.split, s.index, counts[s.split])) for s in plan.shards]


def _log_shard(
    number: int, total: int, rows: Sequence[Row], rejected: Sequence[Rejection], seconds: float
) -> None:
    seams = sorted(r.metrics.seam_ratio or 0.0 for r in rows)
    logger.info(
        "shard %05d/%05d  %d samples  rejected %d  %.1f s  %.2f samples/s  seam ratio %.2f",
        number, total, len(rows), len(rejected), seconds, len(rows) / seconds,
        seams[len(seams) // 2] if seams else float("nan"),
    )  # fmt: skip


def _write_records(
    checked: Checked, tree: Path, shards: Sequence[ShardRecord], painter: Painter
) -> None:
    """Everything beside the shards and the card."""
    write_recipe(tree, checked.recipe.resolved())
    write_rejected(tree, rejections(shards))
    packages = ("torch", "diffusers", "numpy", "scipy", "pyarrow", "pillow", "nibabel")
    write_lock(
        tree,
        {
            "recipe_id": checked.recipe.recipe_id,
            "plan_id": checked.plan.plan_id,
            "sources": {
                source: [
                    {
                        "case": e.case_id,
                        "patient": e.patient_id,
                        "image_sha256": e.image_sha256,
                        "voxel_sha256": e.voxel_sha256,
                        "label_sha256": e.label_sha256,
                    }
                    for e in entries
                ]
                for source, entries in checked.index.sources.items()
            },
            "checkpoint": {
                "name": checked.checkpoint.name,
                "id": checked.checkpoint.checkpoint_id,
                "revision": checked.checkpoint.revision,
                "files": dict(checked.checkpoint.hashes),
            },
            "versions": {
                "synthct": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in packages},
            },
            "numerics": dict(painter.numerics),
            "writer": writer_settings(),
        },
    )
    sheet = dataset_sheet([tree / shard.path for shard in shards])
    if sheet is not None:
        atomic_write(tree / SHEET, sheet)


def _card_facts(checked: Checked, tree: Path, shards: Sequence[ShardRecord]) -> CardFacts:
    recipe, files = checked.recipe, checked.checkpoint
    skipped = [f"{s.source}: {s.case_id} left out: {s.reason}" for s in checked.index.skipped]
    codecs = {s.label or "default": checked.rules.codec(s.label) for s in recipe.masks}
    low, high = next(iter(codecs.values())).range_hu
    return CardFacts(
        title=recipe.name,
        licence=checked.licence,
        view=recipe.view,
        preview_window=f"that of what is painted, such as {low:g} to {high:g} HU",
        sources=[
            SourceNote(name, s.layout, s.licence, s.attribution, len(checked.index.entries(name)))
            for name, s in recipe.sources.items()
        ],
        labels=checked.label_names,
        checkpoint={
            "checkpoint": files.name,
            "id": files.checkpoint_id,
            **({"revision": files.revision} if files.revision else {}),
            "scheduler": recipe.inpaint.scheduler,
            "steps": str(recipe.inpaint.num_inference_steps),
        },
        description=recipe.description,
        picture=SHEET if (tree / SHEET).exists() else None,
        keep_original=recipe.keep_original,
        ignore=any(section.label_policy() == "ignore" for section in recipe.masks),
        notes=[*checked.plan.notes, *checked.index.notes, *skipped],
    )
