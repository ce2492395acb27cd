"""Pix2Pix and its discriminator in training: their losses, what is learned, and collapse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from killed_training import interrupted
from tiny_gan import GAN, OPTIM, gan_recipe
from torch import nn
from training_recipes import networks_touched

from synthct.errors import CheckpointError, RecipeError
from synthct.models.checkpoint import load_checkpoint
from synthct.training import objectives
from synthct.training.adversarial import PatchDiscriminator, least_squares
from synthct.training.data import Batch
from synthct.training.loop import train
from synthct.training.objectives.pix2pix import Pix2PixObjective

pytestmark = pytest.mark.usefixtures("one_thread")


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_discriminators_have_as_many_parameters_as_the_published_ones() -> None:
    with torch.device("meta"):
        assert size(PatchDiscriminator(3)) == 2_765_633
        assert size(PatchDiscriminator(6)) == 2_768_705
        volumes = PatchDiscriminator(3, dimensions=3, bias_before_norm=True)
        assert size(volumes) == 11_057_857
        assert volumes(torch.empty(1, 2, 64, 64, 64), torch.empty(1, 1, 64, 64, 64)).shape == (
            (1, 1, 6, 6, 6)
        )


def test_a_score_looks_at_70_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(2, base_channels=2)
    for layer in judge.layers:  # norms look at the whole picture
        if isinstance(layer, nn.InstanceNorm2d):
            monkeypatch.setattr(layer, "forward", lambda x: x)
    picture = torch.zeros(1, 1, 256, 256, requires_grad=True)
    scores = judge(torch.zeros(1, 1, 256, 256), picture)
    assert scores.shape == (1, 1, 30, 30)
    (gradient,) = torch.autograd.grad(scores[0, 0, 15, 15], picture)
    seen = gradient[0, 0].abs().sum(dim=0).nonzero().flatten()
    assert int(seen.max() - seen.min()) + 1 == 70


def test_each_loss_leaves_gradients_in_its_own_network_alone(kits_root: Path, batch: Batch) -> None:
    objective = Pix2PixObjective(gan_recipe(kits_root))
    assert networks_touched(objective, batch) == [{"discriminator"}, {"generator"}]


@pytest.mark.parametrize(("criterion", "yes", "no"), [(None, 20, -20), (least_squares, 1, 0)])
def test_a_discriminator_that_is_right_costs_nothing(
    kits_root: Path, batch: Batch, criterion: Any, yes: float, no: float
) -> None:
    objective = Pix2PixObjective(gan_recipe(kits_root))
    objective.criterion = criterion or objective.criterion
    real = len(batch["image"])

    def judge(_: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
        assert torch.equal(pictures[:real], batch["image"])
        scores = torch.full((len(pictures), 1), float(no))
        scores[:real] = yes
        return scores

    networks: Any = {"generator": objective.generator, "discriminator": judge}
    _, low = next(objective.losses(networks, batch, torch.Generator()))
    assert float(low) == pytest.approx(0, abs=1e-6)


@pytest.mark.long
def test_a_set_of_patches_is_learned_by_heart(kits_root: Path) -> None:
    recipe = gan_recipe(kits_root, model={**GAN, "base_channels": 8, "dropout": 0.0})
    objective = Pix2PixObjective(recipe)
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    image = torch.stack([
        0.5 * torch.sin(columns / 4) * torch.cos(rows / 3),
        0.4 * torch.sin(rows / 5) - 0.3,
    ])[:, None]  # fmt: skip
    mask = torch.zeros_like(image)
    mask[:, :, 8:24, 8:22] = 1
    patches = {"image": image, "mask": mask, "label": torch.tensor([1, 0])}
    for optimizer in objective.optimizers.values():
        optimizer.param_groups[0]["lr"] = 4e-3
    noise = torch.Generator()
    before = objective.validation_loss(patches, noise).item()
    for _ in range(120):
        for name, loss in objective.losses(objective.networks, patches, noise):
            loss.backward()
            objective.optimizers[name].step()
            objective.optimizers[name].zero_grad()
    assert objective.validation_loss(patches, noise).item() < before / 10


@pytest.fixture
def runs(patch_cache: Path) -> dict[str, Any]:
    return {"cache_dir": patch_cache, "device": "cpu", "workers": 0}


def test_a_run_logs_both_losses_and_its_checkpoint_can_be_trained_further(
    kits_root: Path, runs: dict[str, Any], tmp_path: Path
) -> None:
    recipe = gan_recipe(kits_root, validation={"masks": 2, "every": 4})
    folder = train(recipe, tmp_path / "run", **runs)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    first = next(line for line in lines if "loss" in line)
    assert first["losses"].keys() == {"discriminator", "generator"}
    assert first["loss"] == pytest.approx(sum(first["losses"].values()), abs=1e-3)
    assert {"mae_hu", "seam_ratio"} < next(x for x in lines if "validation" in x)[
        "validation"
    ].keys()
    facts = json.loads((folder / "training.json").read_text())
    assert "noise" not in facts
    card = (folder / "README.md").read_text()
    assert "Pix2Pix" in card
    assert "- pix2pix" in card
    assert "- diffusion" not in card

    masks = [
        {"name": "lungs", "kind": "organ", "label": "lung"},
        *[m.model_dump() for m in recipe.masks],
    ]
    more = gan_recipe(kits_root, masks=masks).model_copy(update={"from_checkpoint": str(folder)})
    tuned, base = Pix2PixObjective(more).generator, load_checkpoint(str(folder))["generator"]
    assert tuned.config.labels == ("lung", "kidney", "tumor")
    assert not tuned.encoder[0].weight[:, 2].any()
    assert torch.equal(tuned.encoder[0].weight[:, 3:], base.encoder[0].weight[:, 2:])
    wider = gan_recipe(kits_root, model={**GAN, "base_channels": 8})
    with pytest.raises(CheckpointError, match="does not fit the recipe's network"):
        Pix2PixObjective(wider.model_copy(update={"from_checkpoint": str(folder)}))


def test_a_collapsed_generator_is_told_and_not_saved_as_a_checkpoint(
    kits_root: Path, runs: dict[str, Any], tmp_path: Path
) -> None:
    optim = {**OPTIM, "learning_rate": 50.0, "max_steps": 4}
    recipe = gan_recipe(kits_root, optim=optim, validation={"masks": 2, "every": 2})
    with pytest.raises(RecipeError, match=r"has collapsed by step 4: it.*no checkpoint is written"):
        train(recipe, tmp_path / "run", **runs)
    assert not (tmp_path / "run/checkpoint").exists()
    assert (tmp_path / "run/states/step-00000004").is_dir()


def test_a_killed_run_goes_on_to_the_same_two_networks(
    kits_root: Path, runs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = gan_recipe(kits_root, save_every=2)
    train(recipe, tmp_path / "whole", **runs)

    with monkeypatch.context() as patched:
        patched.setattr(objectives, "OBJECTIVES", (interrupted(Pix2PixObjective, after=7),))
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "killed", **runs)
    assert max((tmp_path / "killed/states").iterdir()).name == "step-00000002"
    train(recipe, tmp_path / "killed", **runs)

    whole, killed = (tmp_path / name / "states/step-00000006" for name in ("whole", "killed"))
    files = {path.name for path in whole.glob("*.safetensors")}
    assert files == {
        f"{name}{part}.safetensors"
        for name in ("generator", "discriminator")
        for part in ("", ".ema", ".optimizer")
    }
    for name in files:
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
