"""Paintings of few steps, and a discriminator that tells them from tissue.

Sauer et al., "Adversarial diffusion distillation", 2023, with real tissue in place of a teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synthct.models.denoiser import image_of
from synthct.models.painting import trailing_timesteps
from synthct.training.adversarial import PatchDiscriminator
from synthct.training.data import Batch
from synthct.training.loss import alphas_cumprod
from synthct.training.sections import NoiseSection

#: Channels of the discriminator's first layer.
BASE_CHANNELS = 48

#: Betas of its Adam, without momentum, since what it judges changes with every step; and how many
#: times faster than the network it learns (Heusel et al., "GANs trained by a two time-scale update
#: rule converge to a local Nash equilibrium", 2017). At the same pace it stayed a guess.
BETAS, PACE = (0.0, 0.99), 4.0

#: Standard deviation, in -1..1, of the noise on all that the discriminator sees (Sonderby et al.,
#: "Amortised MAP inference for image super-resolution", 2016): it is to look at tissue, not at what
#: filters left of its grain.
NOISE = 0.03


@dataclass(frozen=True, eq=False)
class Painted:
    """A batch as painted so far, in -1..1.

    Attributes:
        image: (B, 1, H, W); painted inside the mask, the scan around it.
        surroundings: (B, 1, H, W); what ``Denoiser.surroundings`` says.
        mask: (B, 1, H, W).
    """

    image: Tensor
    surroundings: Tensor
    mask: Tensor


class TissueDiscriminator(nn.Module):
    """Scores windows of patches whose masked part is real or painted.

    It is given the patch, its difference from the smooth fill, that fill and the mask.
    """

    def __init__(self) -> None:
        super().__init__()
        self.windows = PatchDiscriminator(4, base_channels=BASE_CHANNELS)

    def forward(self, image: Tensor, surroundings: Tensor, mask: Tensor) -> Tensor:
        """Scores, high for real: (B, 1, h, w), one for each window."""
        # A hole differs from its smooth fill by little.
        detail = 2 * (image - surroundings)
        return self.windows(torch.cat([image, surroundings], dim=1), torch.cat([detail, mask], 1))


def paint_in_steps(
    net: nn.Module, unet: Any, noise: NoiseSection, batch: Batch, generator: torch.Generator
) -> Painted:
    """Paint a batch as ``DiffusionInpaintPipeline`` does; gradients are of the last step.

    Args:
        net: The network, or its wrapper for several processes.
        unet: The network itself.
        noise: Schedule, prediction type and ``adversarial``.
        batch: Patches, on the network's device.
        generator: On the CPU.
    """
    assert noise.adversarial is not None, "asked for by the recipe"
    image, mask = batch["image"], batch["mask"]
    known = unet.surroundings(image, mask)
    clean = unet.to_diffused(image, known)
    adjacent = unet.neighbour_channels(batch.get("neighbours"), known)
    noisy = torch.randn(image.shape, generator=generator).to(image.device)
    levels = alphas_cumprod(noise)
    visited = trailing_timesteps(len(levels), noise.adversarial.steps).tolist()
    for step, following in zip(visited, [*visited[1:], None], strict=True):
        share = levels[step]
        timestep = torch.full((len(image),), step, device=image.device)
        position = unet.noise_position(timestep, share.expand(len(image)).to(image.device))
        seen = unet.given_noisy(noisy, clean, mask)
        with torch.set_grad_enabled(following is None):
            predicted = net(seen, position, known, mask, batch["label"], batch["spacing_mm"], adjacent)
        painted = image_of(predicted.float(), seen, share, noise.prediction_type)
        if following is not None:  # DDIM: the noise that it stands for, at the next level
            eps = (seen - share.sqrt() * painted) / (1 - share).sqrt()
            noisy = levels[following].sqrt() * painted + (1 - levels[following]).sqrt() * eps
    return Painted(torch.where(mask > 0.5, unet.from_diffused(painted, known), image), known, mask)


def verdict_loss(
    discriminator: nn.Module, real: Tensor, painted: Painted, generator: torch.Generator
) -> Tensor:
    """What the discriminator minimises: hinge loss of windows, by how much of a mask they show."""
    image = torch.cat([_noised(real, generator), _noised(painted.image.detach(), generator)])
    twice = (torch.cat([one, one]) for one in (painted.surroundings, painted.mask))
    # One pass over both, as a network that is wrapped for several processes needs.
    on_real, on_painted = discriminator(image, *twice).float().chunk(2)
    hinge = torch.relu(1 - on_real) + torch.relu(1 + on_painted)
    return (hinge * _weights(painted.mask, on_real)).sum()


def realism(discriminator: nn.Module, painted: Painted, generator: torch.Generator) -> Tensor:
    """The mean score of painted windows, by how much of a mask they show."""
    image = _noised(painted.image, generator)
    scores = discriminator(image, painted.surroundings, painted.mask).float()
    return (scores * _weights(painted.mask, scores)).sum()


def _noised(image: Tensor, generator: torch.Generator) -> Tensor:
    return image + NOISE * torch.randn(image.shape, generator=generator).to(image.device)


def _weights(mask: Tensor, scores: Tensor) -> Tensor:
    """Weight of each window's score: (B, 1, h, w), 1 in all."""
    shown = nn.functional.adaptive_avg_pool2d(mask, scores.shape[-2:])
    return shown / shown.sum()
