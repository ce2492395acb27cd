"""Painting with a latent model told by text: Stable Diffusion's inpainting (Rombach et al. 2022).

The U-Net sees noisy latents, the mask, and the latents of the masked picture. A CT is given to the
autoencoder in as many equal channels as it takes, and what comes back is their mean.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from synthct.errors import CheckpointError
from synthct.models.checkpoint import Checkpoint
from synthct.models.painting.method import as_tensors
from synthct.models.painting.schedulers import make_scheduler, require_steps
from synthct.models.patch import Patch


class LatentMethod:
    """A latent inpainting model and what it is told.

    Args:
        checkpoint: Of the layout ``TEXT``.
        scheduler: A name in ``SCHEDULERS``.
        steps: Number of denoising steps.
        guidance_scale: How strongly the prompt is insisted on; 1 is without guidance.
        prompts: By the number of a patch's label; None where there is nothing to say.

    Raises:
        CheckpointError: If the scheduler does not fit the checkpoint's noise schedule, or cannot
            paint in so many steps, or a prompt is too long.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        scheduler: str,
        steps: int,
        guidance_scale: float,
        prompts: Sequence[str | None],
    ) -> None:
        vae, text = checkpoint.vae, checkpoint.text
        assert vae is not None, "such a checkpoint has an autoencoder"
        assert text is not None, "such a checkpoint has a text encoder"
        self.scheduler = make_scheduler(scheduler, checkpoint.files.scheduler_config)
        require_steps(self.scheduler, scheduler, steps)
        self.name, self.steps, self.guidance_scale = checkpoint.files.name, steps, guidance_scale
        self.unet, self.vae = checkpoint.unet, vae
        self.device = next(checkpoint.unet.parameters()).device
        self.passes = len(self.scheduler.timesteps) * (1 if guidance_scale == 1 else 2)
        self.reduction = 2 ** (len(vae.config.block_out_channels) - 1)
        # Each text alone, so that its embedding does not depend on the others.
        self.told = [None if prompt is None else text.encode(prompt) for prompt in prompts]
        self.untold = text.encode("")

    @torch.no_grad()
    def paint_batch(self, patches: Sequence[Patch], seeds: Sequence[int]) -> Tensor:
        """As in ``Method``."""
        image, mask, generators = as_tensors(patches, seeds, self.device)
        told = torch.stack([self._told(patch.label) for patch in patches])
        untold = self.untold.expand_as(told)
        # A latent pixel is painted if any of its pixels is: none of them may shine through.
        cells = nn.functional.max_pool2d(mask, self.reduction)
        known = self._encode(image * (1 - mask))
        # Multistep schedulers keep state from one batch to the next unless told anew.
        self.scheduler.set_timesteps(self.steps, device=self.device)
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generators} if takes_generator else {}

        noisy = randn_tensor(known.shape, generator=generators, device=self.device)
        noisy = noisy * self.scheduler.init_noise_sigma
        for t in self.scheduler.timesteps:
            seen = self.scheduler.scale_model_input(noisy, t)
            seen = torch.cat([seen, cells, known], dim=1)
            out = self.unet(seen, t, encoder_hidden_states=told).sample
            if self.guidance_scale != 1:
                without = self.unet(seen, t, encoder_hidden_states=untold).sample
                out = without + self.guidance_scale * (out - without)
            with torch.autocast(self.device.type, enabled=False):  # schedulers need float32
                noisy = self.scheduler.step(out.to(noisy.dtype), t, noisy, **extra).prev_sample
        painted = self._decode(noisy)
        painted = torch.where(painted.isfinite(), painted, torch.nan)  # clipping would hide it
        return torch.where(mask > 0.5, painted.clamp(-1, 1), image)[:, 0]

    @torch.no_grad()
    def probe(self, size: int) -> None:
        """As in ``Method``."""
        side = size // self.reduction
        channels = int(self.unet.config.in_channels)
        blank = torch.zeros((1, channels, side, side), device=self.device)
        self.unet(blank, 0, encoder_hidden_states=self.untold[None])

    def _told(self, label: int) -> Tensor:
        """The embedding of what is said for a label.

        Raises:
            CheckpointError: If nothing is.
        """
        found = self.told[label] if label < len(self.told) else None
        if found is None:
            raise CheckpointError(
                f"checkpoint '{self.name}' is told by text what to paint; give it a prompt"
            )
        return found

    def _encode(self, image: Tensor) -> Tensor:
        """Pixels (B, 1, S, S) to latents; the mean of what the autoencoder deems possible."""
        channels = int(self.vae.config.in_channels)
        with torch.autocast(self.device.type, enabled=False):  # half precision overflows there
            latents = self.vae.encode(image.expand(-1, channels, -1, -1)).latent_dist.mode()
        return latents * float(self.vae.config.scaling_factor)

    def _decode(self, latents: Tensor) -> Tensor:
        """Latents to pixels (B, 1, S, S)."""
        with torch.autocast(self.device.type, enabled=False):
            pixels = self.vae.decode(latents / float(self.vae.config.scaling_factor)).sample
        return pixels.mean(dim=1, keepdim=True)
