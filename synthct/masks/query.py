"""Which of the donors' lesions a transplant takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from synthct.volume.anatomy import LesionFacts, Side

#: Parts of a label that are smaller are specks, unless a query asks for them.
LEAST_LESION_ML = 0.1

Range = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]


class Query(BaseModel):
    """What a donor's lesion must be like; what is left out does not matter.

    Lesions that the border of the scan cuts are never taken.

    Attributes:
        volume_ml: Least and greatest volume; without it, from 0.1 ml on.
        diameter_mm: Least and greatest diameter, the greatest distance of two points.
        exophytic_share: Least and greatest share of the surface that does not border on the organ.
        depth_mm: Least and greatest distance from the centre to the surface.
        side: Side of the body.
        split: Only donors, and so only hosts, of these splits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    volume_ml: Range | None = None
    diameter_mm: Range | None = None
    exophytic_share: Range | None = None
    depth_mm: Range | None = None
    side: Side | None = None
    split: tuple[Literal["train", "validation", "test"], ...] = ()

    @field_validator("volume_ml", "diameter_mm", "exophytic_share", "depth_mm")
    @classmethod
    def _range_rises(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError(f"the range {list(value)} must rise: [least, greatest]")
        return value

    def takes(self, lesion: LesionFacts) -> bool:
        """Whether a lesion is one of those asked for."""
        seat = lesion.seat
        volume = self.volume_ml or (LEAST_LESION_ML, float("inf"))
        if lesion.is_cut or not _within(lesion.volume_ml, volume):
            return False
        if not _within(lesion.diameter_mm, self.diameter_mm):
            return False
        if seat is None:
            return self.exophytic_share is None and self.depth_mm is None and self.side is None
        return (
            _within(seat.exophytic_share, self.exophytic_share)
            and _within(seat.depth_mm, self.depth_mm)
            and self.side in (None, seat.side)
        )


def _within(value: float, allowed: tuple[float, float] | None) -> bool:
    return allowed is None or allowed[0] <= value <= allowed[1]
