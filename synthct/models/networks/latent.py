"""Latent inpainting guided by text: Stable Diffusion (Rombach et al. 2022).

The U-Net gets noisy latents, the mask, and the latents of the masked image. A grey CT patch is
repeated over the channels of the autoencoder, and the mean of the decoded channels is taken.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from synthct.errors import CheckpointError
from synthct.models.config import Channels, require
from synthct.models.foreign import (
    BlocksConfig,
    ForeignConfig,
    Layers,
    Pixels,
    UnetConfig,
    codec_misfits,
    stated_rules,
)
from synthct.models.layout import TRANSFORMERS, Component, Layout
from synthct.models.methods import Diffusion
from synthct.models.network import Checkpoint, CheckpointFiles, Misfit, Network, described
from synthct.models.patch import Patch, PatchRules

if TYPE_CHECKING:
    from torch import Tensor


class TextUnetConfig(UnetConfig):
    """``unet/config.json`` of a latent inpainting model that is guided by text."""

    in_channels: Channels
    out_channels: Channels
    cross_attention_dim: Channels
    transformer_layers_per_block: Layers = 1
    addition_embed_type: None = None
    encoder_hid_dim: None = None
    encoder_hid_dim_type: None = None
    time_cond_proj_dim: None = None


class AutoencoderConfig(BlocksConfig):
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


class TextEncoderConfig(ForeignConfig):
    """``text_encoder/config.json``: the text half of CLIP."""

    hidden_size: Channels
    intermediate_size: Channels
    num_hidden_layers: Layers
    num_attention_heads: Layers
    vocab_size: Annotated[int, Field(ge=2, le=1_000_000)]
    max_position_embeddings: Annotated[int, Field(ge=2, le=4096)] = 77


class TextGuided(Network):
    """A latent inpainting model with the embeddings of its prompts."""

    layout = Layout(
        "StableDiffusionInpaintPipeline",
        "a model guided by text",
        (
            Component("unet", "network", ("diffusers",), "UNet2DConditionModel"),
            Component("vae", "autoencoder", ("diffusers",), "AutoencoderKL"),
            Component(
                "text_encoder", "text encoder", ("transformers",), "CLIPTextModel", (TRANSFORMERS,)
            ),
            Component(
                "tokenizer",
                "tokenizer",
                ("transformers",),
                "CLIPTokenizer",
                (
                    ("tokenizer_config.json", "vocab.json", "merges.txt"),
                    ("tokenizer_config.json", "tokenizer.json"),
                ),
                optional=("special_tokens_map.json",),
            ),
        ),
        ignored=frozenset({"feature_extractor", "requires_safety_checker", "safety_checker"}),
    )
    settings = ("prompt", "codecs", "spacing_range_mm")
    packages = ("tokenizers", "transformers")
    numeric_packages = ("transformers",)

    @classmethod
    def check_configs(cls, name: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """As in ``Network``."""
        unet = require(name, "unet/config.json", configs["unet"], TextUnetConfig)
        vae = require(name, "vae/config.json", configs["vae"], AutoencoderConfig)
        text = require(name, "text_encoder/config.json", configs["text_encoder"], TextEncoderConfig)
        _check_fit(name, unet, vae, text)

    @classmethod
    def misfits(
        cls, files: CheckpointFiles, inpaint: Diffusion, labels: Sequence[str | None]
    ) -> Iterator[Misfit]:
        """As in ``Network``."""
        yield from super().misfits(files, inpaint, labels)
        yield from codec_misfits(files, inpaint)
        for label in labels:
            if inpaint.prompt_for(label) is None:
                tells = f"what '{label}' is" if label else "what fits where a mask has no label"
                yield Misfit(
                    () if inpaint.prompt is None else ("prompt",),
                    f"{described(files)}; give it a prompt that tells {tells}, as in prompt: "
                    f"{{{label or 'default'}: CT slice of {label or 'the abdomen'}}}",
                )

    @classmethod
    def rules(
        cls, files: CheckpointFiles, inpaint: Diffusion, labels: Sequence[str | None]
    ) -> PatchRules:
        """As in ``Network``; it provides every label that the recipe has a prompt for."""
        require_transformers(files.name)
        name, configs = files.name, files.configs
        unet = require(name, "unet/config.json", configs["unet"], TextUnetConfig)
        vae = require(name, "vae/config.json", configs["vae"], AutoencoderConfig)
        provided = tuple(label for label in labels if label is not None)
        return stated_rules(inpaint, provided, unet.side * vae.reduction)

    @classmethod
    def load(cls, files: CheckpointFiles, device: str) -> Mapping[str, Any]:
        """As in ``Network``; ``text`` is the encoder with its tokenizer."""
        require_transformers(files.name)
        from diffusers import AutoencoderKL, UNet2DConditionModel

        from synthct.models.text import load_text_model
        from synthct.models.weights import load_network

        return {
            "unet": load_network(files, "unet", UNet2DConditionModel, device),
            "vae": load_network(files, "vae", AutoencoderKL, device),
            "text": load_text_model(files, device),
        }

    def __init__(
        self, checkpoint: Checkpoint, inpaint: Diffusion, prompts: Sequence[str | None]
    ) -> None:
        """As in ``Network``; a prompt that is too long is refused."""
        from synthct.models.painting.schedulers import make_scheduler, require_steps

        scheduler, steps = inpaint.scheduler, inpaint.num_inference_steps
        self.scheduler = make_scheduler(scheduler, checkpoint.files.scheduler_config)
        require_steps(self.scheduler, scheduler, steps)
        self.name, self.steps = checkpoint.files.name, steps
        self.guidance_scale = inpaint.guidance_scale or 1.0
        self.unet, self.vae, text = checkpoint["unet"], checkpoint["vae"], checkpoint["text"]
        self.device = next(self.unet.parameters()).device
        self.passes = len(self.scheduler.timesteps) * (1 if self.guidance_scale == 1 else 2)
        self.reduction = 2 ** (len(self.vae.config.block_out_channels) - 1)
        # One text at a time: in a batch its embedding would depend on the others.
        self.prompts = [None if prompt is None else text.encode(prompt) for prompt in prompts]
        self.empty_prompt = text.encode("")

    def paint_batch(self, patches: Sequence[Patch], seeds: Sequence[int]) -> Tensor:
        """As in ``Network``."""
        import torch
        from diffusers.utils.torch_utils import randn_tensor

        from synthct.models.painting.tensors import as_tensors

        image, mask, generators = as_tensors(patches, seeds, self.device)
        prompts = torch.stack([self._prompt(patch.label) for patch in patches])
        empty = self.empty_prompt.expand_as(prompts)
        # A latent pixel is painted if any of its pixels is masked.
        cells = torch.nn.functional.max_pool2d(mask, self.reduction)
        known = self._encode(image * (1 - mask))
        # Multistep schedulers keep state between batches unless set again.
        self.scheduler.set_timesteps(self.steps, device=self.device)
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generators} if takes_generator else {}

        noisy = randn_tensor(known.shape, generator=generators, device=self.device)
        noisy = noisy * self.scheduler.init_noise_sigma
        for t in self.scheduler.timesteps:
            seen = self.scheduler.scale_model_input(noisy, t)
            seen = torch.cat([seen, cells, known], dim=1)
            out = self.unet(seen, t, encoder_hidden_states=prompts).sample
            if self.guidance_scale != 1:
                without = self.unet(seen, t, encoder_hidden_states=empty).sample
                out = without + self.guidance_scale * (out - without)
            with torch.autocast(self.device.type, enabled=False):  # schedulers need float32
                noisy = self.scheduler.step(out.to(noisy.dtype), t, noisy, **extra).prev_sample
        painted = self._decode(noisy)
        painted = torch.where(painted.isfinite(), painted, torch.nan)  # clipping would hide it
        return torch.where(mask > 0.5, painted.clamp(-1, 1), image)[:, 0]

    def probe(self, size: int) -> None:
        """As in ``Network``."""
        import torch

        side = size // self.reduction
        channels = int(self.unet.config.in_channels)
        blank = torch.zeros((1, channels, side, side), device=self.device)
        self.unet(blank, 0, encoder_hidden_states=self.empty_prompt[None])

    def _prompt(self, label: int) -> Tensor:
        """The embedding of a label's prompt.

        Raises:
            CheckpointError: If it has none.
        """
        embedding = self.prompts[label] if label < len(self.prompts) else None
        if embedding is None:
            raise CheckpointError(f"checkpoint '{self.name}' is guided by text; give it a prompt")
        return embedding

    def _encode(self, image: Tensor) -> Tensor:
        """Pixels (B, 1, S, S) to latents: the mode of the autoencoder's distribution."""
        import torch

        channels = int(self.vae.config.in_channels)
        with torch.autocast(self.device.type, enabled=False):  # half precision overflows there
            latents = self.vae.encode(image.expand(-1, channels, -1, -1)).latent_dist.mode()
        return latents * float(self.vae.config.scaling_factor)

    def _decode(self, latents: Tensor) -> Tensor:
        """Latents to pixels (B, 1, S, S)."""
        import torch

        with torch.autocast(self.device.type, enabled=False):
            pixels = self.vae.decode(latents / float(self.vae.config.scaling_factor)).sample
        return pixels.mean(dim=1, keepdim=True)


