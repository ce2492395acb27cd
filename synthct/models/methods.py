"""The section ``inpaint`` of a recipe, by its ``method``: a network, or a control to compare with.

Class attributes say what a method needs from a build, so that no other code asks for its class.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from synthct.models.config import Spacing
from synthct.volume.intensity import parse_codec

if TYPE_CHECKING:
    import numpy as np

Scheduler = Literal[
    "ddpm",
    "ddim",
    "dpmsolver++",
    "sde-dpmsolver++",
    "unipc",
    "euler",
    "euler-ancestral",
    "heun",
    "deis",
    "pndm",
    "lms",
    "repaint",
    "none",
]

#: The scheduler of unconditional models.
REPAINT = "repaint"
#: The settings of networks that paint in one pass.
NO_SCHEDULER = "none"
ONE_PASS: dict[str, Any] = {
    "scheduler": NO_SCHEDULER,
    "num_inference_steps": 1,
    "guidance_scale": 1.0,
}
#: Default jumps, as in the paper and in diffusers.
JUMP_LENGTH, JUMP_N_SAMPLE = 10, 10

#: Placeholder of the painted label in a prompt.
LABEL = "{label}"
Prompt = Annotated[str, Field(max_length=1000)]

LevelHU = Annotated[float, Field(ge=-1024, le=3071)]

Value = TypeVar("Value")
#: A tuple written as a list: pydantic's strict mode refuses lists that come from Python.
Listed = Annotated[Value, BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]
LevelRange = Listed[tuple[LevelHU, LevelHU]]

#: Settings that only some kinds of network take: most are for checkpoints that were trained
#: elsewhere and do not declare them.
FOR_SOME = (
    "level_hu", "prompt", "codecs", "labels", "spacing_range_mm", "jump_length", "jump_n_sample",
)  # fmt: skip

#: Steps in which a checkpoint of the package paints best: further ones cost time, and errors of the
#: mean rise (its card has the figures).
PACKAGE_STEPS = {"package:starter-2d": 2}
#: Steps of any other checkpoint.
STEPS = 20

#: All settings of a network in a resolved recipe of 0.1.
_FIRST_SETTINGS = (
    "method", "checkpoint", "revision", "scheduler", "num_inference_steps", "guidance_scale",
    "dtype", "batch_size",
)  # fmt: skip


class MethodWords(NamedTuple):
    """Parts of the sentences in a dataset's card about a method.

    Attributes:
        who: Subject and verb: what changed a region.
        inside: What is inside the mask.
        how: What was done for each sample.
    """

    who: str
    inside: str
    how: str


DIFFUSION_WORDS = MethodWords(
    "a diffusion model has painted",
    "the picture is synthetic",
    "a diffusion model painted the region from its surroundings on the scan's own grid (the "
    "column `provenance` says where it had to be resampled)",
)


class Method(BaseModel):
    """The base of all sections ``inpaint``.

    Attributes:
        words: For a dataset's card.
        needs_donor: Whether every mask needs a donor of another patient, whose voxels are pasted.
        mixes_real_tissue: Whether voxels of real scans may appear in a painting.
        varies: Whether another seed gives another painting of the same mask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    words: ClassVar[MethodWords]
    needs_donor: ClassVar[bool] = False
    mixes_real_tissue: ClassVar[bool] = True
    varies: ClassVar[bool] = True

    @property
    def network(self) -> Diffusion | None:
        """The settings of a network; None for a control."""
        return None

    def settings(self) -> dict[str, str]:
        """The settings in a dataset's card, in that order."""
        return {name: str(value) for name, value in self.model_dump().items()}


