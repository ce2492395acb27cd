"""A short training of a recipe's checkpoint on the recipe's own hosts.

Whoever builds has the hosts at hand, and a checkpoint that has seen their scanner and kernel paints
what belongs to them. The training is the usual one, on a training recipe that follows from the
dataset's: masks at random in tissue, and the organs that the dataset paints.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthct import seeds
from synthct.errors import CheckpointError, MaskError, RecipeError, counted
from synthct.masks.blob import TISSUE_HU
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.grain import with_grain
from synthct.models.methods import Adapt, Diffusion
from synthct.models.network import CheckpointFiles, described
from synthct.models.painting import Inpainter
from synthct.models.patch import CONTEXT_PX
from synthct.models.region import paste
from synthct.recipe.plan import plan_samples
from synthct.recipe.recipe import Recipe
from synthct.recipe.yaml_model import Document
from synthct.sources import CaseEntry, Index, download, index_sources
from synthct.sources.keys import case_facts
from synthct.storage.cache import warn_damaged
from synthct.storage.keys import cache_key
from synthct.training.cache import TrainingSet, open_training_set
from synthct.training.loop import train
from synthct.training.overlay import apply_checkpoint
from synthct.training.recipe import TrainingRecipe
from synthct.training.rows import PatchCache
from synthct.training.validate import Measures, measure_painted, range_of

logger = logging.getLogger(__name__)

#: Patches per step, masks that are measured, and share of the hosts' patients that is held out.
BATCH, MEASURED, HELD_OUT = 8, 24, 0.2

#: Patches that are cut at most, so that more steps see them again, and steps for which they are at
#: least enough.
_PATCHES, _LEAST_STEPS = 2000, 8

#: Radii of the random masks in mm, where the patches are large enough for them.
_RADIUS_MM = (8.0, 28.0)

#: Patches that are looked at, and the share of their masks that may lie outside the codec's range.
_LOOKED_AT, _OUTSIDE = 64, 0.9


@dataclass(frozen=True)
class Adapted:
    """What came of an adaptation.

    Attributes:
        folder: The checkpoint.
        steps: Steps that it has been trained for; less than asked for where time was up.
        before: Measures of the checkpoint that it started from.
        after: Measures of the adapted one, on the same masks with the same noise.
        notes: What the user should know, such as that nobody was held out.
    """

    folder: Path
    steps: int
    before: Measures
    after: Measures
    notes: tuple[str, ...]


def adapt(
    recipe: Recipe,
    output: Path,
    *,
    settings: Adapt,
    cache_dir: Path,
    device: str | None = None,
    workers: int | None = None,
    max_seconds: float | None = None,
    progress_bar: bool = False,
) -> Adapted:
    """Adapt the checkpoint of a recipe to its hosts; run again with the same output to go on.

    Args:
        recipe: The dataset's recipe.
        output: Folder for states, log and ``checkpoint``.
        settings: Steps, and whether test patients are trained on.
        cache_dir: Where indexes, phantoms and patches are cached.
        device: ``cpu`` to ignore a GPU; by default Accelerate chooses.
        workers: Processes that cut patches.
        max_seconds: Stop training after this time and save; a later run takes the remaining steps.
        progress_bar: Show progress while patches are cut.

    Raises:
        RecipeError: If there is nothing to adapt, or no time.
        MaskError: If the hosts show no tissue that the checkpoint can express.
        CheckpointError, SourceError, PolicyError, ResourceError: As in ``train``.
    """
    if max_seconds is not None and max_seconds <= 0:
        raise RecipeError(f"{max_seconds / 60:g} minutes leave no time for a step; give more")
    plan = _plan(recipe, settings, cache_dir)
    training, notes = plan.training, list(plan.notes)
    data = open_training_set(
        training,
        plan.index,
        training.rules,
        cache_dir=cache_dir,
        workers=workers,
        progress=progress_bar,
    )
    _require_tissue(data.patches, training.name)
    if not data.held_out:
        notes.append(
            "the hosts are of one patient, so nobody is held out: the measures are of tissue that "
            "was trained on"
        )
    folder = train(
        training,
        output,
        cache_dir=cache_dir,
        device=device,
        workers=workers,
        max_seconds=max_seconds,
        progress_bar=progress_bar,
        index=plan.index,
    )
    adapted = find_checkpoint(str(folder))
    steps = int(adapted.training["steps"])
    if steps < settings.steps:
        notes.append(
            f"time was up after {steps} of {counted(settings.steps, 'step')}; run again to go on"
        )
    before, after = (measure(one, plan.inpaint, data, recipe.seed) for one in (plan.base, adapted))
    return Adapted(folder, steps, before, after, tuple(notes))


def folder_for(recipe: Recipe, settings: Adapt, cache_dir: Path) -> Path:
    """Where the adaptation of a build is kept: named by all that its weights follow from.

    Args:
        recipe: The dataset's recipe.
        settings: Its section ``adapt``.
        cache_dir: Where caches are kept.

    Raises:
        RecipeError, CheckpointError, SourceError, PolicyError: As in ``adapt``.
    """
    plan = _plan(recipe, settings, cache_dir)
    key = cache_key(
        __name__,
        training=plan.training.model_dump(mode="json", exclude={"sources", "from_checkpoint"}),
        base=plan.base.checkpoint_id,
        cases=[case_facts(entry) for entry in plan.index.entries("hosts")],
    )
    return cache_dir / "adapted" / key[:20]


def finished(folder: Path, settings: Adapt) -> bool:
    """Whether the adaptation in a folder has taken all its steps.

    A damaged checkpoint is told and deleted: the adaptation's states lead to the same one again.
    """
    checkpoint = folder / "checkpoint"
    if not checkpoint.is_dir():
        return False
    try:
        return bool(find_checkpoint(str(checkpoint)).training["steps"] == settings.steps)
    except (CheckpointError, KeyError) as err:
        warn_damaged(checkpoint, str(err))
        shutil.rmtree(checkpoint)
        return False


@dataclass(frozen=True, eq=False)
class _Plan:
    """What an adaptation starts from."""

    inpaint: Diffusion
    base: CheckpointFiles
    training: TrainingRecipe
    index: Index
    notes: tuple[str, ...]


def _plan(recipe: Recipe, settings: Adapt, cache_dir: Path) -> _Plan:
    """Check what can be checked before a patch is cut."""
    inpaint = recipe.inpaint.network
    if inpaint is None:
        message = f"{recipe.inpaint.method} has no checkpoint, so there is nothing to adapt"
        raise recipe.error(("inpaint", "method"), message)
    base = find_checkpoint(inpaint.checkpoint, revision=inpaint.revision)
    if base.network.section is None:
        message = f"{described(base)}, which paints but cannot be trained on here; remove adapt"
        raise recipe.error(("inpaint", "checkpoint"), message)
    recipe = recipe.model_copy(update={"sources": download(recipe.sources, cache_dir)})
    index = index_sources(
        recipe.sources,
        recipe.all_labels(),
        cache_dir=cache_dir,
        lesions=recipe.donor_lesions(),
        on_bad_case=recipe.on_bad_case,
    )
    hosts, notes = _hosts(recipe, index, settings)
    training = training_recipe(recipe, base, hosts, settings)
    training.resolved_licence(base=base.training.get("licence"))  # raises PolicyError
    return _Plan(inpaint, base, training, Index({"hosts": tuple(hosts)}), tuple(notes))


def training_recipe(
    recipe: Recipe, base: CheckpointFiles, hosts: Sequence[CaseEntry], settings: Adapt
) -> TrainingRecipe:
    """The training that a dataset's recipe asks for.

    Args:
        recipe: The dataset's recipe.
        base: Its checkpoint.
        hosts: The scans to train on.
        settings: Steps, and whether test patients are trained on.
    """
    inpaint = recipe.inpaint.network
    assert inpaint is not None, "only networks are adapted"
    config = base.configs[base.network.layout.components[0].name]
    shown = {label for host in hosts for label in host.labels}
    painted = dict.fromkeys(label for one in recipe.masks for label in one.painted_labels())
    organs = [label for label in painted if label in shown and label in config["labels"]]
    high = min(_RADIUS_MM[1], _largest_radius_mm(config, hosts))
    extent = {"max_extent_mm": 3 * high, "weight": 1}
    # Paint without grain gets that of its surroundings; without that, the network must know it.
    grain = {"grain": {"painted": False, "noise_share": 0, "blur_share": 0}}
    fields: dict[str, Any] = {
        "name": f"{recipe.name[:52]}-adapted",
        "description": f"{base.name}, adapted to the hosts of {recipe.name}.",
        "seed": recipe.seed,
        "from_checkpoint": inpaint.checkpoint,
        "revision": inpaint.revision,
        "sources": {"hosts": recipe.sources["hosts"]},
        "masks": [
            {"name": "tissue", "kind": "blob", "radius_mm": [high / 3.5, high], "weight": 2},
            *({"name": label, "kind": "organ", "label": label, **extent} for label in organs),
        ],
        # A judge takes thrice the time, and must first learn what it judges.
        "noise": {k: v for k, v in base.training.get("noise", {}).items() if k != "adversarial"},
        "data": {
            "views": {recipe.plane: 1},
            "patches": min(_PATCHES, BATCH * max(settings.steps, _LEAST_STEPS)),
            "patches_per_mask": 4,
            "attenuation_jitter": 0.02,
            "label_dropout": 0.1 if config.get("guided") else 0,
            **(grain if inpaint.grain == "surroundings" else {}),
        },
        "optim": {
            "max_steps": settings.steps,
            "batch_size": BATCH,
            "learning_rate": 1e-4,
            "warmup_steps": min(20, settings.steps // 4),
            "decay_steps": settings.steps // 2,
            "ema_decay": 0.99,
        },
        "validation": {"share": HELD_OUT, "every": settings.steps, "masks": MEASURED},
        "sample_every": settings.steps,
        "save_every": max(1, min(25, settings.steps // 4)),
        "adapt": settings.model_dump(),
    }
    document = Document(f"adaptation of {recipe.name}", fields)
    apply_checkpoint(document, base)
    return TrainingRecipe.model_validate(document.value)


def measure(files: CheckpointFiles, inpaint: Diffusion, data: TrainingSet, seed: int) -> Measures:
    """Paint the held-out slices as a build does, with grain, and measure them.

    Args:
        files: The checkpoint.
        inpaint: The dataset's settings.
        data: Slices, and their patches.
        seed: Of noise and grain.
    """
    checkpoint = load_checkpoint(files)
    labels = checkpoint.files.network.rules(files, inpaint, ()).labels
    inpainter = Inpainter(checkpoint, inpaint, labels)
    patches = [patch for one in data.slices for patch in one.patches]
    noise = [seeds.derive_seed(seed, "adapt", str(n)) for n in range(len(patches))]
    pixels = iter(inpainter.paint(patches, noise))
    painted = []
    for number, one in enumerate(data.slices):
        own = [next(pixels) for _ in one.patches]
        pasted = paste(one.plane, one.region, one.patches, own)
        if inpaint.grain == "surroundings":
            rng = seeds.generator(seed, "adapt-grain", str(number))
            pasted, _ = with_grain(one.plane, pasted, one.region, range_of(one), rng)
        painted.append(pasted)
    return measure_painted(data.slices, painted)


def report(adapted: Adapted) -> str:
    """Before and after as a small table, with the notes."""
    rows = [("mean absolute error, HU", "mae_hu"), ("error of the mean, HU", "mean_error_hu")]
    rows += [("texture ratio", "texture_ratio"), ("seam ratio", "seam_ratio")]
    lines = [f"{'on held-out slices':<26}{'before':>8}{'after':>8}"]
    for title, name in rows:
        before, after = getattr(adapted.before, name), getattr(adapted.after, name)
        lines.append(f"{title:<26}{before:>8.2f}{after:>8.2f}")
    return "\n".join([*lines, *(f"note: {note}" for note in adapted.notes)])


def _hosts(recipe: Recipe, index: Index, settings: Adapt) -> tuple[list[CaseEntry], list[str]]:
    """The hosts to train on, and what is to be said of those left out or not."""
    splits = plan_samples(recipe, index).splits
    scans = [one for one in index.entries("hosts") if one.image is not None]
    test = {one.patient_id for one in scans if splits.get(one.patient_id) == "test"}
    if settings.include_test:
        told = [f"scans of {len(test)} test patients are trained on, as asked"] if test else []
        return scans, told
    kept = [one for one in scans if one.patient_id not in test]
    if not kept:
        raise recipe.error(
            ("splits",),
            "every host is of a test patient, so there is none to adapt to; set "
            "inpaint.adapt.include_test to true to use them all the same",
        )
    return kept, [f"scans of {len(test)} test patients are not used"] if test else []


def _largest_radius_mm(config: Any, hosts: Sequence[CaseEntry]) -> float:
    """The largest radius whose mask, with its context, fits the largest patch on most hosts."""
    spacing = float(np.median([min(host.spacing_mm[:2]) for host in hosts]))
    inside = max(config["patch_sizes"]) - 2 * CONTEXT_PX
    return max(2.0, inside * spacing / 2)


def _require_tissue(patches: PatchCache, name: str) -> None:
    """Make sure that the masks show something that the codec can express.

    Raises:
        MaskError: If nearly all of what is to be learnt lies outside its range.
    """
    outside = []
    for row in np.linspace(0, len(patches) - 1, min(_LOOKED_AT, len(patches))).astype(int):
        patch = patches.patch(int(row))
        outside.append(float((np.abs(patch.image[patch.mask]) >= 0.999).mean()))
    share = float(np.mean(outside))
    if share > _OUTSIDE:
        raise MaskError(
            f"{name}: {share:.0%} of the hosts' tissue (above {TISSUE_HU} HU) lies outside the "
            "range of the checkpoint's codec; check that the scans are CT in HU, or take another "
            "checkpoint"
        )
