"""Painting with a network that knows nothing of masks: RePaint (Lugmayr et al. 2022).

At every step what is known is put in with the noise of that step. Painted and known tissue are
brought into harmony by going back and forth: some steps of noise are added again, and taken again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import RePaintScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from synthct.errors import CheckpointError
from synthct.models.checkpoint import Checkpoint
from synthct.models.methods import REPAINT
from synthct.models.painting.method import as_tensors
from synthct.models.painting.schedulers import require_steps
from synthct.models.patch import Patch


class RepaintMethod:
    """An unconditional DDPM with the scheduler of diffusers that resamples.

    Args:
        checkpoint: Of the layout ``UNCONDITIONAL``.
        scheduler: ``repaint``.
        steps: Number of denoising steps, without those that are taken again; divides the number
            of steps that the network was trained with.
        guidance_scale: 1.
        jump_length: Steps of noise that are added again at a time (the paper's j).
        jump_n_sample: How often each stretch of the way is gone (the paper's r).

    Raises:
        CheckpointError: If the checkpoint cannot be painted with like that.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        scheduler: str,
        steps: int,
        guidance_scale: float,
        jump_length: int,
        jump_n_sample: int,
    ) -> None:
        name = checkpoint.files.name
        if scheduler != REPAINT:
            raise CheckpointError(
                f"checkpoint '{name}' is an unconditional model, which paints by resampling; "
                f"set scheduler to {REPAINT}, not {scheduler}"
            )
        if guidance_scale != 1:
            raise CheckpointError(
                f"checkpoint '{name}' takes no label, so it cannot be guided towards one; set "
                f"guidance_scale to 1, not {guidance_scale:g}"
            )
        self.scheduler = _make(checkpoint)
        trained = self.scheduler.config.num_train_timesteps
        if trained % steps:
            raise CheckpointError(
                f"checkpoint '{name}' was trained with {trained} steps of noise, of which "
                f"num_inference_steps {steps} takes no even share; choose a divisor, such as "
                f"{_divisor_near(trained, steps)}"
            )
        require_steps(self.scheduler, scheduler, steps)
        self.scheduler.set_timesteps(steps, jump_length, jump_n_sample)
        self.stride = trained // steps
        self.unet = checkpoint.unet
        self.device = next(checkpoint.unet.parameters()).device
        self.timesteps: list[int] = self.scheduler.timesteps.tolist()
        going_down = (t < last for t, last in zip(self.timesteps[1:], self.timesteps, strict=False))
        self.passes = 1 + sum(going_down)

    @torch.no_grad()
    def paint_batch(self, patches: Sequence[Patch], seeds: Sequence[int]) -> Tensor:
        """As in ``Method``."""
        image, mask, generators = as_tensors(patches, seeds, self.device)
        channels = int(self.unet.config.in_channels)
        clean = image.expand(-1, channels, -1, -1)
        known = 1 - mask
        noisy = randn_tensor(clean.shape, generator=generators, device=self.device)
        last = self.timesteps[0] + 1
        for t in self.timesteps:
            if t < last:
                predicted = self.unet(noisy, t).sample.to(noisy.dtype)
                with torch.autocast(self.device.type, enabled=False):  # schedulers need float32
                    noisy = self.scheduler.step(
                        predicted, t, noisy, clean, known, generators
                    ).prev_sample
            else:
                noisy = self._noisier(noisy, last, generators)
            last = t
        noisy = torch.where(noisy.isfinite(), noisy, torch.nan)  # clipping would hide an overflow
        painted = noisy.mean(dim=1, keepdim=True).clamp(-1, 1)
        return torch.where(mask > 0.5, painted, image)[:, 0]

    @torch.no_grad()
    def probe(self, size: int) -> None:
        """As in ``Method``."""
        channels = int(self.unet.config.in_channels)
        self.unet(torch.zeros((1, channels, size, size), device=self.device), 0)

    def _noisier(self, noisy: Tensor, t: int, generators: list[torch.Generator]) -> Tensor:
        """What came out of step ``t`` with that step's noise again (the paper's equation 1).

        Not ``undo_step`` of diffusers: where steps are skipped, it adds the noise of later ones.
        """
        kept = self.scheduler.alphas_cumprod[t]
        if t >= self.stride:
            kept = kept / self.scheduler.alphas_cumprod[t - self.stride]
        noise = randn_tensor(noisy.shape, generator=generators, device=noisy.device)
        return kept.sqrt() * noisy + (1 - kept).sqrt() * noise


def _make(checkpoint: Checkpoint) -> RePaintScheduler:
    """The scheduler on the noise schedule that the checkpoint was trained with."""
    told = checkpoint.files.scheduler_config
    fields = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end")
    config = {key: told[key] for key in fields if key in told}
    if told.get("trained_betas") is not None:
        config["trained_betas"] = np.asarray(told["trained_betas"], dtype=np.float32)
    if told.get("rescale_betas_zero_snr"):
        raise CheckpointError(
            f"scheduler '{REPAINT}' does not fit the checkpoint: it knows no rescale_betas_zero_snr"
        )
    try:
        # eta 0, as in diffusers: the paper's 1 needs its 250 steps, and loses texture with fewer.
        return RePaintScheduler(**config, eta=0.0, clip_sample=bool(told.get("clip_sample", True)))
    except (NotImplementedError, TypeError, ValueError) as err:
        raise CheckpointError(f"scheduler '{REPAINT}' does not fit the checkpoint: {err}") from err


def _divisor_near(trained: int, steps: int) -> int:
    divisors = [n for n in range(1, trained + 1) if trained % n == 0 and n > 2]
    return min(divisors, key=lambda n: abs(n - steps), default=trained)
