"""Codecs between Hounsfield units and the range -1..1 in which models work.

Every codec is global (no statistics of the scan), monotone and invertible. What a codec cannot
express is clipped, and ``clipped`` says where, so that the share can be reported.

The round trip HU -> model -> HU of int16 voxels is exact within the codec's range in float32:
the error before rounding stays below 0.01 HU for every codec here (tested). What limits a
*model* is how many HU one unit of its range spans.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

FloatArray = npt.NDArray[np.float32]


class Window(BaseModel):
    """A linear window: ``level_hu`` maps to 0, ``level_hu ± width_hu / 2`` to ±1.

    Attributes:
        level_hu: Centre of the window in HU.
        width_hu: Full width of the window in HU.

    Example:
        >>> soft_tissue = synthct.Window(level_hu=50, width_hu=400)
        >>> soft_tissue.encode(np.array([-1000, 50, 150])).tolist()
        [-1.0, 0.0, 0.5]
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["window"] = "window"
    level_hu: float
    width_hu: Annotated[float, Field(gt=0)]

    @property
    def range_hu(self) -> tuple[float, float]:
        """Least and greatest HU that the codec can express."""
        return self.level_hu - self.width_hu / 2, self.level_hu + self.width_hu / 2

    def encode(self, hu: npt.NDArray[Any]) -> FloatArray:
        """HU of any shape to -1..1, clipped."""
        x = (hu.astype(np.float32) - self.level_hu) * np.float32(2.0 / self.width_hu)
        clipped: FloatArray = np.clip(x, -1.0, 1.0)
        return clipped

    def decode(self, x: npt.NDArray[Any]) -> FloatArray:
        """-1..1 of any shape to HU; values beyond are clipped first."""
        clipped = np.clip(x.astype(np.float32), -1.0, 1.0)
        return clipped * np.float32(self.width_hu / 2) + np.float32(self.level_hu)

    def clipped(self, hu: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """True where the codec cannot express the HU."""
        low, high = self.range_hu
        return (hu < low) | (hu > high)


class Knots(BaseModel):
    """A piecewise linear codec: each of ``hu`` maps to the value of ``x`` at the same place.

    With most of the range given to soft tissue it spans all of CT and keeps the contrast of
    organs: the raw-HU model of the thesis painted grey mass because it gave them a twentieth.

    Attributes:
        hu: Rising HU, at least two.
        x: Rising model values, from -1 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["knots"] = "knots"
    hu: tuple[float, ...]
    x: tuple[float, ...]

    @model_validator(mode="after")
    def _check(self) -> Knots:
        if len(self.hu) != len(self.x) or len(self.hu) < 2:
            raise ValueError("hu and x need the same number of knots, at least two")
        if any(np.diff(self.hu) <= 0) or any(np.diff(self.x) <= 0):
            raise ValueError("hu and x must rise strictly")
        if self.x[0] != -1 or self.x[-1] != 1:
            raise ValueError("x must run from -1 to 1")
        return self

    @property
    def range_hu(self) -> tuple[float, float]:
        """Least and greatest HU that the codec can express."""
        return self.hu[0], self.hu[-1]

    def encode(self, hu: npt.NDArray[Any]) -> FloatArray:
        """HU of any shape to -1..1, clipped."""
        x: FloatArray = np.interp(hu, self.hu, self.x).astype(np.float32)
        return x

    def decode(self, x: npt.NDArray[Any]) -> FloatArray:
        """-1..1 of any shape to HU; values beyond are clipped first."""
        hu: FloatArray = np.interp(x, self.x, self.hu).astype(np.float32)
        return hu

    def clipped(self, hu: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """True where the codec cannot express the HU."""
        return (hu < self.hu[0]) | (hu > self.hu[-1])


Codec = Annotated[Window | Knots, Field(discriminator="kind")]

SOFT_TISSUE = Window(level_hu=50, width_hu=400)
LUNG = Window(level_hu=-600, width_hu=1500)
BONE = Window(level_hu=400, width_hu=1800)

#: All of CT; 400 HU of soft tissue get three quarters of the range (267 HU per unit).
FULL_RANGE = Knots(hu=(-1024, -150, 250, 1500, 3071), x=(-1, -0.75, 0.75, 0.95, 1))

PRESETS: dict[str, Window | Knots] = {
    "soft_tissue": SOFT_TISSUE,
    "lung": LUNG,
    "bone": BONE,
    "full_range": FULL_RANGE,
}


def window_for(
    label: str | None, under_hu: float | None, codec: Window | Knots | None = None
) -> Window:
    """The window in which a painting is looked at and measured.

    A model that paints within a window is judged in that window: it can express nothing else.
    All others (a codec of the full range, a control, real tissue) are judged in the window of
    what is painted or was there, since clipping makes lung in a soft-tissue window, or dense bone
    in it, a flat area without texture or edges.

    Args:
        label: What is painted; None for whatever fits.
        under_hu: Mean HU, before painting, of the voxels under the mask; None if not known.
        codec: The codec that the model painted in; None where no model painted.
    """
    if isinstance(codec, Window):
        return codec
    if label is not None and label.startswith("lung"):
        return LUNG
    low, high = SOFT_TISSUE.range_hu
    if under_hu is None or low <= under_hu <= high:
        return SOFT_TISSUE
    return LUNG if under_hu < low else BONE


_ADAPTER: TypeAdapter[Window | Knots] = TypeAdapter(Codec)


def parse_codec(value: str | dict[str, Any]) -> Window | Knots:
    """A codec from a preset's name or its fields, as in a recipe or a checkpoint's config.

    Raises:
        ValueError: If the name is unknown or a field is wrong.
    """
    if isinstance(value, str):
        if value not in PRESETS:
            raise ValueError(f"codec '{value}' is unknown; choose one of {', '.join(PRESETS)}")
        return PRESETS[value]
    return _ADAPTER.validate_python(value)
