"""The forward process and the loss, both inside the mask only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from synthct.models.painting import trailing_timesteps
from synthct.training.data import Batch
from synthct.training.sections import NoiseSection, Schedule


@dataclass(frozen=True)
class NoiseLevels:
    """The noise level of each patch of a batch.

    Attributes:
        timestep: (B,) int64; step of the schedule.
        alpha_cumprod: (B,); share of the signal in the variance, Palette's gamma.
    """

    timestep: Tensor
    alpha_cumprod: Tensor


def masked_loss(
    net: torch.nn.Module,
    noise: NoiseSection,
    batch: Batch,
    generator: torch.Generator,
) -> Tensor:
    """Mean error of the prediction over the masked pixels of a batch.

    The known region is given without noise (Palette, section 3), unless the network wants it with
    noise as well, and does not count in the loss.

    Args:
        net: The network, or its wrapper for several processes.
        noise: The forward process and the kind of loss.
        batch: Patches, on the network's device.
        generator: On the CPU, so that a batch's noise is the same on every device.
    """
    unet: Any = net.module if isinstance(net, DistributedDataParallel) else net
    mask = batch["mask"]
    known = unet.surroundings(batch["image"], mask)
    image = unet.to_diffused(batch["image"], known)
    eps = torch.randn(image.shape, generator=generator).to(image.device)
    between = unet.noise_embedding == "level" and noise.few_steps is None
    levels = draw_noise_levels(noise, image.shape[0], generator, between=between)
    alpha_cumprod = levels.alpha_cumprod.to(image.device)
    sides = (1,) * (image.ndim - 1)
    signal, spread = (
        root.sqrt().reshape(-1, *sides) for root in (alpha_cumprod, 1 - alpha_cumprod)
    )
    noisy = unet.given_noisy(signal * image + spread * eps, image, mask)
    position = unet.noise_position(levels.timestep.to(image.device), alpha_cumprod)
    adjacent = unet.neighbour_channels(batch.get("neighbours"), known)
    predicted = net(noisy, position, known, mask, batch["label"], batch["spacing_mm"], adjacent)
    target = {
        "epsilon": eps,
        "sample": image,
        "v_prediction": signal * eps - spread * image,
    }[noise.prediction_type]
    error = (predicted.float() - target) * mask
    error = error.abs() if noise.loss == "l1" else error**2
    if noise.min_snr_gamma is not None or noise.loss_weight_cap is not None:
        error = error * level_weight(noise, alpha_cumprod).reshape(-1, *sides)
    return error.sum() / mask.sum()


def draw_noise_levels(
    noise: NoiseSection, count: int, generator: torch.Generator, *, between: bool = False
) -> NoiseLevels:
    """Draw noise levels: uniformly for ``noise_bias`` 1, noisy ones more often for a higher one.

    With a bias of 2 a third of the steps is among the noisiest tenth, where the mean value and the
    large structures of a painting are decided.

    Args:
        noise: The schedule, ``noise_bias``, and ``few_steps`` if only those are drawn.
        count: Number of levels.
        generator: The random stream.
        between: Draw the level uniformly between a step and the one before, as Palette does for a
            network that is conditioned on the level.
    """
    alphas = alphas_cumprod(noise)
    noisiness = 1 - torch.rand(count, generator=generator) ** noise.noise_bias
    if noise.few_steps is not None:
        visited = torch.from_numpy(trailing_timesteps(len(alphas), noise.few_steps)).flip(0)
        place = (noisiness * noise.few_steps).long().clamp(max=noise.few_steps - 1)
        timestep = visited[place]
    else:
        timestep = torch.round((len(alphas) - 1) * noisiness).long()
    share = alphas[timestep]
    if between:
        before = alphas[(timestep - 1).clamp(min=0)]
        share = share + (before - share) * torch.rand(count, generator=generator)
    return NoiseLevels(timestep, share)


def level_weight(noise: NoiseSection, alpha_cumprod: Tensor) -> Tensor:
    """Weight (B,) of the squared error by noise level.

    It limits the influence of nearly clean samples, where only scanner noise is left to predict.
    With ``min_snr_gamma`` the image's error has weight min(SNR, gamma) for every prediction type
    (Hang et al. 2023, section 3.4). ``loss_weight_cap`` caps the weight SNR + 1 of the velocity
    loss, so that it is not 0 at pure noise, where an inpainter still has the surroundings.

    Args:
        noise: Weighting and prediction type.
        alpha_cumprod: (B,); share of the signal in the variance.
    """
    snr = alpha_cumprod / (1 - alpha_cumprod)
    if noise.loss_weight_cap is not None:
        return torch.clamp(noise.loss_weight_cap / (snr + 1), max=1.0)
    weight = snr.clamp(max=noise.min_snr_gamma)
    plain = {"epsilon": snr, "sample": torch.ones_like(snr), "v_prediction": snr + 1}
    # For epsilon at pure noise, min(SNR, gamma) / SNR is 1.
    return weight / plain[noise.prediction_type].clamp_min(1e-12)


@lru_cache
def alphas_cumprod(schedule: Schedule) -> Tensor:
    """Share of the signal in the variance at each step of a schedule: float32 (T,)."""
    return make_schedule(schedule, "epsilon").alphas_cumprod


def make_schedule(schedule: Schedule, prediction_type: str) -> DDPMScheduler:
    """The schedule as the diffusers scheduler that a checkpoint stores."""
    fields = schedule.model_dump(include=set(Schedule.model_fields))
    return DDPMScheduler(**fields, prediction_type=prediction_type, clip_sample=False)