class Adapt(BaseModel):
    """The section ``adapt``: the checkpoint is first trained a little on the recipe's own hosts.

    Attributes:
        steps: Optimiser steps.
        include_test: Whether hosts of patients in the split ``test`` are trained on as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=1, le=100_000)] = 400
    include_test: bool = False


class Diffusion(Method):
    """Painting by the network of a checkpoint.

    Attributes:
        checkpoint: ``package:NAME`` for one that ships with synthct, a folder, or the id of a Hub
            repository, which needs a ``revision``.
        revision: Commit or tag of a Hub repository.
        scheduler: The sampler, by its usual name; ``none`` for a network that paints in one pass,
            which takes neither steps nor guidance.
        num_inference_steps: Passes of the model per sample; by default ``PACKAGE_STEPS`` for a
            checkpoint that ships with the package, ``STEPS`` for any other.
        guidance_scale: Classifier-free guidance by the prompt, or by the label of a checkpoint that
            was trained with ``label_dropout`` or has a scale of its own for some labels, which is
            the default; 1 for none, else twice the passes.
        level_hu: Median HU of what is painted, by label: a number, or a range from which each mask
            draws its own. The contrast phase of an organ that is wholly masked, or the density of
            lesions. By default what the checkpoint takes from the surroundings.
        grain: ``surroundings``: the paint's grain is completed to the noise power spectrum of the
            scan around the mask (``models/grain.py``); ``checkpoint``: it stays as painted.
        adapt: Train the checkpoint on the hosts beforehand, which the command ``build`` does; the
            dataset is painted with what comes of it.
        slice_noise_mm: For volumes: the length over which the noise that painting starts from stays
            alike through the slices; 0 for noise of its own in each. By default 0 for a checkpoint
            that takes the slices beside the one it paints, else 20 where the network allows it.
        dtype: Arithmetic of the model; bfloat16 is faster and a little coarser.
        batch_size: Patches painted together, of up to 128 pixels (fewer larger ones). Part of
            the recipe because it changes low bits.
        prompt: For a checkpoint that is guided by text: one prompt for all labels, or one by label
            with ``default`` for the others and for whatever fits. ``{label}`` is replaced.
        codecs: For a checkpoint that does not declare how HU become -1..1: preset name or fields of
            a codec by label, and ``default`` for the others.
        labels: The labels that an unconditional checkpoint paints; without them it paints whatever
            fits.
        spacing_range_mm: In-plane spacings that such a checkpoint was trained on; other scans are
            resampled. By default each scan is painted on its own grid.
        jump_length: For ``scheduler: repaint``: steps that are undone at a time (10), fewer than
            there are.
        jump_n_sample: For ``scheduler: repaint``: how often each step is taken (10).
    """

    words = DIFFUSION_WORDS
    mixes_real_tissue = False

    method: Literal["diffusion"] = "diffusion"
    checkpoint: Annotated[str, Field(min_length=1)] = "package:starter-2d"
    revision: str | None = None
    scheduler: Scheduler = "dpmsolver++"
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = Field(
        default_factory=lambda stated: PACKAGE_STEPS.get(stated["checkpoint"], STEPS)
    )
    guidance_scale: Annotated[float, Field(ge=1, le=20)] | None = None
    level_hu: Annotated[dict[str, LevelHU | LevelRange], Field(min_length=1)] | None = None
    grain: Literal["surroundings", "checkpoint"] = "surroundings"
    adapt: Adapt | None = None
    slice_noise_mm: Annotated[float, Field(ge=0, le=1000)] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 4
    prompt: Prompt | dict[str, Prompt] | None = None
    codecs: Annotated[dict[str, str | dict[str, Any]], Field(min_length=1)] | None = None
    labels: Annotated[Listed[tuple[str, ...]], Field(min_length=1)] | None = None
    spacing_range_mm: Listed[tuple[Spacing, Spacing]] | None = None
    jump_length: Annotated[int, Field(ge=1, le=1000)] | None = None
    jump_n_sample: Annotated[int, Field(ge=1, le=100)] | None = None

    @property
    def network(self) -> Diffusion:
        """These settings."""
        return self

    def in_one_pass(self) -> Self:
        """These settings for a network without a schedule."""
        return self.model_copy(update=ONE_PASS)

    def settings(self) -> dict[str, str]:
        """As in ``Method``, without the checkpoint: the card shows the one that was used."""
        stated = {name: value for name in FOR_SOME if (value := getattr(self, name)) is not None}
        shown = {"scheduler": self.scheduler, "steps": self.num_inference_steps, **stated}
        if self.scheduler == NO_SCHEDULER:
            shown = stated
        if self.levels:
            ranges = (
                f"{label} {low:g}" + (f" to {high:g}" if high > low else "")
                for label, (low, high) in self.levels.items()
            )
            shown["level_hu"] = ", ".join(ranges)
        if self.grain == "surroundings":
            shown["grain"] = "of the surroundings"
        if self.adapt is not None:
            shown["adapted"] = f"{self.adapt.steps} steps on the hosts"
        return {name: str(value) for name, value in shown.items()}

    @property
    def is_folder(self) -> bool:
        """Whether ``checkpoint`` is a folder of the user's."""
        return self.revision is None and not self.checkpoint.startswith("package:")

    @property
    def levels(self) -> dict[str, tuple[float, float]]:
        """``level_hu`` as ranges."""
        stated = self.level_hu or {}
        return {label: v if isinstance(v, tuple) else (v, v) for label, v in stated.items()}

    def level_of(self, label: str | None, rng: np.random.Generator) -> float | None:
        """The median HU that a mask is to be painted with, drawn if it is a range.

        Args:
            label: What is painted; None for whatever fits, which has no level.
            rng: The mask's own, used only where the label has a level.
        """
        stated = self.levels.get(label or "")
        return None if stated is None else round(float(rng.uniform(*stated)), 1)

    def prompt_for(self, label: str | None) -> str | None:
        """The prompt for a label, or for whatever fits; None if the recipe has none."""
        by_label = {"default": self.prompt} if isinstance(self.prompt, str) else self.prompt or {}
        text = by_label.get(label or "default", by_label.get("default"))
        if text is None or label is not None:
            return text and text.replace(LABEL, str(label).replace("_", " "))
        return None if LABEL in text else text

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, prompt: str | dict[str, str] | None) -> str | dict[str, str] | None:
        texts = prompt.values() if isinstance(prompt, dict) else [prompt or ""]
        for placeholder in re.findall(r"\{.*?\}", " ".join(texts)):
            if placeholder != LABEL:
                raise ValueError(f"{placeholder} is no placeholder; only {LABEL} is")
        return prompt

    @field_validator("codecs")
    @classmethod
    def _resolve(cls, codecs: dict[str, Any] | None) -> dict[str, Any] | None:
        if codecs is not None and "default" not in codecs:
            raise ValueError("needs a codec named 'default'")
        return codecs and {name: parse_codec(v).model_dump() for name, v in codecs.items()}

    @field_validator("level_hu")
    @classmethod
    def _check_levels(cls, levels: dict[str, Any] | None) -> dict[str, Any] | None:
        for label, level in (levels or {}).items():
            if isinstance(level, tuple) and level[0] > level[1]:
                raise ValueError(
                    f"{label}: {level[0]:g} exceeds {level[1]:g}; write the lesser first"
                )
        return levels

    @field_validator("spacing_range_mm")
    @classmethod
    def _check_spacing(cls, spacing: tuple[float, float] | None) -> tuple[float, float] | None:
        if spacing is not None and spacing[0] > spacing[1]:
            raise ValueError(f"{spacing[0]:g} exceeds {spacing[1]:g}; write the lesser first")
        return spacing

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        # Optional settings count for a dataset's identity only if they are stated.
        fields: dict[str, Any] = dump(self)
        if self.grain == "checkpoint" and not (info.exclude_unset or info.exclude_defaults):
            fields.pop("grain", None)  # as before 0.2, which ``_read_resolved`` knows
        optional = (*FOR_SOME, "adapt", "slice_noise_mm")
        return {k: v for k, v in fields.items() if not (k in optional and v is None)}

    @model_validator(mode="before")
    @classmethod
    def _read_resolved(cls, value: Any) -> Any:
        # The resolved recipe of a dataset states all settings; before 0.2 there was no ``grain``.
        if isinstance(value, dict) and "grain" not in value and set(_FIRST_SETTINGS) <= set(value):
            return {**value, "grain": "checkpoint"}
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        scheme, colon, rest = self.checkpoint.partition(":")
        if colon and scheme != "package" and re.fullmatch(r"\w{2,}", scheme):
            raise ValueError(f"checkpoint '{scheme}:' is not known; did you mean 'package:{rest}'?")
        if self.revision is None:
            return self
        if self.checkpoint.startswith("package:"):
            raise ValueError("revision belongs to a Hub repository, not to 'package:'; remove it")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.checkpoint):
            raise ValueError(
                f"checkpoint '{self.checkpoint}' is no Hub repository (owner/name), "
                "but a revision is given; remove the revision or correct the name"
            )
        return self


