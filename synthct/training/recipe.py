"""TrainingRecipe: the YAML of one checkpoint, validated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from synthct.intensity import parse_codec
from synthct.masks import MaskKind
from synthct.yaml_model import load_yaml_model
from synthct.sources import Source

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(_Section):
    """The network and what it declares about its patches; see ``PaletteUNet``.

    Attributes:
        codecs: Preset name or fields of a codec by label, and ``default`` for all the others.
    """

    kind: Literal["palette"] = "palette"
    block_out_channels: tuple[Count, ...] = (64, 128, 256, 512)
    layers_per_block: Count = 2
    attention_head_dim: Count = 32
    dropout: Fraction = 0.2
    norm_num_groups: Count = 32
    fold: Count = 1
    patch_sizes: tuple[Count, ...] = (256,)
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
        shuffle_buffer: Patches held back so that a batch mixes many masks.
    """

    source_weights: Mapping[str, Positive] = Field(default_factory=dict)
    views: Mapping[Literal["axial", "coronal", "sagittal"], Positive] = Field(
        default_factory=lambda: {"axial": 1.0}
    )
    patches_per_mask: Count = 8
    coarsen: Fraction = 0.0
    flip: Fraction = 0.5
    shuffle_buffer: Count = 512


class OptimSection(_Section):
    """The optimisation.

    Attributes:
        decay_steps: Length of the final stretch in which the learning rate falls to zero.
        ema_decay: Greatest decay of the running mean of the weights.
        mixed_precision: As in Accelerate; ``bf16`` is two to three times faster on recent CPUs.
    """

    max_steps: Count = 10_000
    batch_size: Count = 16
    learning_rate: Positive = 3e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    decay_steps: Annotated[int, Field(ge=0)] = 2_000
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Positive = 1.0
    ema_decay: Fraction = 0.999
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"


class NoiseSection(_Section):
    """The forward process, as diffusers' ``DDPMScheduler`` names it."""

    prediction_type: Literal["epsilon", "v_prediction"] = "v_prediction"
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"
    num_train_timesteps: Count = 1000


class TrainingRecipe(_Section):
    """One checkpoint: sources, masks, network, optimisation.

    Attributes:
        sample_every: Steps between sheets of sample pictures.
        save_every: Steps between states that a rerun goes on from.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]
    seed: int = 0
    description: str = ""
    licence: str = "Apache-2.0"
    sources: Mapping[str, Source]
    donors: tuple[str, ...] = ()
    masks: tuple[MaskKind, ...]
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    noise: NoiseSection = NoiseSection()
    optim: OptimSection = OptimSection()
    sample_every: Count = 1000
    save_every: Count = 500

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the checkpoint learns to paint, in the order of the masks."""
        return tuple(dict.fromkeys(m.label for m in self.masks if m.label is not None))

    @property
    def wanted_labels(self) -> tuple[str, ...]:
        """Every label that a mask needs from a host or a donor."""
        names = (name for m in self.masks for name in (*m.wanted_labels(), *m.donor_labels()))
        return tuple(dict.fromkeys(names))


def load_training_recipe(path: Path) -> TrainingRecipe:
    """Read and validate a training recipe.

    Raises:
        RecipeError: With ``file:line:column`` and what to do.
    """
    return load_yaml_model(path, TrainingRecipe)
