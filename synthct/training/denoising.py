"""A network learns to denoise the masked part of a patch, in 2D or in 3D.

It starts from random weights or from those of another checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from synthct.errors import CheckpointError
from synthct.models.checkpoint import load_checkpoint
from synthct.models.network import Checkpoint, CheckpointFiles
from synthct.models.networks import NETWORKS
from synthct.models.networks.denoising import Denoising
from synthct.models.patch import PatchRules
from synthct.training.data import Batch
from synthct.training.loss import make_schedule, masked_loss
from synthct.training.objective import Objective
from synthct.training.recipe import TrainingRecipe

logger = logging.getLogger(__name__)

LABELS = "label_embedding.weight"
FIRST = "unet.conv_in.weight"


class DenoisingObjective(Objective):
    """A ``Denoiser`` trained with AdamW; the loss is taken inside the mask.

    A class of it names its ``network``.
    """

    network: ClassVar[type[Denoising]]

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
        return self.network.classes()[1](self.unet, schedule)


def make_network(recipe: TrainingRecipe) -> tuple[Any, CheckpointFiles | None]:
    """Initialise the network of a recipe.

    Returns:
        The network, channels last, and the checkpoint that its weights come from, if any.

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
        load_pretrained(unet, loaded)
    unet.to(memory_format=unet.memory_format)
    return unet, base


def build_unet(recipe: TrainingRecipe) -> Any:
    """The network of a training recipe, with random weights."""
    fields: dict[str, Any] = recipe.model.model_dump(exclude={"kind", "labels"})
    kinds = (one for one in NETWORKS if one.section is type(recipe.model))
    network = next(kinds)
    assert issubclass(network, Denoising), "only these are trained to denoise"
    return network.classes()[0](
        labels=recipe.labels,
        guided=recipe.data.label_dropout > 0,
        trained_steps=recipe.noise.few_steps,
        **fields,
    )


def load_pretrained(unet: Any, base: Checkpoint) -> None:
    """Copy the weights of a checkpoint; rows of the label embedding are matched by name.

    A new label starts with the embedding of "whatever fits". Where only the recipe's network is
    given neighbouring slices, those start without influence.

    Raises:
        CheckpointError: If a tensor is missing or has another shape.
    """
    weights: dict[str, Tensor] = dict(base["unet"].state_dict())
    embeddings = weights.pop(LABELS, None)
    added = unet.neighbours - base["unet"].neighbours
    if added > 0 and FIRST in weights:
        added *= unet.fold**2
        # The neighbours are the last channels before folding, and so after it.
        weights[FIRST] = nn.functional.pad(weights[FIRST], (0, 0, 0, 0, 0, added))
        logger.info(
            "checkpoint '%s' knows no neighbouring slices: %d input channels added, with zeros",
            base.files.name,
            added,
        )
    for name, value in unet.state_dict().items():
        if name == LABELS:
            continue
        if name not in weights or weights[name].shape != value.shape:
            have = tuple(weights[name].shape) if name in weights else "missing"
            raise CheckpointError(
                f"checkpoint '{base.files.name}': tensor {name} is {have}, the recipe's network "
                f"needs {tuple(value.shape)}; leave the fields of model out that shape the network"
            )
    if embeddings is not None:
        rows = label_rows(base["unet"])
        table = [embeddings[rows.get(name, 0)] for name in label_rows(unet)]
        weights[LABELS] = torch.stack(table)
    unet.load_state_dict(weights)


def label_rows(unet: Any) -> Mapping[str | None, int]:
    """Row of the label embedding by label; "" for whatever fits, None for no label given."""
    rows: dict[str | None, int] = {"": 0}
    rows.update({name: n for n, name in enumerate(unet.config.labels, start=1)})
    if unet.config.guided:
        rows[None] = unet.null_label
    return rows
