"""The network of a training recipe: fresh, or with the weights of a finished checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from synthct.errors import CheckpointError
from synthct.models.checkpoint import Checkpoint, CheckpointFiles, load_checkpoint
from synthct.models.palette import PaletteUNet
from synthct.training.loss import make_schedule
from synthct.training.recipe import TrainingRecipe

LABELS = "label_embedding.weight"


def make_network(recipe: TrainingRecipe) -> tuple[PaletteUNet, CheckpointFiles | None]:
    """The network of a recipe, from its seed or from the checkpoint that it names.

    Returns:
        The network, channels last, and the checkpoint whose weights it starts from, if any.

    Raises:
        CheckpointError: If that checkpoint is damaged or of another shape.
        PolicyError: If the recipe states a looser licence than that checkpoint has.
    """
    torch.manual_seed(recipe.seed)
    unet = build_unet(recipe)
    base = None
    if recipe.from_checkpoint is not None:
        loaded = load_checkpoint(recipe.from_checkpoint, revision=recipe.revision)
        base = loaded.files
        recipe.resolved_licence(base=base.training.get("licence"))
        take_weights(unet, loaded)
    unet.to(memory_format=torch.channels_last)
    return unet, base


def build_unet(recipe: TrainingRecipe) -> PaletteUNet:
    """The network of a training recipe, with fresh weights."""
    fields: dict[str, Any] = recipe.model.model_dump(exclude={"kind", "labels"})
    return PaletteUNet(
        labels=recipe.labels,
        guided=recipe.data.label_dropout > 0,
        trained_steps=recipe.noise.few_steps,
        **fields,
    )


def take_weights(unet: PaletteUNet, base: Checkpoint) -> None:
    """Give a network the weights of a finished one; labels find each other by name.

    A label that the other does not know starts as what it paints where nothing is said.

    Raises:
        CheckpointError: If a tensor is missing or has another shape.
    """
    theirs: dict[str, torch.Tensor] = dict(base.unet.state_dict())
    rows = theirs.pop(LABELS)
    ours = unet.state_dict()
    for name, value in ours.items():
        if name == LABELS:
            continue
        if name not in theirs or theirs[name].shape != value.shape:
            have = tuple(theirs[name].shape) if name in theirs else "missing"
            raise CheckpointError(
                f"checkpoint '{base.files.name}': tensor {name} is {have}, the recipe's network "
                f"needs {tuple(value.shape)}; leave the fields of model out that shape the network"
            )
    places = row_of_label(base.unet)
    table = torch.stack([rows[places.get(name, 0)] for name in row_of_label(unet)])
    unet.load_state_dict({**theirs, LABELS: table})


def row_of_label(unet: PaletteUNet) -> Mapping[str | None, int]:
    """Row of the label table by label; "" for whatever fits, None for not told."""
    rows: dict[str | None, int] = {"": 0}
    rows.update({name: n for n, name in enumerate(unet.config.labels, start=1)})
    if unet.null_label is not None:
        rows[None] = unet.null_label
    return rows


def as_checkpoint(unet: PaletteUNet, recipe: TrainingRecipe) -> Checkpoint:
    """A network in training as ``Inpainter`` takes it."""
    schedule = make_schedule(recipe.noise.painting_schedule, recipe.noise.prediction_type)
    files = CheckpointFiles(
        name=recipe.name,
        folder=Path(),
        revision=None,
        hashes={},
        configs={"unet": dict(unet.config), "scheduler": dict(schedule.config)},
        training={},
    )
    return Checkpoint(files, unet)
