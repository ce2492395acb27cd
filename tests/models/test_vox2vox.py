"""Vox2Vox: the published generator, in boxes, and in training against its discriminator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from tiny_volume import TINY_VOX2VOX, tiny_vox2vox
from torch import nn
from training_recipes import tiny_recipe

from synthct.models.checkpoint import load_checkpoint
from synthct.models.vox2vox import Vox2VoxGenerator, Vox2VoxInpaintPipeline
from synthct.training.loop import train
from synthct.training.objectives import make_objective
from synthct.training.objectives.vox2vox import Vox2VoxObjective
from synthct.training.recipe import TrainingRecipe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def nothing_remembered():
    """Accelerate remembers the first run in a process."""
    yield
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def recipe(root: Path, **changes: Any) -> TrainingRecipe:
    fields = {
        "model": {"kind": "vox2vox", **TINY_VOX2VOX, "codecs": {"default": "soft_tissue"}},
        "masks": [{"name": "kidneys", "kind": "organ", "label": "kidney"}],
        "data": {"patches": 2, "patches_per_mask": 2},
        "sample_every": 99,
        "optim": {
            "max_steps": 6, "batch_size": 1, "warmup_steps": 0, "decay_steps": 0,
            "learning_rate": 1e-2,
            "weight_decay": 0, "max_grad_norm": None, "ema_decay": 0,
        },
    }  # fmt: skip
    return tiny_recipe(root, **{**fields, **changes})


def test_both_networks_have_as_many_parameters_as_the_published_ones() -> None:
    with torch.device("meta"):
        assert size(Vox2VoxGenerator()) == 150_497_281
        assert size(Vox2VoxObjective.make_discriminator(3, 64)) == 11_057_857


def paint(seed: int, sides: tuple[int, int, int] = (32, 32, 32), hidden: float = 0) -> Any:
    image, mask = torch.linspace(-1, 1, sides[2]).expand(1, 1, *sides).clone(), torch.zeros(1)
    mask = torch.zeros_like(image)
    mask[:, :, 8:20, 8:20, 8:20] = 1
    image[mask > 0] = hidden
    pipeline, label = Vox2VoxInpaintPipeline(tiny_vox2vox()), torch.zeros(1, dtype=torch.long)
    painted = pipeline(image, mask, label, [torch.Generator().manual_seed(seed)])
    assert torch.equal(painted[mask == 0], image[mask == 0])
    return painted[mask > 0]


def test_it_paints_by_its_seed_and_never_sees_what_is_masked() -> None:
    assert torch.equal(paint(0), paint(0, hidden=0.7))
    assert not torch.equal(paint(0), paint(1))
    assert paint(0, (48, 32, 40)).abs().max() <= 1, "a larger region, of several boxes"


@pytest.mark.long
def test_it_is_trained_against_its_discriminator_and_its_checkpoint_is_read_strictly(
    kits_template: Path, tmp_path: Path
) -> None:
    small = recipe(kits_template)
    objective = make_objective(small)
    assert isinstance(objective, Vox2VoxObjective)
    assert objective.networks.keys() == {"generator", "discriminator"}
    assert (objective.l1_weight, objective.rules.depth) == (100, 32)
    folder = train(small, tmp_path / "run", cache_dir=tmp_path, workers=0)
    loaded = load_checkpoint(str(folder))["generator"]
    before = objective.networks["generator"].state_dict()
    moved = [name for name, value in loaded.state_dict().items()
             if not torch.equal(value, before[name])]  # fmt: skip
    assert len(moved) > 20


@pytest.mark.parametrize("changed", [{"depth": 16}, {"patch_sizes": [40]}])
def test_boxes_that_its_networks_do_not_take_are_refused(
    kits_template: Path, changed: dict[str, Any]
) -> None:
    model = {"kind": "vox2vox", **TINY_VOX2VOX, **changed}
    with pytest.raises(ValueError, match=r"greater than or equal to 32|not multiples of 16"):
        recipe(kits_template, model=model)


@pytest.mark.slow
def test_it_overfits_one_box(kits_template: Path) -> None:
    model = {"kind": "vox2vox", **TINY_VOX2VOX, "base_channels": 8, "dropout": 0}
    objective = make_objective(recipe(kits_template, model=model))
    ramp = torch.linspace(-1, 1, 32)
    image = (ramp[:, None, None] * ramp[None, :, None] * ramp).expand(1, 1, 32, 32, 32)
    mask = torch.zeros_like(image)
    mask[:, :, 8:24, 8:24, 8:24] = 1
    batch = {"image": image, "mask": mask, "label": torch.ones(1, dtype=torch.long)}
    generator = torch.Generator()
    first = float(objective.validation_loss(batch, generator).detach())
    for _ in range(150):
        for name, loss in objective.losses(objective.networks, batch, generator):
            loss.backward()
            objective.optimizers[name].step()
            objective.optimizers[name].zero_grad()
    assert float(objective.validation_loss(batch, generator).detach()) < first / 10
