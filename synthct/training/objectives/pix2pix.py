"""Pix2Pix: against a discriminator of 70 x 70 pixels."""

from __future__ import annotations

from torch import nn

from synthct.models.networks.pix2pix import Pix2Pix
from synthct.training.adversarial import PatchDiscriminator
from synthct.training.one_pass import OnePassObjective

#: Standard deviation of the convolutions' first weights; that of the norms' scales around 1.
STD = 0.02


class Pix2PixObjective(OnePassObjective):
    """A ``Pix2PixGenerator``; cross-entropy and L1."""

    network = Pix2Pix

    @staticmethod
    def make_discriminator(in_channels: int, base_channels: int) -> PatchDiscriminator:
        """As in ``OnePassObjective``; it is as wide as the generator."""
        return PatchDiscriminator(in_channels, base_channels=base_channels)

    @staticmethod
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
