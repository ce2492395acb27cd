"""Palette: one network learns to take noise from the masked part of a patch.

Also how a network starts: fresh, or with the weights of a finished checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from synthct.errors import CheckpointError
from synthct.models.checkpoint import load_checkpoint
from synthct.models.network import Checkpoint, CheckpointFiles
from synthct.models.networks.palette import Palette
from synthct.models.palette import PaletteInpaintPipeline, PaletteUNet
from synthct.models.patch import PatchRules
from synthct.training.data import Batch
from synthct.training.loss import make_schedule, masked_loss
from synthct.training.objective import Objective
from synthct.training.recipe import TrainingRecipe

LABELS = "label_embedding.weight"


class PaletteObjective(Objective):
    """A ``PaletteUNet`` with AdamW; loss inside the mask."""

    network = Palette

    def __init__(self, recipe: TrainingRecipe) -> None:
        """As in ``Objective``."""
        self.recipe = recipe
        self.unet, self.base = make_network(recipe)
        self.networks = {"unet": self.unet}
        optim = recipe.optim
        adam = torch.optim.AdamW(
            self.unet.parameters(), lr=optim.learning_rate, weight_decay=optim.weight_decay
        )
        self.optimizers = {"unet": adam}
        self.rules = PatchRules.from_config(self.unet.config)

    def losses(
        self, nets: Mapping[str, nn.Module], batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        """As in ``Objective``."""
        yield "unet", masked_loss(nets["unet"], self.recipe.noise, batch, generator)

    def validation_loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """As in ``Objective``."""
        return masked_loss(self.unet, self.recipe.noise, batch, generator)

    def pipeline(self) -> DiffusionPipeline:
        """As in ``Objective``."""
        noise = self.recipe.noise
        schedule = make_schedule(noise.painting_schedule, noise.prediction_type)
        return PaletteInpaintPipeline(self.unet, schedule)


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
    theirs: dict[str, Tensor] = dict(base["unet"].state_dict())
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
    places = row_of_label(base["unet"])
    table = torch.stack([rows[places.get(name, 0)] for name in row_of_label(unet)])
    unet.load_state_dict({**theirs, LABELS: table})


def row_of_label(unet: PaletteUNet) -> Mapping[str | None, int]:
    """Row of the label table by label; "" for whatever fits, None for not told."""
    rows: dict[str | None, int] = {"": 0}
    rows.update({name: n for n, name in enumerate(unet.config.labels, start=1)})
    if unet.null_label is not None:
        rows[None] = unet.null_label
    return rows
