"""Organ masks: the host's own structures or unions, grown or shrunk by millimetres."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from synthct.errors import MaskError
from synthct.masks.base import (
    LabelPolicy,
    Mask,
    MaskSection,
    Params,
    check_drawn_for,
    has_voxels,
    make_mask,
)
from synthct.masks.grow import grow_within
from synthct.volume import Box
from synthct.volume.case import Case
from synthct.volume.regions import Region, structure


class Organ(MaskSection):
    """One organ, or several.

    Attributes:
        organs: Structures that the mask covers; by default ``label``. Of several, those that the
            host has are used, and the others are recorded as missing.
        paint: ``together``: all organs are one mask, painted as ``label`` or as whatever fits.
            ``one_by_one``: each mask is one random organ, painted as itself.
        margin_mm: Growth in mm; shrunk if negative.
    """

    kind: Literal["organ"] = "organ"
    organs: tuple[str, ...] = ()
    paint: Literal["together", "one_by_one"] = "together"
    margin_mm: Annotated[float, Field(ge=-30, le=60)] = 0.0

    @model_validator(mode="after")
    def _has_an_organ(self) -> Self:
        if not self.organs and self.label is None:
            raise ValueError("an organ mask needs a label, or a list of organs")
        if self.paint == "one_by_one" and (len(self.organs) < 2 or self.label is not None):
            raise ValueError(
                "paint: one_by_one is for a list of several organs, each painted as itself; "
                "give organs and no label"
            )
        return self

    @property
    def covered(self) -> tuple[str, ...]:
        """The structures that the mask covers."""
        return self.organs or (self.label or "",)

    def required_labels(self) -> tuple[str, ...]:
        """The organ; none where there are several, of which any one is enough."""
        return self.covered if len(self.covered) == 1 else ()

    def optional_labels(self) -> tuple[str, ...]:
        """The organs, where there are several."""
        return self.covered if len(self.covered) > 1 else ()

    def painted_labels(self) -> tuple[str, ...]:
        """The label, or each organ where they are painted one by one."""
        return self.organs if self.paint == "one_by_one" else super().painted_labels()

    def label_policy(self) -> LabelPolicy:
        """``keep``, but ``ignore`` for grown organs, whose painted border is unknown."""
        return self.label_map or ("keep" if self.margin_mm <= 0 else "ignore")

    def reaches_beyond(self) -> bool:
        """Whether the organs are grown."""
        return self.margin_mm > 0

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Find the organs that the host has, and choose one if they are painted one by one."""
        del donor
        present = [organ for organ in self.covered if has_voxels(host, organ)]
        if not present:
            known = ", ".join(sorted({*host.label_names, *host.unions})) or "none"
            raise MaskError(
                f"case {host.case_id}: none of {', '.join(self.covered)} has a voxel "
                f"(label map knows: {known}); choose other organs or another source"
            )
        alone = self.paint == "one_by_one"
        return {
            "kind": self.kind,
            "host": host.case_id,
            "organs": [present[int(rng.integers(len(present)))]] if alone else present,
            "missing": [o for o in self.covered if o not in present],
            "margin_mm": self.margin_mm,
        }

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """The drawn organs as one mask."""
        del donor
        check_drawn_for(params, "host", host)
        organs, margin_mm = tuple(params["organs"]), float(params["margin_mm"])
        region, box = host.once(
            ("grown", organs, margin_mm), lambda: _grown(host, organs, margin_mm)
        )
        if not region.any():
            raise MaskError(
                f"case {host.case_id}: margin_mm {margin_mm:g} leaves nothing of "
                f"{', '.join(organs)}; shrink it by less"
            )
        label = params["organs"][0] if self.paint == "one_by_one" else self.label
        facts = {"organs": params["organs"], "missing": params["missing"]}
        return make_mask(host, region, box.start_ijk, label, facts)


def _grown(host: Case, organs: tuple[str, ...], margin_mm: float) -> tuple[Region, Box]:
    """Where organs lie, grown or shrunk, and its box."""
    region, box = structure(host, organs)
    if margin_mm == 0:
        return region, box
    region, _, box = grow_within(host.labels, region, box, margin_mm)
    region.flags.writeable = False
    return region, box
