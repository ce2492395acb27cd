"""What is where: the parts of an organ, and the lesions of a label with their seat in that organ.

A lesion is a connected part of a label. It is measured in the patient's millimetres, so that the
same numbers describe it on any grid, and so that a lesion put into another patient can be measured
the same way (`exophytic_share`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from synthct.errors import MaskError
from synthct.volume import Box, Spacing, plane_spacing_mm, shifted
from synthct.volume.case import Case
from synthct.volume.regions import Region, components, move, seen_through, structure

Side = Literal["left", "right"]
Point = tuple[float, float, float]
Vector = npt.NDArray[np.float64]

#: Parts smaller than this share of the largest are specks of a label map, not organs.
LEAST_PART_SHARE = 0.1

#: Two parts whose centres are closer along left-right are not taken for a left and a right one.
PAIR_APART_MM = 30.0

#: An organ whose centre is nearer to the midline belongs to no side.
MIDLINE_MM = 10.0

#: More lesions of one label than these, the largest, are specks of a label map.
MOST_LESIONS = 32

#: So far around a lesion's centre is looked for the surface that it lies under, step by step.
DEPTH_REACH_MM = (10.0, 20.0, 40.0)


@dataclass(frozen=True)
class Seat:
    """Where in its organ a lesion lies.

    Attributes:
        side: Side of the body of that part of the organ; None in the middle.
        place: The lesion's centre along the axes of that part, see `Frame.place_of`.
        outward: Unit vector, RAS+, from there to the part's surface, see `Frame.outward`.
        exophytic_share: Share of the lesion's surface that does not border on the organ.
        depth_mm: Distance from the lesion's centre to the surface of lesion and organ together.
    """

    side: Side | None
    place: Point
    outward: Point
    exophytic_share: float
    depth_mm: float

    def seen_from(self, side: Side | None) -> Seat:
        """The seat in an organ on ``side``: mirrored where that is the other one."""
        if side is None or self.side is None or side == self.side:
            return self
        (x, y, z), (a, b, c) = self.place, self.outward
        return replace(self, side=side, place=(-x, y, z), outward=(-a, b, c))


@dataclass(frozen=True)
class LesionFacts:
    """One connected part of a label.

    Attributes:
        number: 1 for the largest part of the label.
        volume_ml: Volume of its voxels.
        diameter_mm: Greatest distance of two points of its surface.
        is_cut: Whether it touches the border of the scan, behind which it may go on.
        seat: Where it lies in the organ; None if the case has no voxel of that organ.
    """

    number: int
    volume_ml: float
    diameter_mm: float
    is_cut: bool
    seat: Seat | None

    def as_json(self) -> dict[str, Any]:
        """The numbers as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> LesionFacts:
        """The inverse of ``as_json``."""
        seat = stored["seat"]
        if seat is not None:
            (x, y, z), (a, b, c) = seat["place"], seat["outward"]
            seat = Seat(**{**seat, "place": (x, y, z), "outward": (a, b, c)})
        return cls(**{**stored, "seat": seat})


