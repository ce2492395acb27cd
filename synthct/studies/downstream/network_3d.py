"""The small 3D U-Net of a study (Çiçek et al., arXiv:1606.06650), of residual blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Slices are not pooled to fewer than this.
_LEAST_SLICES = 4


@dataclass(frozen=True)
class Level:
    """How a level of the network treats slices; in plane each has half the resolution.

    Attributes:
        kernel: Slices that its convolutions see, 1 or 3.
        pool: Slices that are pooled on the way to it, 1 or 2.
    """

    kernel: int
    pool: int


def levels_of(number: int, pixel_mm: float, slice_mm: float, slices: int) -> list[Level]:
    """The levels of a network, as nnU-Net plans them: slices wait until pixels are as coarse.

    Args:
        number: Of levels.
        pixel_mm: Pixel size in plane.
        slice_mm: Distance of the slices.
        slices: Of a patch.
    """
    levels = []
    pool = 1
    for _ in range(number):
        is_thick = slice_mm >= 2 * pixel_mm
        levels.append(Level(1 if is_thick else 3, pool))
        pool = 1 if is_thick or slices < 2 * _LEAST_SLICES else 2
        pixel_mm, slice_mm, slices = 2 * pixel_mm, pool * slice_mm, slices // pool
    return levels


class Unet3d(nn.Module):
    """A U-Net of residual blocks from one channel to class scores.

    Args:
        channels: By level.
        classes: Number of classes with the background.
        levels: From ``levels_of``.
    """

    def __init__(self, channels: Sequence[int], classes: int, levels: Sequence[Level]) -> None:
        super().__init__()
        self._pools = [(level.pool, 2, 2) for level in levels]
        kernels = [level.kernel for level in levels]
        before = (1, *channels[:-1])
        self.down = nn.ModuleList(map(_Residual, before, channels, kernels))
        self.up = nn.ModuleList(
            _Residual(deep + here, here, kernel)
            for deep, here, kernel in zip(
                channels[:0:-1], channels[-2::-1], kernels[-2::-1], strict=True
            )
        )
        self.head = nn.Conv3d(channels[0], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Class scores (N, C, K, I, J) of slabs (N, 1, K, I, J), as large as a patch or larger."""
        kept: list[Tensor] = []
        x = image
        for number, (block, pool) in enumerate(zip(self.down, self._pools, strict=True)):
            x = block(functional.max_pool3d(x, pool) if number else x)
            kept.append(x)
        kept.pop()
        for block in self.up:
            beside = kept.pop()
            x = functional.interpolate(x, beside.shape[2:], mode="trilinear", align_corners=False)
            x = block(torch.cat([x, beside], dim=1))
        return cast(Tensor, self.head(x))


class _Residual(nn.Module):
    """Two convolutions, each normalised per picture, added to what came in."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (before, after):
            layers += [
                nn.Conv3d(channels, after, (kernel, 3, 3), padding=(kernel // 2, 1, 1), bias=False),
                nn.InstanceNorm3d(after, affine=True),
                nn.LeakyReLU(0.01, inplace=True),
            ]
        self.body = nn.Sequential(*layers[:-1])  # what came in is added before the last activation
        self.around = nn.Conv3d(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(self.body(x) + self.around(x), 0.01)
