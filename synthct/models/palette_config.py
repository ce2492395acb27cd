"""The fields of a Palette network: one model for recipes, checkpoints and the network itself."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from synthct.models.config import Channels
from synthct.models.denoiser_config import DenoiserConfig, UNetFields
from synthct.models.layout import Component, Layout

LAYOUT = Layout(
    "PaletteInpaintPipeline",
    "a checkpoint of synthct",
    (Component("unet", "network", ("synthct", "synthct.models.palette"), "PaletteUNet"),),
)


class PaletteFields(UNetFields):
    """The fields of a Palette network that a training recipe states.

    The defaults are Palette's: 64 base channels, multipliers 1, 2, 4, 8, two residual blocks,
    dropout 0.2, attention with 32 channels per head in the middle block only.

    Attributes:
        attention_head_dim: Channels per attention head in the middle block.
        neighbours: 2 gives the network the slices before and after along the axis of the view, as
            far as they are known (``PaletteUNet.neighbour_channels``); 0 does not.
    """

    attention_head_dim: Channels = 32
    neighbours: Literal[0, 2] = 0

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.block_out_channels[-1] % self.attention_head_dim:
            raise ValueError("attention_head_dim must divide the last of block_out_channels")
        return self


class PaletteSection(PaletteFields):
    """The section ``model`` of a training recipe: the network and the patches that it takes.

    ``labels`` are further labels, listed before those of the masks, such as those of a checkpoint
    that training starts from.

    Attributes:
        kind: Which network it is.
    """

    shape: ClassVar[tuple[str, ...]] = (
        "block_out_channels",
        "layers_per_block",
        "attention_head_dim",
        "norm_num_groups",
        "fold",
        "residual_scale",
    )
    summary: ClassVar[str] = (
        "U-Net that paints the masked part of a CT slice\n"
        "(Palette-style inpainting: noisy patch, masked patch, mask; loss inside the mask only)."
    )

    kind: Literal["palette"] = "palette"


class PaletteConfig(PaletteFields, DenoiserConfig):
    """``unet/config.json``: all arguments of ``PaletteUNet``."""
