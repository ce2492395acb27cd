"""TrainingRecipe: the YAML of one checkpoint, validated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from synthct.intensity import parse_codec
from synthct.licence import Origin, licence_of
from synthct.masks import MaskKind
from synthct.masks.base import View
from synthct.recipe import donor_source
from synthct.sources import Source
from synthct.yaml_errors import Problem, did_you_mean
from synthct.yaml_model import fail_at, load_yaml_model

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
PatchSide = Annotated[int, Field(ge=8)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(_Section):
    """The network and what it declares about its patches; see ``PaletteUNet``.

    Attributes:
        codecs: Preset name or fields of a codec by label, and ``default`` for all the others.
    """

    kind: Literal["palette"] = "palette"
    block_out_channels: Annotated[tuple[Count, ...], Field(min_length=1)] = (64, 128, 256, 512)
    layers_per_block: Count = 2
    attention_head_dim: Count = 32
    dropout: Fraction = 0.2
    norm_num_groups: Count = 32
    fold: Count = 1
    residual_scale: Positive | None = None
    strengths: Mapping[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    patch_sizes: Annotated[tuple[PatchSide, ...], Field(min_length=1)] = (256,)
    spacing_range_mm: tuple[Positive, Positive] = (0.5, 3.0)
    codecs: Mapping[str, Any] = Field(default_factory=lambda: {"default": "soft_tissue"})

    @field_validator("codecs")
    @classmethod
    def _resolve(cls, codecs: Mapping[str, Any]) -> Mapping[str, Any]:
        if "default" not in codecs:
            raise ValueError("needs a codec named 'default'")
        return {name: parse_codec(value).model_dump() for name, value in codecs.items()}

    @model_validator(mode="after")
    def _check(self) -> ModelSection:
        multiple = self.fold * 2 ** (len(self.block_out_channels) - 1)
        bad = [n for n in self.patch_sizes if n % multiple]
        if bad:
            raise ValueError(f"patch_sizes {bad} are not multiples of {multiple}")
        if any(n % self.norm_num_groups for n in self.block_out_channels):
            raise ValueError(f"block_out_channels must be multiples of {self.norm_num_groups}")
        if self.block_out_channels[-1] % self.attention_head_dim:
            raise ValueError("attention_head_dim must divide the last of block_out_channels")
        low, high = self.spacing_range_mm
        if low > high:
            raise ValueError(f"spacing_range_mm [{low:g}, {high:g}] must rise: [least, greatest]")
        return self


class DataSection(_Section):
    """How patches are drawn.

    Attributes:
        source_weights: How often a source is visited, relative to 1 for the others.
        views: How often a patch comes from each view.
        patches_per_mask: Patches cut from one drawn 3D mask, on slices of their own.
        coarsen: Share of visits that go to a copy of the scan at half or a third of its in-plane
            resolution (block means), so that coarse scans are learned too.
        flip: Chance of a left-right flip.
        join_masks: Share of the patches of whatever fits that also get another patch's mask, so
            that more pixels are learned per pass.
        shuffle_buffer: Patches held back so that a batch mixes many masks.
    """

    source_weights: Mapping[str, Positive] = Field(default_factory=dict)
    views: Annotated[Mapping[View, Positive], Field(min_length=1)] = {"axial": 1.0}
    patches_per_mask: Count = 8
    coarsen: Fraction = 0.0
    flip: Fraction = 0.5
    join_masks: Fraction = 0.0
    shuffle_buffer: Count = 512


class OptimSection(_Section):
    """The optimisation.

    Attributes:
        batch_size: Patches of 128 pixels per process; of other sizes as many as have as many
            pixels, so that every step takes the same time.
        decay_steps: Length of the final stretch in which the learning rate falls to zero.
        ema_decay: Greatest decay of the running mean of the weights.
        mixed_precision: As in Accelerate; ``bf16`` is two to three times faster on recent CPUs.
    """

    max_steps: Count = 10_000
    batch_size: Count = 8
    learning_rate: Positive = 3e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    decay_steps: Annotated[int, Field(ge=0)] = 2_000
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Positive = 1.0
    ema_decay: Fraction = 0.999
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"


class NoiseSection(_Section):
    """The forward process, as diffusers' ``DDPMScheduler`` names it.

    Attributes:
        loss_weight_cap: Greatest weight of an image's error over the noise levels; None leaves
            the plain loss. See ``loop.snr_weight``.
        noise_bias: How much more often noisy steps are trained than clean ones; 1 is evenly. See
            ``loop.draw_steps``.
    """

    prediction_type: Literal["epsilon", "v_prediction"] = "v_prediction"
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"
    num_train_timesteps: Count = 1000
    loss_weight_cap: Positive | None = None
    noise_bias: Annotated[float, Field(ge=1, le=4)] = 1.0

    @model_validator(mode="after")
    def _check(self) -> NoiseSection:
        if self.loss_weight_cap is not None and self.prediction_type != "v_prediction":
            raise ValueError("loss_weight_cap is for v_prediction; remove one of them")
        return self


class TrainingRecipe(_Section):
    """One checkpoint: sources, masks, network, optimisation.

    Attributes:
        licence: SPDX id of the checkpoint's licence; by default what follows from the sources.
        sources: Scans to train on; a transplant takes shapes from the one it names as ``donors``.
        sample_every: Steps between sheets of sample pictures.
        save_every: Steps between states that a rerun goes on from.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]
    seed: int = 0
    description: str = ""
    licence: str | None = None
    sources: Annotated[Mapping[str, Source], Field(min_length=1)]
    masks: Annotated[tuple[MaskKind, ...], Field(min_length=1)]
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    noise: NoiseSection = NoiseSection()
    optim: OptimSection = OptimSection()
    sample_every: Count = 1000
    save_every: Count = 500

    @model_validator(mode="after")
    def _check(self) -> TrainingRecipe:
        problems = [*_name_problems(self), *_mask_problems(self)]
        if problems:
            raise fail_at(problems)
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the checkpoint learns to paint, in the order of the masks."""
        return tuple(dict.fromkeys(m.label for m in self.masks if m.label is not None))

    @property
    def wanted_labels(self) -> tuple[str, ...]:
        """Every label that a mask needs from a host or a donor."""
        names = (
            name
            for m in self.masks
            for name in (*m.wanted_labels(), *m.useful_labels(), *m.donor_labels())
        )
        return tuple(dict.fromkeys(names))

    @property
    def donors(self) -> frozenset[str]:
        """The sources that lend shapes."""
        return frozenset(name for m in self.masks if (name := donor_source(m)) is not None)

    def resolved_licence(self) -> str | None:
        """The checkpoint's licence; None if it is neither stated nor follows from the sources.

        Raises:
            PolicyError: If the recipe states a looser one than its sources allow.
        """
        origins = [Origin(f"source '{name}'", s.licence) for name, s in self.sources.items()]
        return licence_of(origins, stated=self.licence)


def load_training_recipe(path: Path) -> TrainingRecipe:
    """Read and validate a training recipe.

    Raises:
        RecipeError: With ``file:line:column`` and what to do.
    """
    return load_yaml_model(path, TrainingRecipe)


def _name_problems(recipe: TrainingRecipe) -> Iterator[Problem]:
    """Weights of sources and codecs of labels that the recipe does not have."""
    for name in recipe.data.source_weights:
        if name not in recipe.sources:
            message = f"there is no source '{name}'{did_you_mean(name, list(recipe.sources))}"
            yield Problem(("data", "source_weights", name), message, at_key=True)
    for label in recipe.model.codecs:
        if label not in ("default", *recipe.labels):
            message = f"no mask paints '{label}'{did_you_mean(label, list(recipe.labels))}"
            yield Problem(("model", "codecs", label), message, at_key=True)


def _mask_problems(recipe: TrainingRecipe) -> Iterator[Problem]:
    """Sections of one name, and donors from a source that is not there."""
    names = [section.name for section in recipe.masks]
    for number, section in enumerate(recipe.masks):
        if section.name in names[:number]:
            message = f"'{section.name}' is already the name of another section; names must differ"
            yield Problem(("masks", number, "name"), message)
        donors = donor_source(section)
        if donors is not None and donors not in recipe.sources:
            near = did_you_mean(donors, list(recipe.sources))
            message = f"'sources' has no '{donors}' to take shapes from{near}"
            yield Problem(("masks", number, "donors"), message)
