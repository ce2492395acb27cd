"""Shared by networks that were trained elsewhere: configs, and the settings that recipes add.

diffusers and transformers run more variants of these networks than synthct can paint with; configs
are checked for that, and the rest is left to these libraries. Labels, codecs and spacings are
stated in the recipe, not in such a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from synthct.models.config import Channels, check_range
from synthct.models.methods import Diffusion
from synthct.models.network import CheckpointFiles, Misfit, described
from synthct.models.patch import PatchRules
from synthct.volume.intensity import parse_codec

Layers = Annotated[int, Field(ge=1, le=64)]
Side = Annotated[int, Field(ge=1, le=4096)]
#: Channels of an image: grey or RGB; CT fills all three alike.
Pixels = Literal[1, 3]

#: Without a range in the recipe, every scan is painted on its own grid.
ANY_SPACING_MM = (0.01, 100.0)


class ForeignConfig(BaseModel):
    """A config, checked only in the fields that painting depends on."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)


class BlocksConfig(ForeignConfig):
    """The common fields of diffusers' U-Nets and autoencoders.

    Attributes:
        block_out_channels: Channels per level; each level but the first has half the resolution.
        layers_per_block: Residual blocks per level.
    """

    block_out_channels: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=8)]
    layers_per_block: Layers | Annotated[tuple[Layers, ...], Field(max_length=8)] = 2

    @property
    def reduction(self) -> int:
        """Pixels per pixel of the deepest level, along each axis."""
        return int(2 ** (len(self.block_out_channels) - 1))


class UnetConfig(BlocksConfig):
    """A U-Net without class labels.

    Attributes:
        sample_size: Side of the squares that it was trained on.
    """

    sample_size: Side | tuple[Side, Side]
    class_embed_type: None = None
    num_class_embeds: None = None

    @property
    def side(self) -> int:
        """Side of the squares that it was trained on."""
        return self.sample_size if isinstance(self.sample_size, int) else self.sample_size[0]

    @model_validator(mode="after")
    def _check_side(self) -> UnetConfig:
        if isinstance(self.sample_size, tuple) and len(set(self.sample_size)) > 1:
            raise ValueError("sample_size: synthct paints in squares")
        return self


def codec_misfits(files: CheckpointFiles, inpaint: Diffusion) -> Iterator[Misfit]:
    """Missing codecs, and codecs in which all tissues are the same."""
    if inpaint.codecs is None:
        yield Misfit(
            (),
            f"{described(files)}, which does not say how HU become its -1..1; say it, as in "
            "codecs: {default: soft_tissue}",
        )
    for name, codec in (inpaint.codecs or {}).items():
        try:
            check_range(name, parse_codec(codec))
        except ValueError as err:
            yield Misfit(("codecs", name), str(err))


def stated_rules(inpaint: Diffusion, labels: Sequence[str], side: int) -> PatchRules:
    """The patch rules that a recipe states for a checkpoint.

    Args:
        inpaint: The recipe's section.
        labels: The labels that the checkpoint provides.
        side: Side of its patches in pixels.

    Raises:
        CheckpointError: If the rules are invalid.
    """
    return PatchRules.from_config(
        {
            "labels": labels,
            "codecs": inpaint.codecs,
            "patch_sizes": [side],
            "spacing_range_mm": inpaint.spacing_range_mm or ANY_SPACING_MM,
        }
    )
