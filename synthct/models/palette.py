"""Palette-style inpainting in 2D: the network and its diffusers pipeline.

Saharia et al., "Palette: Image-to-Image Diffusion Models" (2022). The network gets the noisy patch,
the masked patch and the mask. The known region is given without noise at every step and does not
count in the training loss, so nothing is blended outside the mask.

All tensors are in the model's range -1..1; HU and grids belong to ``patch.py``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from synthct.models.palette_config import LAYOUT, PaletteConfig, check_config
from synthct.models.pipeline import InpaintPipeline, configured_by

#: Spacings are embedded as logarithms relative to this, a common one of abdominal scans.
REFERENCE_SPACING_MM = 0.8

#: Jacobi iterations of Laplace's equation on each level of ``smooth_fill``.
_RELAXATIONS = 8


class PaletteUNet(ModelMixin, ConfigMixin):
    """A U-Net that predicts the noise (or velocity) of a masked CT patch.

    Its arguments are the fields of ``palette_config.PaletteConfig``.
    """

    @configured_by(PaletteConfig)
    def __init__(self, *values: Any, **fields: Any) -> None:
        super().__init__()
        config = self.config  # with defaults
        levels = len(config.block_out_channels)
        self.unet = UNet2DModel(
            in_channels=(3 + config.neighbours) * config.fold**2,
            out_channels=config.fold**2,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            block_out_channels=tuple(config.block_out_channels),
            layers_per_block=config.layers_per_block,
            attention_head_dim=config.attention_head_dim,
            dropout=config.dropout,
            norm_num_groups=config.norm_num_groups,
            class_embed_type="identity",
        )
        embed_dim = config.block_out_channels[0] * 4
        labels = len(config.labels)
        self.label_embedding = nn.Embedding(labels + 1 + config.guided, embed_dim)
        self.spacing_embedding = TimestepEmbedding(2, embed_dim)
        nn.init.zeros_(self.label_embedding.weight)
        self.fold = config.fold
        self.residual_scale = config.residual_scale
        self.neighbours = config.neighbours
        self.noise_embedding = config.noise_embedding
        self.trained_steps = config.trained_steps
        self.clip_denoised = config.clip_denoised
        self.null_label = labels + 1 if config.guided else None

    def forward(
        self, noisy: Tensor, position: Tensor, masked: Tensor, mask: Tensor, label: Tensor,
        spacing_mm: Tensor, neighbours: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Predict noise, velocity or image, as the scheduler's ``prediction_type`` says.

        Args:
            noisy: (B, 1, H, W); noisy inside the mask, clean outside.
            position: (B,) or scalar; noise level, from ``noise_position``.
            masked: (B, 1, H, W); known region, from ``surroundings``.
            mask: (B, 1, H, W); 1 where the model paints.
            label: (B,) int64; 0 for whatever fits, n + 1 for ``labels[n]``, ``null_label`` for
                no label given.
            spacing_mm: (B, 2); pixel size along rows and columns.
            neighbours: (B, 2, H, W), from ``neighbour_channels``; None tells nothing of them.

        Returns:
            (B, 1, H, W); meaningful inside the mask only.
        """
        inputs = [noisy, masked, mask]
        if self.neighbours:
            told = mask.new_zeros(()).expand(len(mask), self.neighbours, *mask.shape[2:])
            inputs.append(told if neighbours is None else neighbours)
        x = torch.cat(inputs, dim=1)
        x = nn.functional.pixel_unshuffle(x, self.fold)
        relative = torch.log(spacing_mm / REFERENCE_SPACING_MM)
        condition = self.label_embedding(label) + self.spacing_embedding(relative)
        out = self.unet(x, position, class_labels=condition).sample
        return nn.functional.pixel_shuffle(out, self.fold)

    def surroundings(self, image: Tensor, mask: Tensor) -> Tensor:
        """The known region, without anything that is masked.

        Args:
            image: (B, 1, H, W) in -1..1.
            mask: (B, 1, H, W); 1 where the model paints.

        Returns:
            (B, 1, H, W); ``image`` outside the mask, inside it 0 or ``smooth_fill``.
        """
        known = (mask <= 0.5).to(image.dtype)
        return image * known if self.residual_scale is None else smooth_fill(image, known)

    def to_diffused(self, image: Tensor, surroundings: Tensor) -> Tensor:
        """What is diffused: the image, or its scaled difference from ``surroundings``."""
        if self.residual_scale is None:
            return image
        return (image - surroundings) * self.residual_scale

    def neighbour_channels(self, neighbours: Tensor | None, surroundings: Tensor) -> Tensor | None:
        """What the network is told of the slices before and after.

        With ``residual_scale`` their difference from ``surroundings``, scaled like what is
        diffused, so that 0 says nothing.

        Args:
            neighbours: (B, 2, H, W) in -1..1; NaN where nothing is known.
            surroundings: (B, 1, H, W), of the slice between them.

        Returns:
            (B, 2, H, W), 0 where nothing is known; None if there are none or it takes none.
        """
        if not self.neighbours or neighbours is None:
            return None
        return self.to_diffused(neighbours, surroundings).nan_to_num(nan=0.0)

    def from_diffused(self, diffused: Tensor, surroundings: Tensor) -> Tensor:
        """The inverse of ``to_diffused``, clipped to -1..1."""
        if self.residual_scale is not None:
            diffused = surroundings + diffused / self.residual_scale
        return diffused.clamp(-1, 1)

    def noise_position(self, timestep: Tensor, alpha_cumprod: Tensor) -> Tensor:
        """The noise level as an input of the network.

        With ``noise_embedding: level``, Palette's gamma as the angle between signal and noise: 0
        is a clean image, 1000 pure noise. On a cosine schedule of 1000 steps that is nearly the
        timestep.

        Args:
            timestep: (B,); step of the schedule.
            alpha_cumprod: (B,); share of the signal in the variance at that step.
        """
        if self.noise_embedding == "timestep":
            return timestep
        clean = alpha_cumprod.float()
        return torch.atan2((1 - clean).sqrt(), clean.sqrt()) * (2000 / math.pi)

    @property
    def size_multiple(self) -> int:
        """Patch sides must be multiples of this."""
        return int(self.fold * 2 ** (len(self.config.block_out_channels) - 1))


