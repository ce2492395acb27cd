"""A discriminator beside the loss of denoising: what it judges, what it teaches, and its states."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from killed_training import interrupted
from torch import nn
from training_recipes import TINY_MODEL, networks_touched, tiny_recipe

from synthct.models.networks.palette import Palette
from synthct.training import objectives
from synthct.training.data import Batch
from synthct.training.judge import Painted, level_loss, paint_in_steps, realism, verdict_loss
from synthct.training.loop import train
from synthct.training.loss import make_schedule
from synthct.training.objectives.palette import PaletteObjective
from synthct.training.recipe import TrainingRecipe

pytestmark = pytest.mark.usefixtures("one_thread")


def judged(root: Path, *, steps: int = 2, weight: float = 0.05, **changes: Any) -> TrainingRecipe:
    noise = {"adversarial": {"weight": weight, "steps": steps}}
    return tiny_recipe(root, noise=noise, **changes)


@pytest.mark.parametrize("residual_scale", [None, 2.0])
@pytest.mark.parametrize("steps", [1, 2, 4])  # of 1000, which DDIM divides evenly
def test_what_is_judged_is_what_the_pipeline_paints(
    kits_root: Path, batch: Batch, steps: int, residual_scale: float | None
) -> None:
    model = {**TINY_MODEL, "residual_scale": residual_scale}
    recipe = judged(kits_root, steps=steps, model=model)
    objective = PaletteObjective(recipe)
    unet = objective.unet.eval()
    nn.init.normal_(unet.unet.conv_out.weight, std=0.1)
    painted = paint_in_steps(unet, unet, recipe.noise, batch, torch.Generator().manual_seed(5))
    config = make_schedule(recipe.noise, "v_prediction").config
    sampler = DDIMScheduler.from_config(config, timestep_spacing="trailing", set_alpha_to_one=True)
    noise = torch.randn(batch["image"].shape, generator=torch.Generator().manual_seed(5))
    expected = Palette.classes()[1](unet, sampler)(
        batch["image"],
        batch["mask"],
        batch["label"],
        batch["spacing_mm"],
        [torch.Generator() for _ in noise],
        num_inference_steps=steps,
        neighbours=batch.get("neighbours"),
        noise=noise,
    )
    assert torch.allclose(painted.image, expected, atol=1e-5)
    assert painted.image.requires_grad


def test_each_loss_leaves_gradients_in_its_own_network_alone(kits_root: Path, batch: Batch) -> None:
    objective = PaletteObjective(judged(kits_root))
    assert networks_touched(objective, batch) == [{"discriminator"}, {"unet"}]


def test_the_judge_starts_with_what_the_network_knows(kits_root: Path) -> None:
    objective = PaletteObjective(judged(kits_root))
    encoder = objective.networks["discriminator"].encoder.state_dict()
    known = objective.unet.state_dict()
    assert {"unet.conv_in.weight", "label_embedding.weight"} < encoder.keys() < known.keys()
    assert all(torch.equal(value, known[name]) for name, value in encoder.items())
    assert all(encoder[name].data_ptr() != known[name].data_ptr() for name in encoder)


def test_only_what_is_masked_is_judged(kits_root: Path, batch: Batch) -> None:
    recipe = judged(kits_root)
    unet = PaletteObjective(recipe).unet
    mask = torch.zeros_like(batch["mask"])
    mask[..., : mask.shape[-1] // 2] = 1  # one half
    given = {**batch, "mask": mask}
    painted = paint_in_steps(unet, unet, recipe.noise, given, torch.Generator())

    def loss(real: float, fake: float, elsewhere: float) -> float:
        class Judge(nn.Module):
            def forward(self, both: Painted) -> list[torch.Tensor]:
                assert torch.equal(both.label[: len(mask)], both.label[len(mask) :])
                scores = torch.full((len(both.image), 1, 4, 4), elsewhere)
                scores[: len(mask), ..., :2], scores[len(mask) :, ..., :2] = real, fake
                return [scores, scores[..., ::2, :]]

        return float(verdict_loss(Judge(), batch["image"], painted, torch.Generator()))

    assert loss(1.0, -1.0, 0.0) == pytest.approx(0, abs=1e-6)  # right about all
    assert loss(3.0, -3.0, 50.0) == pytest.approx(0, abs=1e-6)
    assert loss(0.0, 0.0, 0.0) == pytest.approx(2)  # does not know
    assert loss(-1.0, 1.0, 0.0) == pytest.approx(4)


def test_a_judge_learns_to_tell_a_smooth_fill_from_tissue_and_says_where_to_go(
    kits_root: Path, batch: Batch
) -> None:
    recipe = judged(kits_root)
    objective = PaletteObjective(recipe)
    judge, adam = objective.networks["discriminator"], objective.optimizers["discriminator"]
    adam.param_groups[0]["lr"] = 1e-3
    known, mask = objective.unet.surroundings(batch["image"], batch["mask"]), batch["mask"]
    tissue = batch["image"] + 0.3 * torch.rand_like(known)  # no filter took its grain
    told = (batch["label"], batch["spacing_mm"])
    smooth = Painted(torch.where(mask > 0.5, known, tissue), known, mask, *told)
    noise = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(120):
        loss = verdict_loss(judge, tissue, smooth, noise)
        loss.backward()
        adam.step()
        adam.zero_grad()
        losses.append(float(loss.detach()))
    # Single losses leap, and where they do differs between machines.
    assert median(losses[-20:]) < 0.8 < 1.8 < losses[0]
    smooth.image.requires_grad_(True)
    score = realism(judge, smooth, noise)
    (uphill,) = torch.autograd.grad(score, smooth.image)
    step = smooth.image.detach() + 0.05 * uphill.sign() * mask
    assert realism(judge, Painted(step, known, mask, *told), noise) > score


def test_the_level_of_paint_is_held_and_its_detail_is_not() -> None:
    real, mask = torch.zeros(1, 1, 48, 48), torch.zeros(1, 1, 48, 48)
    mask[..., 12:36, 12:36] = 1
    stripes = torch.ones(48, 48)
    stripes[::2] = -1
    nothing = torch.zeros(1)

    def loss(paint: torch.Tensor) -> float:
        return float(level_loss(Painted(paint * mask, real, mask, nothing, nothing), real, 2.0))

    assert loss(torch.full((48, 48), 0.1)) == pytest.approx(0.2**2, rel=1e-5)  # to its very border
    assert loss(0.1 * stripes) < 0.1 * 0.2**2


def test_a_killed_run_goes_on_to_the_same_two_networks(
    kits_root: Path, patch_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = judged(kits_root, save_every=2)
    runs: dict[str, Any] = {"cache_dir": patch_cache, "device": "cpu", "workers": 0}
    train(recipe, tmp_path / "whole", **runs)

    with monkeypatch.context() as patched:
        patched.setattr(objectives, "OBJECTIVES", (interrupted(PaletteObjective, after=7),))
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "killed", **runs)
    train(recipe, tmp_path / "killed", **runs)
    whole, killed = (tmp_path / name / "states/step-00000004" for name in ("whole", "killed"))
    files = {path.name for path in whole.glob("*.safetensors")}
    assert "discriminator.optimizer.safetensors" in files
    for name in files:
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    parts = {path.name for path in (tmp_path / "whole/checkpoint").iterdir() if path.is_dir()}
    assert parts == {"unet", "scheduler"}  # the judge stays behind
