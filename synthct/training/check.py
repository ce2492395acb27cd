"""Checks a training recipe against its sources, before patches are cut."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthct.errors import counted
from synthct.models.patch import PatchRules
from synthct.sources import download, index_sources, label_table
from synthct.storage.files import make_folder, require_space
from synthct.training.cache import masks_to_draw
from synthct.training.draw import Tally, draw_masks
from synthct.training.objectives import make_objective
from synthct.training.plan import HostJob, hold_out, plan_jobs
from synthct.training.recipe import TrainingRecipe


def check_training(
    recipe: TrainingRecipe, *, cache_dir: Path, progress: bool = False
) -> dict[str, Any]:
    """Check a training recipe as far as possible without cutting its patches.

    One mask of each section is drawn and cut as a trial.

    Args:
        recipe: What is to be trained.
        cache_dir: Folder for indexes, phantoms and patches.
        progress: Show a progress bar while sources are read for the first time.

    Returns:
        What the recipe comes to, as JSON: cases, masks and patches by section, size of the patch
        cache, licence, and ``refused``: sections whose trial failed, with the reason.

    Raises:
        SynthCTError: If sources, labels, checkpoint or licence do not fit, or the disk is too
            small for the patches.
    """
    if recipe.from_checkpoint is None:
        recipe.resolved_licence()  # raises PolicyError before anything is read
    objective = make_objective(recipe)
    recipe = recipe.model_copy(update={"sources": download(recipe.sources, cache_dir)})
    index = index_sources(
        recipe.sources, recipe.all_labels(), cache_dir=cache_dir, progress=progress
    )
    trained_on, held_out = hold_out(recipe, index)
    jobs = plan_jobs(recipe, trained_on, masks_to_draw(recipe), "train")
    masks = Counter(recipe.masks[draw.section].name for job in jobs for draw in job.draws)
    size = expected_bytes(recipe, objective.rules)
    make_folder(cache_dir)
    require_space(cache_dir, size)
    names = label_table(recipe.sources, recipe.all_labels())
    base = {} if objective.base is None else objective.base.training
    return {
        "name": recipe.name,
        "paints": list(recipe.labels),
        "parameters": sum(
            p.numel() for network in objective.networks.values() for p in network.parameters()
        ),
        "steps": recipe.optim.max_steps,
        "cases": len(trained_on.hosts),
        "held_out": len(held_out.hosts),
        "masks": dict(masks),
        "patches": {name: n * recipe.data.patches_per_mask for name, n in masks.items()},
        "patch_sizes": list(objective.rules.patch_sizes),
        "depth": objective.rules.depth,
        "licence": recipe.resolved_licence(base=base.get("licence")),
        "bytes": size,
        "bytes_free": shutil.disk_usage(cache_dir).free,
        "notes": list(index.notes),
        "refused": list(_refused(recipe, objective.rules, jobs, names)),
    }


def expected_bytes(recipe: TrainingRecipe, rules: PatchRules) -> int:
    """About how large the patch cache is: an int16 and a bit for each voxel."""
    pixels = rules.patch_sizes[min(1, len(rules.patch_sizes) - 1)] ** 2 * rules.depth
    return int(recipe.data.patches * pixels * (2 + 1 / 8))


def describe_training(facts: Mapping[str, Any]) -> str:
    """The facts of a training recipe as text."""
    sizes = ", ".join(str(size) for size in facts["patch_sizes"])
    through = f" and {facts['depth']} slices" if facts["depth"] > 1 else ""
    patches = ", ".join(f"{name} {count}" for name, count in facts["patches"].items())
    lines = [
        f"{facts['name']}: {counted(facts['steps'], 'step')}, "
        f"{facts['parameters'] / 1e6:.2f} M parameters",
        f"  {'paints':<8}{', '.join(facts['paints']) or 'whatever fits'}",
        f"  {'cases':<8}{facts['cases']} to train on, {facts['held_out']} held out",
        f"  {'patches':<8}{patches}; of {sizes} pixels{through}",
        f"  {'licence':<8}{facts['licence'] or 'unknown: not to be published'}",
        f"  {'cache':<8}about {facts['bytes'] / 1e6:,.0f} MB, "
        f"{facts['bytes_free'] / 1e6:,.0f} MB are free",
    ]
    lines += [f"  note: {note}" for note in facts["notes"]]
    lines += [f"  refused: {reason}" for reason in facts["refused"]]
    return "\n".join(lines)


def _refused(
    recipe: TrainingRecipe, rules: PatchRules, jobs: Sequence[HostJob], names: Mapping[str, int]
) -> Iterator[str]:
    """Why the first mask of a section cannot be drawn and cut, for each that cannot."""
    tried: set[int] = set()
    for job in jobs:
        for draw in job.draws:
            if draw.section in tried:
                continue
            tried.add(draw.section)
            tally, one = Tally(), replace(job, draws=(draw,))
            for _ in draw_masks(recipe, rules, one, names, slices=1, tally=tally):
                pass
            yield from (f"case {job.host.case_id}: {reason}" for reason in tally.left_out)
