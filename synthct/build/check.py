"""Checks a recipe against its checkpoint and sources, before a mask is drawn.

The cheapest checks come first: the checkpoint's own config, labels and licences, and only then the
sources, whose scans are all read the first time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from synthct.build.controls import require_paint
from synthct.build.copies import training_copies
from synthct.dataset.lockfile import Lock, LockedCase, LockedSource, work_id
from synthct.dataset.verdicts import Verdict, read_verdicts
from synthct.errors import CheckpointError
from synthct.licence import Origin, licence_of
from synthct.models.checkpoint import find_checkpoint
from synthct.models.methods import Diffusion
from synthct.models.network import CheckpointFiles, described
from synthct.models.patch import PatchRules
from synthct.recipe.checkpoint_settings import setting_problems
from synthct.recipe.plan import Plan, plan_samples
from synthct.recipe.recipe import Recipe
from synthct.recipe.volumes import host_problem
from synthct.sources import Index, download, index_sources, label_table
from synthct.storage.files import sha256_of
from synthct.version import __version__
from synthct.volume import is_sheared
from synthct.volume.views import VIEW_AXIS, plane_of

logger = logging.getLogger(__name__)

#: Over which length noise stays alike through the slices, unless a recipe says otherwise.
SLICE_NOISE_MM = 20.0


@dataclass(frozen=True, eq=False)
class Checked:
    """A recipe that has passed every check that needs no mask and no weights.

    Attributes:
        recipe: The recipe, its sources on this machine.
        index: The cases of its sources.
        plan: Its samples.
        label_names: Structure to value in the dataset's label maps.
        checkpoint: The files of the checkpoint, hashed; None where a control paints.
        rules: The patches that the checkpoint takes; None where a control paints.
        licence: SPDX id of the dataset; None if a source's licence is unknown.
        limit: Only the first so many samples are planned; None for all.
        verdicts: What was decided of samples in an earlier version.
    """

    recipe: Recipe
    index: Index
    plan: Plan
    label_names: Mapping[str, int]
    checkpoint: CheckpointFiles | None
    rules: PatchRules | None
    licence: str | None
    limit: int | None = None
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)

    @cached_property
    def trained_on(self) -> frozenset[str] | None:
        """Voxel hashes of the model's training scans; None if it does not say which they were."""
        if self.checkpoint is None:  # a control was trained on nothing
            return frozenset()
        return self.checkpoint.trained_on if self.checkpoint.training else None

    @property
    def slice_noise_mm(self) -> float:
        """Over which length the noise of a volume stays alike through its slices; 0 for none."""
        inpaint, files, rules = self.recipe.inpaint.network, self.checkpoint, self.rules
        if inpaint is None or files is None or rules is None:
            return 0.0
        if inpaint.slice_noise_mm is not None:
            return inpaint.slice_noise_mm
        return SLICE_NOISE_MM if files.network.takes_noise and not rules.neighbours else 0.0

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
    recipe: Recipe,
    *,
    cache_dir: Path,
    limit: int | None = None,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> Checked:
    """Check a recipe as far as possible without drawing a mask or loading weights.

    Args:
        recipe: What is to be built.
        cache_dir: Folder for indexes and phantoms.
        limit: Plan only the first so many samples.
        checkpoint: The adapted checkpoint of a recipe with ``inpaint.adapt``.
        progress: Show a progress bar while sources are read for the first time.

    Raises:
        SynthCTError: If something is wrong with the sources, masks, checkpoint or licence.
    """
    verdicts = _verdicts(recipe)
    files = rules = None
    if (inpaint := recipe.inpaint.network) is not None:
        files = _checkpoint(inpaint, checkpoint)
        rules = _rules(recipe, inpaint, files)
        if not files.network.takes_steps:
            recipe = recipe.model_copy(update={"inpaint": inpaint.in_one_pass()})
    _check_painted(recipe, rules)
    training_copies(recipe, files)  # raises RecipeError without an index
    _check_slices(recipe, files, rules)
    logger.info(
        "synthct %s  %s %s  recipe %s  %s",
        __version__, recipe.name, recipe.version, recipe.recipe_id[:12],
        f"method {recipe.inpaint.method}" if files is None
        else f"checkpoint {files.name} {files.checkpoint_id[:12]}",
    )  # fmt: skip
    recipe = recipe.model_copy(update={"sources": download(recipe.sources, cache_dir)})
    licence = _licence(recipe, files)
    wanted = recipe.all_labels()
    index = index_sources(
        recipe.sources,
        wanted,
        cache_dir=cache_dir,
        lesions=recipe.donor_lesions(),
        on_bad_case=recipe.on_bad_case,
        progress=progress,
    )
    plan = plan_samples(recipe, index)
    label_names = label_table(recipe.sources, wanted, recipe.label_values)
    _check_values(recipe, index, label_names)
    _check_relabel(recipe, label_names)
    _check_planes(recipe, plan)
    require_paint(recipe, plan)
    return Checked(
        recipe=recipe,
        index=index,
        plan=plan if limit is None else plan.limit(limit),
        label_names=label_names,
        checkpoint=files,
        rules=rules,
        licence=licence,
        limit=limit,
        verdicts=verdicts,
    )


