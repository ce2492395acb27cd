"""The small 2D U-Net that all arms train alike (Ronneberger et al., arXiv:1505.04597)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class Unet(nn.Module):
    """A U-Net from one channel to class scores.

    Args:
        channels: By level; each further one has half the resolution.
        classes: Number of classes with the background.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        before = (1, *channels[:-1])
        self.down = nn.ModuleList(_block(a, b) for a, b in zip(before, channels, strict=True))
        self.up = nn.ModuleList(
            _block(deep + here, here)
            for deep, here in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(channels[0], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Class scores (N, C, H, W) of slices (N, 1, H, W); H, W are multiples of 2^(levels-1)."""
        kept: list[Tensor] = []
        x = image
        for number, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if number else x)
            kept.append(x)
        kept.pop()
        for block in self.up:
            x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, kept.pop()], dim=1))
        return cast(Tensor, self.head(x))


class Classifier(nn.Module):
    """The way down of the U-Net; of each feature the greatest value in the picture counts.

    Args:
        channels: By level; each further one has half the resolution.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        before = (1, *channels[:-1])
        self.down = nn.ModuleList(_block(a, b) for a, b in zip(before, channels, strict=True))
        self.head = nn.Linear(channels[-1], 1)

    def forward(self, image: Tensor) -> Tensor:
        """Log-odds (N,) of a lesion in pictures (N, 1, H, W)."""
        x = image
        for number, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if number else x)
        return cast(Tensor, self.head(x.amax((2, 3))))[:, 0]


def _block(before: int, after: int) -> nn.Module:
    """Two convolutions, each normalised per picture."""
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [
            nn.Conv2d(channels, after, 3, padding=1, bias=False),
            nn.InstanceNorm2d(after, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        ]
    return nn.Sequential(*layers)
