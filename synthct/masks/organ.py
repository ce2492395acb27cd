"""Organ masks: structures or unions as they lie in the host, grown or shrunk by millimetres."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from synthct.case import Case
from synthct.errors import MaskError
from synthct.masks.base import (
    LabelPolicy,
    Mask,
    MaskSection,
    Params,
    Region,
    check_drawn_for,
    make_mask,
    structure,
    voxels_within,
)
from synthct.volume import Spacing


class Organ(MaskSection):
    """One organ, or several as one mask.

    Attributes:
        organs: What the mask covers; by default ``label``. Of several organs those that the host
            has are taken, and the others are recorded as missing.
        margin_mm: Grown by so much, or shrunk where negative.
    """

    kind: Literal["organ"] = "organ"
    organs: tuple[str, ...] = ()
    margin_mm: Annotated[float, Field(ge=-30, le=60)] = 0.0

    @model_validator(mode="after")
    def _has_an_organ(self) -> Organ:
        if not self.organs and self.label is None:
            raise ValueError("an organ mask needs a label, or a list of organs")
        return self

    @property
    def covered(self) -> tuple[str, ...]:
        """What the mask covers."""
        return self.organs or (self.label or "",)

    def wanted_labels(self) -> tuple[str, ...]:
        """The organ; of several any one is enough, so the host needs none in particular."""
        return self.covered if len(self.covered) == 1 else ()

    def useful_labels(self) -> tuple[str, ...]:
        """The organs of a mask of several."""
        return self.covered if len(self.covered) > 1 else ()

    def label_policy(self) -> LabelPolicy:
        """An unchanged organ keeps its labels; in a grown one nobody knows where it ends."""
        return self.label_map or ("keep" if self.margin_mm <= 0 else "ignore")

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Note which organs the host has; nothing here is random."""
        del donor, rng
        found = []
        for organ in self.covered:
            if organ in host.label_names or organ in host.unions:
                values = host.values_of(organ)
                if any(bool((host.labels.array == v).any()) for v in values):
                    found.append(organ)
        if not found:
            known = ", ".join(sorted({*host.label_names, *host.unions})) or "none"
            raise MaskError(
                f"case {host.case_id}: none of {', '.join(self.covered)} has a voxel "
                f"(label map knows: {known}); choose other organs or another source"
            )
        return {
            "kind": self.kind,
            "host": host.case_id,
            "organs": found,
            "missing": [o for o in self.covered if o not in found],
            "margin_mm": self.margin_mm,
        }

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """The organs as one mask."""
        del donor
        check_drawn_for(params, "host", host)
        region, box = structure(host, params["organs"])
        margin_mm = float(params["margin_mm"])
        start = box.start_ijk
        if margin_mm != 0:
            spacing = host.labels.spacing_mm
            grown = box.grow(voxels_within(max(margin_mm, 0), spacing)).clip(host.labels.shape)
            pad = [
                (a - b, d - c)
                for a, b, c, d in zip(
                    box.start_ijk, grown.start_ijk, box.stop_ijk, grown.stop_ijk, strict=True
                )
            ]
            region, start = grow(np.pad(region, pad), margin_mm, spacing), grown.start_ijk
            if not region.any():
                raise MaskError(
                    f"case {host.case_id}: margin_mm {margin_mm:g} leaves nothing of "
                    f"{', '.join(params['organs'])}; shrink it by less"
                )
        return make_mask(host, region, start, self.label, {"missing": params["missing"]})


def grow(region: Region, margin_mm: float, spacing_mm: Spacing) -> Region:
    """Grow a region by a physical margin, or shrink it where the margin is negative.

    Args:
        region: Boolean (I, J, K), with room for the margin; it is not shrunk from the array's
            edge, where it may go on.
        margin_mm: Euclidean distance between voxel centres.
        spacing_mm: Voxel size in mm along i, j, k.

    Returns:
        Boolean (I, J, K).
    """
    from scipy.ndimage import distance_transform_edt

    if margin_mm == 0 or region.all() or not region.any():
        return region.copy()
    if margin_mm > 0:
        return np.asarray(distance_transform_edt(~region, spacing_mm) <= margin_mm)
    return np.asarray(distance_transform_edt(region, spacing_mm) > -margin_mm)