def _verdicts(recipe: Recipe) -> dict[str, Verdict]:
    """What the recipe's ``review`` decides, by sample.

    Raises:
        RecipeError: If its table is damaged, or another one than the recipe says.
        ResourceError: If it cannot be read.
    """
    if (review := recipe.review) is None:
        return {}
    path = Path(review.table)
    found = sha256_of(path)
    if review.sha256 not in (None, found):
        raise recipe.error(
            ("review", "sha256"),
            f"{path} has sha256 {found}, the recipe says {review.sha256}; use the table that "
            "belongs to it, or remove sha256",
        )
    return read_verdicts(path)


def _checkpoint(inpaint: Diffusion, adapted: Path | None) -> CheckpointFiles:
    """The recipe's checkpoint, or what was made of it; the Hub is asked only for a pinned revision.

    Raises:
        CheckpointError: If it is not there or cannot be trusted.
    """
    if adapted is not None:
        files = find_checkpoint(str(adapted))
        return replace(files, name=str(files.training.get("name", files.name)))
    if inpaint.is_folder and not Path(inpaint.checkpoint).is_dir():
        raise CheckpointError(
            f"checkpoint '{inpaint.checkpoint}' is no folder here; correct the path, write "
            "package:starter-2d for the one that ships with synthct, or give a Hub repository "
            "with its revision"
        )
    return find_checkpoint(inpaint.checkpoint, revision=inpaint.revision)


def require_adapted(checked: Checked) -> None:
    """Make sure that a recipe with ``inpaint.adapt`` is painted with a checkpoint adapted for it.

    Raises:
        RecipeError: If the checkpoint is not, or not yet.
    """
    inpaint, files = checked.recipe.inpaint.network, checked.checkpoint
    if inpaint is None or files is None or inpaint.adapt is None:
        return
    wanted, training = inpaint.adapt.model_dump(), files.training
    if training.get("adapted") != wanted or training.get("steps") != inpaint.adapt.steps:
        raise checked.recipe.error(
            ("inpaint", "adapt"),
            f"checkpoint '{files.name}' has not been adapted to the hosts in {inpaint.adapt.steps} "
            "steps; 'synthct build' does that first, and keeps it below 'adapted' in the cache "
            "folder, 'synthct adapt' does it alone; give that checkpoint (--checkpoint)",
        )


def _rules(recipe: Recipe, inpaint: Diffusion, checkpoint: CheckpointFiles) -> PatchRules:
    """The patches that the checkpoint takes.

    Raises:
        RecipeError: If a setting does not go with the checkpoint, or one that it needs is missing.
        CheckpointError: If its config makes no sense, or a package is missing.
    """
    painted = [label for s in recipe.masks for label in (s.painted_labels() or (None,))]
    labels = tuple(dict.fromkeys(painted))
    for problem in setting_problems(checkpoint, inpaint, labels):
        raise recipe.error(problem.location, problem.message, at_key=problem.at_key)
    return checkpoint.network.rules(checkpoint, inpaint, labels)


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


