"""Palette-style inpainting in 2D: the network and its diffusers pipeline.

Saharia et al., "Palette: Image-to-Image Diffusion Models" (2022). The network gets the noisy patch,
the masked patch and the mask (``denoiser.py``). HU and grids belong to ``patch.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn

from synthct.models.denoiser import Denoiser, DiffusionInpaintPipeline
from synthct.models.palette_config import LAYOUT, PaletteConfig
from synthct.models.pipeline import configured_by

#: Spacings are embedded as logarithms relative to this, a common one of abdominal scans.
REFERENCE_SPACING_MM = 0.8


class PaletteUNet(Denoiser, ModelMixin, ConfigMixin):
    """A U-Net that predicts the noise (or velocity) of a masked CT patch.

    Its arguments are the fields of ``palette_config.PaletteConfig``.
    """

    @configured_by(PaletteConfig)
    def __init__(self, *values: Any, **fields: Any) -> None:
        super().__init__()
        config = self.config  # with defaults
        levels = len(config.block_out_channels)
        self.unet = UNet2DModel(
            in_channels=(3 + config.neighbours) * config.fold**2,
            out_channels=config.fold**2,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            block_out_channels=tuple(config.block_out_channels),
            layers_per_block=config.layers_per_block,
            attention_head_dim=config.attention_head_dim,
            dropout=config.dropout,
            norm_num_groups=config.norm_num_groups,
            class_embed_type="identity",
        )
        embed_dim = config.block_out_channels[0] * 4
        labels = len(config.labels)
        self.label_embedding = nn.Embedding(labels + 1 + config.guided, embed_dim)
        self.spacing_embedding = TimestepEmbedding(2, embed_dim)
        nn.init.zeros_(self.label_embedding.weight)
        self.fold = config.fold
        self.neighbours = config.neighbours
        self.keep_settings()

    def forward(
        self, noisy: Tensor, position: Tensor, masked: Tensor, mask: Tensor, label: Tensor,
        spacing_mm: Tensor, neighbours: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Predict noise, velocity or image, as the scheduler's ``prediction_type`` says.

        Args:
            noisy: (B, 1, H, W); noisy inside the mask, clean outside.
            position: (B,) or scalar; noise level, from ``noise_position``.
            masked: (B, 1, H, W); known region, from ``surroundings``.
            mask: (B, 1, H, W); 1 where the model paints.
            label: (B,) int64; 0 for whatever fits, n + 1 for ``labels[n]``, ``null_label`` for
                no label given.
            spacing_mm: (B, 2); pixel size along rows and columns.
            neighbours: (B, 2, H, W), from ``neighbour_channels``; None tells nothing of them.

        Returns:
            (B, 1, H, W); meaningful inside the mask only.
        """
        x = self.folded(noisy, masked, mask, neighbours)
        out = self.unet(x, position, class_labels=self.condition(label, spacing_mm)).sample
        return nn.functional.pixel_shuffle(out, self.fold)

    def folded(
        self, noisy: Tensor, masked: Tensor, mask: Tensor, neighbours: Tensor | None = None
    ) -> Tensor:
        """The pictures of ``forward`` as channels, (B, C, H / fold, W / fold)."""
        inputs = [noisy, masked, mask]
        if self.neighbours:
            nothing = mask.new_zeros(()).expand(len(mask), self.neighbours, *mask.shape[2:])
            inputs.append(nothing if neighbours is None else neighbours)
        return nn.functional.pixel_unshuffle(torch.cat(inputs, dim=1), self.fold)

    def condition(self, label: Tensor, spacing_mm: Tensor) -> Tensor:
        """Label and pixel size as an embedding, (B, channels)."""
        relative = torch.log(spacing_mm / REFERENCE_SPACING_MM)
        embedded: Tensor = self.label_embedding(label) + self.spacing_embedding(relative)
        return embedded

    @property
    def size_multiple(self) -> int:
        """Patch sides must be multiples of this."""
        return int(self.fold * 2 ** (len(self.config.block_out_channels) - 1))


class PaletteInpaintPipeline(DiffusionInpaintPipeline):
    """Inpaints 2D CT patches with a ``PaletteUNet`` and a scheduler of diffusers."""

    layout, fields = LAYOUT, PaletteConfig
