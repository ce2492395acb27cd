"""A training recipe small enough for tests, on the folder of ``kits_root``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from conftest import TINY_NETWORK
from diffusers.training_utils import EMAModel

from synthct.models.palette import PaletteUNet
from synthct.models.patch import PatchRules
from synthct.sources import Index, index_sources
from synthct.training.cache import TrainingSet, open_training_set
from synthct.training.checkpoint import TrainState, latest_state
from synthct.training.data import Batch, PatchBatches
from synthct.training.denoising import build_unet
from synthct.training.objective import Objective
from synthct.training.objectives.palette import PaletteObjective
from synthct.training.recipe import TrainingRecipe

TINY_MODEL = {**TINY_NETWORK, "patch_sizes": [48, 64], "codecs": {"default": "soft_tissue"}}


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
        "data": {"patches": 48, "patches_per_mask": 2},
        "optim": {"max_steps": 4, "batch_size": 1, "warmup_steps": 0, "decay_steps": 0},
        "validation": None,
        "save_every": 1,
        "sample_every": 2,
    }
    return {**fields, **changes}


def index_of(recipe: TrainingRecipe, cache_dir: Path) -> Index:
    """The cases of a recipe."""
    return index_sources(recipe.sources, recipe.all_labels(), cache_dir=cache_dir)


def open_set(recipe: TrainingRecipe, cache_dir: Path, workers: int = 0) -> TrainingSet:
    """The patches of a recipe."""
    rules = PatchRules.from_config(build_unet(recipe).config)
    index = index_of(recipe, cache_dir)
    return open_training_set(recipe, index, rules, cache_dir=cache_dir, workers=workers)


def take(recipe: TrainingRecipe, data: TrainingSet, count: int, *processes: int) -> list[Batch]:
    """Its first batches."""
    batches = PatchBatches(recipe, data.patches, *processes)
    return [batches[n] for n in range(count)]


def fresh_parts(recipe: TrainingRecipe, seed: int = 0) -> TrainState:
    """A network with random weights, their running mean, and an optimiser, all named unet."""
    torch.manual_seed(seed)
    unet = build_unet(recipe).to(memory_format=torch.channels_last)
    ema = EMAModel(unet.parameters(), decay=0.99, use_ema_warmup=True, power=0.75)
    adam = torch.optim.AdamW(unet.parameters(), lr=3e-3)
    return TrainState({"unet": unet}, {"unet": ema}, {"unet": adam})


def unet_of(parts: TrainState) -> PaletteUNet:
    """Their network."""
    return cast(PaletteUNet, parts.networks["unet"])


def saved_state(output: Path) -> Path:
    """The newest state of a run that has one."""
    state = latest_state(output)
    assert state is not None
    return state


def objective_with(recipe: TrainingRecipe, weights: dict[str, torch.Tensor]) -> PaletteObjective:
    """The objective of a recipe, its network with these weights and in evaluation mode."""
    objective = PaletteObjective(recipe)
    objective.unet.load_state_dict(weights)
    objective.unet.eval()
    return objective


def networks_touched(objective: Objective, batch: Batch) -> list[set[str]]:
    """For each loss of a batch, the networks that it leaves gradients in."""

    def has_gradients(network: torch.nn.Module) -> bool:
        return any(p.grad is not None and bool(p.grad.abs().sum()) for p in network.parameters())

    touched = []
    for name, loss in objective.losses(objective.networks, batch, torch.Generator()):
        torch.autograd.backward(loss)
        touched.append({n for n, net in objective.networks.items() if has_gradients(net)})
        objective.optimizers[name].zero_grad()
    return touched
