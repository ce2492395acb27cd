"""Painting with Med-DDPM, in boxes on the scan's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from synthct.models.med_ddpm_config import LAYOUT, MedDDPMConfig, MedDDPMSection, require_monai
from synthct.models.methods import Diffusion
from synthct.models.network import CheckpointFiles
from synthct.models.networks.denoising import Denoising
from synthct.models.patch import PatchRules

if TYPE_CHECKING:
    from synthct.models.med_ddpm import MedDDPMInpaintPipeline, MedDDPMUNet


class MedDDPM(Denoising):
    """A ``MedDDPMInpaintPipeline`` and how it is to paint."""

    layout, section, config = LAYOUT, MedDDPMSection, MedDDPMConfig
    packages = numeric_packages = ("monai",)

    @staticmethod
    def classes() -> tuple[type[MedDDPMUNet], type[MedDDPMInpaintPipeline]]:
        """As in ``Denoising``."""
        from synthct.models.med_ddpm import MedDDPMInpaintPipeline, MedDDPMUNet

        return MedDDPMUNet, MedDDPMInpaintPipeline

    @classmethod
    def rules(
        cls, files: CheckpointFiles, inpaint: Diffusion, labels: Sequence[str | None]
    ) -> PatchRules:
        """As in ``Denoising``."""
        require_monai()
        return super().rules(files, inpaint, labels)
