"""Inpainting in 3D: a small U-Net for anisotropic boxes, and its pipeline for regions of any size.

Convolutions run in the plane of the slices (3 x 3 x 1) and through them (1 x 1 x 3) in turn, which
takes a third of the time of those of 3 x 3 x 3, and only the plane is pooled: a box has few slices,
and their distance is larger than a pixel. In memory the channels come last, so that both kinds are
convolutions in 2D of the same array.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from synthct.models.blend import Place, blended
from synthct.models.denoiser import Denoiser, DiffusionInpaintPipeline
from synthct.models.denoiser_config import DenoiserConfig
from synthct.models.pipeline import configured_by
from synthct.models.region import box_within
from synthct.models.volume_config import LAYOUT, VolumeConfig

#: Spacings are embedded as logarithms relative to these, common ones of abdominal scans.
REFERENCE_SPACING_MM = (0.8, 0.8, 2.5)


class VolumeUNet(Denoiser, ModelMixin, ConfigMixin):
    """A U-Net that predicts the noise, velocity or image of a masked box of a CT.

    Its arguments are the fields of ``volume_config.VolumeConfig``.
    """

    @configured_by(VolumeConfig)
    def __init__(self, *values: Any, **fields: Any) -> None:
        super().__init__()
        config = self.config  # with defaults
        self.fold, channels = config.fold, tuple(config.block_out_channels)
        first, embed = channels[0], channels[0] * 4
        count, like = config.layers_per_block, (embed, config.norm_num_groups, config.dropout)
        self.time = Timesteps(first, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(first, embed)
        self.label_embedding = nn.Embedding(len(config.labels) + 1 + config.guided, embed)
        self.spacing_embedding = TimestepEmbedding(3, embed)
        nn.init.zeros_(self.label_embedding.weight)

        def level(inside: int, outside: int) -> nn.ModuleList:
            widths = [inside, *[outside] * count]
            return nn.ModuleList(Block(*pair, *like) for pair in pairwise(widths))

        self.first = nn.Conv2d(3 * self.fold**2, first, 3, padding=1)
        self.down = nn.ModuleList(level(n, n) for n in channels)
        self.middle = Block(channels[-1], channels[-1], *like)
        self.up = nn.ModuleList(level(2 * n, n) for n in channels)
        pairs = list(pairwise(channels))
        self.smaller = nn.ModuleList(nn.Conv2d(a, b, 3, 2, padding=1) for a, b in pairs)
        self.larger = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in pairs)
        self.norm = nn.GroupNorm(config.norm_num_groups, first)
        self.last = nn.Conv2d(first, self.fold**2, 3, padding=1)
        self.keep_settings()

    def forward(
        self, noisy: Tensor, position: Tensor, masked: Tensor, mask: Tensor, label: Tensor,
        spacing_mm: Tensor, neighbours: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Predict noise, velocity or image, as the scheduler's ``prediction_type`` says.

        Args:
            noisy: (B, 1, H, W, D); noisy inside the mask, clean outside. D counts slices.
            position: (B,) or scalar; noise level, from ``noise_position``.
            masked: (B, 1, H, W, D); known region, from ``surroundings``.
            mask: (B, 1, H, W, D); 1 where the model paints.
            label: (B,) int64; as in ``PaletteUNet``.
            spacing_mm: (B, 3); voxel size along rows and columns, and through the slices.
            neighbours: None: it sees the slices themselves.

        Returns:
            (B, 1, H, W, D); meaningful inside the mask only.
        """
        del neighbours
        batch = len(noisy)
        reference = spacing_mm.new_tensor(REFERENCE_SPACING_MM)
        time = self.time(position.expand(batch)).to(noisy.dtype)
        condition = self.time_embedding(time) + self.label_embedding(label)
        condition = condition + self.spacing_embedding(torch.log(spacing_mm / reference))
        condition = nn.functional.silu(condition)
        x = torch.cat([noisy, masked, mask], dim=1).permute(0, 4, 1, 2, 3).flatten(0, 1)
        x = nn.functional.pixel_unshuffle(x, self.fold)
        x = self.first(x.contiguous(memory_format=torch.channels_last))
        skips: list[Tensor] = []
        for number, blocks in enumerate(self.down):
            x = self.smaller[number - 1](x) if number else x
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, condition)
            skips.append(x)
        x = self.middle(x, condition)
        for number in reversed(range(len(self.up))):
            x = torch.cat([x, skips[number]], dim=1)
            for block in self.up[number]:  # type: ignore[attr-defined]
                x = block(x, condition)
            if number:
                x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
                x = self.larger[number - 1](x)
        x = nn.functional.silu(_in_slices(self.norm(_in_boxes(x, batch)), x))
        x = nn.functional.pixel_shuffle(self.last(x), self.fold)
        return x.unflatten(0, (batch, -1)).permute(0, 2, 3, 4, 1)

    @property
    def size_multiple(self) -> int:
        """Sides of a slice must be multiples of this."""
        return int(self.fold * 2 ** (len(self.config.block_out_channels) - 1))


