"""What a version holds beside its shards: recipe, lock, rejections, picture, card, attribution."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from synthct.card import CardFacts, SourceNote, attribution, dataset_card
from synthct.check import Checked
from synthct.dataset.files import atomic_write
from synthct.dataset.manifest import Release
from synthct.dataset.records import write_lock, write_recipe, write_rejected
from synthct.dataset.summary import rejections, summarise
from synthct.dataset.writer import ShardRecord, writer_settings
from synthct.sheet import dataset_sheet
from synthct.version import __version__

SHEET = "preview.png"


def write_documents(
    checked: Checked,
    tree: Path,
    release: Release,
    shards: Sequence[ShardRecord],
    numerics: Mapping[str, Any],
) -> None:
    """Write every file of a version but its shards and its manifest.

    Args:
        checked: The recipe.
        tree: The dataset's folder, with all shards.
        release: What the version is.
        shards: All of them, in the order of the plan.
        numerics: The numerics class in which the model ran.

    Raises:
        ResourceError: If a file cannot be written.
        VerifyError: If a shard is damaged.
    """
    _write_records(checked, tree, shards, numerics)
    facts = _card_facts(checked, tree, shards)
    card = dataset_card(release, summarise(tree, shards), facts)
    atomic_write(tree / "README.md", card.encode())
    owed = attribution([*facts.sources, _checkpoint_note(checked)])
    atomic_write(tree / "attribution.md", owed.encode())


def _checkpoint_note(checked: Checked) -> SourceNote:
    """What is owed to those whose scans the checkpoint was trained on."""
    training = checked.checkpoint.training
    owed = [str(text) for text in training.get("attributions", [])]
    return SourceNote(
        name=checked.checkpoint.name,
        layout="checkpoint",
        licence=training.get("licence"),
        attribution="; ".join(owed) or None,
        cases=len(training.get("cases", [])),
    )


def _write_records(
    checked: Checked, tree: Path, shards: Sequence[ShardRecord], numerics: Mapping[str, Any]
) -> None:
    """The resolved recipe, the lock, what was rejected, and the picture."""
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
            "left_out": [
                {"source": s.source, "case": s.case_id, "reason": s.reason}
                for s in checked.index.skipped
            ],
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
            "numerics": dict(numerics),
            "writer": writer_settings(),
        },
    )
    sheet = dataset_sheet(
        [tree / shard.path for shard in shards], keep_original=checked.recipe.keep_original
    )
    if sheet is not None:
        atomic_write(tree / SHEET, sheet)


def _card_facts(checked: Checked, tree: Path, shards: Sequence[ShardRecord]) -> CardFacts:
    recipe, files = checked.recipe, checked.checkpoint
    left_out = checked.index.skipped
    skipped = [f"{s.source}: {s.case_id} left out: {s.reason}" for s in left_out]
    skipped[:0] = [f"Cases that were left out: {len(left_out)}."] if left_out else []
    codecs = {s.label or "default": checked.rules.codec(s.label) for s in recipe.masks}
    low, high = next(iter(codecs.values())).range_hu
    return CardFacts(
        title=recipe.name,
        licence=checked.licence,
        view=recipe.view,
        preview_window=f"a window that suits what is painted, such as {low:g} to {high:g} HU",
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
        ignore=any(section.leaves_unknown() for section in recipe.masks),
        notes=[*checked.plan.notes, *checked.index.notes, *skipped],
    )
