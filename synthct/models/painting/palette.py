"""Painting with a network of our own, which was trained to paint masks of CT patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from synthct.errors import CheckpointError
from synthct.models.checkpoint import Checkpoint
from synthct.models.painting.method import as_tensors
from synthct.models.painting.schedulers import make_scheduler, require_levels, require_steps
from synthct.models.palette import PaletteInpaintPipeline
from synthct.models.patch import Patch


class PaletteMethod:
    """A ``PaletteInpaintPipeline`` and how it is to paint.

    Args:
        checkpoint: Of the layout ``PALETTE``.
        scheduler: A name in ``SCHEDULERS``.
        steps: Number of denoising steps.
        guidance_scale: As in diffusers; 1 is without guidance.

    Raises:
        CheckpointError: If the scheduler does not fit the checkpoint's noise schedule, or cannot
            paint in so many steps, or the checkpoint cannot be guided.
    """

    def __init__(
        self, checkpoint: Checkpoint, scheduler: str, steps: int, guidance_scale: float
    ) -> None:
        if guidance_scale != 1 and checkpoint.unet.null_label is None:
            raise CheckpointError(
                f"checkpoint '{checkpoint.files.name}' was trained without label_dropout and "
                f"cannot be guided; set guidance_scale to 1, not {guidance_scale:g}"
            )
        sampler = make_scheduler(scheduler, checkpoint.files.scheduler_config)
        require_steps(sampler, scheduler, steps)
        if checkpoint.unet.trained_steps is not None:
            require_levels(sampler, scheduler, checkpoint.unet.trained_steps)
        self.steps, self.guidance_scale = steps, guidance_scale
        self.device = next(checkpoint.unet.parameters()).device
        self.pipeline = PaletteInpaintPipeline(checkpoint.unet, sampler)
        self.passes = len(sampler.timesteps) * (1 if guidance_scale == 1 else 2)

    def paint_batch(self, patches: Sequence[Patch], seeds: Sequence[int]) -> Tensor:
        """As in ``Method``."""
        given = as_tensors(patches, seeds, self.device)
        painted: Tensor = self.pipeline(
            image=given.image,
            mask_image=given.mask,
            label=torch.tensor([p.label for p in patches], device=self.device),
            spacing_mm=torch.tensor([p.spacing_mm for p in patches]).to(self.device),
            generator=given.generators,
            num_inference_steps=self.steps,
            strength=patches[0].strength,
            guidance_scale=self.guidance_scale,
        )
        return painted[:, 0]

    @torch.no_grad()
    def probe(self, size: int) -> None:
        """As in ``Method``."""
        blank = torch.zeros((1, 1, size, size), device=self.device)
        label = torch.zeros(1, dtype=torch.int64, device=self.device)
        spacing = torch.ones((1, 2), device=self.device)
        self.pipeline.unet(blank, label, blank, blank, label, spacing)
