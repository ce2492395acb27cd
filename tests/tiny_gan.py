"""The smallest Pix2Pix, for tests of training and painting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from training_recipes import tiny_recipe

from synthct.training.objectives.pix2pix import Pix2PixObjective
from synthct.training.recipe import TrainingRecipe
from synthct.training.release import TrainingSummary, write_checkpoint

#: A training recipe's ``model``; two of its four levels have dropout.
GAN = {
    "kind": "pix2pix",
    "levels": 4,
    "base_channels": 4,
    "patch_sizes": [32, 48, 64],
    "spacing_range_mm": [0.5, 3.1],
    "codecs": {"default": "full_range", "kidney": "soft_tissue", "tumor": "soft_tissue"},
}
#: A training as published: no warm-up, clipping or running mean.
OPTIM = {
    "max_steps": 6, "batch_size": 1, "warmup_steps": 0, "decay_steps": 0, "learning_rate": 2e-4,
    "weight_decay": 0, "max_grad_norm": None, "ema_decay": 0,
}  # fmt: skip


def gan_recipe(root: Path, **changes: Any) -> TrainingRecipe:
    """``tiny_recipe`` for a Pix2Pix."""
    return tiny_recipe(root, **{"model": GAN, "optim": OPTIM, **changes})


def write_gan(folder: Path) -> Path:
    """A checkpoint of random weights that paints kidney, tumor and whatever fits."""
    recipe = gan_recipe(folder)
    with torch.random.fork_rng(devices=[]):
        objective = Pix2PixObjective(recipe)
    torch.nn.init.normal_(objective.generator.encoder[0].weight, std=0.5)  # so that it looks
    write_checkpoint(objective.pipeline(), folder, recipe, TrainingSummary(steps=0))
    return folder
