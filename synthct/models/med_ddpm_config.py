"""The fields of Med-DDPM: one model for recipes, checkpoints and the network itself."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from synthct.errors import CheckpointError
from synthct.models.config import BoxFields, Channels, PatchSizes
from synthct.models.denoiser_config import DenoiserConfig, DenoiserFields
from synthct.models.layout import Component, Layout

LAYOUT = Layout(
    "MedDDPMInpaintPipeline",
    "a Med-DDPM of synthct, in 3D",
    (Component("unet", "network", ("synthct", "synthct.models.med_ddpm"), "MedDDPMUNet"),),
)


#: What MONAI's network needs.
PACKAGES = ("monai", "einops")


class MedDDPMFields(BoxFields, DenoiserFields):
    """The fields of a Med-DDPM that a training recipe states; the defaults are the published ones.

    Attributes:
        block_out_channels: Channels per level, one residual block each, two on the way up. The last
            but one level and the middle have attention, with one head.
        norm_num_groups: Groups of the group norms; divides every entry of block_out_channels.
        known_region: ``clean`` gives the network what is known without noise at every step;
            ``blended`` gives it noise everywhere and puts the known region, with its noise, back
            after each step, as the thesis first did: the loss, taken inside the mask, then never
            teaches it what lies outside.
    """

    takes_labels_from: ClassVar[int] = 2

    patch_sizes: PatchSizes = (128,)
    depth: Annotated[int, Field(ge=4, le=512)] = 128
    block_out_channels: Annotated[tuple[Channels, ...], Field(min_length=2, max_length=8)] = (
        64, 64, 128, 192, 256,
    )  # fmt: skip
    norm_num_groups: Channels = 32
    known_region: Literal["clean", "blended"] = "clean"

    @property
    def size_multiple(self) -> int:
        """Sides of a box must be multiples of this, its depth too."""
        return int(2 ** (len(self.block_out_channels) - 1))

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if odd := [n for n in (*self.patch_sizes, self.depth) if n % self.size_multiple]:
            raise ValueError(
                f"patch_sizes and depth {odd} are not multiples of {self.size_multiple}"
            )
        if any(n % self.norm_num_groups for n in self.block_out_channels):
            raise ValueError(f"block_out_channels must be multiples of {self.norm_num_groups}")
        return self


class MedDDPMSection(MedDDPMFields):
    """The section ``model`` of a training recipe: Med-DDPM and the boxes that it takes.

    Attributes:
        kind: Which network it is.
    """

    shape: ClassVar[tuple[str, ...]] = (
        "block_out_channels",
        "norm_num_groups",
        "known_region",
        "residual_scale",
    )
    summary: ClassVar[str] = (
        "Med-DDPM that paints the masked part of a CT in 3D\n"
        "(noisy box, box with a hole, mask; mean absolute error of the noise inside the mask)."
    )

    kind: Literal["med_ddpm"] = "med_ddpm"


class MedDDPMConfig(MedDDPMFields, DenoiserConfig):
    """``unet/config.json``: all arguments of ``MedDDPMUNet``."""


def require_monai() -> None:
    """See that MONAI is there.

    Raises:
        CheckpointError: If it, or what its network needs, is not installed.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise CheckpointError(
            f"Med-DDPM needs {' and '.join(missing)}; run: pip install 'synthct[volumes]'"
        )
