"""The fields of a ``VolumeUNet``: one model for recipes, checkpoints and the network itself."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from synthct.models.config import BoxFields, Channels, PatchSizes
from synthct.models.denoiser_config import DenoiserConfig, UNetFields
from synthct.models.layout import Component, Layout

LAYOUT = Layout(
    "VolumeInpaintPipeline",
    "a checkpoint of synthct in 3D",
    (Component("unet", "network", ("synthct", "synthct.models.volume_unet"), "VolumeUNet"),),
)


class VolumeFields(BoxFields, UNetFields):
    """The fields of a ``VolumeUNet`` that a training recipe states; its defaults are small."""

    patch_sizes: PatchSizes = (64,)
    block_out_channels: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=8)] = (
        24, 48, 96,
    )  # fmt: skip
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    norm_num_groups: Channels = 8
    fold: Annotated[int, Field(ge=1, le=16)] = 2


class VolumeSection(VolumeFields):
    """The section ``model`` of a training recipe: a network in 3D and the boxes that it takes.

    Attributes:
        kind: Which network it is.
    """

    shape: ClassVar[tuple[str, ...]] = (
        "block_out_channels",
        "layers_per_block",
        "norm_num_groups",
        "fold",
        "residual_scale",
    )
    summary: ClassVar[str] = (
        "U-Net that paints the masked part of a CT in 3D\n"
        "(Palette-style inpainting: noisy box, masked box, mask; loss inside the mask only)."
    )

    kind: Literal["volume"] = "volume"


class VolumeConfig(VolumeFields, DenoiserConfig):
    """``unet/config.json``: all arguments of ``VolumeUNet``."""
