"""Palette: a U-Net learns to denoise the masked part of a patch of a slice."""

from synthct.models.networks.palette import Palette
from synthct.training.denoising import DenoisingObjective


class PaletteObjective(DenoisingObjective):
    """A ``PaletteUNet``."""

    network = Palette
