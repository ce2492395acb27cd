"""A generator learns to fill the hole of a patch, and a PatchGAN to tell it from tissue.

It starts from random weights, or its generator from those of another checkpoint; the discriminator
is not part of a checkpoint and always starts anew.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from synthct.errors import CheckpointError
from synthct.models.checkpoint import load_checkpoint
from synthct.models.network import CheckpointFiles
from synthct.models.networks.one_pass import OnePass
from synthct.training.adversarial import Adversarial, PatchDiscriminator
from synthct.training.data import Batch


class OnePassObjective(Adversarial):
    """A ``Generator`` and a discriminator of patches.

    A class of it names its ``network``, makes the discriminator, and says how both start.
    """

    network: ClassVar[type[OnePass]]
    generator: Any

    @staticmethod
    @abstractmethod
    def make_discriminator(in_channels: int, base_channels: int) -> PatchDiscriminator:
        """The discriminator of condition and picture, which have so many channels together.

        ``base_channels`` are those of the generator.
        """

    @staticmethod
    @abstractmethod
    def initialise(module: nn.Module) -> None:
        """Give a layer its first weights."""

    def make_networks(self) -> tuple[nn.Module, nn.Module, CheckpointFiles | None]:
        """As in ``Adversarial``.

        Raises:
            CheckpointError: If the checkpoint that training starts from is damaged or does not fit.
            PolicyError: If the recipe states a looser licence than that checkpoint has.
        """
        recipe = self.recipe
        fields: dict[str, Any] = recipe.model.model_dump(exclude={"kind", "labels"})
        self.l1_weight = fields.pop("l1_weight")
        generator = self.network.classes()[0](labels=recipe.labels, **fields)
        base_channels = generator.config.base_channels
        discriminator = self.make_discriminator(generator.in_channels + 1, base_channels)
        for network in (generator, discriminator):
            network.apply(self.initialise)
        base = None
        if recipe.from_checkpoint is not None:
            loaded = load_checkpoint(recipe.from_checkpoint, revision=recipe.revision)
            base = loaded.files
            recipe.resolved_licence(base=base.training.get("licence"))
            load_pretrained(generator, loaded["generator"], base.name)
        return generator.to(memory_format=generator.memory_format), discriminator, base

    def condition(self, batch: Batch) -> Tensor:
        """As in ``Adversarial``."""
        condition: Tensor = self.generator.condition(batch["image"], batch["mask"], batch["label"])
        return condition

    def pipeline(self) -> DiffusionPipeline:
        """As in ``Objective``."""
        return self.network.classes()[1](self.generator)


def load_pretrained(generator: Any, base: Any, name: str) -> None:
    """Copy a generator's weights; the channels of labels are matched by name, new ones are 0.

    Raises:
        CheckpointError: If a tensor has another shape.
    """
    weights = dict(base.state_dict())
    first = weights[generator.first]
    known = {label: first[:, 2 + n] for n, label in enumerate(base.config.labels)}
    nothing = torch.zeros_like(first[:, 0])
    planes = [known.get(label, nothing) for label in generator.config.labels]
    weights[generator.first] = torch.stack([first[:, 0], first[:, 1], *planes], dim=1)
    for tensor, value in generator.state_dict().items():
        if tensor not in weights or weights[tensor].shape != value.shape:
            raise CheckpointError(
                f"checkpoint '{name}': tensor {tensor} does not fit the recipe's network; leave "
                "the fields of model out that shape the network"
            )
    generator.load_state_dict(weights)
