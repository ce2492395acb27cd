"""Pix2Pix: a generator learns to fill the hole of a patch, and a PatchGAN to tell it from tissue.

It starts from random weights, or its generator from those of another checkpoint; the discriminator
is not part of a checkpoint and always starts anew.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from synthct.errors import CheckpointError
from synthct.models.checkpoint import load_checkpoint
from synthct.models.network import CheckpointFiles
from synthct.models.networks.pix2pix import Pix2Pix
from synthct.models.pix2pix import Pix2PixGenerator, Pix2PixInpaintPipeline
from synthct.models.pix2pix_config import Pix2PixSection
from synthct.training.adversarial import Adversarial, PatchDiscriminator
from synthct.training.data import Batch

#: Standard deviation of the convolutions' first weights; that of the norms' scales around 1.
STD = 0.02


class Pix2PixObjective(Adversarial):
    """A ``Pix2PixGenerator`` and a discriminator of 70 x 70 pixels; cross-entropy and L1."""

    network = Pix2Pix
    generator: Pix2PixGenerator

    def make_networks(self) -> tuple[nn.Module, nn.Module, CheckpointFiles | None]:
        """As in ``Adversarial``.

        Raises:
            CheckpointError: If the checkpoint that training starts from is damaged or does not fit.
            PolicyError: If the recipe states a looser licence than that checkpoint has.
        """
        recipe = self.recipe
        section = recipe.model
        assert isinstance(section, Pix2PixSection)
        self.l1_weight, self.varies = section.l1_weight, section.dropout > 0
        fields: dict[str, Any] = section.model_dump(exclude={"kind", "labels", "l1_weight"})
        generator = Pix2PixGenerator(labels=recipe.labels, **fields)
        discriminator = PatchDiscriminator(
            generator.in_channels + 1, base_channels=section.base_channels
        )
        for network in (generator, discriminator):
            network.apply(initialise)
        base = None
        if recipe.from_checkpoint is not None:
            loaded = load_checkpoint(recipe.from_checkpoint, revision=recipe.revision)
            base = loaded.files
            recipe.resolved_licence(base=base.training.get("licence"))
            load_pretrained(generator, loaded["generator"], base.name)
        return generator.to(memory_format=torch.channels_last), discriminator, base

    def condition(self, batch: Batch) -> Tensor:
        """As in ``Adversarial``."""
        return self.generator.condition(batch["image"], batch["mask"], batch["label"])

    def pipeline(self) -> DiffusionPipeline:
        """As in ``Objective``."""
        return Pix2PixInpaintPipeline(self.generator)


def initialise(module: nn.Module) -> None:
    """The published first weights: normal, of spread 0.02; biases 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, STD)
    elif isinstance(module, nn.InstanceNorm2d):
        nn.init.normal_(module.weight, 1.0, STD)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def load_pretrained(generator: Pix2PixGenerator, base: Pix2PixGenerator, name: str) -> None:
    """Copy a generator's weights; the channels of labels are matched by name, new ones are 0.

    Raises:
        CheckpointError: If a tensor has another shape.
    """
    weights = dict(base.state_dict())
    first = weights[generator.first]
    told = {label: first[:, 2 + n] for n, label in enumerate(base.config.labels)}
    nothing = torch.zeros_like(first[:, 0])
    planes = [told.get(label, nothing) for label in generator.config.labels]
    weights[generator.first] = torch.stack([first[:, 0], first[:, 1], *planes], dim=1)
    for tensor, value in generator.state_dict().items():
        if tensor not in weights or weights[tensor].shape != value.shape:
            raise CheckpointError(
                f"checkpoint '{name}': tensor {tensor} does not fit the recipe's network; leave "
                "the fields of model out that shape the network"
            )
    generator.load_state_dict(weights)
