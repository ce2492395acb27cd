"""The sections of a training recipe: network, data, noise, optimisation, validation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from synthct.models.config import PatchFields
from synthct.models.methods import Scheduler
from synthct.models.networks import NETWORKS
from synthct.volume.views import Plane

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Zoom = Annotated[float, Field(ge=0.5, le=2)]
Name = Annotated[str, Field(min_length=1)]


def kind(section: Any) -> str | None:
    """The kind of network that a section ``model`` describes; without one it is Palette."""
    if isinstance(section, dict):
        return section.get("kind", "palette")
    return getattr(section, "kind", None)


if TYPE_CHECKING:
    ModelSection = PatchFields
else:
    #: The section ``model``: that of any network which can be trained, told apart by ``kind``.
    _SECTIONS = (network.section for network in NETWORKS if network.section)
    _TAGGED = (Annotated[section, Tag(kind(section()))] for section in _SECTIONS)
    ModelSection = Annotated[reduce(or_, _TAGGED), Discriminator(kind)]
BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]


class Section(BaseModel):
    """A section of a training recipe: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GrainSection(Section):
    """Noise and sharpness of training patches, drawn anew as if by other scanners.

    Attributes:
        blur_px: Range of the standard deviation of a blur.
        blur_share: Share of the patches that are blurred.
        noise_hu: Range of the standard deviation of added noise of a random kernel.
        noise_share: Share of the patches that noise is added to.
        painted: Whether the network learns to paint grain; if not, it learns tissue freed from it
            (``remake.without_grain``), in surroundings that have it.
    """

    blur_px: tuple[Positive, Positive] = (0.4, 1.4)
    blur_share: Fraction = 0.4
    noise_hu: tuple[Positive, Positive] = (3.0, 40.0)
    noise_share: Fraction = 0.65
    painted: bool = True

    @model_validator(mode="after")
    def _rise(self) -> GrainSection:
        for name in ("blur_px", "noise_hu"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} [{low:g}, {high:g}] must rise: [least, greatest]")
        return self


class DataSection(Section):
    """How training patches are cut and augmented.

    Attributes:
        patches: Number of patches that are cut once and kept on disk.
        source_weights: Sampling weight of a source; 1 for the others.
        views: Sampling weight of each view.
        patches_per_mask: Patches cut from one 3D mask, each on its own slice.
        coarsen: Share of masks drawn on a copy of the scan at half or a third of its in-plane
            resolution (block means).
        thicken: Share of masks in thin scans (slices of at most 3 mm) drawn on a copy with slices
            twice as thick (means of two).
        attenuation_jitter: Greatest relative change of a patch's attenuation (HU + 1000), drawn
            uniformly; 0.03 moves soft tissue by up to 30 HU, as tube voltage and contrast do.
        zoom: Range of a random factor of the pixel size; the network is given the new spacing.
        grain: Noise and sharpness as of other scanners; None leaves scans as they are.
        flip: Probability of a left-right flip.
        join_masks: Share of the patches without label that also get another patch's mask, so that
            more pixels are learned per pass.
        label_dropout: Share of the patches whose label is hidden from the network, which allows
            classifier-free guidance (``guidance_scale``); usually about 0.1.
    """

    patches: Count = 20_000
    source_weights: Mapping[str, Positive] = Field(default_factory=dict)
    views: Annotated[Mapping[Plane, Positive], Field(min_length=1)] = {"axial": 1.0}
    patches_per_mask: Count = 8
    coarsen: Fraction = 0.0
    thicken: Fraction = 0.0
    attenuation_jitter: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    zoom: tuple[Zoom, Zoom] = (1.0, 1.0)
    grain: GrainSection | None = None
    flip: Fraction = 0.5
    join_masks: Fraction = 0.0
    label_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _rises(self) -> DataSection:
        low, high = self.zoom
        if low > high:
            raise ValueError(f"zoom [{low:g}, {high:g}] must rise: [least, greatest]")
        return self


class Schedule(Section):
    """A noise schedule, as diffusers' ``DDPMScheduler`` names it.

    Attributes:
        beta_start: Least variance added by a step; the cosine schedule has none.
        beta_end: Greatest variance added by a step; the cosine schedule has none.
    """

    num_train_timesteps: Annotated[int, Field(ge=1, le=10_000)] = 1000
    beta_schedule: BetaSchedule = "squaredcos_cap_v2"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 0.0001
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02

    @model_validator(mode="after")
    def _rises(self) -> Schedule:
        if self.beta_start > self.beta_end:
            raise ValueError(f"beta_start {self.beta_start:g} exceeds beta_end {self.beta_end:g}")
        return self


class AdversarialSection(Section):
    """A discriminator that judges finished paintings beside the loss of denoising.

    The squared error alone teaches the mean of whatever fits, and in few steps that is what is
    painted: without strands, vessels and sharp borders (``training.judge``).

    Attributes:
        weight: Of the discriminator's verdict in the network's loss.
        steps: Sampling steps of the paintings that are judged.
    """

    weight: Positive = 0.05
    steps: Annotated[int, Field(ge=1, le=20)] = 2


