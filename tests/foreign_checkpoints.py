"""Tiny random checkpoints of other makers, written as diffusers and transformers write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDPMPipeline, DDPMScheduler, UNet2DConditionModel, UNet2DModel
from torch import nn

#: Words that the tiny tokenizer knows; others it takes apart, and what is left it does not know.
WORDS = ("ct", "slice", "of", "a", "kidney", "tumor", "liver")
#: Side of the patches that both take.
SIDE = 32


def count_passes(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with each pass of the network."""
    forward, passes = network.forward, []

    def spy(*args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        return forward(*args, **kwargs)

    monkeypatch.setattr(network, "forward", spy)
    return passes


def write_unconditional(folder: Path, *, channels: int = 1, seed: int = 0, **config: Any) -> Path:
    """A DDPM of 9,000 random numbers for patches of 32 pixels."""
    fields: dict[str, Any] = {
        "sample_size": SIDE,
        "in_channels": channels,
        "out_channels": channels,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "attention_head_dim": 8,
        "norm_num_groups": 4,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = DDPMPipeline(UNet2DModel(**(fields | config)), DDPMScheduler())
    pipeline.save_pretrained(folder)
    return folder


def write_text_model(folder: Path, *, seed: int = 0, unet: dict[str, Any] | None = None) -> Path:
    """Stable Diffusion's inpainting, for latents of 16 and patches of 32 pixels.

    The autoencoder is sure of its latents, so that its mean is what it draws.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    words = write_tokenizer(folder / "tokenizer")
    fields: dict[str, Any] = {
        "sample_size": SIDE // 2,
        "in_channels": 9,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet2DConditionModel(**(fields | (unet or {})))
        autoencoder = AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
        )
        with torch.no_grad():
            autoencoder.quant_conv.bias[4:] = -30.0
        encoder = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                vocab_size=words,
                bos_token_id=words - 3,
                eos_token_id=words - 2,
            )
        )
    network.save_pretrained(folder / "unet")
    autoencoder.save_pretrained(folder / "vae")
    encoder.save_pretrained(folder / "text_encoder")
    DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    ).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionInpaintPipeline",
        "_diffusers_version": "0.35.0",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": [None, None],
        "requires_safety_checker": True,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_tokenizer(folder: Path) -> int:
    """CLIP's tokenizer as it was written for years: ``vocab.json`` and ``merges.txt``.

    Returns:
        Size of its vocabulary.
    """
    letters = sorted(set("".join(WORDS)))
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
            tokens.append(parts[0])
    tokens += ["<|startoftext|>", "<|endoftext|>", "!"]
    vocabulary = {token: n for n, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in dict.fromkeys(merges))]
    (folder / "merges.txt").write_text("\n".join(lines))
    config = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "!"}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))
    return len(vocabulary)
