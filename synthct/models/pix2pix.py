"""The Pix2Pix generator: a U-Net that fills the hole of a patch in one pass.

Isola et al., "Image-to-image translation with conditional adversarial networks", 2017, as in the
public torch code, with two changes. Norms are over each sample by itself (instance norms with scale
and shift), which batch norms are too at the published batch of one, so that a painting does not
depend on the others of its batch. And dropout, which is kept when it paints, is drawn from each
sample's own generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import Tensor, nn

from synthct.models.generator import Generator, GeneratorPipeline
from synthct.models.pipeline import configured_by
from synthct.models.pix2pix_config import LAYOUT, Pix2PixConfig

#: Decoder levels with dropout, after the innermost one.
DROPPED = (1, 2, 3)


class Pix2PixGenerator(Generator, ModelMixin, ConfigMixin):
    """A U-Net from a patch with a hole, the mask and a plane for each label to the whole patch.

    Its arguments are the fields of ``pix2pix_config.Pix2PixConfig``.
    """

    #: The tensor whose second axis is that of the input's channels.
    first = "encoder.0.weight"

    @configured_by(Pix2PixConfig)
    def __init__(self, *values: Any, **fields: Any) -> None:
        super().__init__()
        config = self.config  # with defaults
        channels = [config.base_channels * min(2**n, 8) for n in range(config.levels)]
        self.in_channels = 2 + len(config.labels)
        self.encoder = nn.ModuleList()
        for level, (before, after) in enumerate(pairwise([self.in_channels, *channels])):
            conv = nn.Conv2d(before, after, 4, 2, padding=1, bias=False)
            if level == 0:
                self.encoder.append(conv)
                continue
            layers: list[nn.Module] = [nn.LeakyReLU(0.2), conv]
            if level < config.levels - 1:
                layers.append(nn.InstanceNorm2d(after, affine=True))
            self.encoder.append(nn.Sequential(*layers))
        self.decoder = nn.ModuleList()
        for level, (before, after) in enumerate(pairwise([*reversed(channels), 1])):
            is_last = level == config.levels - 1
            doubled = before if level == 0 else 2 * before
            up = nn.ConvTranspose2d(doubled, after, 4, 2, padding=1, bias=is_last)
            end = nn.Tanh() if is_last else nn.InstanceNorm2d(after, affine=True)
            self.decoder.append(nn.Sequential(nn.ReLU(), up, end))

    def forward(
        self, condition: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """Paint a whole patch.

        Args:
            condition: From ``condition``.
            generators: One on the CPU per sample, which dropout is drawn from; without them
                dropout is that of torch, in training only.

        Returns:
            (B, 1, H, W) in -1..1.
        """
        skips: list[Tensor] = []
        x = condition
        for encode in self.encoder:
            x = encode(x)
            skips.append(x)
        skips.pop()
        for level, decode in enumerate(self.decoder):
            x = decode(x)
            if level in DROPPED and level < len(self.decoder) - 1:
                x = self.drop(x, generators)
            if skips:
                x = torch.cat([skips.pop(), x], dim=1)
        return x


class Pix2PixInpaintPipeline(GeneratorPipeline):
    """Inpaints 2D CT patches with a ``Pix2PixGenerator``, in one pass."""

    layout, fields = LAYOUT, Pix2PixConfig