class PaletteInpaintPipeline(InpaintPipeline):
    """Inpaints 2D CT patches with a ``PaletteUNet`` and a scheduler of diffusers.

    It works on tensors in -1..1; ``synthct.inpaint`` paints scans in HU.
    """

    layout = LAYOUT

    def __init__(self, unet: PaletteUNet, scheduler: SchedulerMixin) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @classmethod
    def check_config(cls, name: str, config: Mapping[str, Any]) -> None:
        """As in ``InpaintPipeline``."""
        check_config(name, config)

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor,
        mask_image: Tensor,
        label: Tensor,
        spacing_mm: Tensor,
        generator: list[torch.Generator],
        num_inference_steps: int = 20,
        strength: float = 1.0,
        guidance_scale: float = 1.0,
        neighbours: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Paint a batch.

        Args:
            image: (B, 1, H, W) in -1..1; values inside the mask have no influence.
            mask_image: (B, 1, H, W); 1 where the model paints, 0 elsewhere.
            label: (B,) int64; 0 for whatever fits, n + 1 for ``unet.config.labels[n]``.
            spacing_mm: (B, 2); pixel size along rows and columns.
            generator: One CPU generator per sample, so that its noise does not depend on the
                others in the batch.
            num_inference_steps: Number of denoising steps.
            strength: As in diffusers' image-to-image: 1 starts from pure noise, less starts later
                in the schedule from noisy ``surroundings``. The number of steps stays the same,
                unless the network was trained for few steps.
            guidance_scale: Classifier-free guidance towards the label (Ho and Salimans,
                "Classifier-free diffusion guidance", 2022); 1 for none, else two passes per step.
            neighbours: (B, 2, H, W) in -1..1: the slices before and after, NaN where nothing is
                known. Without influence on a network that takes none.
            noise: (B, 1, H, W), what painting starts from; by default drawn by ``generator``.

        Returns:
            (B, 1, H, W) in -1..1, equal to ``image`` outside the mask; NaN where the network
            or the scheduler overflowed.

        Raises:
            ValueError: If shapes, number of generators or the patch size do not fit.
        """
        multiple = self.unet.size_multiple
        if image.ndim != 4 or image.shape != mask_image.shape or image.shape[1] != 1:
            shapes = f"{tuple(image.shape)} and {tuple(mask_image.shape)}"
            raise ValueError(f"image and mask must both be (B, 1, H, W), not {shapes}")
        if image.shape[2] % multiple or image.shape[3] % multiple:
            sides = tuple(image.shape[2:])
            raise ValueError(f"patch sides {sides} must be multiples of {multiple}")
        if not 0 < strength <= 1:
            raise ValueError(f"strength {strength} is not within 0..1")
        if guidance_scale != 1 and self.unet.null_label is None:
            raise ValueError("the network was trained without label dropout, so without guidance")
        if len(generator) != image.shape[0]:
            raise ValueError(f"{len(generator)} generators for a batch of {image.shape[0]}")

        # Multistep schedulers keep state between batches unless set again.
        limit = self.scheduler.config.num_train_timesteps
        whole = min(round(num_inference_steps / strength), max(num_inference_steps, limit))
        if self.unet.trained_steps is not None:
            whole = num_inference_steps
        self.scheduler.set_timesteps(whole, device=image.device)
        skipped = round(whole * (1 - strength)) * self.scheduler.order
        timesteps = self.scheduler.timesteps[skipped:]
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if takes_generator else {}

        paint = mask_image > 0.5
        surroundings = self.unet.surroundings(image, mask_image)
        clean = self.unet.to_diffused(torch.where(paint, surroundings, image), surroundings)
        told = self.unet.neighbour_channels(neighbours, surroundings)
        noisy = _start(noise, image, generator)
        if skipped:
            if hasattr(self.scheduler, "set_begin_index"):
                self.scheduler.set_begin_index(skipped)
            first = timesteps[:1].expand(image.shape[0])
            noisy = self.scheduler.add_noise(clean, noisy, first)
        else:
            noisy = noisy * self.scheduler.init_noise_sigma
        for t in timesteps:
            # The known region has no noise at any step.
            model_input = self.scheduler.scale_model_input(noisy, t)
            model_input = torch.where(paint, model_input, clean)
            clean_share = self.scheduler.alphas_cumprod[int(t)].to(image.device)
            position = self.unet.noise_position(t.to(image.device), clean_share)
            given = (model_input, position.expand(image.shape[0]), surroundings, mask_image)
            out = self.unet(*given, label, spacing_mm, told)
            if guidance_scale != 1:
                no_label = torch.full_like(label, self.unet.null_label)
                without = self.unet(*given, no_label, spacing_mm, told)
                out = without + guidance_scale * (out - without)
            if self.unet.clip_denoised:
                kind = self.scheduler.config.prediction_type
                out = clip_prediction(out.to(noisy.dtype), model_input, clean_share, kind)
            with torch.autocast(image.device.type, enabled=False):  # schedulers need float32
                noisy = self.scheduler.step(out.to(noisy.dtype), t, noisy, **extra).prev_sample
        noisy = torch.where(noisy.isfinite(), noisy, torch.nan)  # clipping would hide an overflow
        return torch.where(paint, self.unet.from_diffused(noisy, surroundings), image)


def _start(noise: Tensor | None, image: Tensor, generator: list[torch.Generator]) -> Tensor:
    """What painting starts from: the given noise, or noise drawn for each sample."""
    if noise is not None:
        return noise
    drawn: Tensor = randn_tensor(image.shape, generator=generator, device=image.device)
    return drawn


def clip_prediction(
    predicted: Tensor, noisy: Tensor, clean: Tensor, prediction_type: str
) -> Tensor:
    """Clip a prediction so that the image it implies lies in -1..1.

    Args:
        predicted: (B, 1, H, W); noise, velocity or image.
        noisy: (B, 1, H, W); the network's input, of variance 1.
        clean: Share of the signal in that variance, Palette's gamma.
        prediction_type: As in diffusers.
    """
    signal, spread = clean.sqrt(), (1 - clean).sqrt()
    if prediction_type == "epsilon":
        image = ((noisy - spread * predicted) / signal).clamp(-1, 1)
        return (noisy - signal * image) / spread
    if prediction_type == "v_prediction":
        image = (signal * noisy - spread * predicted).clamp(-1, 1)
        return (signal * noisy - image) / spread
    return predicted.clamp(-1, 1)


def smooth_fill(image: Tensor, known: Tensor) -> Tensor:
    """Fill unknown pixels smoothly from the known ones, coarse to fine.

    A pull-push pyramid (Gortler et al., "The Lumigraph", 1996, section 3.4.2) with a few iterations
    of Laplace's equation on each level: as accurate as biharmonic inpainting, at a thousandth of
    the network's cost (``tests/benchmarks``).

    Args:
        image: (B, 1, H, W); values where ``known`` is 0 have no influence.
        known: (B, 1, H, W); 1 where the image is known, else 0.

    Returns:
        (B, 1, H, W), equal to ``image`` where it is known.
    """
    weights, values = [known], [image * known]
    while min(weights[-1].shape[2:]) > 1 and not any(n % 2 for n in weights[-1].shape[2:]):
        weights.append(nn.functional.avg_pool2d(weights[-1], 2))
        values.append(nn.functional.avg_pool2d(values[-1], 2))
    total = weights[-1].mean(dim=(2, 3), keepdim=True).clamp_min(1e-6)
    filled = (values[-1].mean(dim=(2, 3), keepdim=True) / total).expand_as(values[-1])
    for weight, value in zip(reversed(weights), reversed(values), strict=True):
        if filled.shape != value.shape:
            filled = nn.functional.interpolate(filled, scale_factor=2.0, mode="bilinear")
        filled = value + filled * (1 - weight)
        for _ in range(_RELAXATIONS):
            wide = nn.functional.pad(filled, (1, 1, 1, 1), mode="replicate")
            mean = (
                wide[:, :, :-2, 1:-1]
                + wide[:, :, 2:, 1:-1]
                + wide[:, :, 1:-1, :-2]
                + wide[:, :, 1:-1, 2:]
            ) / 4
            filled = value + mean * (1 - weight)
    return filled
