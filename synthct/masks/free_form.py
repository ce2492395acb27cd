"""Free-form masks: a box or brush strokes at a random place, as in the public Palette code.

The strokes are those of Yu et al., "Free-form image inpainting with gated convolution", 2019, whose
sizes in pixels are here in millimetres (0.8 mm pixels). Each is a prism: the same shape in all
slices that it passes through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from synthct.masks.base import (
    Mask,
    MaskSection,
    Params,
    PlacementError,
    Rising,
    box_around,
    check_drawn_for,
    make_mask,
    voxel_centres,
)
from synthct.masks.blob import TISSUE_HU, place_in_tissue
from synthct.volume import Affine, Box
from synthct.volume.case import Case
from synthct.volume.regions import Region
from synthct.volume.views import VIEW_AXIS, Plane

Points = npt.NDArray[np.float64]

#: Mean angle between the segments of a stroke, and how far it may be off.
_TURN, _SPREAD = 2 * np.pi / 5, 2 * np.pi / 15

_Length = Annotated[float, Field(gt=0, le=500)]
_Number = Annotated[int, Field(ge=1, le=50)]


class FreeForm(MaskSection):
    """A box (``box_share``) or brush strokes around a random place in tissue.

    Attributes:
        view: The plane of the shape.
        box_share: Share of the boxes; the others are strokes.
        box_mm: Range of both sides of a box.
        strokes: Range of the number of strokes.
        vertices: Range of the number of bends of a stroke.
        width_mm: Range of a stroke's width.
        segment_mm: Mean length between two bends.
        frame_mm: Side of the square that the shape stays in.
        depth_mm: Extent across the slices.
        tissue_fraction: Least share of the shape above -200 HU.
        tries: Number of places that are tried.
    """

    kind: Literal["free_form"] = "free_form"
    view: Plane = "axial"
    box_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    box_mm: Annotated[tuple[_Length, _Length], Rising] = (86.0, 102.0)
    strokes: Annotated[tuple[_Number, _Number], Rising] = (1, 3)
    vertices: Annotated[tuple[_Number, _Number], Rising] = (4, 11)
    width_mm: Annotated[tuple[_Length, _Length], Rising] = (10.0, 31.0)
    segment_mm: _Length = 36.0
    frame_mm: _Length = 170.0
    depth_mm: _Length = 20.0
    tissue_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    tries: Annotated[int, Field(ge=1, le=200)] = 30

    def likely_extent_mm(self, volume_ml: float) -> float:
        """The side of the frame, whatever the volume."""
        del volume_ml
        return self.frame_mm

    def reaches_beyond(self) -> bool:
        """Always: strokes do not ask what they cross."""
        return True

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Draw places and shapes until one lies in tissue.

        Raises:
            PlacementError: If none does.
        """
        del donor
        reasons: Counter[str] = Counter()
        for attempt in range(1, self.tries + 1):
            voxel = place_in_tissue(host, rng)
            if voxel is None:
                reasons["no_tissue"] += 1
                continue
            centre = host.labels.affine[:3, :3] @ voxel + host.labels.affine[:3, 3]
            params: Params = {
                "kind": self.kind,
                "host": host.case_id,
                "centre_mm": centre.round(3).tolist(),
                "axes": _axes(host.labels.affine, self.view).round(6).tolist(),
                "depth_mm": self.depth_mm,
                "lines": list(self._lines(rng)),
                "attempt": attempt,
            }
            region, box = _solid(host, params)
            if region.any() and self._is_tissue(host, region, box):
                return params
            reasons["outside_tissue"] += 1
        raise PlacementError.after_tries(
            f"case {host.case_id}: no place for a free form",
            reasons,
            "allow a smaller frame_mm, tissue_fraction or more tries",
            tries=self.tries,
        )

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """The shape, cut off where the scan ends."""
        del donor
        check_drawn_for(params, "host", host)
        region, box = _solid(host, params)
        return make_mask(host, region, box.start_ijk, self.label, {"attempt": params["attempt"]})

    def _lines(self, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """A box as one entry, or a stroke as one each; in mm of the plane, around 0."""
        reach = self.frame_mm / 2
        if rng.random() < self.box_share:
            sides = np.minimum(rng.uniform(*self.box_mm, 2), self.frame_mm)
            yield {"half_mm": (sides / 2).round(3).tolist()}
            return
        for number in range(rng.integers(self.strokes[0], self.strokes[1] + 1)):
            half = float(rng.uniform(*self.width_mm)) / 2
            low, high = min(half - reach, 0.0), max(reach - half, 0.0)
            # The first one starts in tissue, at the centre.
            points = [rng.uniform(low, high, 2) if number else np.zeros(2)]
            for bend in range(rng.integers(self.vertices[0], self.vertices[1] + 1)):
                angle = rng.uniform(_TURN - _SPREAD, _TURN + _SPREAD)
                angle = 2 * np.pi - angle if bend % 2 == 0 else angle
                length = rng.normal(self.segment_mm, self.segment_mm / 2)
                step = np.clip(length, 0, 2 * self.segment_mm) * np.array(
                    [np.sin(angle), np.cos(angle)]
                )
                points.append(np.clip(points[-1] + step, low, high))
            yield {"width_mm": round(2 * half, 3), "points_mm": np.round(points, 3).tolist()}

    def _is_tissue(self, host: Case, region: Region, box: Box) -> bool:
        hu = host.scan().array[box.slices][region]
        return float((hu > TISSUE_HU).mean()) >= self.tissue_fraction


def _axes(affine: Affine, view: Plane) -> Points:
    """Two directions in the plane of a view and the one across it, (3, 3), orthonormal."""
    first, second = (affine[:3, axis] for axis in range(3) if axis != VIEW_AXIS[view])
    first = first / np.linalg.norm(first)
    across = np.cross(first, second)
    across /= np.linalg.norm(across)
    return np.stack([first, np.cross(across, first), across])


def _solid(host: Case, params: Params) -> tuple[Region, Box]:
    """The prism on the host's grid."""
    axes, centre = np.asarray(params["axes"]), np.asarray(params["centre_mm"])
    low, high = _bounds(params["lines"])
    depth = params["depth_mm"] / 2
    corners = np.array(np.meshgrid(*zip((*low, -depth), (*high, depth), strict=True)))
    box = box_around(centre + corners.reshape(3, -1).T @ axes, host.labels)
    box = box.clip(host.labels.shape)
    if 0 in box.shape:
        return np.zeros((1, 1, 1), dtype=bool), Box((0, 0, 0), (1, 1, 1))
    place = (voxel_centres(box, host.labels.affine) - centre) @ axes.T
    inside = np.zeros(box.shape, dtype=bool)
    for line in params["lines"]:
        if "half_mm" in line:
            inside |= (np.abs(place[..., :2]) <= line["half_mm"]).all(axis=-1)
        else:
            inside |= _distance(place[..., :2], np.asarray(line["points_mm"])) <= (
                line["width_mm"] / 2
            )
    return inside & (np.abs(place[..., 2]) <= depth), box


def _bounds(lines: list[dict[str, Any]]) -> tuple[Points, Points]:
    """The least and greatest coordinates in the plane."""
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for line in lines:
        points = np.asarray(line.get("points_mm", [[0, 0]]))
        margin = np.asarray(line.get("half_mm", line.get("width_mm", 0) / 2))
        low = np.minimum(low, points.min(axis=0) - margin)
        high = np.maximum(high, points.max(axis=0) + margin)
    return low, high


def _distance(place: Points, points: Points) -> Points:
    """Distance of places (..., 2) to a line of segments through points (N, 2)."""
    nearest = np.full(place.shape[:-1], np.inf)
    for start, stop in pairwise(points):
        way = stop - start
        share = ((place - start) @ way) / max(float(way @ way), 1e-9)
        foot = start + np.clip(share, 0, 1)[..., None] * way
        nearest = np.minimum(nearest, np.linalg.norm(place - foot, axis=-1))
    return nearest
