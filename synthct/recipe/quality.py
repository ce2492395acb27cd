"""The ``quality`` section of a recipe: limits on the measures of a sample, and grades by them.

``metrics.table.MEASURES`` lists the measures and whether a recipe may limit them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
    model_validator,
)

from synthct.metrics.measure import Measures
from synthct.metrics.table import MEASURES

Number = Annotated[float, Field(allow_inf_nan=False)]

#: How good a sample is: within all limits, near one of them, or beyond one.
Grade = Literal["good", "doubtful", "poor"]
GRADES: tuple[Grade, ...] = ("good", "doubtful", "poor")

#: Beyond so many times the way from the ideal value to a default limit a sample is rejected.
_GROSS = 2.0
#: Share of the way from the ideal value to a limit beyond which a sample is doubtful.
_DOUBTFUL = 2 / 3

#: The best value of measures that have one, by which of their values are bad.
_IDEAL = {"higher": 0.0, "far from 0": 0.0, "far from 1": 1.0}


class Limits(BaseModel):
    """The least and the greatest accepted value, both inclusive.

    Attributes:
        min: Samples below are rejected.
        max: Samples above are rejected.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: Number | None = None
    max: Number | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: nothing would be kept")
        return self


class BrokenLimit(NamedTuple):
    """A limit that a sample breaks.

    Attributes:
        measure: Name of the measure.
        value: The sample's value; None if it could not be computed.
        reason: Short text, the same for all samples that break this limit.
    """

    measure: str
    value: float | None
    reason: str


_FIELDS: dict[str, Any] = {
    name: (Limits | None, Field(default=None, description=measure.label))
    for name, measure in MEASURES.items()
    if measure.has_limits
}
_Limited: Any = create_model(
    "_Limited", __config__=ConfigDict(frozen=True, extra="forbid"), **_FIELDS
)


class Quality(_Limited):
    """Limits on the measures of a sample; a sample that breaks one is rejected.

    A measure that does not apply to a sample (an error without ground truth, a distance to tissue
    that no source has) breaks no limit. One that applies but cannot be computed (the texture of a
    mask of three pixels) breaks its limit.
    """

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Later limits count for a dataset's identity only where they are stated.
        later = {name for name, one in MEASURES.items() if one.of_volumes or one.if_stated}
        fields: dict[str, Any] = dump(self)
        return {k: v for k, v in fields.items() if v is not None or k not in later}

    @property
    def limits(self) -> dict[str, Limits]:
        """The limits that are set, by measure, in the order of the table."""
        return {name: limits for name in _FIELDS if (limits := getattr(self, name)) is not None}

    def first_broken(self, measures: Measures) -> BrokenLimit | None:
        """The first limit that a sample breaks, or None.

        Args:
            measures: Values by name: None where a measure does not apply, NaN where it cannot be
                computed.
        """
        for name, limits in self.limits.items():
            value = measures[name]
            if value is None:
                continue
            if math.isnan(value):
                return BrokenLimit(name, None, f"{name} cannot be computed")
            if limits.min is not None and value < limits.min:
                return BrokenLimit(name, value, f"{name} below {limits.min:g}")
            if limits.max is not None and value > limits.max:
                return BrokenLimit(name, value, f"{name} above {limits.max:g}")
        return None


@dataclass(frozen=True)
class Standard:
    """What the samples of a section of masks are judged by.

    Attributes:
        limits: The recipe's limits, or those learned from real tissue where it sets none.
        is_default: Whether they were learned.
        rejects: Whether samples that break one are rejected, or only graded.
    """

    limits: Quality
    is_default: bool = False
    rejects: bool = True

    def first_broken(self, measures: Measures) -> BrokenLimit | None:
        """The limit for which a sample is rejected, or None; see ``Quality.first_broken``.

        A measure that cannot be computed breaks no default limit, and for breaking
        such a limit a sample is rejected only if it lies beyond it by as much again.
        """
        if not self.rejects:
            return None
        counting = dict(self._counting(measures))
        if self.is_default:
            for name, limits in self.limits.limits.items():
                value = counting[name]
                if value is not None and _strain(name, value, limits) <= _GROSS:
                    counting[name] = None
        return self.limits.first_broken(counting)

    def strain(self, measures: Measures) -> float | None:
        """How far a sample is on the way from the ideal to the nearest limit.

        Returns:
            0 at the ideal, 1 at a limit, above 1 beyond it; None if no limit applies.
        """
        counting = self._counting(measures)
        strains = [
            _strain(name, value, limits)
            for name, limits in self.limits.limits.items()
            if (value := counting.get(name)) is not None
        ]
        return max(strains, default=None)

    def grade(self, measures: Measures) -> Grade | None:
        """The grade of a sample; None if no limit applies."""
        strain = self.strain(measures)
        if strain is None:
            return None
        if strain > 1:
            return "poor"
        return "doubtful" if strain > _DOUBTFUL else "good"

    def _counting(self, measures: Measures) -> Measures:
        if not self.is_default:
            return measures
        return {k: None if v is None or math.isnan(v) else v for k, v in measures.items()}


def _strain(name: str, value: float, limits: Limits) -> float:
    """How far a value is on the way to its limit; infinite beyond one without an ideal value."""
    if math.isnan(value):
        return math.inf
    low, high = limits.min, limits.max
    is_broken = (low is not None and value < low) or (high is not None and value > high)
    measure = MEASURES[name]
    ideal = _IDEAL.get(measure.worse or "")
    nearest = None if ideal is None else high if value >= ideal else low
    room = 0.0 if nearest is None else measure.badness(nearest)
    if room > 0 and is_broken == (measure.badness(value) > room):
        return measure.badness(value) / room
    return math.inf if is_broken else 0.0
