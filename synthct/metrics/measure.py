"""What a measure is: its name, unit and meaning, and how it is taken of a painting."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from synthct.metrics.crop import Region

if TYPE_CHECKING:
    from synthct.metrics.adherence import Segmenter
    from synthct.metrics.distribution import Quantiles

#: The measures of a sample by name: None where one does not apply to it, NaN where it applies but
#: cannot be computed. Neither is stored: both are null in a dataset.
Measures = Mapping[str, float | None]

Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Painting:
    """A painted slice, and what it is measured against.

    Attributes:
        original: int16 HU (rows, columns) before painting.
        image: int16 HU after painting, of the same shape like all arrays here.
        mask: Boolean: what was painted.
        spacing_mm: Size of a pixel along both axes.
        range_hu: Range of the window in which it is measured.
        codec_range_hu: What the model's codec can express; None where no model painted.
        labelled: Boolean: where the painted label should be, inside of the mask and around it;
            None where no label was asked for.
        quantiles: HU of real tissue of the label; None if not known.
        segmenter: Trained on the label in other patients; None if there are too few.
        has_truth: Whether the replaced tissue is what should have been painted.
        is_painted: False for the host's own slice in a pair.
        earlier: HU (N,) inside of the mask of the earlier variants of the mask.
    """

    original: npt.NDArray[Any]
    image: npt.NDArray[Any]
    mask: Region
    spacing_mm: tuple[float, float]
    range_hu: Range
    codec_range_hu: Range | None = None
    labelled: Region | None = None
    quantiles: Quantiles | None = None
    segmenter: Segmenter | None = None
    has_truth: bool = False
    is_painted: bool = True
    earlier: Sequence[npt.NDArray[Any]] = ()

    @property
    def windowed(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Region, Range]:
        """The arguments of measures that compare original and image within the window."""
        return self.original, self.image, self.mask, self.range_hu


@dataclass(frozen=True)
class Measure:
    """One measure of a sample: a column of every dataset.

    Attributes:
        name: Of the column.
        text: What it is, in a few words.
        of: Takes it of a painting. None: it does not apply; NaN: it cannot be computed.
        unit: Of its values; empty for ratios and shares.
        worse: Which values are bad: the higher or the lower ones, or those that are further from
            0 or (as a ratio) from 1; None where the value alone does not say.
        has_limits: Whether a recipe may limit it.
        needs_paint: Whether it judges paint, so that it does not apply to a host's own slice.
        dtype: Arrow type of the column, which is always nullable.
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

    @property
    def label(self) -> str:
        """What it is, with the unit."""
        return f"{self.text}, {self.unit}" if self.unit else self.text

    def badness(self, value: float) -> float:
        """A number that grows with how bad a value is.

        Raises:
            ValueError: If the value alone does not say how good a sample is.
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
