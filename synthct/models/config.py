"""What a checkpoint says of itself, validated: its network, its noise schedule, its training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from synthct.errors import CheckpointError
from synthct.volume import HU_MAX, HU_MIN
from synthct.volume.intensity import Knots, Window, parse_codec

Channels = Annotated[int, Field(ge=1, le=65_536)]
Label = Annotated[str, Field(min_length=1, max_length=100)]
Strength = Annotated[float, Field(gt=0, le=1)]
Beta = Annotated[float, Field(gt=0, lt=1)]
Spacing = Annotated[float, Field(ge=0.01, le=100)]
Model = TypeVar("Model", bound=BaseModel)


class NetworkConfig(BaseModel):
    """``unet/config.json``: the arguments of ``PaletteUNet``, each within what can be run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    labels: Annotated[tuple[Label, ...], Field(max_length=1000)]
    codecs: Annotated[Mapping[str, str | dict[str, Any]], Field(min_length=1, max_length=1001)]
    patch_sizes: Annotated[
        tuple[Annotated[int, Field(ge=8, le=4096)], ...], Field(min_length=1, max_length=64)
    ]
    spacing_range_mm: tuple[Spacing, Spacing]
    block_out_channels: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=8)] = (
        64, 128, 256, 512,
    )  # fmt: skip
    layers_per_block: Annotated[int, Field(ge=1, le=16)] = 2
    attention_head_dim: Channels = 32
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.2
    norm_num_groups: Channels = 32
    fold: Annotated[int, Field(ge=1, le=16)] = 1
    residual_scale: Annotated[float, Field(gt=0, le=1000)] | None = None
    strengths: Mapping[str, Strength] | None = None
    noise_embedding: Literal["timestep", "level"] = "timestep"
    guided: bool = False
    trained_steps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    clip_denoised: bool = False

    @field_validator("codecs")
    @classmethod
    def _check_codecs(cls, codecs: Mapping[str, Any]) -> Mapping[str, Any]:
        for label, value in codecs.items():
            check_range(label, parse_codec(value))
        return codecs

    @model_validator(mode="after")
    def _check(self) -> NetworkConfig:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels: a label stands there twice")
        if "default" not in self.codecs:
            raise ValueError("codecs: there is none named 'default'")
        for field in ("codecs", "strengths"):
            names = set(getattr(self, field) or ())
            if unknown := sorted(names - {"default", *self.labels}):
                raise ValueError(f"{field}: '{unknown[0]}' is not one of its labels")
        if self.spacing_range_mm[0] > self.spacing_range_mm[1]:
            raise ValueError(f"spacing_range_mm: {list(self.spacing_range_mm)} falls")
        return self


class ScheduleConfig(BaseModel):
    """``scheduler/scheduler_config.json``: what makes the noise schedule; the rest is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)]
    beta_schedule: str = "linear"
    beta_start: Beta = 0.0001
    beta_end: Beta = 0.02
    trained_betas: list[Beta] | None = None
    rescale_betas_zero_snr: bool = False
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"

    @model_validator(mode="after")
    def _check(self) -> ScheduleConfig:
        if self.beta_start > self.beta_end:
            raise ValueError(f"beta_start {self.beta_start} exceeds beta_end {self.beta_end}")
        if self.trained_betas is not None and len(self.trained_betas) != self.num_train_timesteps:
            raise ValueError(
                f"trained_betas: {len(self.trained_betas)} of {self.num_train_timesteps}"
            )
        return self


class _TrainedOn(BaseModel):
    model_config = ConfigDict(extra="allow")

    voxel_sha256: str | None = None
    licence: str | None = None


class TrainingFacts(BaseModel):
    """``training.json``: what licences, training scans and a next training follow from."""

    model_config = ConfigDict(extra="allow", strict=True)

    licence: str | None = None
    attributions: list[str] = Field(default_factory=list)
    cases: list[_TrainedOn] = Field(default_factory=list)
    noise: dict[str, Any] = Field(default_factory=dict)


def require(name: str, file: str, value: Mapping[str, Any], model: type[Model]) -> Model:
    """Validate what a file of a checkpoint says.

    Args:
        name: The checkpoint's name.
        file: The file's name.
        value: Its content; the keys that diffusers itself adds are left out of it.
        model: What it must be.

    Raises:
        CheckpointError: With the first key that is wrong, and why.
    """
    ours = {k: v for k, v in value.items() if k not in OF_DIFFUSERS}
    try:
        return model.model_validate_json(json.dumps(ours))
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        shown = str(first["input"])[:80]
        raise CheckpointError(
            f"checkpoint '{name}': its config is wrong ({file}: {key or 'value'}: {first['msg']}, "
            f"not {shown})"
        ) from err


OF_DIFFUSERS = {"_class_name", "_diffusers_version", "_name_or_path"}


def check_range(label: str, codec: Window | Knots) -> None:
    """Refuse a codec in which no tissue could be told from another."""
    low, high = codec.range_hu
    if high - low < 1 or low >= HU_MAX or high <= HU_MIN or high - low > 2**17:
        raise ValueError(f"'{label}' spans {low:g}..{high:g} HU")