@dataclass(frozen=True, eq=False)
class Frame:
    """Centre and extent of an organ: what makes places in two patients' organs comparable.

    Attributes:
        centre_mm: Centroid, RAS+ mm.
        root_mm: (3, 3), the symmetric square root of the covariance of its points. It stretches
            along the organ's own axes and turns nothing, so there are no axes to be confused
            where two of them are alike.
    """

    centre_mm: Vector
    root_mm: Vector

    @classmethod
    def of(cls, region: Region, affine: Vector) -> Frame:
        """The frame of the true voxels of ``region``, at least one."""
        axes = [np.arange(n, dtype=np.float64) for n in region.shape]
        # Moments of voxel indices, from what the region looks like along each axis.
        views = {axis: np.count_nonzero(region, axis=axis) for axis in range(3)}
        count = float(views[0].sum())
        lines = (views[1].sum(axis=1), views[0].sum(axis=1), views[0].sum(axis=0))
        middle = np.array([x @ line for x, line in zip(axes, lines, strict=True)]) / count
        moments = np.diag([(x - m) ** 2 @ n for x, m, n in zip(axes, middle, lines, strict=True)])
        for i, j, view in ((0, 1, views[2]), (0, 2, views[1]), (1, 2, views[0])):
            moments[i, j] = moments[j, i] = (axes[i] - middle[i]) @ view @ (axes[j] - middle[j])
        turn = affine[:3, :3]
        centre = turn @ middle + affine[:3, 3]
        spread = turn @ (moments / count) @ turn.T
        # A voxel has an extent, so that even a single one has three axes.
        spread += turn @ turn.T / 12
        values, vectors = np.linalg.eigh(spread)
        return cls(centre, vectors @ np.diag(np.sqrt(values)) @ vectors.T)

    def place_of(self, points_mm: Vector) -> Vector:
        """Points (..., 3) in RAS+ mm as multiples of the organ's extent along its axes.

        The surface of an ellipsoid lies at a length of about 2.2.
        """
        return np.asarray((points_mm - self.centre_mm) @ np.linalg.inv(self.root_mm))

    def outward(self, place: Point | Vector) -> Vector:
        """Unit normal (3,), RAS+, of the ellipsoid through ``place``; zero at the centre."""
        normal = np.linalg.inv(self.root_mm) @ np.asarray(place)
        return np.asarray(normal / max(float(np.linalg.norm(normal)), 1e-9))


@dataclass(frozen=True, eq=False)
class OrganPart:
    """One connected part of an organ, such as one kidney.

    Attributes:
        region: Boolean crop of the part.
        box: Where ``region`` lies in the case, in voxels.
        affine: (4, 4), from voxels of ``region`` to RAS+ mm.
        volume_ml: Volume of its voxels.
        side: Its side of the body; None in the middle.
    """

    region: Region
    box: Box
    affine: Vector
    volume_ml: float
    side: Side | None

    @cached_property
    def frame(self) -> Frame:
        """Its centre and extent."""
        return Frame.of(self.region, self.affine)


def organ_parts(case: Case, organ: str) -> tuple[OrganPart, ...]:
    """The parts of an organ that are no specks, the largest first; worked out once per case.

    Raises:
        MaskError: If the case knows no such organ or it has no voxel.
    """
    return case.once(("organ_parts", organ), lambda: _find_parts(case, organ))


def lesions_of(case: Case, label: str, organ: str) -> tuple[LesionFacts, ...]:
    """The connected parts of ``label``, the largest first; worked out once per case.

    Only the 32 largest are described; what a label map has beyond these are specks.

    Args:
        case: The case; its image is not looked at.
        label: The structure or union whose parts are lesions.
        organ: What they lie in; a case without it has lesions without a seat.

    Raises:
        MaskError: If the case knows no such label or it has no voxel.
    """
    return case.once(("lesions", label, organ), lambda: _describe(case, label, organ))


def lesion_parts(case: Case, label: str) -> tuple[npt.NDArray[np.int32], tuple[int, ...], Box]:
    """The connected parts of a label; worked out once per case.

    Returns:
        (I, J, K) crop, 0 outside and n in the n-th part, the largest first; the voxels of each
        part; and where the crop lies in the case.

    Raises:
        MaskError: If the case knows no such label or it has no voxel.
    """

    def find() -> tuple[npt.NDArray[np.int32], tuple[int, ...], Box]:
        region, box = structure(case, [label])
        numbers, counts = components(region)
        return numbers, tuple(counts.tolist()), box

    return case.once(("lesion_parts", label), find)


