"""The forward process and the loss: noise added inside the mask, the error taken there too."""

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
class Levels:
    """How noisy each patch of a batch is.

    Attributes:
        timestep: (B,) int64; number of the step in the schedule.
        clean: (B,); share of the signal in the variance, Palette's gamma.
    """

    timestep: Tensor
    clean: Tensor


def masked_loss(
    net: torch.nn.Module,
    noise: NoiseSection,
    batch: Batch,
    generator: torch.Generator,
) -> Tensor:
    """Mean error of the prediction over the masked pixels of a batch.

    The known region goes in clean at every noise level (Palette, section 3), so the network is
    never asked to say anything about it and is not scored on it either.

    Args:
        net: The network, or its wrapper for several processes.
        noise: The forward process.
        batch: Patches, on the network's device.
        generator: On the CPU, so that a batch's noise is the same on every device.
    """
    unet: Any = net.module if isinstance(net, DistributedDataParallel) else net
    mask = batch["mask"]
    known = unet.surroundings(batch["image"], mask)
    image = unet.to_diffused(batch["image"], known)
    eps = torch.randn(image.shape, generator=generator).to(image.device)
    between = unet.noise_embedding == "level" and noise.few_steps is None
    levels = draw_levels(noise, image.shape[0], generator, between=between)
    clean = levels.clean.to(image.device)
    signal, spread = (root.sqrt()[:, None, None, None] for root in (clean, 1 - clean))
    noisy = torch.where(mask > 0.5, signal * image + spread * eps, image)
    position = unet.noise_position(levels.timestep.to(image.device), clean)
    predicted = net(noisy, position, known, mask, batch["label"], batch["spacing_mm"])
    target = {
        "epsilon": eps,
        "sample": image,
        "v_prediction": signal * eps - spread * image,
    }[noise.prediction_type]
    error = (predicted.float() - target) * mask
    error = error.abs() if noise.loss == "l1" else error**2
    if noise.min_snr_gamma is not None or noise.loss_weight_cap is not None:
        error = error * level_weight(noise, clean)[:, None, None, None]
    return error.sum() / mask.sum()


def draw_levels(
    noise: NoiseSection, count: int, generator: torch.Generator, *, between: bool = False
) -> Levels:
    """Draw noise levels: evenly for a bias of 1, the noisiest more often for more.

    With a bias of 2 a third of the steps is among the noisiest tenth, where a painting gets its
    mean value and its large structures, and nothing but the surroundings tells what they are.

    Args:
        noise: The schedule, ``noise_bias``, and ``few_steps`` if only those are drawn.
        count: How many.
        generator: The random stream.
        between: Draw the level evenly between a step and the one before, as Palette does for a
            network that is told the level.
    """
    clean = clean_share(noise)
    noisiness = 1 - torch.rand(count, generator=generator) ** noise.noise_bias
    if noise.few_steps is not None:
        visited = torch.from_numpy(trailing_timesteps(len(clean), noise.few_steps)).flip(0)
        place = (noisiness * noise.few_steps).long().clamp(max=noise.few_steps - 1)
        timestep = visited[place]
    else:
        timestep = torch.round((len(clean) - 1) * noisiness).long()
    share = clean[timestep]
    if between:
        before = clean[(timestep - 1).clamp(min=0)]
        share = share + (before - share) * torch.rand(count, generator=generator)
    return Levels(timestep, share)


def level_weight(noise: NoiseSection, clean: Tensor) -> Tensor:
    """Weight (B,) of the squared error that keeps nearly clean samples from drowning the others.

    In the nearly clean steps what is left to predict is scanner noise, which nobody can. With
    ``min_snr_gamma`` an image's error weighs min(SNR, gamma) whatever is predicted (Hang et al.
    2023, section 3.4). ``loss_weight_cap`` instead caps what the plain velocity loss weighs it by,
    SNR + 1, so that it never reaches 0 at pure noise, where inpainting has its surroundings.

    Args:
        noise: Says which weighting and what is predicted.
        clean: (B,); share of the signal in the variance.
    """
    snr = clean / (1 - clean)
    if noise.loss_weight_cap is not None:
        return torch.clamp(noise.loss_weight_cap / (snr + 1), max=1.0)
    wanted = snr.clamp(max=noise.min_snr_gamma)
    plain = {"epsilon": snr, "sample": torch.ones_like(snr), "v_prediction": snr + 1}
    # At pure noise an error of the noise says nothing of the image: min(SNR, gamma) / SNR is 1.
    return wanted / plain[noise.prediction_type].clamp_min(1e-12)


@lru_cache
def clean_share(schedule: Schedule) -> Tensor:
    """Share of the signal in the variance at each step of a schedule, float32 (T,)."""
    return make_schedule(schedule, "epsilon").alphas_cumprod


def make_schedule(schedule: Schedule, prediction_type: str) -> DDPMScheduler:
    """The schedule as diffusers' scheduler, which is what a checkpoint stores."""
    return DDPMScheduler(
        num_train_timesteps=schedule.num_train_timesteps,
        beta_schedule=schedule.beta_schedule,
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        prediction_type=prediction_type,
        clip_sample=False,
    )
