"""Painting with a network that ``synthct train`` made: Palette-style inpainting in 2D."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synthct.models.networks.denoising import Denoising
from synthct.models.palette_config import LAYOUT, PaletteConfig, PaletteSection

if TYPE_CHECKING:
    from synthct.models.palette import PaletteInpaintPipeline, PaletteUNet


class Palette(Denoising):
    """A ``PaletteInpaintPipeline`` and how it is to paint."""

    layout, section, config = LAYOUT, PaletteSection, PaletteConfig
    takes_noise = True

    @staticmethod
    def classes() -> tuple[type[PaletteUNet], type[PaletteInpaintPipeline]]:
        """As in ``Denoising``."""
        from synthct.models.palette import PaletteInpaintPipeline, PaletteUNet

        return PaletteUNet, PaletteInpaintPipeline