class NoiseSection(Schedule):
    """The forward process and the loss.

    Attributes:
        prediction_type: What the network predicts: the noise, the velocity or the image.
        loss: Mean absolute (l1) or squared (l2) error, inside the mask.
        min_snr_gamma: Min-SNR weighting (Hang et al., "Efficient diffusion training via min-SNR
            weighting strategy", 2023); usually 5. None for no weighting.
        loss_weight_cap: Like min-SNR, for velocity prediction, but never 0 at pure noise: greatest
            weight of the image's error. See ``loss.level_weight``.
        noise_bias: 1 trains all noise levels equally often, more favours noisy ones. See
            ``loss.draw_noise_levels``.
        few_steps: Train only the noise levels of that many evenly spaced sampling steps (Fast-DDPM,
            Jiang et al., 2024); painting then takes that many steps. None trains all.
        painting: Schedule to paint with, if it differs from the one trained on; needs
            ``noise_embedding: level``.
        adversarial: A discriminator of finished paintings; None for the loss of denoising alone.
    """

    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "v_prediction"
    loss: Literal["l1", "l2"] = "l2"
    min_snr_gamma: Positive | None = None
    loss_weight_cap: Positive | None = None
    noise_bias: Annotated[float, Field(ge=1, le=4)] = 1.0
    few_steps: Annotated[int, Field(ge=1, le=100)] | None = None
    painting: Schedule | None = None
    adversarial: AdversarialSection | None = None

    @model_validator(mode="after")
    def _check(self) -> NoiseSection:
        if self.loss_weight_cap is not None and self.prediction_type != "v_prediction":
            raise ValueError("loss_weight_cap is for v_prediction; use min_snr_gamma")
        if self.loss_weight_cap is not None and self.min_snr_gamma is not None:
            raise ValueError("loss_weight_cap and min_snr_gamma exclude each other; remove one")
        weighted = self.loss_weight_cap or self.min_snr_gamma
        if weighted is not None and self.loss == "l1":
            raise ValueError("min_snr_gamma and loss_weight_cap weigh squared errors; use loss l2")
        if self.few_steps is not None and self.few_steps > self.num_train_timesteps:
            raise ValueError(
                f"few_steps {self.few_steps} exceeds num_train_timesteps {self.num_train_timesteps}"
            )
        if self.few_steps is not None and self.painting is not None:
            raise ValueError("few_steps needs the schedule that was trained; remove painting")
        return self

    @property
    def painting_schedule(self) -> Schedule:
        """The schedule that the checkpoint is painted with."""
        return self.painting or self


class OptimSection(Section):
    """The optimisation.

    Attributes:
        max_steps: Optimiser steps.
        batch_size: Patches of 128 pixels per process and pass; of other sizes as many as have as
            many pixels.
        gradient_accumulation: Passes per optimiser step.
        learning_rate: Of every optimiser.
        warmup_steps: Steps at the start in which the learning rate rises from zero.
        decay_steps: Steps at the end in which the learning rate falls to zero.
        max_grad_norm: Gradient norm to clip to; None for no clipping.
        ema_decay: Greatest decay of the moving average of the weights; 0 for no average.
        mixed_precision: As in Accelerate; ``bf16`` is two to three times faster on recent CPUs.
    """

    max_steps: Count = 10_000
    batch_size: Count = 8
    gradient_accumulation: Count = 1
    learning_rate: Positive = 3e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    decay_steps: Annotated[int, Field(ge=0)] = 2_000
    weight_decay: NotNegative = 0.01
    max_grad_norm: Positive | None = 1.0
    ema_decay: Fraction = 0.999
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"


class EarlyStopping(Section):
    """When to stop before the last step; the best weights are kept instead of the last.

    Attributes:
        measure: The measure that has to fall.
        patience: Validations without improvement after which training stops.
    """

    measure: Literal["loss", "mae_hu", "mean_error_hu"] = "loss"
    patience: Count = 5


class ValidationSection(Section):
    """Patients that are held out, and what is measured on them.

    Attributes:
        share: Share of the patients that are held out, at least one.
        patients: Ids of the patients to hold out, instead of a share.
        every: Steps between validations.
        masks: Masks that are painted, with the same noise each time.
        scheduler: The sampler that paints them, for networks that paint in steps.
        num_inference_steps: Its steps; ``few_steps`` has priority.
        early_stopping: None trains to the last step.
    """

    share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    patients: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    every: Count = 1000
    masks: Count = 32
    scheduler: Scheduler = "dpmsolver++"
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 20
    early_stopping: EarlyStopping | None = None

    @model_validator(mode="after")
    def _check(self) -> ValidationSection:
        if self.patients is not None and "share" in self.model_fields_set:
            raise ValueError("share and patients exclude each other; remove one")
        return self
