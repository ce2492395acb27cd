"""The JSON files of checkpoints, validated: patches, noise schedule, training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from synthct.errors import CheckpointError
from synthct.volume import HU_MAX, HU_MIN
from synthct.volume.intensity import Knots, Window, parse_codec

Channels = Annotated[int, Field(ge=1, le=65_536)]
Label = Annotated[str, Field(min_length=1, max_length=100)]
Beta = Annotated[float, Field(gt=0, lt=1)]
Spacing = Annotated[float, Field(ge=0.01, le=100)]
PatchSizes = Annotated[
    tuple[Annotated[int, Field(ge=8, le=4096)], ...], Field(min_length=1, max_length=64)
]
Model = TypeVar("Model", bound=BaseModel)

#: Keys that diffusers adds to its JSON files.
OF_DIFFUSERS = {"_class_name", "_diffusers_version", "_name_or_path"}


class PatchFields(BaseModel):
    """The patches that a network takes; every network that ``synthct train`` makes declares them.

    Attributes:
        labels: Structures that it can paint; "whatever fits" is always possible.
        codecs: Preset name or fields of a codec by label, and ``default`` for all the others.
        patch_sizes: Side lengths in pixels of the patches that it was trained on.
        spacing_range_mm: Least and greatest in-plane spacing that it was trained on.
        shape: For recipes: the fields that shape the weights. Training that starts from a
            checkpoint cannot change them.
        summary: For recipes: what a checkpoint's card says after the number of parameters.
        takes_steps: For recipes: whether it is trained by a noise schedule and paints in steps.
        takes_labels_from: For recipes: it takes a label of what to paint if it paints so many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    shape: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str] = ""
    takes_steps: ClassVar[bool] = True
    takes_labels_from: ClassVar[int] = 0

    labels: Annotated[tuple[Label, ...], Field(max_length=1000)] = ()
    codecs: Annotated[Mapping[str, str | dict[str, Any]], Field(min_length=1, max_length=1001)] = (
        Field(default_factory=lambda: {"default": "soft_tissue"})
    )
    patch_sizes: PatchSizes = (256,)
    spacing_range_mm: tuple[Spacing, Spacing] = (0.5, 3.0)

    @field_validator("labels")
    @classmethod
    def _check_labels_differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError("a label is there twice")
        return labels

    @field_validator("codecs")
    @classmethod
    def _resolve(cls, codecs: Mapping[str, Any]) -> Mapping[str, Any]:
        if "default" not in codecs:
            raise ValueError("needs a codec named 'default'")
        parsed = {label: parse_codec(value) for label, value in codecs.items()}
        for label, codec in parsed.items():
            check_range(label, codec)
        return {label: codec.model_dump() for label, codec in parsed.items()}

    @field_validator("spacing_range_mm")
    @classmethod
    def _check_rises(cls, spacing: tuple[float, float]) -> tuple[float, float]:
        low, high = spacing
        if low > high:
            raise ValueError(f"[{low:g}, {high:g}] must rise: [least, greatest]")
        return spacing


class BoxFields(PatchFields):
    """The fields of a network that paints boxes of a scan, on the scan's own grid.

    Attributes:
        depth: Slices of a box; its other sides are one of ``patch_sizes``.
        slice_range_mm: Least and greatest distance of slices that it was trained on.
    """

    depth: Annotated[int, Field(ge=4, le=512)] = 16
    slice_range_mm: tuple[Spacing, Spacing] = (0.5, 6.0)

    @field_validator("slice_range_mm")
    @classmethod
    def _check_slices(cls, spacing: tuple[float, float]) -> tuple[float, float]:
        return cls._check_rises(spacing)


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
    """``training.json``: licence, cases and noise schedule."""

    model_config = ConfigDict(extra="allow", strict=True)

    licence: str | None = None
    attributions: list[str] = Field(default_factory=list)
    cases: list[_TrainedOn] = Field(default_factory=list)
    noise: dict[str, Any] = Field(default_factory=dict)


def require(name: str, file: str, value: Mapping[str, Any], model: type[Model]) -> Model:
    """Validate the content of one of a checkpoint's JSON files.

    Args:
        name: The checkpoint's name.
        file: The file's name.
        value: Its content, of which the keys that diffusers adds are ignored.
        model: The fields that it must have.

    Raises:
        CheckpointError: With the first key that is wrong, and why.
    """
    ours = {k: v for k, v in value.items() if k not in OF_DIFFUSERS}
    try:
        return model.model_validate_json(json.dumps(ours), strict=True)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        shown = str(first["input"])[:80]
        raise CheckpointError(
            f"checkpoint '{name}': its config is wrong ({file}: {key or 'value'}: {first['msg']}, "
            f"not {shown})"
        ) from err


def require_declared(
    name: str, file: str, value: Mapping[str, Any], model: type[PatchFields]
) -> None:
    """Validate the config of a network of synthct, which must declare the patches that it takes.

    Args:
        name: The checkpoint's name.
        file: The file's name.
        value: Its content.
        model: The fields that it may have.

    Raises:
        CheckpointError: With the first key that is wrong or missing, and why.
    """
    if missing := [field for field in PatchFields.model_fields if field not in value]:
        raise CheckpointError(
            f"checkpoint '{name}': its config is wrong ({file}: {missing[0]}: Field required)"
        )
    require(name, file, value, model)


def require_known(fields: PatchFields, *by_label: str) -> None:
    """Refuse entries of fields by label for a label that the network does not have."""
    for field in by_label:
        names = set(getattr(fields, field) or ())
        if unknown := sorted(names - {"default", *fields.labels}):
            raise ValueError(f"{field}: '{unknown[0]}' is not one of its labels")


def check_range(label: str, codec: Window | Knots) -> None:
    """Refuse a codec in which all tissues are the same."""
    low, high = codec.range_hu
    if high - low < 1 or low >= HU_MAX or high <= HU_MIN or high - low > 2**17:
        raise ValueError(f"'{label}' spans {low:g}..{high:g} HU")
