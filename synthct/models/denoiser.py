"""What networks share that inpaint by diffusion, in 2D and 3D: their inputs, and the sampling loop.

The known region is given without noise at every step and does not count in the training loss, so
nothing is blended outside the mask (Palette, Saharia et al. 2022).

All tensors are in the model's range -1..1; (B, 1, H, W) stands for (B, 1, H, W, D) as well, where
D counts slices.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from synthct.models.config import require_declared
from synthct.models.denoiser_config import DenoiserConfig
from synthct.models.pipeline import InpaintPipeline

#: Jacobi iterations of Laplace's equation on each level of ``smooth_fill``.
_RELAXATIONS = 8


class Denoiser:
    """A network that predicts the noise, velocity or image of a masked patch.

    Its config has the fields of ``denoiser_config.DenoiserConfig``. ``forward`` takes the noisy
    patch, its noise level, the known region, the mask, label, spacing, and the
    neighbouring slices. It comes before ``ModelMixin``, which diffusers looks for by name in the
    very module that ``model_index.json`` names.
    """

    config: Any

    #: Neighbouring slices that it takes.
    neighbours: int = 0
    #: ``clean`` or ``blended``: whether noise is in the known region, and put back after each step.
    known_region: str = "clean"
    #: Of its weights.
    memory_format = torch.channels_last

    def given_noisy(self, noisy: Tensor, clean: Tensor, mask: Tensor) -> Tensor:
        """What the network sees: noise in the mask only, or everywhere where it is blended."""
        return noisy if self.known_region == "blended" else torch.where(mask > 0.5, noisy, clean)

    def keep_settings(self) -> None:
        """Take over what the pipeline and the loss ask for from the config."""
        config = self.config
        self.residual_scale: float | None = config.residual_scale
        self.noise_embedding: str = config.noise_embedding
        self.trained_steps: int | None = config.trained_steps
        self.clip_denoised: bool = config.clip_denoised
        self.null_label: int | None = None  # stands for no label in guidance
        if config.guided:
            self.null_label = len(config.labels) + 1
        elif config.guidance:
            self.null_label = 0  # whatever fits

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
        """The slices before and after as channels of the network.

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


