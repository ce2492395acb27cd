"""Inpainting with an unconditional DDPM: RePaint (Lugmayr et al. 2022).

At every step the known region is replaced by its noisy version. Resampling jumps (noise is added
for some steps, which are then repeated) harmonise it with what is painted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import model_validator

from synthct.errors import CheckpointError
from synthct.models.config import require
from synthct.models.foreign import Pixels, UnetConfig, codec_misfits, stated_rules
from synthct.models.layout import Component, Layout
from synthct.models.methods import JUMP_LENGTH, JUMP_N_SAMPLE, REPAINT, Diffusion
from synthct.models.network import Checkpoint, CheckpointFiles, Misfit, Network, described
from synthct.models.patch import Patch, PatchRules

if TYPE_CHECKING:
    import torch
    from diffusers import RePaintScheduler
    from torch import Tensor


class UnconditionalConfig(UnetConfig):
    """``unet/config.json`` of a DDPM that predicts noise in one or three channels."""

    in_channels: Pixels
    out_channels: Pixels

    @model_validator(mode="after")
    def _check(self) -> UnconditionalConfig:
        if self.in_channels != self.out_channels:
            raise ValueError(
                f"out_channels: {self.out_channels} of {self.in_channels} in_channels; a network "
                "that also predicts a variance is not known here"
            )
        if self.side % self.reduction or self.side < 8:
            raise ValueError(f"sample_size: {self.side} is not a multiple of {self.reduction}")
        return self


class Unconditional(Network):
    """An unconditional DDPM with diffusers' RePaint scheduler."""

    layout = Layout(
        "DDPMPipeline",
        "an unconditional model",
        (Component("unet", "network", ("diffusers",), "UNet2DModel"),),
    )
    settings = ("codecs", "labels", "spacing_range_mm", "jump_length", "jump_n_sample")

    @classmethod
    def check_configs(cls, name: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """As in ``Network``."""
        require(name, "unet/config.json", configs["unet"], UnconditionalConfig)
        if (kind := configs["scheduler"].get("prediction_type", "epsilon")) != "epsilon":
            raise CheckpointError(
                f"checkpoint '{name}' predicts {kind}; an unconditional model can be painted with "
                "if it predicts the noise (epsilon)"
            )

    @classmethod
    def misfits(
        cls, files: CheckpointFiles, inpaint: Diffusion, labels: Sequence[str | None]
    ) -> Iterator[Misfit]:
        """As in ``Network``."""
        yield from codec_misfits(files, inpaint)
        what = described(files)
        if inpaint.scheduler != REPAINT:
            yield Misfit(
                ("scheduler",),
                f"{what}, which paints by resampling; set scheduler to {REPAINT}, not "
                f"{inpaint.scheduler}",
            )
        length = inpaint.jump_length or JUMP_LENGTH
        steps, times = inpaint.num_inference_steps, inpaint.jump_n_sample or JUMP_N_SAMPLE
        if length >= steps and times > 1:
            yield Misfit(
                ("jump_length",),
                f"{length} is not below num_inference_steps {steps}, so no step would be taken "
                "again; lower it, or take more steps",
            )
        stated = inpaint.labels or ()
        for label in labels:
            if label is not None and label not in stated:
                yield Misfit(
                    ("labels",) if stated else (),
                    f"{what}, of which nothing says that it paints '{label}'; name it in labels "
                    "if it was trained to show it, or leave the label of the mask out",
                )

    @classmethod
    def rules(
        cls, files: CheckpointFiles, inpaint: Diffusion, labels: Sequence[str | None]
    ) -> PatchRules:
        """As in ``Network``."""
        del labels
        unet = require(files.name, "unet/config.json", files.configs["unet"], UnconditionalConfig)
        return stated_rules(inpaint, inpaint.labels or (), unet.side)

    @classmethod
    def load(cls, files: CheckpointFiles, device: str) -> Mapping[str, Any]:
        """As in ``Network``."""
        from diffusers import UNet2DModel

        from synthct.models.weights import load_network

        return {"unet": load_network(files, "unet", UNet2DModel, device)}

    def __init__(
        self, checkpoint: Checkpoint, inpaint: Diffusion, prompts: Sequence[str | None]
    ) -> None:
        """As in ``Network``; ``num_inference_steps`` must divide the steps of the training."""
        from synthct.models.painting.schedulers import require_steps

        del prompts
        name, steps = checkpoint.files.name, inpaint.num_inference_steps
        if inpaint.scheduler != REPAINT:
            raise CheckpointError(
                f"checkpoint '{name}' is an unconditional model, which paints by resampling; "
                f"set scheduler to {REPAINT}, not {inpaint.scheduler}"
            )
        if inpaint.guidance_scale not in (None, 1):
            raise CheckpointError(
                f"checkpoint '{name}' takes no label, so it cannot be guided towards one; set "
                f"guidance_scale to 1, not {inpaint.guidance_scale:g}"
            )
        self.scheduler = _scheduler(checkpoint.files.scheduler_config)
        trained = self.scheduler.config.num_train_timesteps
        if trained % steps:
            raise CheckpointError(
                f"checkpoint '{name}' was trained with {trained} steps of noise, of which "
                f"num_inference_steps {steps} takes no even share; choose a divisor, such as "
                f"{_divisor_near(trained, steps)}"
            )
        require_steps(self.scheduler, REPAINT, steps)
        length = inpaint.jump_length or JUMP_LENGTH
        self.scheduler.set_timesteps(steps, length, inpaint.jump_n_sample or JUMP_N_SAMPLE)
        self.stride = trained // steps
        self.unet = checkpoint["unet"]
        self.device = next(self.unet.parameters()).device
        self.timesteps: list[int] = self.scheduler.timesteps.tolist()
        going_down = (t < last for t, last in zip(self.timesteps[1:], self.timesteps, strict=False))
        self.passes = 1 + sum(going_down)

    def paint_batch(self, patches: Sequence[Patch], seeds: Sequence[int]) -> Tensor:
        """As in ``Network``."""
        import torch
        from diffusers.utils.torch_utils import randn_tensor

        from synthct.models.painting.tensors import as_tensors

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

    def probe(self, size: int) -> None:
        """As in ``Network``."""
        import torch

        channels = int(self.unet.config.in_channels)
        self.unet(torch.zeros((1, channels, size, size), device=self.device), 0)

    def _noisier(self, noisy: Tensor, t: int, generators: list[torch.Generator]) -> Tensor:
        """Add the noise of step ``t`` (the paper's equation 1).

        ``undo_step`` of diffusers adds too much noise where steps are skipped.
        """
        from diffusers.utils.torch_utils import randn_tensor

        kept = self.scheduler.alphas_cumprod[t]
        if t >= self.stride:
            kept = kept / self.scheduler.alphas_cumprod[t - self.stride]
        noise = randn_tensor(noisy.shape, generator=generators, device=noisy.device)
        return kept.sqrt() * noisy + (1 - kept).sqrt() * noise


def _scheduler(trained_with: Mapping[str, Any]) -> RePaintScheduler:
    """The RePaint scheduler with the noise schedule of the checkpoint."""
    from diffusers import RePaintScheduler

    fields = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end")
    config = {key: trained_with[key] for key in fields if key in trained_with}
    if trained_with.get("trained_betas") is not None:
        config["trained_betas"] = np.asarray(trained_with["trained_betas"], dtype=np.float32)
    if trained_with.get("rescale_betas_zero_snr"):
        raise CheckpointError(
            f"scheduler '{REPAINT}' does not fit the checkpoint: it knows no rescale_betas_zero_snr"
        )
    clips = bool(trained_with.get("clip_sample", True))
    try:
        # eta 0, as in diffusers: the paper's 1 needs 250 steps and loses texture with fewer.
        return RePaintScheduler(**config, eta=0.0, clip_sample=clips)
    except (NotImplementedError, TypeError, ValueError) as err:
        raise CheckpointError(f"scheduler '{REPAINT}' does not fit the checkpoint: {err}") from err


def _divisor_near(trained: int, steps: int) -> int:
    divisors = [n for n in range(1, trained + 1) if trained % n == 0 and n > 2]
    return min(divisors, key=lambda n: abs(n - steps), default=trained)
