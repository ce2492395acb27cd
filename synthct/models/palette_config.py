"""The fields of a Palette network: one model for recipes, checkpoints and the network itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from synthct.models.config import Channels, PatchFields, require_declared, require_known
from synthct.models.layout import Component, Layout

LAYOUT = Layout(
    "PaletteInpaintPipeline",
    "a checkpoint of synthct",
    (Component("unet", "network", ("synthct", "synthct.models.palette"), "PaletteUNet"),),
)
Strength = Annotated[float, Field(gt=0, le=1)]


class PaletteFields(PatchFields):
    """The fields of a Palette network that a training recipe states.

    The defaults are Palette's: 64 base channels, multipliers 1, 2, 4, 8, two residual blocks,
    dropout 0.2, attention with 32 channels per head in the middle block only.

    Attributes:
        block_out_channels: Channels per level.
        layers_per_block: Residual blocks per level.
        attention_head_dim: Channels per attention head in the middle block.
        dropout: Dropout inside the residual blocks.
        norm_num_groups: Groups of the group norms; divides every entry of block_out_channels.
        fold: Side of the pixel blocks folded into channels before the first layer (space to depth,
            "simple diffusion", Hoogeboom et al. 2023); 2 makes a pass four times cheaper.
        residual_scale: Diffuse the difference from ``smooth_fill``, times this; None for the image
            itself, as Palette does. The fill gives the mean value, which group norms make hard to
            carry across a hole.
        neighbours: 2 gives the network the slices before and after along the axis of the view, as
            far as they are known (``PaletteUNet.neighbour_channels``); 0 does not.
        strengths: Share of the noise schedule that painting runs through, by label; ``default`` for
            the others.
        noise_embedding: Condition the network on the step of the schedule (``timestep``) or on the
            noise level (``level``), which allows painting with another schedule.
        clip_denoised: Clip the predicted image to -1..1 at every step, as Palette does: a predicted
            noise implies values far beyond at low signal. Excludes ``residual_scale``.
    """

    block_out_channels: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=8)] = (
        64, 128, 256, 512,
    )  # fmt: skip
    layers_per_block: Annotated[int, Field(ge=1, le=16)] = 2
    attention_head_dim: Channels = 32
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.2
    norm_num_groups: Channels = 32
    fold: Annotated[int, Field(ge=1, le=16)] = 1
    residual_scale: Annotated[float, Field(gt=0, le=1000)] | None = None
    neighbours: Literal[0, 2] = 0
    strengths: Mapping[str, Strength] | None = Field(default_factory=dict)
    noise_embedding: Literal["timestep", "level"] = "timestep"
    clip_denoised: bool = False

    @property
    def size_multiple(self) -> int:
        """Patch sides must be multiples of this."""
        return int(self.fold * 2 ** (len(self.block_out_channels) - 1))

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if odd := [n for n in self.patch_sizes if n % self.size_multiple]:
            raise ValueError(f"patch_sizes {odd} are not multiples of {self.size_multiple}")
        if any(n % self.norm_num_groups for n in self.block_out_channels):
            raise ValueError(f"block_out_channels must be multiples of {self.norm_num_groups}")
        if self.block_out_channels[-1] % self.attention_head_dim:
            raise ValueError("attention_head_dim must divide the last of block_out_channels")
        if self.clip_denoised and self.residual_scale is not None:
            raise ValueError("clip_denoised is for the image itself; remove residual_scale")
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


class PaletteConfig(PaletteFields):
    """``unet/config.json``: all arguments of ``PaletteUNet``.

    Attributes:
        guided: Whether it has a null label, for classifier-free guidance.
        trained_steps: It was trained for this number of evenly spaced steps only; None for every
            noise level of the schedule.
    """

    guided: bool = False
    trained_steps: Annotated[int, Field(ge=1, le=100_000)] | None = None

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        require_known(self, "codecs", "strengths")
        return self


def check_config(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a ``unet/config.json`` that describes no network, or leaves its patches undeclared.

    Args:
        name: The checkpoint's name.
        config: The content of the file.

    Raises:
        CheckpointError: With the first key that is wrong, and why.
    """
    require_declared(name, "unet/config.json", config, PaletteConfig)