def require_transformers(name: str) -> None:
    """Check that transformers, which encodes prompts, is installed.

    Raises:
        CheckpointError: If it is not.
    """
    if find_spec("transformers") is None:
        raise CheckpointError(
            f"checkpoint '{name}' is guided by text, for which transformers is missing; "
            "install it with: pip install '.[text]'"
        )


def _check_fit(
    name: str, unet: TextUnetConfig, vae: AutoencoderConfig, text: TextEncoderConfig
) -> None:
    """Refuse a U-Net that does not go with the autoencoder and the text encoder."""
    latents, side = vae.latent_channels, unet.side * vae.reduction
    required = [
        ("in_channels", unet.in_channels, 2 * latents + 1, "noisy latents, mask, masked latents"),
        ("out_channels", unet.out_channels, latents, "latents of the autoencoder"),
        ("cross_attention_dim", unet.cross_attention_dim, text.hidden_size, "of the text encoder"),
    ]
    for key, value, needed, why in required:
        if value != needed:
            raise CheckpointError(
                f"checkpoint '{name}': its U-Net has {key} {value}, not {needed} ({why}); only "
                "models made for inpainting can be used"
            )
    if unet.side % unet.reduction or not 8 <= side <= 4096:
        raise CheckpointError(
            f"checkpoint '{name}': its sample_size {unet.side} must be a multiple of "
            f"{unet.reduction}, for patches of 8 to 4096 pixels"
        )
