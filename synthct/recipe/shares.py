"""The ``splits`` section of a recipe: which share of the patients goes where."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Splits(BaseModel):
    """The share of the patients in each split, adding up to 1; or the splits of the sources.

    Attributes:
        from_source: Use the splits in the sources' own tables (TotalSegmentator's ``meta.csv``)
            instead of shares.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: Annotated[float, Field(ge=0, le=1)] = 0.0
    validation: Annotated[float, Field(ge=0, le=1)] = 0.0
    test: Annotated[float, Field(ge=0, le=1)] = 0.0
    from_source: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.from_source:
            if self.fractions:
                raise ValueError("from_source and fractions exclude each other; remove one")
            return self
        total = sum(self.fractions.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the fractions add up to {total:g}, not to 1")
        return self

    @property
    def fractions(self) -> dict[Split, float]:
        """The splits with a share above 0."""
        shares = zip(SPLITS, (self.train, self.validation, self.test), strict=True)
        return {split: share for split, share in shares if share > 0}