def exophytic_share(lesion: Region, organ: Region, spacing_mm: Spacing) -> float:
    """Share of a lesion's surface that does not border on the organ, by area of voxel faces.

    Args:
        lesion: Boolean (I, J, K); what lies on the array's edge borders on nothing there.
        organ: Boolean (I, J, K), the organ without the lesion.
        spacing_mm: Distance in mm between planes of voxels across i, j, k.
    """
    lesion, organ = np.pad(lesion, 1), np.pad(organ, 1) & ~np.pad(lesion, 1)
    surface = contact = 0.0
    for axis in range(3):
        area = float(np.prod(spacing_mm)) / spacing_mm[axis]
        low, high = _shifted(lesion, axis)
        organ_low, organ_high = _shifted(organ, axis)
        surface += area * np.count_nonzero(low != high)
        contact += area * np.count_nonzero((low & organ_high) | (high & organ_low))
    return float(1 - contact / surface) if surface else 1.0


def hull_mm(region: Region, affine: Vector) -> Vector:
    """Corners (N, 3) in RAS+ mm of the convex hull of a region's voxel faces' centres."""
    from scipy.spatial import ConvexHull

    # Only the ends of every row can be corners of the hull.
    first, last = region.argmax(axis=2), region.shape[2] - 1 - region[:, :, ::-1].argmax(axis=2)
    i, j = np.nonzero(region.any(axis=2))
    ends = np.concatenate([np.stack([i, j, n[i, j]], axis=1) for n in (first, last)])
    faces = np.concatenate([ends + sign * step for step in np.eye(3) for sign in (-0.5, 0.5)])
    return np.asarray(faces[ConvexHull(faces).vertices] @ affine[:3, :3].T + affine[:3, 3])


def _shifted(region: Region, axis: int) -> tuple[Region, Region]:
    """Each voxel but the last along an axis, and its neighbour."""
    size = region.shape[axis]
    return region.take(range(size - 1), axis), region.take(range(1, size), axis)


def _find_parts(case: Case, organ: str) -> tuple[OrganPart, ...]:
    region, box = structure(case, [organ])
    numbers, counts = components(region)
    large = [n for n, count in enumerate(counts, start=1) if count >= LEAST_PART_SHARE * counts[0]]
    found = []
    for number in large:
        tight = Box.around(numbers == number)
        assert tight is not None
        part: Region = np.ascontiguousarray(numbers[tight.slices] == number)
        found.append((part, move(tight, box.start_ijk)))
    affine = case.labels.affine
    x_mm = [float(_middle_mm(part, shifted(affine, at.start_ijk))[0]) for part, at in found]
    midline = _midline_mm(case, x_mm)
    return tuple(
        OrganPart(
            region=part,
            box=at,
            affine=shifted(affine, at.start_ijk),
            volume_ml=int(np.count_nonzero(part)) * case.labels.voxel_volume_ml,
            side=_named_side(case, organ, part, at) or _side(x - midline),
        )
        for (part, at), x in zip(found, x_mm, strict=True)
    )


def _midline_mm(case: Case, x_mm: list[float]) -> float:
    """Left-right position of the midline: between a pair of parts, else the scan's middle."""
    if len(x_mm) > 1 and abs(x_mm[0] - x_mm[1]) > PAIR_APART_MM:
        return (x_mm[0] + x_mm[1]) / 2
    middle = (np.asarray(case.labels.shape) - 1) / 2
    return float(case.labels.affine[0, :3] @ middle + case.labels.affine[0, 3])


def _named_side(case: Case, organ: str, part: Region, box: Box) -> Side | None:
    """The side that the name of the part's structure says, as ``kidney_left`` does."""
    values, counts = np.unique(case.labels.array[box.slices][part], return_counts=True)
    most = int(values[counts.argmax()])
    names = [name for name, value in case.label_names.items() if value == most]
    words = set("_".join([organ, *names]).lower().split("_"))
    if ("left" in words) != ("right" in words):
        return "left" if "left" in words else "right"
    return None


def _side(x_mm: float) -> Side | None:
    """The side of a place so far from the midline; x grows towards the patient's right."""
    if abs(x_mm) < MIDLINE_MM:
        return None
    return "right" if x_mm > 0 else "left"


