"""Box masks: a structure's bounding box with random margins, which does not reveal its shape."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from synthct.errors import MaskError, counted
from synthct.masks.base import Mask, MaskSection, Params, Rising, check_drawn_for, make_mask
from synthct.volume import Box, plane_spacing_mm
from synthct.volume.anatomy import organ_parts
from synthct.volume.case import Case
from synthct.volume.regions import Region, move, structure
from synthct.volume.views import VIEW_AXIS, Plane


class BoxMask(MaskSection):
    """A box around a structure, along the axes of the scan.

    Attributes:
        around: The structure or union.
        margin_mm: Range from which the margin of each of the six sides is drawn.
        jitter_mm: Greatest random shift of the box along each axis.
        part: Box around one random connected part, such as one of two kidneys, or around all.
        in_plane: None for one 3D box; else each slice of this view gets a box of its own around
            the structure in that slice.
    """

    kind: Literal["box"] = "box"
    around: str
    margin_mm: Annotated[
        tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(le=150)]], Rising
    ]
    jitter_mm: Annotated[float, Field(ge=0, le=100)] = 0.0
    part: Literal["one", "all"] = "one"
    in_plane: Plane | None = None

    def required_labels(self) -> tuple[str, ...]:
        """The structure ``around``."""
        return (self.around,)

    def reaches_beyond(self) -> bool:
        """Always: a box has corners."""
        return True

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Draw the part, the margins of the six sides and the shift."""
        del donor
        num_parts = len(organ_parts(host, self.around))
        margins = rng.uniform(*self.margin_mm, 6).round(2)
        shift = rng.uniform(-self.jitter_mm, self.jitter_mm, 3).round(2)
        return {
            "kind": self.kind,
            "host": host.case_id,
            "part": 1 + int(rng.integers(num_parts)) if self.part == "one" else 0,
            "before_mm": margins[:3].tolist(),
            "after_mm": margins[3:].tolist(),
            "shift_mm": shift.tolist(),
            "in_plane": self.in_plane,
        }

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """The box, cut off where the scan ends.

        Raises:
            MaskError: If the parameters are another host's, or its label map has changed.
        """
        del donor
        check_drawn_for(params, "host", host)
        if params["part"]:
            parts = organ_parts(host, self.around)
            if params["part"] > len(parts):
                raise MaskError(
                    f"case {host.case_id}: '{self.around}' has {counted(len(parts), 'part')} but "
                    f"part {params['part']} was drawn; was its label map changed?"
                )
            part = parts[params["part"] - 1]
            region, box = part.region, part.box
        else:
            region, box = structure(host, [self.around])
        outer = _expand(box, host, params)
        if params["in_plane"] is None:
            filled = np.ones(outer.shape, dtype=bool)
        else:
            filled = _per_slice(region, box, outer, host, params)
        return make_mask(host, filled, outer.start_ijk, self.label, {"part": params["part"]})


def _expand(box: Box, host: Case, params: Params) -> Box:
    """``box`` with the drawn margins and shift, within the scan; always holds a voxel."""
    start, stop = [], []
    for axis, (spacing, size) in enumerate(
        zip(plane_spacing_mm(host.labels.affine), host.labels.shape, strict=True)
    ):
        shift = params["shift_mm"][axis]
        low = box.start_ijk[axis] + round((shift - params["before_mm"][axis]) / spacing)
        high = box.stop_ijk[axis] + round((shift + params["after_mm"][axis]) / spacing)
        start.append(min(max(low, 0), size - 1))
        stop.append(max(min(high, size), start[-1] + 1))
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _per_slice(region: Region, box: Box, outer: Box, host: Case, params: Params) -> Region:
    """Boolean of ``outer``'s shape: in each slice a box around the structure there."""
    axis = VIEW_AXIS[params["in_plane"]]
    filled = np.zeros(outer.shape, dtype=bool)
    for n in range(box.shape[axis]):
        tight = Box.around(region[Box.whole(box.shape).slab(axis, n).slices])
        if tight is None:
            continue
        offset = list(box.start_ijk)
        offset[axis] += n
        flat = move(tight, (offset[0], offset[1], offset[2]))
        wide = _expand(flat, host, params)
        wide = wide.slab(axis, flat.start_ijk[axis])
        inside = [
            slice(max(a - o, 0), min(b - o, size))
            for a, b, o, size in zip(
                wide.start_ijk, wide.stop_ijk, outer.start_ijk, outer.shape, strict=True
            )
        ]
        filled[tuple(inside)] = True
    return filled
