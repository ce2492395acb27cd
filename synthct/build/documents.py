"""The files of a version beside its shards: recipe, lock, rejections, card, Croissant and so on.

All of them follow from the recipe, the lock and the shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from synthct.build.grades import grade_samples, grades_in_words
from synthct.dataset.documents.card import CardFacts, SourceNote, attribution, dataset_card
from synthct.dataset.documents.croissant import CROISSANT, croissant
from synthct.dataset.documents.sheet import dataset_sheet
from synthct.dataset.lockfile import Lock, LockedCheckpoint, write_lock
from synthct.dataset.manifest import Release
from synthct.dataset.patch_rows import patch_schema
from synthct.dataset.records import write_recipe, write_rejected
from synthct.dataset.schema import FORMAT_VERSION, arrow_schema
from synthct.dataset.summary import rejections, summarise
from synthct.dataset.writer import ShardRecord
from synthct.models.methods import Inpaint, MethodWords
from synthct.models.networks import network_of
from synthct.recipe.recipe import Recipe
from synthct.storage.files import atomic_write

CARD, ATTRIBUTION, SHEET = "README.md", "attribution.md", "preview.png"


def write_documents(
    recipe: Recipe, lock: Lock, tree: Path, release: Release, shards: Sequence[ShardRecord]
) -> None:
    """Write every file of a version but its shards and its manifest.

    Args:
        recipe: The recipe.
        lock: What the build depended on.
        tree: The dataset's folder, with all shards.
        release: What the version is.
        shards: All of them, in the order of the plan.

    Raises:
        ResourceError: If a file cannot be written.
        VerifyError: If a shard is damaged.
    """
    write_recipe(tree, recipe.resolved())
    write_lock(tree, lock)
    write_rejected(tree, rejections(shards), volume=recipe.view == "volume")
    for name, content in documents(recipe, lock, tree, release, shards).items():
        atomic_write(tree / name, content)


def documents(
    recipe: Recipe, lock: Lock, tree: Path, release: Release, shards: Sequence[ShardRecord]
) -> dict[str, bytes]:
    """Card, attribution, Croissant and contact sheet by file name, as ``write_documents`` has them.

    There is no contact sheet where nothing was painted.
    """
    sheet = dataset_sheet(
        [tree / shard.path for shard in shards],
        keep_original=recipe.keep_original,
        patch_only=recipe.release == "patch",
    )
    facts = _card_facts(recipe, lock, has_picture=sheet is not None)
    if lock.limits:
        standards = recipe.standards(lock.limits)
        graded = grade_samples(tree, [shard.path for shard in shards], standards)
        facts = replace(facts, grades=grades_in_words(one.grade for one in graded))
    summary, schema = summarise(tree, shards), recipe_schema(recipe, release.format_version)
    return {
        CARD: dataset_card(release, summary, facts).encode(),
        CROISSANT: croissant(release, summary, facts, schema, shards),
        ATTRIBUTION: attribution([*facts.sources, *_checkpoint_notes(lock.checkpoint)]).encode(),
        **({} if sheet is None else {SHEET: sheet}),
    }


def recipe_schema(recipe: Recipe, of_format: str = FORMAT_VERSION) -> pa.Schema:
    """The columns of the shards that a recipe comes to, in a format."""
    volume = recipe.view == "volume"
    if recipe.release == "patch":
        return patch_schema(volume=volume, of_format=of_format)
    return arrow_schema(recipe.keep_original, volume=volume, of_format=of_format)


def source_notes(lock: Lock, names: Iterable[str]) -> list[SourceNote]:
    """What is owed to the sources of these names."""
    return [
        SourceNote(name, one.layout, one.licence, one.attribution, len(one.cases), one.origin)
        for name in names
        for one in [lock.sources[name]]
    ]


def _checkpoint_notes(checkpoint: LockedCheckpoint | None) -> list[SourceNote]:
    """Attribution of the scans that the checkpoint was trained on; none if there is none."""
    if checkpoint is None:
        return []
    silent = None if _says_training(checkpoint) else "It does not say what it was trained on."
    return [
        SourceNote(
            name=checkpoint.name,
            layout="checkpoint",
            licence=checkpoint.licence,
            attribution="; ".join(checkpoint.attributions) or silent,
            cases=checkpoint.cases,
        )
    ]


def _says_training(checkpoint: LockedCheckpoint) -> bool:
    return checkpoint.licence is not None or checkpoint.cases > 0


def _card_facts(recipe: Recipe, lock: Lock, *, has_picture: bool) -> CardFacts:
    left_out = [f"{one.source}: {one.case} left out: {one.reason}" for one in lock.left_out]
    left_out[:0] = [f"Cases that were left out: {len(left_out)}."] if left_out else []
    return CardFacts(
        title=recipe.name,
        licence=lock.licence,
        view=recipe.view,
        preview_window=f"a window that suits what is painted{_example(lock.checkpoint)}",
        method=recipe.inpaint.method,
        words=_words(recipe.inpaint, lock.checkpoint),
        sources=source_notes(lock, recipe.sources),  # in its order; a lock is sorted
        labels={n: v for n, v in lock.labels.items() if n not in _names_of_own_masks(recipe)},
        settings=_settings(recipe.inpaint, lock.checkpoint),
        description=recipe.description,
        picture=SHEET if has_picture else None,
        keep_original=recipe.keep_original,
        relabelled=recipe.relabel.name if recipe.relabel else None,
        ignore=any(section.leaves_unknown() for section in recipe.masks),
        notes=[*lock.plan.notes, *left_out, *_privacy_note(recipe)],
        is_training_known=lock.checkpoint is None or _says_training(lock.checkpoint),
    )


def _privacy_note(recipe: Recipe) -> Iterator[str]:
    """What is known of copies of training patients when a dataset is built."""
    if recipe.privacy is not None:
        yield (
            "Paintings whose key is more similar to that of a region that the checkpoint was "
            f"trained on than {recipe.privacy.max_training_key:g}, or that equal one, were "
            "rejected (by key only; synthct privacy says what this can see)."
        )


def _example(checkpoint: LockedCheckpoint | None) -> str:
    if checkpoint is None:
        return ""
    low, high = checkpoint.range_hu
    return f", such as {low:g} to {high:g} HU"


def _words(inpaint: Inpaint, checkpoint: LockedCheckpoint | None) -> MethodWords:
    """The words of the method, or those of a network that is no diffusion model."""
    network = network_of(checkpoint.pipeline) if checkpoint else None
    return network.words if network else inpaint.words


def _settings(inpaint: Inpaint, checkpoint: LockedCheckpoint | None) -> dict[str, str]:
    """How it was painted, in the order to be shown."""
    if checkpoint is None:
        return inpaint.settings()
    revision = {"revision": checkpoint.revision} if checkpoint.revision else {}
    return {"checkpoint": checkpoint.name, "id": checkpoint.id, **revision, **inpaint.settings()}


def _names_of_own_masks(recipe: Recipe) -> set[str]:
    """Labels of the user's own mask files that no section paints, wants or can use in scans.

    Such a label has a value, with which the masks are read, but stands in no label map.
    """
    own = {n for section in recipe.masks if section.donor_is_host for n in section.donor_labels()}
    used = (
        name
        for section in recipe.masks
        for name in (
            *section.painted_labels(),
            *section.required_labels(),
            *section.optional_labels(),
        )
    )
    return own.difference(used)