class Block(nn.Module):
    """A residual block: a convolution in the plane, then one through the slices.

    Args:
        inside: Channels of its input.
        outside: Channels of its output.
        embed: Channels of the condition, which scales and shifts.
        groups: Of the group norms, which are taken over the whole box.
        dropout: Before the second convolution.
    """

    def __init__(self, inside: int, outside: int, embed: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups, inside)
        self.in_plane = nn.Conv2d(inside, outside, 3, padding=1)
        self.scale_shift = nn.Linear(embed, 2 * outside)
        self.norm_through = nn.GroupNorm(groups, outside)
        self.dropout = nn.Dropout(dropout)
        self.through = nn.Conv2d(outside, outside, (3, 1), padding=(1, 0))
        self.skip = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()
        nn.init.zeros_(self.through.weight)
        nn.init.zeros_(self.through.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Of slices (B * D, C, H, W) and a condition (B, E)."""
        batch = len(condition)
        h = nn.functional.silu(_in_slices(self.norm_in(_in_boxes(x, batch)), x))
        h = self.in_plane(h)
        scale, shift = self.scale_shift(condition)[..., None, None].chunk(2, dim=1)
        boxes = self.norm_through(_in_boxes(h, batch)) * (1 + scale) + shift
        boxes = self.through(self.dropout(nn.functional.silu(boxes)))
        out: Tensor = self.skip(x) + _in_slices(boxes, h)
        return out


def _in_boxes(slices: Tensor, batch: int) -> Tensor:
    """Slices (B * D, C, H, W) as (B, C, D, H * W), without a copy where channels come last."""
    last = slices.permute(0, 2, 3, 1)
    return last.reshape(batch, -1, last.shape[1] * last.shape[2], last.shape[3]).permute(0, 3, 1, 2)


def _in_slices(boxes: Tensor, like: Tensor) -> Tensor:
    """The inverse of ``_in_boxes``, for slices of the shape of ``like`` but for their channels."""
    last = boxes.permute(0, 2, 3, 1)
    return last.reshape(*like.permute(0, 2, 3, 1).shape[:3], last.shape[3]).permute(0, 3, 1, 2)


class VolumeInpaintPipeline(DiffusionInpaintPipeline):
    """Inpaints boxes of a CT with a network in 3D and a scheduler of diffusers.

    The network sees boxes of the size that it was trained on. In a larger one they overlap, and
    their predictions are blended at every step, so that no border between them shows (Bar-Tal et
    al., "MultiDiffusion", 2023).
    """

    ndim, layout = 5, LAYOUT
    fields: ClassVar[type[DenoiserConfig]] = VolumeConfig

    def check_sides(self, sides: tuple[int, ...]) -> None:
        """As in ``DiffusionInpaintPipeline``."""
        box = self._box(sides)
        if any(n < least for n, least in zip(sides, box, strict=True)):
            raise ValueError(f"a box of {sides} voxels is smaller than {box}, which it paints")

    def predict(
        self, noisy: Tensor, position: Tensor, masked: Tensor, mask: Tensor, label: Tensor,
        spacing_mm: Tensor, adjacent: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """As in ``DiffusionInpaintPipeline``: blended from all boxes that show some of the mask."""
        network = super().predict

        def part(at: Place) -> Tensor:
            given = noisy[at], position, masked[at], mask[at], label, spacing_mm, adjacent
            return network(*given)

        return blended(part, mask, self._box(tuple(noisy.shape[2:])))

    def _box(self, sides: tuple[int, ...]) -> tuple[int, int, int]:
        config = self.unet.config
        return box_within(sides, sorted(config.patch_sizes), config.depth)