def _check_slices(
    recipe: Recipe, checkpoint: CheckpointFiles | None, rules: PatchRules | None
) -> None:
    """How slices of a volume come to fit each other; warns where nothing but noise sees to it.

    Raises:
        RecipeError: If noise is to stay alike through slices, and there are none or it cannot, or
            if a network in 3D is to paint slices.
    """
    inpaint = recipe.inpaint.network
    if inpaint is None or checkpoint is None or rules is None:
        return
    if inpaint.slice_noise_mm is not None:
        where, message = ("inpaint", "slice_noise_mm"), ""
        if recipe.view != "volume":
            message = f"is for 'view: volume', not '{recipe.view}'; remove it"
        elif inpaint.slice_noise_mm and not checkpoint.network.takes_noise:
            message = f"{described(checkpoint)}, which draws its own noise; remove it"
        if message:
            raise recipe.error(where, f"slice_noise_mm {message}")
    if rules.depth > 1 and recipe.view != "volume":
        message = f"{described(checkpoint)} and paints no slices: use 'view: volume'"
        raise recipe.error(("view",), message)
    if recipe.view == "volume" and rules.depth == 1 and not rules.neighbours:
        logger.warning(
            "%s, which does not take the slices beside the one it paints: slices of a volume may "
            "not fit each other (see z_jump_ratio); a checkpoint with 'neighbours: 2' is",
            described(checkpoint),
        )


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
            named = any(hasattr(source, "label_names") for source in recipe.sources.values())
            value = "give it a value in the source's label_names, or " if named else ""
            message = (
                f"no source numbers '{label}' (there is: {', '.join(label_names)}), so it cannot "
                f"be written into the label map; {value}use label_map: ignore"
            )
            raise recipe.error_at_label(number, label, message)


def _check_relabel(recipe: Recipe, label_names: Mapping[str, int]) -> None:
    """That the label map has a value for each structure that the user's program labels.

    Raises:
        RecipeError: If no source numbers one.
    """
    for name in recipe.relabel.labels if recipe.relabel else ():
        if name not in label_names:
            message = f"no source numbers '{name}' (there is: {', '.join(label_names)}); leave it"
            raise recipe.error(("relabel", "labels", name), f"{message} out or rename it")


def _check_planes(recipe: Recipe, plan: Plan) -> None:
    """That the slices have right angles: models and measures know a spacing of two axes only.

    Raises:
        RecipeError: If a host is sheared within the slices of the view, or is no volume.
    """
    for host in {spec.host.case_id: spec.host for spec in plan.specs}.values():
        plane = plane_of(recipe.view, host.spacing_mm)
        axis = VIEW_AXIS[plane]
        if problem := host_problem(recipe, host):
            raise recipe.error(("view",), problem)
        if is_sheared(np.delete(host.affine[:3, :3], axis, axis=1)):
            raise recipe.error(
                ("view",),
                f"case {host.case_id} of source '{host.source}' is sheared (tilted gantry), so its "
                f"{plane} slices have no right angles and lengths in them would be wrong; "
                "use another view, exclude the case, or resample it to a grid of right angles",
            )


def _licence(recipe: Recipe, checkpoint: CheckpointFiles | None) -> str | None:
    """The licence that follows from the sources and the checkpoint's training scans."""
    origins = [Origin(f"source '{name}'", s.licence) for name, s in recipe.sources.items()]
    if checkpoint is not None:
        origins += trained_under(checkpoint)
    return licence_of(origins, stated=recipe.licence)


def trained_under(checkpoint: CheckpointFiles) -> list[Origin]:
    """The licences of a checkpoint's training data: of the whole, and of each scan.

    None, unknown, for a checkpoint that does not state its training data.
    """
    cases = checkpoint.training.get("cases") or ()
    licences = [checkpoint.training.get("licence"), *(case.get("licence") for case in cases)]
    name = f"the training data of checkpoint '{checkpoint.name}'"
    return [Origin(name, licence) for licence in dict.fromkeys(licences)]


def locked_origins(lock: Lock) -> list[Origin]:
    """The origins of a finished dataset: its sources and its checkpoint's training data."""
    origins = [Origin(f"source '{name}'", one.licence) for name, one in lock.sources.items()]
    if (used := lock.checkpoint) is not None:
        trained = f"the training data of checkpoint '{used.name}'"
        origins += [Origin(trained, licence) for licence in (used.licence, *used.licences)]
    return origins
