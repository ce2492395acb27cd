"""The patch cache: training patches cut once and kept on disk.

One Arrow file of training patches and one of held-out slices, in a folder named by the key of all
that they are computed from. The folder appears under its name when it is whole. The digests of
both files are kept beside them and checked at every start: at over 1 GB/s, with pages that the
training reads anyway.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from synthct.errors import MaskError
from synthct.models.patch import PatchRules
from synthct.processes.workers import map_ahead
from synthct.sources import CaseEntry, Index, label_table
from synthct.sources.keys import case_facts
from synthct.storage.cache import DamageError, check_files, warn_damaged, write_digests
from synthct.storage.defaults import default_workers
from synthct.storage.files import make_folder, resource_error, sync_file, sync_folder
from synthct.storage.keys import cache_key
from synthct.storage.lock import exclusive
from synthct.training.draw import MaskedSlice, Tally, draw_unit
from synthct.training.plan import Unit, hold_out, plan_units
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

#: What of a recipe patches do not follow from, beside its sources and its network: these come in
#: as the cases that the index has and as the rules of patches.
_NOT_DATA: dict[str, Any] = {
    "name": True, "description": True, "licence": True, "from_checkpoint": True, "revision": True,
    "sources": True, "model": True, "noise": True, "optim": True, "sample_every": True,
    "save_every": True,
    "data": {"flip", "join_masks", "label_dropout"},
    "validation": {"every", "scheduler", "num_inference_steps", "early_stopping"},
}  # fmt: skip

#: Slices drawn from training scans for the sample strip where nobody is held out.
SAMPLES = 6


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What a training works on.

    Attributes:
        patches: To train on.
        slices: To paint, from patients that are held out; from the others if nobody is.
        trained_on: The cases that patches or shapes came from.
        held_out: The cases that are held out.
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
    """The patches and held-out slices of a recipe, cut now unless they are in the cache.

    Args:
        recipe: The recipe.
        index: Its sources.
        rules: What its network takes.
        cache_dir: Where caches are kept.
        workers: Processes that draw masks; by default as many as cores but one.
        progress: Show a progress bar.

    Raises:
        RecipeError, MaskError, SourceError: If there is nothing to train on.
        ResourceError: If the cache cannot be written.
    """
    cast, held = hold_out(recipe, index)
    visits = -(-recipe.data.patches // recipe.data.patches_per_mask)
    units = plan_units(recipe, cast, visits, "train")
    if held.hosts and recipe.validation is not None:
        shown = plan_units(recipe, held, recipe.validation.masks, "held-out")
    else:
        shown = plan_units(recipe, cast, SAMPLES, "samples")
    names = label_table(recipe.sources, recipe.wanted_labels)
    folder = cache_dir / "patches" / _key(recipe, rules, names, [*cast.cases, *held.cases])
    if not _is_intact(folder):  # many processes check at the same time, one of them builds
        make_folder(folder.parent)
        lock = folder.with_name(f".{folder.name}.lock")
        with exclusive(lock, f"cutting of the patches of {recipe.name}", waits=True):
            if not _is_intact(folder, warn=True):
                draw = _Draw(recipe, rules, names)
                _build(folder, draw, units, shown, workers, progress)
    return TrainingSet(
        patches=PatchCache(folder / PATCHES),
        slices=read_slices(folder / HELD_OUT, rules),
        trained_on=cast.cases,
        held_out=held.cases,
    )


@dataclass(frozen=True, eq=False)
class _Draw:
    """Draws what a unit comes to, ready to be written."""

    recipe: TrainingRecipe
    rules: PatchRules
    names: Mapping[str, int]

    def patches(self, unit: Unit) -> tuple[list[dict[str, Any]], Tally]:
        """One patch of each slice, as rows."""
        tally, rows = Tally(), []
        count = self.recipe.data.patches_per_mask
        for one, rng in draw_unit(
            self.recipe, self.rules, unit, self.names, slices=count, tally=tally
        ):
            patch = one.patches[int(rng.integers(len(one.patches)))]
            # The first axis of a sagittal slice runs from back to front: no mirror symmetry there.
            rows.append(patch_row(patch, flips=one.view != "sagittal"))
        return rows, tally

    def slices(self, unit: Unit) -> tuple[list[dict[str, Any]], Tally]:
        """The slices themselves, as rows."""
        tally = Tally()
        drawn = draw_unit(self.recipe, self.rules, unit, self.names, slices=1, tally=tally)
        return [slice_row(one) for one, _ in drawn], tally


def _build(
    folder: Path,
    draw: _Draw,
    units: Sequence[Unit],
    shown: Sequence[Unit],
    workers: int | None,
    progress: bool,
) -> None:
    """Draw everything and commit the folder by renaming it."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    make_folder(temporary)
    count = default_workers() if workers is None else workers
    try:
        tally = _write(temporary / PATCHES, PATCH_SCHEMA, draw.patches, units, count, progress)
        _write(temporary / HELD_OUT, SLICE_SCHEMA, draw.slices, shown, count, progress=False)
        total = sum(tally.drawn.values())
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
    logger.info("%d patches cut, %d MB", total, (folder / PATCHES).stat().st_size // 1_000_000)
    for reason, times in tally.left_out.most_common(5):
        logger.info("  %d masks left out: %s", times, reason)


def _write(
    path: Path, schema: pa.Schema, draw: Any, units: Sequence[Unit], workers: int, progress: bool
) -> Tally:
    """Write what is drawn of each unit, in their order whatever the number of processes."""
    from tqdm import tqdm

    tally = Tally()
    drawn = map_ahead(
        lambda n: draw(units[n]),
        iter(range(len(units))),
        workers=min(workers, len(units)) if len(units) > 1 else 0,
        describe=lambda n: f"case {units[n].host.case_id}",
    )
    bar = tqdm(drawn, total=len(units), desc="patches", unit="scan", disable=not progress)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for rows, counts in bar:
            tally.drawn += counts.drawn
            tally.left_out += counts.left_out
            if rows:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    return tally


def _require_some(recipe: TrainingRecipe, tally: Tally) -> None:
    """Every section must have given something to learn.

    Raises:
        MaskError: With the commonest reason why a section gave nothing.
    """
    for section in recipe.masks:
        if tally.drawn[section.name] == 0:
            mine = Counter(
                {k: n for k, n in tally.left_out.items() if k.startswith(f"{section.name}: ")}
            )
            reason = mine.most_common(1)[0][0] if mine else f"{section.name}: none was drawn"
            raise MaskError(
                f"{recipe.name}: no mask of a section could be drawn; {reason}. Change the "
                "section, or raise its weight or data.patches"
            )


def _is_intact(folder: Path, *, warn: bool = False) -> bool:
    """Whether the folder is there with every byte."""
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
    """The key of patches and held-out slices."""
    data = recipe.model_dump(exclude=_NOT_DATA)
    facts = [case_facts(entry) for entry in cases]
    return cache_key(__name__, recipe=data, rules=rules, names=names, cases=facts)[:20]
