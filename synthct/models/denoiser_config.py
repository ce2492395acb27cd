"""The fields of networks that inpaint by diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from synthct.models.config import Channels, PatchFields, require_known

Strength = Annotated[float, Field(gt=0, le=1)]
Guidance = Annotated[float, Field(ge=1, le=20)]


class DenoiserFields(PatchFields):
    """The fields of a denoising network that a training recipe states.

    Attributes:
        residual_scale: Diffuse the difference from ``smooth_fill``, times this; None for the image
            itself, as Palette does. The fill gives the mean value, which group norms make hard to
            carry across a hole.
        strengths: Share of the noise schedule that painting runs through, by label; ``default`` for
            the others.
        guidance: Classifier-free guidance (Ho and Salimans, "Classifier-free diffusion guidance",
            2022) by label, ``default`` for the others, where a recipe states none: 1 for none. It
            leads away from what the network paints without a label, so it must know that: as
            whatever fits, or by label dropout.
        noise_embedding: Condition the network on the step of the schedule (``timestep``) or on the
            noise level (``level``), which allows painting with another schedule.
        clip_denoised: Clip the predicted image to -1..1 at every step, as Palette does: a predicted
            noise implies values far beyond at low signal. Excludes ``residual_scale``.
    """

    residual_scale: Annotated[float, Field(gt=0, le=1000)] | None = None
    strengths: Mapping[str, Strength] | None = Field(default_factory=dict)
    guidance: Mapping[str, Guidance] = Field(default_factory=dict)
    noise_embedding: Literal["timestep", "level"] = "timestep"
    clip_denoised: bool = False

    @model_validator(mode="after")
    def _check_clip(self) -> Self:
        if self.clip_denoised and self.residual_scale is not None:
            raise ValueError("clip_denoised is for the image itself; remove residual_scale")
        return self


class UNetFields(DenoiserFields):
    """The fields of a U-Net that synthct builds itself.

    Attributes:
        block_out_channels: Channels per level.
        layers_per_block: Residual blocks per level.
        dropout: Dropout inside the residual blocks.
        norm_num_groups: Groups of the group norms; divides every entry of block_out_channels.
        fold: Side of the pixel blocks folded into channels before the first layer (space to depth,
            "simple diffusion", Hoogeboom et al. 2023); 2 makes a pass four times cheaper.
    """

    block_out_channels: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=8)] = (
        64, 128, 256, 512,
    )  # fmt: skip
    layers_per_block: Annotated[int, Field(ge=1, le=16)] = 2
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.2
    norm_num_groups: Channels = 32
    fold: Annotated[int, Field(ge=1, le=16)] = 1

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
        return self


class DenoiserConfig(DenoiserFields):
    """The further fields of ``unet/config.json``.

    Attributes:
        guided: Whether it has a null label, for classifier-free guidance.
        trained_steps: It was trained for this number of evenly spaced steps only; None for every
            noise level of the schedule.
    """

    guided: bool = False
    trained_steps: Annotated[int, Field(ge=1, le=100_000)] | None = None

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        require_known(self, "codecs", "strengths", "guidance")
        return self
