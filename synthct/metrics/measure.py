"""The definition of a measure: name, unit, meaning, and the function that computes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal

from synthct.metrics.crop import Hu, Range, Region

if TYPE_CHECKING:
    from synthct.metrics.adherence import Segmenter
    from synthct.metrics.distribution import Quantiles

#: Values by name: None if a measure does not apply to the sample, NaN if it applies but cannot be
#: computed. A dataset stores null for both.
Measures = Mapping[str, float | None]


@dataclass(frozen=True, eq=False)
class Painting:
    """A painted slice or volume, and the references that it is measured against.

    Attributes:
        original: int16 HU (rows, columns) before painting, of a volume (I, J, K).
        image: int16 HU after painting; all arrays have the same shape.
        mask: Boolean: the painted pixels.
        spacing_mm: Size of a pixel or voxel along all axes.
        range_hu: Range of HU in which it is measured.
        codec_range_hu: Range of HU of the model's codec; None if no model painted.
        labelled: Boolean: where the painted label should be, inside and around the mask; None
            without a label.
        quantiles: HU quantiles of real tissue of the label; None if unknown.
        segmenter: Trained on the label in other patients; None if there are too few.
        has_truth: Whether the replaced tissue is the ground truth.
        is_painted: False for the host's unpainted slice of a pair.
        earlier: HU (N,) inside the mask, of each earlier variant.
        axis: Across the slices of a volume; None for a slice.
    """

    original: Hu
    image: Hu
    mask: Region
    spacing_mm: tuple[float, ...]
    range_hu: Range
    codec_range_hu: Range | None = None
    labelled: Region | None = None
    quantiles: Quantiles | None = None
    segmenter: Segmenter | None = None
    has_truth: bool = False
    is_painted: bool = True
    earlier: Sequence[Hu] = ()
    axis: int | None = None

    @property
    def in_plane(self) -> tuple[int, ...] | None:
        """The axes in the plane of a volume's slices; None for a slice, which has no others."""
        return None if self.axis is None else tuple(n for n in range(3) if n != self.axis)

    @property
    def windowed(self) -> tuple[Hu, Hu, Region, Range]:
        """The arguments of measures that compare original and image within the window."""
        return self.original, self.image, self.mask, self.range_hu


@dataclass(frozen=True)
class Measure:
    """One measure of a sample: a column of every dataset.

    Attributes:
        name: Name of the column.
        text: Description in a few words.
        of: Computes the value; see ``Measures`` for None and NaN.
        unit: Unit of the values; empty for ratios and shares.
        worse: Which values are bad: higher or lower ones, or those further from 0 or (as a ratio)
            from 1; None if a value alone is neither good nor bad.
        has_limits: Whether a recipe may limit it.
        needs_paint: Whether it does not apply to a host's unpainted slice.
        dtype: Arrow type of the column, which is always nullable.
        of_volumes: Whether it applies to volumes only, and datasets of slices have no such column.
        if_stated: Whether its limit counts for a recipe's identity only where it is stated, since
            recipes were written before there was the measure.
    """

    name: str
    text: str
    _: KW_ONLY
    of: Callable[[Painting], float | None]
    unit: str = ""
    worse: Literal["higher", "lower", "far from 0", "far from 1"] | None = None
    has_limits: bool = True
    needs_paint: bool = True
    dtype: Literal["int32", "float64"] = "float64"
    of_volumes: bool = False
    if_stated: bool = False

    @property
    def label(self) -> str:
        """The description with the unit."""
        return f"{self.text}, {self.unit}" if self.unit else self.text

    def badness(self, value: float) -> float:
        """A number that is higher for worse values.

        Raises:
            ValueError: If ``worse`` is None.
        """
        match self.worse:
            case "higher":
                return value
            case "lower":
                return -value
            case "far from 0":
                return abs(value)
            case "far from 1":
                return abs(math.log(max(value, 1e-9)))
        raise ValueError(f"no value of {self.name} is better than another")