class CopyPaste(Method):
    """A control: the donor's own voxels, carried over with its shape (TumorCP, Yang et al. 2021).

    They are resampled once, through the transform that carried the mask, and shifted in HU: by so
    much that the lesion is enhanced in the host as in the donor, relative to the organ (medians
    over unenhanced 35 HU). Where the donor's organ has no label or no contrast medium in it, they
    are not shifted; the provenance says by how much they were.

    Attributes:
        border_mm: Over so many mm from the edge inwards the host fades into the donor.
    """

    words = MethodWords(
        "the voxels of another patient have filled",
        "it is the donor's tissue, resampled and shifted in HU",
        "the donor's voxels were carried over with its shape, shifted in HU to the host's organ "
        "(`provenance` says by how much), and faded into the host at the border",
    )
    needs_donor = True
    varies = False

    method: Literal["copy_paste"] = "copy_paste"
    border_mm: Annotated[float, Field(ge=0, le=20)] = 2.0


class NoiseFill(Method):
    """A control: noise at the median HU, and with the grain, of what is to be painted.

    Both are measured on the host: in the label outside of the mask, else (an organ painted anew)
    in all of it; for whatever fits, in the tissue around the mask. Of a label that the host does
    not have, the median is that of ``reference_hu``; else the donor's, if that has an image; else
    what is known of it from the literature. The last two are shifted as in ``copy_paste``. The
    grain is then that of the tissue around.

    Attributes:
        border_mm: Over so many mm from the edge inwards the host fades into the noise.
        reference_hu: Median by label, where the host does not show it. From the literature are
            known: bone, cyst, kidney, lesion, liver, lung, pancreas, spleen and tumor.
    """

    words = MethodWords(
        "noise has filled",
        "the picture is noise with the statistics of the tissue that the label names",
        "noise was drawn with the mean, spread and autocorrelation of the tissue (`provenance` "
        "says where they were measured)",
    )

    method: Literal["noise_fill"] = "noise_fill"
    border_mm: Annotated[float, Field(ge=0, le=20)] = 1.0
    reference_hu: dict[str, Annotated[float, Field(ge=-1024, le=3071)]] = {}


def _named(value: Any) -> Any:
    """Where no method is named, it is diffusion."""
    return {"method": "diffusion", **value} if isinstance(value, dict) else value


Inpaint = Annotated[
    Annotated[Diffusion | CopyPaste | NoiseFill, Field(discriminator="method")],
    BeforeValidator(_named),
]
