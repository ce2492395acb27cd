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

#: Side in pixels of the squares whose mean is held to the tissue's: a judge does not mind a level
#: that is some HU off, and without this kidneys drifted by 9.
LEVEL_PX = 9


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
        self.encoder: Any = deepcopy(unet)
        del self.encoder.unet.mid_block, self.encoder.unet.up_blocks
        del self.encoder.unet.conv_norm_out, self.encoder.unet.conv_out
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, HEAD_CHANNELS, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(HEAD_CHANNELS, 1, 1),
            )
            for channels in unet.config.block_out_channels
        )

    def forward(self, painted: Painted) -> list[Tensor]:
        """Scores, high for real: (B, 1, h, w) of each level, from fine to coarse."""
        encoder, unet = self.encoder, self.encoder.unet
        known, mask = painted.surroundings, painted.mask
        x = encoder.folded(encoder.to_diffused(painted.image, known), known, mask)
        clean = unet.time_embedding(unet.time_proj(torch.zeros(len(mask), device=mask.device)))
        condition = clean + encoder.condition(painted.label, painted.spacing_mm)
        x, scores = unet.conv_in(x), []
        for block, head in zip(unet.down_blocks, self.heads, strict=True):
            x, outputs = block(hidden_states=x, temb=condition)
            # The last before it is halved for the next level.
            scores.append(head(outputs[len(block.resnets) - 1]))
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
            told = (batch["label"], batch["spacing_mm"], adjacent)
            predicted = net(seen, position, known, mask, *told)
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


def level_loss(painted: Painted, real: Tensor, scale: float) -> Tensor:
    """The squared error of local means inside the mask.

    Args:
        painted: What was painted.
        real: (B, 1, H, W); the tissue in place of the paint.
        scale: Of what is diffused, in which the loss of denoising is taken.
    """
    shown = _local_mean(painted.mask)
    error = _local_mean(painted.image - real) * scale / shown.clamp_min(1e-6)
    return (error**2 * shown).sum() / shown.sum()


def _local_mean(values: Tensor) -> Tensor:
    """Means over squares of ``LEVEL_PX``, four pixels apart."""
    return nn.functional.avg_pool2d(values, LEVEL_PX, stride=4, padding=LEVEL_PX // 2)


def _noised(image: Tensor, generator: torch.Generator) -> Tensor:
    return image + NOISE * torch.randn(image.shape, generator=generator).to(image.device)


def _joined(first: Painted, second: Painted) -> Painted:
    """Two batches as one."""
    names = (one.name for one in fields(Painted))
    return Painted(*(torch.cat([getattr(first, name), getattr(second, name)]) for name in names))


def _inside(scores: Tensor, mask: Tensor) -> Tensor:
    """The mean of scores (B, 1, h, w), each weighted by how much of its place is masked."""
    rows, columns = scores.shape[-2:]
    shown = nn.functional.adaptive_avg_pool2d(mask, (rows, columns))
    return (scores * shown).sum() / shown.sum()
