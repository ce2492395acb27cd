"""The Vox2Vox generator: a U-Net in 3D that fills the hole of a box in one pass.

Cirillo et al., "Vox2Vox: 3D-GAN for brain tumour segmentation" (2020). It segmented; here it
paints, with tanh in place of softmax: a box with a hole and its mask in, the box out. Dropout is
kept when it paints, drawn from each sample's own generator, since it is the only chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import Tensor, nn

from synthct.models.blend import Place, blended
from synthct.models.generator import Generator, GeneratorPipeline
from synthct.models.pipeline import configured_by
from synthct.models.region import box_within
from synthct.models.vox2vox_config import LAYOUT, Vox2VoxConfig

#: Slope of the leaky ReLUs and constant of the norms, the defaults of the published code's library.
SLOPE, EPS = 0.3, 1e-3
#: Convolutions of the innermost level that keep its size.
INNER = 4


class Vox2VoxGenerator(Generator, ModelMixin, ConfigMixin):
    """A U-Net from a box with a hole, the mask and a plane for each label to the whole box.

    Its arguments are the fields of ``vox2vox_config.Vox2VoxConfig``.
    """

    #: Its kernels are of three dimensions.
    memory_format = torch.contiguous_format
    #: The tensor whose second axis is that of the input's channels.
    first = "encoder.0.0.weight"

    @configured_by(Vox2VoxConfig)
    def __init__(self, *values: Any, **fields: Any) -> None:
        super().__init__()
        config = self.config  # with defaults
        self.in_channels = 2 + len(config.labels)
        base = config.base_channels
        wide, inner = [base, 2 * base, 4 * base], 8 * base

        def norm(channels: int) -> nn.Module:
            return nn.InstanceNorm3d(channels, eps=EPS, affine=True)

        self.encoder = nn.ModuleList()
        for level, (before, after) in enumerate(pairwise([self.in_channels, *wide, inner])):
            conv = nn.Conv3d(before, after, 4, 2, padding=1)
            layers = [conv, *([norm(after)] if level else []), nn.LeakyReLU(SLOPE)]
            self.encoder.append(nn.Sequential(*layers))
        self.inner = nn.ModuleList(
            nn.Conv3d(inner * (1 if n == 0 else 2), inner, 4) for n in range(INNER)
        )
        self.inner_norms = nn.ModuleList(norm(inner) for _ in range(INNER))
        self.decoder = nn.ModuleList()
        for before, after in pairwise([2 * inner, *reversed(wide)]):
            doubled = before if before == 2 * inner else 2 * before
            up = nn.ConvTranspose3d(doubled, after, 4, 2, padding=1)
            self.decoder.append(nn.Sequential(up, norm(after), nn.LeakyReLU(SLOPE)))
        self.last = nn.ConvTranspose3d(2 * base, 1, 4, 2, padding=1)

    def forward(
        self, condition: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """Paint a whole box.

        Args:
            condition: (B, 2 + labels, H, W, D), from ``condition``.
            generators: As in ``Generator.drop``.

        Returns:
            (B, 1, H, W, D) in -1..1.
        """
        skips: list[Tensor] = []
        x = condition
        for encode in self.encoder[:-1]:
            x = self.drop(encode(x), generators)
            skips.append(x)
        x = self.encoder[-1](x)
        for conv, norm in zip(self.inner, self.inner_norms, strict=True):
            raw = conv(nn.functional.pad(x, (1, 2) * 3))
            x = torch.cat([nn.functional.leaky_relu(norm(raw), SLOPE), raw], dim=1)
        for decode in self.decoder:
            x = self.drop(torch.cat([decode(x), skips.pop()], dim=1), generators)
        return torch.tanh(self.last(x))


class Vox2VoxInpaintPipeline(GeneratorPipeline):
    """Inpaints boxes of a CT with a ``Vox2VoxGenerator``; larger ones in parts that are blended."""

    layout, fields = LAYOUT, Vox2VoxConfig

    def paint(self, condition: Tensor, mask: Tensor, generator: list[torch.Generator]) -> Tensor:
        """As in ``GeneratorPipeline``."""
        config = self.generator.config
        box = box_within(tuple(mask.shape[2:]), sorted(config.patch_sizes), config.depth)

        def part(at: Place) -> Tensor:
            painted: Tensor = self.generator(condition[at], generator)
            return painted

        return blended(part, mask, box)
