"""Painting with a Vox2Vox generator, in boxes on the scan's own grid: one pass each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synthct.models.methods import MethodWords
from synthct.models.networks.one_pass import OnePass
from synthct.models.vox2vox_config import LAYOUT, Vox2VoxConfig, Vox2VoxSection

if TYPE_CHECKING:
    from synthct.models.vox2vox import Vox2VoxGenerator, Vox2VoxInpaintPipeline


class Vox2Vox(OnePass):
    """A ``Vox2VoxInpaintPipeline``."""

    layout, section, config = LAYOUT, Vox2VoxSection, Vox2VoxConfig
    words = MethodWords(
        "a generative adversarial network has painted",
        "the picture is synthetic",
        "a generative adversarial network (Vox2Vox) painted the region from its surroundings, in "
        "3D on the scan's own grid",
    )

    @staticmethod
    def classes() -> tuple[type[Vox2VoxGenerator], type[Vox2VoxInpaintPipeline]]:
        """As in ``OnePass``."""
        from synthct.models.vox2vox import Vox2VoxGenerator, Vox2VoxInpaintPipeline

        return Vox2VoxGenerator, Vox2VoxInpaintPipeline
