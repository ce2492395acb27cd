"""A training recipe small enough for tests, on the folder of ``kits_root``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel

from synthct.models.palette import PaletteUNet
from synthct.patch import PatchRules
from synthct.sources import index_sources
from synthct.training.data import PatchBatches, TrainingSet, load_training_set
from synthct.training.loop import build_unet
from synthct.training.recipe import TrainingRecipe

TINY_MODEL = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
    "dropout": 0.0,
    "fold": 2,
    "patch_sizes": [48, 64],
    "spacing_range_mm": [0.5, 3.1],
    "codecs": {"default": "soft_tissue"},
}


def tiny_recipe(root: Path, **changes: Any) -> TrainingRecipe:
    """Blobs, kidneys and tumours in the cases of a KiTS folder; ``changes`` replace sections."""
    return TrainingRecipe.model_validate(tiny_fields(root, **changes))


def tiny_fields(root: Path, **changes: Any) -> dict[str, Any]:
    """The recipe as it would stand in a file."""
    fields: dict[str, Any] = {
        "name": "tiny",
        "seed": 3,
        "sources": {"scans": {"layout": "kits23", "root": str(root)}},
        "masks": [
            {"name": "blobs", "kind": "blob", "radius_mm": [3, 6], "weight": 2},
            {"name": "kidneys", "kind": "organ", "label": "kidney"},
            {"name": "tumors", "kind": "organ", "label": "tumor"},
        ],
        "model": TINY_MODEL,
        "data": {"patches_per_mask": 2, "shuffle_buffer": 24},
        "optim": {"max_steps": 4, "batch_size": 1, "warmup_steps": 0, "decay_steps": 0},
        "save_every": 1,
        "sample_every": 2,
    }
    return {**fields, **changes}


def read_set(recipe: TrainingRecipe, cache_dir: Path) -> TrainingSet:
    """The cases of a recipe."""
    return load_training_set(
        recipe, index_sources(recipe.sources, recipe.wanted_labels, cache_dir=cache_dir)
    )


def batches_of(recipe: TrainingRecipe, data: TrainingSet, *stream: str) -> PatchBatches:
    """Its batches."""
    return PatchBatches(recipe, data, PatchRules.from_config(build_unet(recipe).config), *stream)


def fresh_parts(
    recipe: TrainingRecipe, seed: int = 0
) -> tuple[PaletteUNet, EMAModel, torch.optim.AdamW]:
    """A network with random weights, their running mean, and an optimiser."""
    torch.manual_seed(seed)
    unet = build_unet(recipe).to(memory_format=torch.channels_last)
    ema = EMAModel(unet.parameters(), decay=0.99, use_ema_warmup=True, power=0.75)
    return unet, ema, torch.optim.AdamW(unet.parameters(), lr=3e-3)


def noise_schedule() -> DDPMScheduler:
    """The forward process of the default recipe."""
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
