"""Painting in 3D with a network that ``synthct train`` made, in boxes on the scan's own grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synthct.models.networks.denoising import Denoising
from synthct.models.volume_config import LAYOUT, VolumeConfig, VolumeSection

if TYPE_CHECKING:
    from synthct.models.volume_unet import VolumeInpaintPipeline, VolumeUNet


class VolumeNetwork(Denoising):
    """A ``VolumeInpaintPipeline`` and how it is to paint."""

    layout, section, config = LAYOUT, VolumeSection, VolumeConfig

    @staticmethod
    def classes() -> tuple[type[VolumeUNet], type[VolumeInpaintPipeline]]:
        """As in ``Denoising``."""
        from synthct.models.volume_unet import VolumeInpaintPipeline, VolumeUNet

        return VolumeUNet, VolumeInpaintPipeline
