"""Palette: a U-Net learns to denoise the masked part of a patch of a slice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from synthct.models.networks.palette import Palette
from synthct.training.data import Batch
from synthct.training.denoising import DenoisingObjective
from synthct.training.judge import (
    BETAS,
    PACE,
    TissueDiscriminator,
    level_loss,
    paint_in_steps,
    realism,
    verdict_loss,
)
from synthct.training.recipe import TrainingRecipe


class PaletteObjective(DenoisingObjective):
    """A ``PaletteUNet``, and where the recipe says so a discriminator of its paintings.

    The discriminator is not part of a checkpoint and always starts anew.
    """

    network = Palette

    def __init__(self, recipe: TrainingRecipe) -> None:
        """As in ``Objective``."""
        super().__init__(recipe)
        if recipe.noise.adversarial is None:
            return
        discriminator = TissueDiscriminator(self.unet)
        adam = torch.optim.AdamW(
            [{"params": discriminator.parameters(), "pace": PACE}], betas=BETAS, weight_decay=0.0
        )
        self.networks = {**self.networks, "discriminator": discriminator}
        self.optimizers = {"discriminator": adam, **self.optimizers}

    def losses(
        self, nets: Mapping[str, nn.Module], batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        """As in ``Objective``; the discriminator steps first."""
        noise = self.recipe.noise
        if noise.adversarial is None:
            yield from super().losses(nets, batch, generator)
            return
        painted = paint_in_steps(nets["unet"], self.unet, noise, batch, generator)
        judge = self.networks["discriminator"]
        yield (
            "discriminator",
            verdict_loss(nets["discriminator"], batch["image"], painted, generator),
        )
        # The gradient passes through the discriminator without staying in it.
        judge.requires_grad_(False)
        score = realism(judge, painted, generator)
        judge.requires_grad_(True)
        level = level_loss(painted, batch["image"], self.unet.residual_scale or 1.0)
        for name, loss in super().losses(nets, batch, generator):
            yield name, loss + level - noise.adversarial.weight * score
