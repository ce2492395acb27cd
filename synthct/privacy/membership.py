"""Does a checkpoint's loss tell who was trained on? A membership test of its patches.

The network denoises patches of trained and of other patients, drawn in the same way, under the same
noise at the same levels; a lower loss is taken for a member (Carlini et al. 2023; Matsumoto et al.
2023). Patients of other scanners differ too, so a test is as good as its other patients are alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from synthct import seeds
from synthct.dataset.privacy.results import Interval, Membership, Side
from synthct.errors import CheckpointError, SourceError, counted
from synthct.models.checkpoint import PACKAGE_PREFIX, find_checkpoint
from synthct.models.network import CheckpointFiles
from synthct.sources import CaseEntry, download, index_sources, label_table
from synthct.training.cache import draw_rows
from synthct.training.data import collate
from synthct.training.objectives import make_objective
from synthct.training.plan import CaseSet, plan_jobs
from synthct.training.recipe import TrainingRecipe, load_training_recipe
from synthct.training.rows import PATCH_SCHEMA, CachedPatch, PatchCache
from synthct.version import __version__

logger = logging.getLogger(__name__)

#: Draws of noise and its level, the same for every patch; times that patients are drawn again.
LEVELS, RESAMPLED = 8, 500

#: Fewer patients on a side give no interval over patients; it is over patches then, too narrow.
LEAST_PATIENTS = 5

#: Share of others that may be taken for members.
FALSE_POSITIVES = 0.01

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AttackOptions:
    """Options of a membership test.

    Attributes:
        training: The recipe that the checkpoint was trained with; its sources must have scans of
            other patients too.
        roots: Source name to folder.
        masks: 3D masks drawn on each side.
        seed: Of noise and bootstrap.
    """

    training: Path
    roots: Mapping[str, Path] | None = None
    masks: int = 64
    seed: int = 0


def attack(checkpoint: str, options: AttackOptions, *, cache_dir: Path) -> Membership:
    """Test whether the loss of a checkpoint tells its members.

    Who is a member is what the checkpoint's own list says, whatever the recipe holds out.

    Raises:
        CheckpointError: If the checkpoint has no member list, or cannot be trained on with the
            recipe.
        SourceError: If there are no scans of members, or none of others.
    """
    files = find_checkpoint(checkpoint)
    if not files.trained_on:
        raise CheckpointError(
            f"checkpoint '{files.name}' does not list whom it was trained on: not assessed"
        )
    named = checkpoint if checkpoint.startswith(PACKAGE_PREFIX) else str(files.folder)
    recipe = load_training_recipe(
        options.training, sources=options.roots or {}, from_checkpoint=named
    )
    recipe = recipe.model_copy(update={"sources": download(recipe.sources, cache_dir)})
    index = index_sources(recipe.sources, recipe.all_labels(), cache_dir=cache_dir)
    entries = [entry for name in recipe.sources for entry in index.entries(name)]
    objective = make_objective(recipe)
    for network in objective.networks.values():
        network.eval()
    patients, scores = [], []
    for is_member in (True, False):
        cases = _cases(recipe, entries, files, is_member=is_member)
        patches = list(_patches(recipe, cases, options.masks))
        who = {(entry.source, entry.case_id): entry.patient_id for entry in cases.hosts}
        patients.append([who[one.source, one.case_id] for one in patches])
        logger.info(
            "%s of %s",
            counted(len(patches), "patch", "patches"),
            "members" if is_member else "others",
        )
        with torch.no_grad():
            losses = [
                [
                    float(objective.validation_loss(collate([one]), _noise(options.seed, level)))
                    for level in range(LEVELS)
                ]
                for one in patches
            ]
        scores.append(-np.array(losses, dtype=np.float64).reshape(-1, LEVELS).mean(axis=1))
    return judged(files, scores, patients, seeds.generator(options.seed, "membership"))


def judged(
    files: CheckpointFiles,
    scores: Sequence[Scores],
    patients: Sequence[Sequence[str]],
    rng: np.random.Generator,
) -> Membership:
    """AUC and true positives of scores, with intervals over patients.

    Args:
        files: The checkpoint.
        scores: Of members and of others; higher is taken for a member.
        patients: Of each score.
        rng: Draws patients.
    """
    drawn = np.array([measures(*_resampled(scores, patients, rng)) for _ in range(RESAMPLED)])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    auc, found = (
        Interval(value=value, low=float(a), high=float(b))
        for value, a, b in zip(measures(*scores), low, high, strict=True)
    )
    members, others = (
        Side(patches=len(one), patients=len(set(who)))
        for one, who in zip(scores, patients, strict=True)
    )
    return Membership(
        package_version=__version__,
        checkpoint=files.name,
        checkpoint_id=files.checkpoint_id,
        members=members,
        others=others,
        auc=auc,
        true_positives=found,
    )


def measures(members: Scores, others: Scores) -> tuple[float, float]:
    """Area under the curve, and share of members found with 1 % of others taken for members."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([members, others]))[: len(members)]
    area = (ranks.sum() - len(members) * (len(members) + 1) / 2) / (len(members) * len(others))
    allowed = int(FALSE_POSITIVES * len(others))
    threshold = np.sort(others)[len(others) - 1 - allowed]
    return float(area), float((members > threshold).mean())


def _resampled(
    scores: Sequence[Scores], patients: Sequence[Sequence[str]], rng: np.random.Generator
) -> list[Scores]:
    """The scores of as many patients, drawn with replacement; of few patients, of patches."""
    out = []
    for values, who in zip(scores, patients, strict=True):
        names, place = np.unique(np.array(who), return_inverse=True)
        if len(names) < LEAST_PATIENTS:
            names, place = np.arange(len(values)), np.arange(len(values))
        chosen = rng.integers(len(names), size=len(names))
        out.append(np.concatenate([values[place == n] for n in chosen]))
    return out


def _cases(
    recipe: TrainingRecipe, entries: Sequence[CaseEntry], files: CheckpointFiles, *, is_member: bool
) -> CaseSet:
    """The cases of members, or of patients of whom no scan was trained on."""
    trained = {
        entry.patient_id
        for entry in entries
        if {entry.voxel_sha256, entry.fingerprint} & files.trained_on
    }
    mine = [entry for entry in entries if (entry.patient_id in trained) == is_member]
    hosts = tuple(entry for entry in mine if entry.image is not None)
    if not hosts:
        who = "whom the checkpoint was trained on" if is_member else "others"
        raise SourceError(
            f"the sources of {recipe.name} have no scan of patients {who}; name folders that have "
            "with --source, or cases in the recipe"
        )
    return CaseSet(hosts, tuple(entry for entry in mine if entry.source in recipe.donors))


def _patches(recipe: TrainingRecipe, cases: CaseSet, masks: int) -> Iterator[CachedPatch]:
    """The first patch of each of the first masks that a training on these cases draws."""
    names = label_table(recipe.sources, recipe.all_labels())
    jobs = plan_jobs(recipe, cases, masks, "train")
    each = recipe.data.patches_per_mask
    rows = [row for job in jobs for row in draw_rows(recipe, recipe.rules, names, job)[::each]]
    cache = PatchCache(pa.Table.from_pylist(rows, schema=PATCH_SCHEMA))
    for number in range(len(rows)):
        patch = cache.patch(number)
        if patch.target is not None:
            patch = replace(patch, image=np.where(patch.mask, patch.target, patch.image))
        yield patch


def _noise(seed: int, level: int) -> torch.Generator:
    """The random stream of one draw of noise and level."""
    number = int(seeds.generator(seed, "membership", str(level)).integers(2**62))
    return torch.Generator().manual_seed(number)
