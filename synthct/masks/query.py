"""Which of the donors' lesions a transplant uses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from synthct.masks.base import Rising
from synthct.volume.anatomy import LesionFacts, Side

#: Smaller parts of a label are specks, which only a query with ``volume_ml`` selects.
LEAST_LESION_ML = 0.1

Range = Annotated[tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]], Rising]


class Query(BaseModel):
    """Conditions on a donor's lesion; those that are left out do not restrict it.

    Lesions that are cut by the border of the scan never match.

    Attributes:
        volume_ml: Least and greatest volume; by default at least 0.1 ml.
        diameter_mm: Least and greatest diameter: the greatest distance between two points.
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

    def matches(self, lesion: LesionFacts) -> bool:
        """Whether a lesion meets all conditions."""
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
