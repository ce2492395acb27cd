"""Which kind of recipe a file is, by its keys: of a dataset, or of a checkpoint."""

from __future__ import annotations

from synthct.recipe.yaml_model import Document

#: Keys that recipes of datasets have and training recipes have not.
DATASET_KEYS = frozenset({
    "extent", "inpaint", "keep_original", "label_values", "margin_mm", "masks_per_case",
    "masks_per_sample", "on_bad_case", "privacy", "quality", "relabel", "release", "review",
    "samples_per_shard", "series", "splits", "variants", "version", "view",
})  # fmt: skip
#: The reverse.
TRAINING_KEYS = frozenset({
    "adapt", "data", "from_checkpoint", "model", "noise", "optim", "presets", "revision",
    "sample_every", "save_every", "validation",
})  # fmt: skip


def is_training_recipe(document: Document) -> bool | None:
    """Whether it is the recipe of a checkpoint, not of a dataset; None if it could be either."""
    for_training = len(document.value.keys() & TRAINING_KEYS)
    for_dataset = len(document.value.keys() & DATASET_KEYS)
    return None if for_training == for_dataset else for_training > for_dataset
