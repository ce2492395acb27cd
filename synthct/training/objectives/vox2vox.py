"""Vox2Vox: against a discriminator of 70 voxels in 3D.

Other than published, the generalised Dice of a segmentation is the mean absolute error of a
picture, and generator and discriminator step one after the other, not together.
"""

from __future__ import annotations

from torch import nn

from synthct.models.networks.vox2vox import Vox2Vox
from synthct.models.vox2vox import EPS, SLOPE
from synthct.training.adversarial import PatchDiscriminator, least_squares
from synthct.training.one_pass import OnePassObjective

#: Dropout of the discriminator.
DROPOUT = 0.2


class Vox2VoxObjective(OnePassObjective):
    """A ``Vox2VoxGenerator``; least squares and L1."""

    network = Vox2Vox
    criterion = staticmethod(least_squares)

    @staticmethod
    def make_discriminator(in_channels: int, base_channels: int) -> PatchDiscriminator:
        """As in ``OnePassObjective``; it is as wide as the generator."""
        return PatchDiscriminator(
            in_channels,
            dimensions=3,
            base_channels=base_channels,
            slope=SLOPE,
            dropout=DROPOUT,
            bias_before_norm=True,
            eps=EPS,
        )

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """The published first weights: normal, by the number of inputs (He et al. 2015)."""
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
