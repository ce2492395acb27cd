"""Med-DDPM as the thesis changed it: it paints a hole in a CT in place of a picture from a mask.

Dorjsembe et al., "Conditional diffusion models for semantic 3D brain MRI synthesis" (2023). The
network is MONAI's with the published arguments and exactly as many parameters, 40,226,433. Its
condition is the CT with the hole and the mask, its loss is taken inside the mask. One that paints
several labels is given the mask again in the plane of its label, as the published one is given a
plane for each structure. Other than in the
published code, upsampling is nearest, the sinusoids of the timestep have a period of 10,000, boxes
are on the scan's own grid and HU are scaled by a codec, not slice by slice, which would lose them;
the moving average of the weights is updated at every step.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import Tensor

from synthct.models.denoiser import Denoiser
from synthct.models.med_ddpm_config import LAYOUT, MedDDPMConfig, require_monai
from synthct.models.pipeline import configured_by
from synthct.models.volume_unet import VolumeInpaintPipeline


class MedDDPMUNet(Denoiser, ModelMixin, ConfigMixin):
    """MONAI's ``DiffusionModelUNet`` for masked boxes of a CT.

    Its arguments are the fields of ``med_ddpm_config.MedDDPMConfig``.
    """

    #: Its kernels are of three dimensions.
    memory_format = torch.contiguous_format

    @configured_by(MedDDPMConfig)
    def __init__(self, *values: Any, **fields: Any) -> None:
        super().__init__()
        require_monai()
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        config = self.config  # with defaults
        channels = tuple(config.block_out_channels)
        attention = [n == len(channels) - 2 for n in range(len(channels))]
        heads = [n if level >= len(channels) - 2 else 0 for level, n in enumerate(channels)]
        count = len(config.labels)
        self._told = range(1, count + 1) if count >= MedDDPMConfig.takes_labels_from else range(0)
        self.unet = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=3 + len(self._told),
            out_channels=1,
            channels=channels,
            num_res_blocks=1,
            attention_levels=attention,
            num_head_channels=heads,
            norm_num_groups=config.norm_num_groups,
        )
        self.keep_settings()
        self.known_region = config.known_region

    def forward(
        self, noisy: Tensor, position: Tensor, masked: Tensor, mask: Tensor, label: Tensor,
        spacing_mm: Tensor, neighbours: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Predict noise, velocity or image; as in ``VolumeUNet``, without spacing.

        Args:
            noisy: (B, 1, H, W, D).
            position: (B,) or scalar; noise level, from ``noise_position``.
            masked: (B, 1, H, W, D); known region, from ``surroundings``.
            mask: (B, 1, H, W, D); 1 where the model paints.
            label: (B,) int64; without influence unless it has several.
            spacing_mm: Without influence.
            neighbours: None.
        """
        del spacing_mm, neighbours
        told = [mask * (label == n).to(mask.dtype).reshape(-1, 1, 1, 1, 1) for n in self._told]
        x = torch.cat([noisy, masked, mask, *told], dim=1)
        out: Tensor = self.unet(x, timesteps=position.expand(len(x)))
        return out

    @property
    def size_multiple(self) -> int:
        """Sides of a box must be multiples of this."""
        return int(2 ** (len(self.config.block_out_channels) - 1))


class MedDDPMInpaintPipeline(VolumeInpaintPipeline):
    """Inpaints boxes of a CT with a ``MedDDPMUNet`` and a scheduler of diffusers."""

    layout, fields = LAYOUT, MedDDPMConfig
