"""The loss: inside the mask only, its targets and weights, and which noise levels are drawn."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from training_recipes import TINY_MODEL, fresh_parts, tiny_recipe, unet_of

from synthct.models.painting import trailing_timesteps
from synthct.training.loss import (
    alphas_cumprod,
    draw_noise_levels,
    level_weight,
    make_schedule,
    masked_loss,
)
from synthct.training.sections import NoiseSection, Schedule

PALETTE = {
    "prediction_type": "epsilon",
    "beta_schedule": "linear",
    "num_train_timesteps": 2000,
    "beta_start": 1e-6,
    "beta_end": 0.01,
}


pytestmark = pytest.mark.usefixtures("one_thread")


class Stub(torch.nn.Module):
    """In place of a network: predicts a fixed picture and keeps what it was given."""

    def __init__(self, root: Path, predicted: Tensor, **model: Any) -> None:
        super().__init__()
        self.predicted = predicted
        unet = unet_of(fresh_parts(tiny_recipe(root, model={**TINY_MODEL, **model})))
        self.surroundings, self.to_diffused = unet.surroundings, unet.to_diffused
        self.neighbour_channels, self.given_noisy = unet.neighbour_channels, unet.given_noisy
        self.noise_embedding, self.noise_position = unet.noise_embedding, unet.noise_position

    def forward(self, noisy, position, masked, mask, label, spacing_mm, neighbours):
        self.given = SimpleNamespace(noisy=noisy, position=position, masked=masked, mask=mask)
        return self.predicted


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


def test_loss_is_taken_inside_the_mask_only(kits_root, batch):
    stub = Stub(kits_root, torch.zeros_like(batch["image"]).requires_grad_())
    loss = masked_loss(stub, NoiseSection(), batch, seeded())
    loss.backward()
    outside = batch["mask"] < 0.5
    gradient = stub.predicted.grad
    assert gradient is not None
    assert (gradient[outside] == 0).all()
    assert (gradient[~outside] != 0).all()

    elsewhere = {**batch, "image": torch.where(outside, -batch["image"] + 0.3, batch["image"])}
    other = masked_loss(stub, NoiseSection(), elsewhere, seeded())
    assert other.item() == loss.item()


@pytest.mark.parametrize("residual_scale", [None, 2.0])
def test_known_region_goes_in_clean_and_the_painted_one_hidden(kits_root, batch, residual_scale):
    stub = Stub(kits_root, torch.zeros_like(batch["image"]), residual_scale=residual_scale)
    masked_loss(stub, NoiseSection(), batch, seeded())
    inside, given = batch["mask"] > 0.5, stub.given
    assert torch.equal(given.masked[~inside], batch["image"][~inside])
    clean = stub.to_diffused(batch["image"], given.masked)
    assert torch.equal(given.noisy[~inside], clean[~inside])
    assert (given.noisy[inside] != clean[inside]).float().mean() > 0.99
    assert given.position.unique().numel() > 1  # one noise level per patch
    # What is hidden has no way into what is shown.
    other = {**batch, "image": torch.where(inside, 0.9, batch["image"])}
    masked_loss(stub, NoiseSection(), other, seeded())
    assert torch.equal(stub.given.masked, given.masked)


@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("embedding", ["timestep", "level"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_network_that_knows_the_answer_has_no_loss(kits_root, batch, prediction, embedding, loss):
    noise = NoiseSection(prediction_type=prediction, loss=loss)
    generator, image = seeded(), batch["image"]
    eps = torch.randn(image.shape, generator=generator)
    between = embedding == "level"
    levels = draw_noise_levels(noise, len(eps), generator, between=between)
    root = levels.alpha_cumprod.sqrt()[:, None, None, None]
    velocity = root * eps - (1 - root**2).sqrt() * image
    if not between:  # the same as in diffusers
        schedule = make_schedule(noise, prediction)
        torch.testing.assert_close(velocity, schedule.get_velocity(image, eps, levels.timestep))
    answer = {"epsilon": eps, "v_prediction": velocity, "sample": image}[prediction]
    stub = Stub(kits_root, answer, noise_embedding=embedding)
    assert masked_loss(stub, noise, batch, seeded()).item() == pytest.approx(0, abs=1e-6)
    # Two units off everywhere are a mean square of four, however small the mask.
    off = Stub(kits_root, answer + 2, noise_embedding=embedding)
    expected = {"l1": 2, "l2": 4}[loss]
    assert masked_loss(off, noise, batch, seeded()).item() == pytest.approx(expected)


@pytest.mark.long
def test_a_few_dozen_steps_lower_the_loss_on_a_fixed_batch(kits_root, batch):
    train_state = fresh_parts(tiny_recipe(kits_root))
    losses = []
    for _ in range(40):
        loss = masked_loss(train_state.networks["unet"], NoiseSection(), batch, seeded())
        loss.backward()
        train_state.optimizers["unet"].step()
        train_state.optimizers["unet"].zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# -- weights of the noise levels --------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weighs_an_images_error_alike_whatever_is_predicted(prediction):
    noise = NoiseSection(prediction_type=prediction, min_snr_gamma=5)
    clean = alphas_cumprod(noise)[torch.arange(0, 1000, 37)].double()
    snr = clean / (1 - clean)
    # The squared error of the prediction that an error of 1 in the image comes to.
    of_image = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
    weight = level_weight(noise, clean) * of_image[prediction]
    torch.testing.assert_close(weight, snr.clamp(max=5))


def test_weight_of_nearly_clean_steps_is_capped_and_pure_noise_counts_in_full():
    noise = NoiseSection(loss_weight_cap=5)
    clean = alphas_cumprod(noise)[torch.arange(0, 1000, 37)]
    snr = clean / (1 - clean)
    weight = level_weight(noise, clean)
    torch.testing.assert_close(weight * (snr + 1), torch.clamp(snr + 1, max=5.0))
    assert weight[-1] == 1


def test_capped_loss_is_the_plain_one_where_the_cap_is_never_reached(kits_root, batch):
    stub = Stub(kits_root, torch.zeros_like(batch["image"]))
    plain = masked_loss(stub, NoiseSection(), batch, seeded())
    assert masked_loss(stub, NoiseSection(loss_weight_cap=1e9), batch, seeded()) == plain
    assert masked_loss(stub, NoiseSection(loss_weight_cap=2), batch, seeded()) < plain


# -- noise levels -----------------------------------------------------------------------------


def test_noise_bias_trains_noisy_steps_more_often():
    even = draw_noise_levels(NoiseSection(), 20_000, seeded()).timestep.float()
    noisy = draw_noise_levels(NoiseSection(noise_bias=2), 20_000, seeded()).timestep.float()
    assert even.mean().item() == pytest.approx(500, abs=10)
    assert (noisy >= 900).float().mean().item() == pytest.approx(0.1**0.5, abs=0.02)
    assert noisy.min() >= 0
    assert noisy.max() <= 999


def test_few_steps_train_the_levels_of_the_sampler_evenly_and_no_others():
    levels = draw_noise_levels(NoiseSection(few_steps=10), 20_000, seeded())
    found, counts = levels.timestep.unique(return_counts=True)
    assert found.tolist() == sorted(trailing_timesteps(1000, 10).tolist())
    assert found.tolist() == [99, 199, 299, 399, 499, 599, 699, 799, 899, 999]
    assert (counts / 20_000 - 0.1).abs().max() < 0.01
    assert torch.equal(levels.alpha_cumprod, alphas_cumprod(NoiseSection())[levels.timestep])


def test_a_network_told_the_level_trains_between_the_steps(kits_root, batch):
    noise = NoiseSection(**PALETTE)
    share = alphas_cumprod(noise)
    assert len(share) == 2000
    betas = torch.linspace(1e-6, 0.01, 2000, dtype=torch.float64)
    torch.testing.assert_close(share.double(), (1 - betas).cumprod(0), rtol=1e-4, atol=0)
    levels = draw_noise_levels(noise, 5000, seeded(), between=True)
    before = share[(levels.timestep - 1).clamp(min=0)]
    after = share[levels.timestep]
    assert ((levels.alpha_cumprod >= after) & (levels.alpha_cumprod <= before)).all()
    assert ((levels.alpha_cumprod > after) & (levels.alpha_cumprod < before)).float().mean() > 0.9

    stub = Stub(kits_root, torch.zeros_like(batch["image"]), noise_embedding="level")
    masked_loss(stub, noise, batch, seeded())
    assert ((stub.given.position > 0) & (stub.given.position < 1000)).all()


def test_the_level_is_the_angle_between_signal_and_noise(kits_root):
    model = {**TINY_MODEL, "noise_embedding": "level"}
    unet = unet_of(fresh_parts(tiny_recipe(kits_root, model=model)))
    steps, share = torch.arange(1000), alphas_cumprod(Schedule())
    position = unet.noise_position(steps, share)
    assert (position.diff() > 0).all()
    assert (position - steps).abs().max() < 10  # on the cosine schedule nearly the timestep
    half = unet.noise_position(torch.tensor(3), torch.tensor(0.5))
    assert half.item() == pytest.approx(500)
    sixty = unet.noise_position(torch.tensor(3), torch.tensor(math.cos(math.pi / 3) ** 2))
    assert sixty.item() == pytest.approx(2000 / 3)
