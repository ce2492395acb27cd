"""What checkpoints of other makers say of themselves, as far as painting with them depends on it.

diffusers and transformers run many more variants of these networks than synthct knows how to ask;
here is told which it can, before their weights are read. The rest of a config is theirs to check.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from synthct.errors import CheckpointError
from synthct.models.config import require
from synthct.models.layout import TEXT, UNCONDITIONAL, Layout

Channels = Annotated[int, Field(ge=1, le=65_536)]
Layers = Annotated[int, Field(ge=1, le=64)]
Side = Annotated[int, Field(ge=1, le=4096)]
Pixels = Literal[1, 3]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)


class _Blocks(_Config):
    """What the networks of diffusers have in common.

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


class _Unet(_Blocks):
    """A U-Net that is told nothing but what its adapter gives it.

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
    def _check_side(self) -> _Unet:
        if isinstance(self.sample_size, tuple) and len(set(self.sample_size)) > 1:
            raise ValueError("sample_size: synthct paints in squares")
        return self


class UnconditionalConfig(_Unet):
    """``unet/config.json`` of a DDPM: noise is predicted for an image of one or three channels."""

    in_channels: Pixels
    out_channels: Pixels

    @model_validator(mode="after")
    def _check(self) -> UnconditionalConfig:
        if self.in_channels != self.out_channels:
            raise ValueError(
                f"out_channels: {self.out_channels} of {self.in_channels} in_channels; a network "
                "that also predicts a variance is not known here"
            )
        if self.side % self.reduction or self.side < 8:
            raise ValueError(f"sample_size: {self.side} is not a multiple of {self.reduction}")
        return self


class TextUnetConfig(_Unet):
    """``unet/config.json`` of a latent inpainting model that is told by text."""

    in_channels: Channels
    out_channels: Channels
    cross_attention_dim: Channels
    transformer_layers_per_block: Layers = 1
    addition_embed_type: None = None
    encoder_hid_dim: None = None
    encoder_hid_dim_type: None = None
    time_cond_proj_dim: None = None


class AutoencoderConfig(_Blocks):
    """``vae/config.json``: from pixels to latents and back."""

    in_channels: Pixels
    out_channels: Pixels
    latent_channels: Channels
    scaling_factor: Annotated[float, Field(gt=0, le=1000)] = 0.18215
    shift_factor: None = None
    latents_mean: None = None
    latents_std: None = None

    @model_validator(mode="after")
    def _check(self) -> AutoencoderConfig:
        if self.in_channels != self.out_channels:
            raise ValueError(f"out_channels: {self.out_channels} of {self.in_channels} in_channels")
        return self


class TextEncoderConfig(_Config):
    """``text_encoder/config.json``: the text half of CLIP."""

    hidden_size: Channels
    intermediate_size: Channels
    num_hidden_layers: Layers
    num_attention_heads: Layers
    vocab_size: Annotated[int, Field(ge=2, le=1_000_000)]
    max_position_embeddings: Annotated[int, Field(ge=2, le=4096)] = 77


def require_foreign(name: str, layout: Layout, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a checkpoint of another maker that synthct does not know how to ask.

    Args:
        name: The checkpoint's name.
        layout: Which pipeline it is.
        configs: The config of each component.

    Raises:
        CheckpointError: With the first key that is wrong, and why.
    """
    if layout == UNCONDITIONAL:
        require(name, "unet/config.json", configs["unet"], UnconditionalConfig)
        if (kind := configs["scheduler"].get("prediction_type", "epsilon")) != "epsilon":
            raise CheckpointError(
                f"checkpoint '{name}' predicts {kind}; an unconditional model can be painted with "
                "if it predicts the noise (epsilon)"
            )
    if layout == TEXT:
        unet = require(name, "unet/config.json", configs["unet"], TextUnetConfig)
        vae = require(name, "vae/config.json", configs["vae"], AutoencoderConfig)
        words = require(
            name, "text_encoder/config.json", configs["text_encoder"], TextEncoderConfig
        )
        _check_fit(name, unet, vae, words)


def patch_side(layout: Layout, configs: Mapping[str, Mapping[str, Any]]) -> int:
    """Side in pixels of the patches that a checkpoint was trained on."""
    unet = configs["unet"]["sample_size"]
    side = unet if isinstance(unet, int) else unet[0]
    levels = len(configs["vae"]["block_out_channels"]) if layout == TEXT else 1
    return int(side * 2 ** (levels - 1))


def _check_fit(
    name: str, unet: TextUnetConfig, vae: AutoencoderConfig, words: TextEncoderConfig
) -> None:
    """Refuse networks that do not fit together: the U-Net sees latents, mask, masked latents."""
    latents, side = vae.latent_channels, unet.side * vae.reduction
    wanted = [
        ("in_channels", unet.in_channels, 2 * latents + 1, "noisy latents, mask, masked latents"),
        ("out_channels", unet.out_channels, latents, "latents of the autoencoder"),
        ("cross_attention_dim", unet.cross_attention_dim, words.hidden_size, "of the text encoder"),
    ]
    for key, found, needed, why in wanted:
        if found != needed:
            raise CheckpointError(
                f"checkpoint '{name}': its U-Net has {key} {found}, not {needed} ({why}); only "
                "models made for inpainting can be used"
            )
    if unet.side % unet.reduction or not 8 <= side <= 4096:
        raise CheckpointError(
            f"checkpoint '{name}': its sample_size {unet.side} must be a multiple of "
            f"{unet.reduction}, for patches of 8 to 4096 pixels"
        )


def require_transformers(name: str) -> None:
    """Make sure that there is what reads text.

    Raises:
        CheckpointError: If transformers is not installed.
    """
    if find_spec("transformers") is None:
        raise CheckpointError(
            f"checkpoint '{name}' is told by text, for which transformers is missing; "
            "install it with: pip install '.[text]'"
        )
