"""Paintings of few steps, and a discriminator that tells them from tissue.

Sauer et al., "Adversarial diffusion distillation", 2023, with real tissue in place of a teacher.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from synthct.models.denoiser import image_of
from synthct.models.painting import trailing_timesteps
from synthct.models.palette import REFERENCE_SPACING_MM
from synthct.training.data import Batch
from synthct.training.loss import alphas_cumprod
from synthct.training.sections import NoiseSection

#: Channels of the heads of the discriminator.
HEAD_CHANNELS = 64

#: Betas of its Adam, without momentum, since what it judges changes with every step; and how many
#: times faster than the network it learns (Heusel et al., "GANs trained by a two time-scale update
#: rule converge to a local Nash equilibrium", 2017).
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
        label: (B,); as the network takes it.
        spacing_mm: (B, 2).
    """

    image: Tensor
    surroundings: Tensor
    mask: Tensor
    label: Tensor
    spacing_mm: Tensor


class TissueDiscriminator(nn.Module):
    """Scores patches whose masked part is real or painted, on each level of a U-Net's encoder.

    It starts from the encoder of the very network that it judges, which knows tissue already (Lin
    et al., "SDXL-Lightning: progressive adversarial diffusion distillation", 2024): one that starts
    from nothing stays a guess for thousands of steps. Each level has a head, so that grain, borders
    and shapes are judged apart.

    Args:
        unet: A ``PaletteUNet``.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        inner = unet.unet
        names = ("time_proj", "time_embedding", "class_embedding", "conv_in", "down_blocks")
        self.encoder = nn.ModuleDict({name: deepcopy(getattr(inner, name)) for name in names})
        self.label_embedding = deepcopy(unet.label_embedding)
        self.spacing_embedding = deepcopy(unet.spacing_embedding)
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, HEAD_CHANNELS, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(HEAD_CHANNELS, 1, 1),
            )
            for channels in unet.config.block_out_channels
        )
        self.fold, self.neighbours = unet.fold, unet.neighbours
        self.to_diffused = unet.to_diffused

    def forward(self, painted: Painted) -> list[Tensor]:
        """Scores, high for real: (B, 1, h, w) of each level, from fine to coarse."""
        known, mask = painted.surroundings, painted.mask
        image = self.to_diffused(painted.image, known)
        nothing = mask.new_zeros(()).expand(len(mask), self.neighbours, *mask.shape[2:])
        x = nn.functional.pixel_unshuffle(torch.cat([image, known, mask, nothing], dim=1), self.fold)
        part = self.encoder
        clean = torch.zeros(len(mask), device=mask.device)
        emb = part["time_embedding"](part["time_proj"](clean))
        relative = torch.log(painted.spacing_mm / REFERENCE_SPACING_MM)
        emb = emb + self.label_embedding(painted.label) + self.spacing_embedding(relative)
        x, scores = part["conv_in"](x), []
        for block, head in zip(part["down_blocks"], self.heads, strict=True):
            # What a level has seen before it is halved for the next one.
            x, seen = block(hidden_states=x, temb=emb)
            scores.append(head(seen[len(block.resnets) - 1]))
        return scores


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
    image = torch.where(mask > 0.5, unet.from_diffused(painted, known), image)
    return Painted(image, known, mask, batch["label"], batch["spacing_mm"])


def verdict_loss(
    discriminator: nn.Module, real: Tensor, painted: Painted, generator: torch.Generator
) -> Tensor:
    """What the discriminator minimises: the hinge loss inside the mask, mean of the levels.

    Args:
        discriminator: A ``TissueDiscriminator``, or its wrapper for several processes.
        real: (B, 1, H, W); the tissue in place of the paint.
        painted: What was painted.
        generator: On the CPU.
    """
    seen = [_noised(one, generator) for one in (real, painted.image.detach())]
    # One pass over both, as a network that is wrapped for several processes needs.
    scores = discriminator(_joined(*(replace(painted, image=image) for image in seen)))
    hinges = []
    for level in scores:
        on_real, on_painted = level.float().chunk(2)
        hinge = torch.relu(1 - on_real) + torch.relu(1 + on_painted)
        hinges.append(_inside(hinge, painted.mask))
    return torch.stack(hinges).mean()


def realism(discriminator: nn.Module, painted: Painted, generator: torch.Generator) -> Tensor:
    """The mean score inside the mask, mean of the levels."""
    scores = discriminator(replace(painted, image=_noised(painted.image, generator)))
    return torch.stack([_inside(level.float(), painted.mask) for level in scores]).mean()


def _noised(image: Tensor, generator: torch.Generator) -> Tensor:
    return image + NOISE * torch.randn(image.shape, generator=generator).to(image.device)


def _joined(first: Painted, second: Painted) -> Painted:
    """Two batches as one."""
    names = (one.name for one in fields(Painted))
    return Painted(*(torch.cat([getattr(first, name), getattr(second, name)]) for name in names))


def _inside(scores: Tensor, mask: Tensor) -> Tensor:
    """The mean of scores (B, 1, h, w), each weighted by how much of its place is masked."""
    shown = nn.functional.adaptive_avg_pool2d(mask, scores.shape[-2:])
    return (scores * shown).sum() / shown.sum()
