"""A recipe against what is there: all that is checked before a mask is drawn.

What costs least is checked first: the checkpoint's own config, labels and licences, and only then
the sources, of which the first look reads every scan.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from synthct.build.controls import REFERENCE_HU
from synthct.dataset.lockfile import Lock, LockedCase, LockedSource, work_id
from synthct.errors import CheckpointError
from synthct.licence import Origin, licence_of
from synthct.models.checkpoint import CheckpointFiles, find_checkpoint
from synthct.models.methods import CopyPaste, Diffusion, NoiseFill
from synthct.models.patch import PatchRules
from synthct.recipe.declared import patch_rules, unfit
from synthct.recipe.plan import Plan, plan_samples
from synthct.recipe.recipe import Recipe
from synthct.sources import Index, at_hand, index_sources, label_table
from synthct.version import __version__

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Checked:
    """A recipe of which everything cheap has been checked.

    Attributes:
        recipe: The recipe, its sources at hand.
        index: What its sources hold.
        plan: Its samples.
        label_names: Structure to value in the dataset's label maps.
        checkpoint: The files of the checkpoint, hashed; None where a control paints.
        rules: What the checkpoint takes.
        licence: SPDX id that the dataset will have; None if a source's licence is unknown.
        limit: Only the first so many samples are planned; None for all.
    """

    recipe: Recipe
    index: Index
    plan: Plan
    label_names: Mapping[str, int]
    checkpoint: CheckpointFiles | None
    rules: PatchRules | None
    licence: str | None
    limit: int | None = None

    @property
    def work_id(self) -> str:
        """Hash of all that the content depends on: recipe, plan, sources, checkpoint."""
        return work_id(
            self.recipe.recipe_id,
            self.plan.plan_id,
            None if self.checkpoint is None else self.checkpoint.checkpoint_id,
            self.locked_sources(),
        )

    def locked_sources(self) -> dict[str, LockedSource]:
        """The sources as the lock names them: every case by its hashes."""
        return {
            name: LockedSource(
                layout=section.layout,
                licence=section.licence,
                attribution=section.attribution,
                repo=getattr(section, "repo", None),
                revision=getattr(section, "revision", None),
                cases=tuple(
                    LockedCase(
                        case=entry.case_id,
                        patient=entry.patient_id,
                        image_sha256=entry.image_sha256,
                        voxel_sha256=entry.voxel_sha256,
                        label_sha256=entry.label_sha256,
                    )
                    for entry in self.index.entries(name)
                ),
            )
            for name, section in self.recipe.sources.items()
        }


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
    checkpoint = rules = None
    if isinstance(recipe.inpaint, Diffusion):
        checkpoint = _checkpoint(recipe.inpaint)
        rules = _rules(recipe, recipe.inpaint, checkpoint)
    _check_painted(recipe, rules)
    licence = _licence(recipe, checkpoint)
    logger.info(
        "synthct %s  %s %s  recipe %s  %s",
        __version__, recipe.name, recipe.version, recipe.recipe_id[:12],
        f"method {recipe.inpaint.method}" if checkpoint is None
        else f"checkpoint {checkpoint.name} {checkpoint.checkpoint_id[:12]}",
    )  # fmt: skip
    recipe = recipe.model_copy(update={"sources": at_hand(recipe.sources, cache_dir)})
    wanted = recipe.wanted_labels()
    index = index_sources(
        recipe.sources,
        wanted,
        cache_dir=cache_dir,
        lesions=recipe.wanted_lesions(),
        on_bad_case=recipe.on_bad_case,
        progress=progress,
    )
    plan = plan_samples(recipe, index)
    label_names = label_table(recipe.sources, wanted)
    _check_values(recipe, index, label_names)
    _check_relabel(recipe, label_names)
    _check_control(recipe, plan)
    return Checked(
        recipe=recipe,
        index=index,
        plan=plan if limit is None else plan.limit(limit),
        label_names=label_names,
        checkpoint=checkpoint,
        rules=rules,
        licence=licence,
        limit=limit,
    )


def _checkpoint(asked: Diffusion) -> CheckpointFiles:
    """The recipe's checkpoint; the Hub is asked only for a pinned revision.

    Raises:
        CheckpointError: If it is not there or cannot be trusted.
    """
    if asked.is_folder and not Path(asked.checkpoint).is_dir():
        raise CheckpointError(
            f"checkpoint '{asked.checkpoint}' is no folder here; correct the path, write "
            "package:starter-2d for the one that ships with synthct, or give a Hub repository "
            "with its revision"
        )
    return find_checkpoint(asked.checkpoint, revision=asked.revision)


def _rules(recipe: Recipe, asked: Diffusion, checkpoint: CheckpointFiles) -> PatchRules:
    """What the checkpoint takes.

    Raises:
        RecipeError: If the recipe says what does not go with it, or does not say what it must.
        CheckpointError: If its config makes no sense, or what reads text is not installed.
    """
    labels = [label for s in recipe.masks for label in (s.painted_labels() or (None,))]
    wanted = tuple(dict.fromkeys(labels))
    for problem in unfit(checkpoint, asked, wanted):
        raise recipe.error(problem.location, problem.message, at_key=problem.at_key)
    return patch_rules(checkpoint, asked, wanted)


def _check_painted(recipe: Recipe, rules: PatchRules | None) -> None:
    """That the checkpoint can paint each section's label, and that ``paint`` has one to paint.

    Raises:
        CheckpointError: If the checkpoint was not trained on a label.
        RecipeError: If a section is to write a label into the label map but names none.
    """
    for number, section in enumerate(recipe.masks):
        labels = section.painted_labels()
        if not labels and not section.values_by_voxel and section.label_policy() == "paint":
            message = "'paint' writes the section's label, which is missing; give it a label"
            raise recipe.error(("masks", number, "label_map"), message)
        if rules is None:
            continue
        try:
            for label in labels:
                rules.label_index(label)
        except CheckpointError as err:
            raise CheckpointError(f"masks '{section.name}': {err}") from err


def _check_values(recipe: Recipe, index: Index, label_names: Mapping[str, int]) -> None:
    """That the label map has a value for every label that a section writes into it.

    Raises:
        RecipeError: If no source numbers the label.
    """
    entries = [entry for cases in index.sources.values() for entry in cases]
    for number, section in enumerate(recipe.masks):
        if section.label_policy() != "paint":
            continue
        for label in section.painted_labels():
            if label in label_names or any(
                part in label_names for entry in entries for part in entry.unions.get(label, ())
            ):
                continue
            message = (
                f"no source numbers '{label}' (there is: {', '.join(label_names)}), so it cannot "
                "be written into the label map; use label_map: ignore"
            )
            raise recipe.error_at_label(number, label, message)


def _check_control(recipe: Recipe, plan: Plan) -> None:
    """That a control finds in the scans what it paints with.

    Raises:
        RecipeError: If donors whose voxels are to be pasted have no image, or nothing says what a
            label looks like that a host does not have.
    """
    if isinstance(recipe.inpaint, CopyPaste):
        donors = {d.case_id: d for spec in plan.specs for d in spec.donors}
        if bare := [name for name, donor in sorted(donors.items()) if donor.image is None]:
            more = f" and {len(bare) - 6} more" if len(bare) > 6 else ""
            message = (
                f"copy_paste pastes the donors' own voxels, and {len(bare)} of {len(donors)} have "
                f"no image: {', '.join(bare[:6])}{more}; add their images, leave them out with "
                "'exclude' in their source (in all arms, so that the masks stay the same), or use "
                "noise_fill"
            )
            raise recipe.error(("inpaint", "method"), message)
    if isinstance(recipe.inpaint, NoiseFill):
        known = REFERENCE_HU | recipe.inpaint.reference_hu
        labels = {section.name: section.painted_labels() for section in recipe.masks}
        for spec in plan.specs:
            shown = known.keys() | spec.host.labels.keys()
            if spec.donors and all(donor.image is not None for donor in spec.donors):
                shown |= spec.donors[0].labels.keys()
            for label in labels[spec.section]:
                if label not in shown:
                    message = (
                        f"nothing says what '{label}' looks like: host {spec.host.case_id} has "
                        "none, and not all of its donors have an image; add it, as in "
                        f"reference_hu: {{{label}: 60}}"
                    )
                    raise recipe.error(("inpaint", "method"), message)


def _check_relabel(recipe: Recipe, label_names: Mapping[str, int]) -> None:
    """That the label map has a value for each structure that the user's program labels.

    Raises:
        RecipeError: If no source numbers one.
    """
    for name in recipe.relabel.labels if recipe.relabel else ():
        if name not in label_names:
            message = f"no source numbers '{name}' (there is: {', '.join(label_names)}); leave it"
            raise recipe.error(("relabel", "labels", name), f"{message} out or rename it")


def _licence(recipe: Recipe, checkpoint: CheckpointFiles | None) -> str | None:
    """What follows from the sources and from the scans that the checkpoint was trained on."""
    origins = [Origin(f"source '{name}'", s.licence) for name, s in recipe.sources.items()]
    if checkpoint is not None:
        origins += trained_under(checkpoint)
    return licence_of(origins, stated=recipe.licence)


def trained_under(checkpoint: CheckpointFiles) -> list[Origin]:
    """The licences of a checkpoint's training data: what it says of itself, and of each scan.

    One that does not say what it was trained on is of unknown licence.
    """
    cases = checkpoint.training.get("cases") or ()
    licences = [checkpoint.training.get("licence"), *(case.get("licence") for case in cases)]
    name = f"the training data of checkpoint '{checkpoint.name}'"
    return [Origin(name, licence) for licence in dict.fromkeys(licences)]


def locked_origins(lock: Lock) -> list[Origin]:
    """What a finished dataset was made from: its sources and its checkpoint's training data."""
    origins = [Origin(f"source '{name}'", one.licence) for name, one in lock.sources.items()]
    if (used := lock.checkpoint) is not None:
        trained = f"the training data of checkpoint '{used.name}'"
        origins += [Origin(trained, licence) for licence in (used.licence, *used.licences)]
    return origins