def _describe(case: Case, label: str, organ: str) -> tuple[LesionFacts, ...]:
    from scipy.spatial.distance import pdist

    numbers, counts, box = lesion_parts(case, label)
    shape, voxel_ml = case.labels.shape, case.labels.voxel_volume_ml
    try:
        parts = organ_parts(case, organ)
    except MaskError:  # a case without the organ may still lend its lesions
        parts = ()
    found = []
    some = list(zip(counts, _boxes(numbers), strict=True))[:MOST_LESIONS]
    for number, (count, place) in enumerate(some, start=1):
        lesion: Region = numbers[place.slices] == number
        at = move(place, box.start_ijk)
        found.append(
            LesionFacts(
                number=number,
                volume_ml=round(count * voxel_ml, 4),
                diameter_mm=round(float(pdist(hull_mm(lesion, case.labels.affine)).max()), 2),
                is_cut=at.grow((1, 1, 1)).clip(shape) != at.grow((1, 1, 1)),
                seat=_seat(case, lesion, at, parts, organ) if parts else None,
            )
        )
    return tuple(found)


def _boxes(numbers: npt.NDArray[np.int32]) -> list[Box]:
    """The box of each numbered part."""
    from scipy.ndimage import find_objects

    boxes = []
    for i, j, k in find_objects(numbers):
        boxes.append(Box((i.start, j.start, k.start), (i.stop, j.stop, k.stop)))
    return boxes


def _seat(case: Case, lesion: Region, box: Box, parts: tuple[OrganPart, ...], organ: str) -> Seat:
    """Where ``lesion``, a crop at ``box``, lies in the part of the organ that is nearest to it."""
    affine = case.labels.affine
    centre = _middle_mm(lesion, shifted(affine, box.start_ijk))
    around = box.grow((1, 1, 1)).clip(case.labels.shape)
    organ_here = np.isin(case.labels.array[around.slices], case.values_of(organ))
    here = seen_through(around, lesion, box)
    part = min(parts, key=lambda one: float(np.linalg.norm(one.frame.place_of(centre))))
    place = part.frame.place_of(centre)
    (x, y, z), (a, b, c) = place.round(4).tolist(), part.frame.outward(place).round(4).tolist()
    return Seat(
        side=part.side,
        place=(x, y, z),
        outward=(a, b, c),
        exophytic_share=round(exophytic_share(here, organ_here, plane_spacing_mm(affine)), 4),
        depth_mm=round(_depth_mm(case, organ, lesion, box, centre), 2),
    )


def _middle_mm(region: Region, affine: Vector) -> Vector:
    """Centroid of the true voxels, RAS+ mm."""
    middle = [
        np.average(np.arange(n), weights=np.count_nonzero(region, axis=_other_axes(axis)))
        for axis, n in enumerate(region.shape)
    ]
    return np.asarray(affine[:3, :3] @ middle + affine[:3, 3])


def _other_axes(axis: int) -> tuple[int, int]:
    a, b = (n for n in range(3) if n != axis)
    return a, b


def _depth_mm(case: Case, organ: str, lesion: Region, box: Box, centre_mm: Vector) -> float:
    """Distance from a lesion's centre to the nearest voxel of neither lesion nor organ."""
    affine = case.labels.affine
    voxel = np.linalg.inv(affine)[:3] @ np.append(centre_mm, 1.0)
    depth_mm = 0.0
    for reach_mm in DEPTH_REACH_MM:
        steps = reach_mm / np.asarray(plane_spacing_mm(affine))
        (i, j, k), (i2, j2, k2) = np.floor(voxel - steps), np.ceil(voxel + steps) + 1
        window = Box((int(i), int(j), int(k)), (int(i2), int(j2), int(k2)))
        window = window.clip(case.labels.shape)
        solid = np.isin(case.labels.array[window.slices], case.values_of(organ))
        solid |= seen_through(window, lesion, box)
        away = (np.argwhere(~solid) + window.start_ijk - voxel) @ affine[:3, :3].T
        depth_mm = float(np.sqrt(np.square(away).sum(axis=1).min(initial=reach_mm**2)))
        if depth_mm < reach_mm:
            break
    return depth_mm
