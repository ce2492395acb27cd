"""The fields of a Vox2Vox generator: one model for recipes, checkpoints and the network itself."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from synthct.models.config import BoxFields, Channels, require_known
from synthct.models.layout import Component, Layout

LAYOUT = Layout(
    "Vox2VoxInpaintPipeline",
    "a Vox2Vox checkpoint, in 3D",
    (
        Component(
            "generator", "generator", ("synthct", "synthct.models.vox2vox"), "Vox2VoxGenerator"
        ),
    ),
    has_schedule=False,
)

#: Sides of a box are halved so many times.
HALVINGS = 4


class Vox2VoxFields(BoxFields):
    """The fields of a Vox2Vox generator; the defaults are the published ones.

    A box has at least 32 voxels along each side, of which the discriminator makes one score.

    Attributes:
        base_channels: Channels of the first level; the next have 2, 4 and 8 times as many.
        dropout: After each level but the innermost, kept when it paints: the only chance in a
            painting.
    """

    patch_sizes: Annotated[
        tuple[Annotated[int, Field(ge=32, le=4096)], ...], Field(min_length=1, max_length=64)
    ] = (128,)
    depth: Annotated[int, Field(ge=32, le=512)] = 128
    base_channels: Channels = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if odd := [n for n in (*self.patch_sizes, self.depth) if n % 2**HALVINGS]:
            raise ValueError(f"patch_sizes and depth {odd} are not multiples of {2**HALVINGS}")
        return self


class Vox2VoxConfig(Vox2VoxFields):
    """``generator/config.json``: all arguments of ``Vox2VoxGenerator``."""

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        require_known(self, "codecs")
        return self


class Vox2VoxSection(Vox2VoxFields):
    """The section ``model`` of a training recipe for Vox2Vox.

    Attributes:
        kind: Which network it is.
        l1_weight: Weight of the mean absolute error beside the adversarial loss, in place of the
            published 5 times generalised Dice of segmentations.
    """

    shape: ClassVar[tuple[str, ...]] = ("base_channels",)
    summary: ClassVar[str] = (
        "U-Net that paints the masked part of a CT in 3D\n"
        "in one pass (Vox2Vox: box with a hole and mask in, trained against a PatchGAN; dropout is "
        "its only chance)."
    )
    takes_steps: ClassVar[bool] = False

    kind: Literal["vox2vox"] = "vox2vox"
    l1_weight: Annotated[float, Field(ge=0, le=10_000)] = 100.0