class DiffusionInpaintPipeline(InpaintPipeline):
    """Inpaints CT patches with a ``Denoiser`` and a scheduler of diffusers.

    It works on tensors in -1..1; ``synthct.inpaint`` paints scans in HU.

    Attributes:
        fields: Those of the network's config.
        ndim: Of images: batch, channel and sides.
    """

    fields: ClassVar[type[DenoiserConfig]]
    ndim: ClassVar[int] = 4

    def __init__(self, unet: Denoiser, scheduler: SchedulerMixin) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @classmethod
    def check_config(cls, name: str, config: Mapping[str, Any]) -> None:
        """As in ``InpaintPipeline``."""
        require_declared(name, "unet/config.json", config, cls.fields)

    def check_sides(self, sides: tuple[int, ...]) -> None:
        """Refuse patches of a size that the network does not take.

        Raises:
            ValueError: If it does not.
        """
        multiple = self.unet.size_multiple
        if any(side % multiple for side in sides):
            raise ValueError(f"patch sides {sides} must be multiples of {multiple}")

    def predict(
        self, noisy: Tensor, position: Tensor, masked: Tensor, mask: Tensor, label: Tensor,
        spacing_mm: Tensor, adjacent: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """What the network predicts, as in its ``forward``."""
        out: Tensor = self.unet(noisy, position, masked, mask, label, spacing_mm, adjacent)
        return out

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
        level: Tensor | None = None,
    ) -> Tensor:
        """Paint a batch.

        Args:
            image: (B, 1, H, W) in -1..1; values inside the mask have no influence.
            mask_image: (B, 1, H, W); 1 where the model paints, 0 elsewhere.
            label: (B,) int64; 0 for whatever fits, n + 1 for ``unet.config.labels[n]``.
            spacing_mm: (B, 2) or (B, 3); voxel size along each side.
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
            level: (B,) in -1..1, the median of what is painted, which each step is moved to (after
                Choi et al., "ILVR: conditioning method for denoising diffusion probabilistic
                models", 2021, whose reference has one pixel here); NaN where it is left open.

        Returns:
            (B, 1, H, W) in -1..1, equal to ``image`` outside the mask; NaN where the network
            or the scheduler overflowed.

        Raises:
            ValueError: If shapes, number of generators or the patch size do not fit.
        """
        if image.ndim != self.ndim or image.shape != mask_image.shape or image.shape[1] != 1:
            shapes, like = f"{tuple(image.shape)} and {tuple(mask_image.shape)}", "(B, 1, H, W, D)"
            like = like if self.ndim == 5 else "(B, 1, H, W)"
            raise ValueError(f"image and mask must both be {like}, not {shapes}")
        self.check_sides(tuple(image.shape[2:]))
        if not 0 < strength <= 1:
            raise ValueError(f"strength {strength} is not within 0..1")
        if guidance_scale != 1 and self.unet.null_label is None:
            raise ValueError("the network has learned no label to be guided away from")
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
        adjacent = self.unet.neighbour_channels(neighbours, surroundings)
        noisy = start = _start(noise, image, generator)
        if skipped:
            if hasattr(self.scheduler, "set_begin_index"):
                self.scheduler.set_begin_index(skipped)
            first = timesteps[:1].expand(image.shape[0])
            noisy = self.scheduler.add_noise(clean, noisy, first)
        else:
            noisy = noisy * self.scheduler.init_noise_sigma
        for number, t in enumerate(timesteps):
            model_input = self.scheduler.scale_model_input(noisy, t)
            model_input = self.unet.given_noisy(model_input, clean, mask_image)
            clean_share = self.scheduler.alphas_cumprod[int(t)].to(image.device)
            position = self.unet.noise_position(t.to(image.device), clean_share)
            given = (model_input, position.expand(image.shape[0]), surroundings, mask_image)
            out = self.predict(*given, label, spacing_mm, adjacent)
            if guidance_scale != 1:
                no_label = torch.full_like(label, self.unet.null_label)
                without = self.predict(*given, no_label, spacing_mm, adjacent)
                out = without + guidance_scale * (out - without)
            seen = (model_input, clean_share, surroundings, paint)
            out = self._within(out.to(noisy.dtype), *seen, level)
            with torch.autocast(image.device.type, enabled=False):  # schedulers need float32
                noisy = self.scheduler.step(out, t, noisy, **extra).prev_sample
                if self.unet.known_region == "blended" and number + 1 < len(timesteps):
                    following = timesteps[number + 1 : number + 2].expand(len(image))
                    known = self.scheduler.add_noise(clean, start, following)
                    noisy = torch.where(paint, noisy, known)
        noisy = torch.where(noisy.isfinite(), noisy, torch.nan)  # clipping would hide an overflow
        return torch.where(paint, self.unet.from_diffused(noisy, surroundings), image)

    def _within(
        self, predicted: Tensor, noisy: Tensor, clean: Tensor, surroundings: Tensor,
        paint: Tensor, level: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """A prediction whose image keeps to -1..1 and to the level, where that is asked for."""
        kind = self.scheduler.config.prediction_type
        if self.unet.clip_denoised:
            predicted = clip_prediction(predicted, noisy, clean, kind)
        if level is None:
            return predicted
        image = self.unet.from_diffused(image_of(predicted, noisy, clean, kind), surroundings)
        median = torch.where(paint, image, torch.nan).flatten(1).nanmedian(dim=1).values
        step = torch.nan_to_num(level - median).reshape(-1, *[1] * (image.ndim - 1))
        change = self.unet.to_diffused(step, torch.zeros_like(step))
        signal, spread = clean.sqrt(), (1 - clean).sqrt()
        factors = {"epsilon": -signal / spread, "v_prediction": -1 / spread, "sample": 1.0}
        return predicted + factors[kind] * change * paint


def _start(noise: Tensor | None, image: Tensor, generator: list[torch.Generator]) -> Tensor:
    """What painting starts from: the given noise, or noise drawn for each sample."""
    if noise is not None:
        return noise
    drawn: Tensor = randn_tensor(image.shape, generator=generator, device=image.device)
    return drawn


def image_of(predicted: Tensor, noisy: Tensor, clean: Tensor, prediction_type: str) -> Tensor:
    """The image that a prediction implies; arguments as of ``clip_prediction``."""
    signal, spread = clean.sqrt(), (1 - clean).sqrt()
    if prediction_type == "epsilon":
        return (noisy - spread * predicted) / signal
    if prediction_type == "v_prediction":
        return signal * noisy - spread * predicted
    return predicted


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
    image = image_of(predicted, noisy, clean, prediction_type).clamp(-1, 1)
    if prediction_type == "epsilon":
        return (noisy - signal * image) / spread
    if prediction_type == "v_prediction":
        return (signal * noisy - image) / spread
    return image


def smooth_fill(image: Tensor, known: Tensor) -> Tensor:
    """Fill unknown pixels smoothly from the known ones, coarse to fine.

    A pull-push pyramid (Gortler et al., "The Lumigraph", 1996, section 3.4.2) with a few iterations
    of Laplace's equation on each level: as accurate as biharmonic inpainting, at a thousandth of
    the network's cost (``tests/benchmarks``). Sides are halved as long as they are even.

    Args:
        image: (B, 1, H, W); values where ``known`` is 0 have no influence.
        known: (B, 1, H, W); 1 where the image is known, else 0.

    Returns:
        (B, 1, H, W), equal to ``image`` where it is known.
    """
    axes = tuple(range(2, image.ndim))
    flat = image.ndim == 4
    pool = nn.functional.avg_pool2d if flat else nn.functional.avg_pool3d
    weights, values, halvings = [known], [image * known], list[tuple[int, ...]]()
    while True:
        steps = tuple(2 if n > 1 and n % 2 == 0 else 1 for n in weights[-1].shape[2:])
        if max(steps) == 1:
            break
        halvings.append(steps)
        weights.append(pool(weights[-1], steps))
        values.append(pool(values[-1], steps))
    total = weights[-1].mean(dim=axes, keepdim=True).clamp_min(1e-6)
    filled = (values[-1].mean(dim=axes, keepdim=True) / total).expand_as(values[-1])
    for weight, value in zip(reversed(weights), reversed(values), strict=True):
        if filled.shape != value.shape:
            factors = tuple(float(n) for n in halvings.pop())
            mode = "bilinear" if flat else "trilinear"
            filled = nn.functional.interpolate(filled, scale_factor=factors, mode=mode)
        filled = value + filled * (1 - weight)
        for _ in range(_RELAXATIONS):
            wide = nn.functional.pad(filled, (1, 1) * len(axes), mode="replicate")
            beside = [
                _middle(wide, except_for=axis).narrow(axis, start, filled.shape[axis])
                for axis in axes
                for start in (0, 2)
            ]
            filled = value + sum(beside[1:], beside[0]) / len(beside) * (1 - weight)
    return filled


def _middle(wide: Tensor, *, except_for: int) -> Tensor:
    """Without the first and the last along every side but one."""
    for axis in range(2, wide.ndim):
        if axis != except_for:
            wide = wide.narrow(axis, 1, wide.shape[axis] - 2)
    return wide
