"""The Pix2Pix generator: a U-Net that fills the hole of a patch in one pass.

Isola et al., "Image-to-image translation with conditional adversarial networks", 2017, as in the
public torch code, with two changes. Norms are over each sample by itself (instance norms with scale
and shift), which batch norms are too at the published batch of one, so that a painting does not
depend on the others of its batch. And dropout, which is kept when it paints, is drawn from each
sample's own generator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import Tensor, nn

from synthct.models.pipeline import InpaintPipeline, configured_by
from synthct.models.pix2pix_config import LAYOUT, Pix2PixConfig, check_config

#: Decoder levels with dropout, after the innermost one.
DROPPED = (1, 2, 3)


class Pix2PixGenerator(ModelMixin, ConfigMixin):
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

    def condition(self, image: Tensor, mask: Tensor, label: Tensor) -> Tensor:
        """What the generator is told.

        Args:
            image: (B, 1, H, W) in -1..1; values inside the mask have no influence.
            mask: (B, 1, H, W); 1 where the model paints.
            label: (B,) int64; 0 for whatever fits, n + 1 for ``labels[n]``.

        Returns:
            (B, 2 + labels, H, W): the patch with 0 in its hole, the mask, and the mask again in the
            plane of its label.
        """
        known = (mask <= 0.5).to(image.dtype)
        planes = nn.functional.one_hot(label, 1 + len(self.config.labels))[:, 1:, None, None]
        return torch.cat([image * known, mask, mask * planes.to(mask.dtype)], dim=1)

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
                x = self._drop(x, generators)
            if skips:
                x = torch.cat([skips.pop(), x], dim=1)
        return x

    def _drop(self, x: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
        share = self.config.dropout
        if generators is None:
            return nn.functional.dropout(x, share, self.training)
        drawn = torch.stack([torch.rand(x.shape[1:], generator=one) for one in generators])
        return x * (drawn >= share).to(x.device, x.dtype) / (1 - share)


class Pix2PixInpaintPipeline(InpaintPipeline):
    """Inpaints 2D CT patches with a ``Pix2PixGenerator``, in one pass.

    It works on tensors in -1..1; ``synthct.inpaint`` paints scans in HU.
    """

    layout = LAYOUT

    def __init__(self, generator: Pix2PixGenerator) -> None:
        super().__init__()
        self.register_modules(generator=generator)

    @classmethod
    def check_config(cls, name: str, config: Mapping[str, Any]) -> None:
        """As in ``InpaintPipeline``."""
        check_config(name, config)

    @torch.no_grad()
    def __call__(
        self, image: Tensor, mask_image: Tensor, label: Tensor, generator: list[torch.Generator]
    ) -> Tensor:
        """Paint a batch.

        Args:
            image: (B, 1, H, W) in -1..1; values inside the mask have no influence.
            mask_image: (B, 1, H, W); 1 where the model paints, 0 elsewhere.
            label: (B,) int64; 0 for whatever fits, n + 1 for ``generator.config.labels[n]``.
            generator: One CPU generator per sample, so that its dropout does not depend on the
                others in the batch.

        Returns:
            (B, 1, H, W) in -1..1, equal to ``image`` outside the mask; NaN where the network
            overflowed.
        """
        condition = self.generator.condition(image, mask_image, label)
        painted = self.generator(condition, generator).to(image.dtype)
        return torch.where(mask_image > 0.5, painted, image)
