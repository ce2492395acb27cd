"""The fields of a Pix2Pix generator: one model for recipes, checkpoints and the network itself."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from synthct.models.config import Channels, PatchFields, require_known
from synthct.models.layout import Component, Layout

LAYOUT = Layout(
    "Pix2PixInpaintPipeline",
    "a Pix2Pix checkpoint",
    (
        Component(
            "generator", "generator", ("synthct", "synthct.models.pix2pix"), "Pix2PixGenerator"
        ),
    ),
    has_schedule=False,
)


class Pix2PixFields(PatchFields):
    """The fields of a Pix2Pix generator.

    The defaults are those of Isola et al., "Image-to-image translation with conditional adversarial
    networks", 2017: 8 levels for 256 pixels, 64 base channels, dropout 0.5.

    Attributes:
        levels: Convolutions of stride 2; patch sides must be multiples of ``2 ** levels``.
        base_channels: Channels of the first level; the next three have 2, 4 and 8 times as many,
            further ones 8 times.
        dropout: In the three decoder levels after the innermost, kept when it paints: the only
            chance in a painting.
    """

    levels: Annotated[int, Field(ge=2, le=10)] = 8
    base_channels: Channels = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5

    @property
    def size_multiple(self) -> int:
        """Patch sides must be multiples of this."""
        return int(2**self.levels)

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if odd := [n for n in self.patch_sizes if n % self.size_multiple]:
            raise ValueError(
                f"patch_sizes {odd} are not multiples of 2 ** levels = {self.size_multiple}"
            )
        return self


class Pix2PixConfig(Pix2PixFields):
    """``generator/config.json``: all arguments of ``Pix2PixGenerator``."""

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        require_known(self, "codecs")
        return self


class Pix2PixSection(Pix2PixFields):
    """The section ``model`` of a training recipe for Pix2Pix.

    Attributes:
        kind: Which network it is.
        l1_weight: Weight of the mean absolute error beside the adversarial loss.
    """

    shape: ClassVar[tuple[str, ...]] = ("levels", "base_channels")
    summary: ClassVar[str] = (
        "U-Net that paints the masked part of a CT slice\n"
        "in one pass (Pix2Pix: patch with a hole and mask in, trained against a PatchGAN; "
        "dropout is its only chance)."
    )
    takes_steps: ClassVar[bool] = False

    kind: Literal["pix2pix"] = "pix2pix"
    l1_weight: Annotated[float, Field(ge=0, le=10_000)] = 100.0
