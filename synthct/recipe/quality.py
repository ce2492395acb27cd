"""The ``quality`` section of a recipe: limits on the measures of a sample.

``metrics.table.MEASURES`` lists the measures and whether a recipe may limit them.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple, Self

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
        # Limits of volumes count for a dataset's identity only where they are stated.
        fields: dict[str, Any] = dump(self)
        return {k: v for k, v in fields.items() if v is not None or not MEASURES[k].of_volumes}

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
