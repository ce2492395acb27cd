"""Painting with a Pix2Pix generator: one pass, and dropout as its only chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synthct.models.methods import MethodWords
from synthct.models.networks.one_pass import OnePass
from synthct.models.pix2pix_config import LAYOUT, Pix2PixConfig, Pix2PixSection

if TYPE_CHECKING:
    from synthct.models.pix2pix import Pix2PixGenerator, Pix2PixInpaintPipeline


class Pix2Pix(OnePass):
    """A ``Pix2PixInpaintPipeline``."""

    layout, section, config = LAYOUT, Pix2PixSection, Pix2PixConfig
    words = MethodWords(
        "a generative adversarial network has painted",
        "the picture is synthetic",
        "a generative adversarial network (Pix2Pix) painted the region from its surroundings on "
        "the scan's own grid (the column `provenance` says where it had to be resampled)",
    )

    @staticmethod
    def classes() -> tuple[type[Pix2PixGenerator], type[Pix2PixInpaintPipeline]]:
        """As in ``OnePass``."""
        from synthct.models.pix2pix import Pix2PixGenerator, Pix2PixInpaintPipeline

        return Pix2PixGenerator, Pix2PixInpaintPipeline
