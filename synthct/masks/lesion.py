"""A donor's lesion as a smooth solid that can be turned, scaled, bent and cut from any grid.

The lesion is held as signed distances in mm, not as voxels: between slices 5 mm apart its shape
is interpolated instead of stepping, and on every grid exactly so many of the deepest voxels are
taken that the lesion keeps its volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.case import Case
from synthct.errors import MaskError
from synthct.masks.base import Region, components, structure, voxel_centres
from synthct.masks.deform import Displacement, Velocity, flow
from synthct.masks.shape import Points, Quaternion, rotation_matrix
from synthct.volume import Box

#: Voxels of margin around the lesion within which its distances are known.
MARGIN_VOXELS = (4, 4, 2)

#: Smoothing of the distances, as a share of the coarsest spacing; hides the steps of thick slices.
SMOOTHING = 0.35


@dataclass(frozen=True, eq=False)
class Lesion:
    """One connected part of a donor's label.

    Attributes:
        spline: (I, J, K) float32, cubic spline coefficients of the signed distance in mm,
            positive inside.
        affine: (4, 4), from voxels of ``spline`` to RAS+ mm of the donor.
        centre_mm: Centroid in RAS+ mm.
        corners_mm: (8, 3), corners of the lesion's box around ``centre_mm``.
        volume_ml: Volume of its voxels.
        part: 1 for the largest part of the label.
    """

    spline: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    centre_mm: Points
    corners_mm: Points
    volume_ml: float
    part: int

    @property
    def radius_mm(self) -> float:
        """Radius of a ball of the same volume."""
        return float((self.volume_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3))

    @property
    def reach_mm(self) -> float:
        """Somewhat more than the distance from the centre to the farthest corner of the box."""
        return 1.25 * float(np.linalg.norm(self.corners_mm, axis=1).max())

    def distance(self, points_mm: Points) -> npt.NDArray[np.float32]:
        """Signed distance (...) in mm at points (..., 3) around the centre; positive inside."""
        from scipy.ndimage import map_coordinates

        inverse = np.linalg.inv(self.affine)
        places = points_mm @ inverse[:3, :3].T
        places += inverse[:3, :3] @ self.centre_mm + inverse[:3, 3]
        np.clip(places, 0, np.asarray(self.spline.shape) - 1, out=places)
        return np.asarray(
            map_coordinates(
                self.spline, np.moveaxis(places, -1, 0), order=3, mode="mirror", prefilter=False
            )
        )


def find_parts(donor: Case, label: str) -> list[tuple[int, float]]:
    """The connected parts of a donor's label that its field of view does not cut.

    Returns:
        Number (1 for the largest) and volume in ml of each, largest first.

    Raises:
        MaskError: If there is none.
    """
    region, box = structure(donor, [label])
    parts, counts = components(region)
    cut = _numbers_at_border(parts, box, donor)
    volume = donor.labels.voxel_volume_ml
    found = [(n, int(c) * volume) for n, c in enumerate(counts, start=1) if n not in cut]
    if not found:
        raise MaskError(
            f"case {donor.case_id}: every part of '{label}' is cut by the field of view; "
            "choose another donor"
        )
    return found


def take_lesion(donor: Case, label: str, part: int) -> Lesion:
    """The ``part``-th largest connected part of a donor's label.

    Raises:
        MaskError: If the label has fewer parts.
    """
    from scipy.ndimage import (
        binary_fill_holes,
        distance_transform_edt,
        gaussian_filter,
        spline_filter,
    )

    region, box = structure(donor, [label])
    parts, counts = components(region)
    if not 1 <= part <= len(counts):
        raise MaskError(
            f"case {donor.case_id}: '{label}' has {len(counts)} parts but part {part} was asked "
            "for; was the label map changed since the parameters were drawn?"
        )
    tight = Box.around(parts == part)
    assert tight is not None
    solid: Region = binary_fill_holes(parts[tight.slices] == part)
    outer = tight.grow(MARGIN_VOXELS)
    start = [a + b for a, b in zip(outer.start_ijk, box.start_ijk, strict=True)]
    affine = donor.labels.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    spacing = donor.labels.spacing_mm
    padded = np.pad(solid, [(n, n) for n in MARGIN_VOXELS])
    distance = distance_transform_edt(padded, spacing) - distance_transform_edt(~padded, spacing)
    sigma_mm = SMOOTHING * max(spacing)
    distance = gaussian_filter(distance, [sigma_mm / s for s in spacing], mode="nearest")
    centre = affine[:3, :3] @ np.argwhere(padded).mean(axis=0) + affine[:3, 3]
    ends = np.array(
        [[m - 0.5, m + n - 0.5] for m, n in zip(MARGIN_VOXELS, solid.shape, strict=True)]
    )
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    return Lesion(
        spline=spline_filter(distance.astype(np.float32), order=3, output=np.float32),
        affine=affine,
        centre_mm=centre,
        corners_mm=corners @ affine[:3, :3].T + affine[:3, 3] - centre,
        volume_ml=int(np.count_nonzero(solid)) * donor.labels.voxel_volume_ml,
        part=part,
    )


@dataclass(frozen=True, eq=False)
class Carried:
    """A lesion on its way: mirrored, scaled, turned and bent, around an origin of its own.

    Attributes:
        lesion: Where it comes from.
        scale: Linear scale.
        rotation: Quaternion, from the donor's RAS+ to the host's.
        mirror: Whether left and right are exchanged first.
        bend: The elastic part, applied last; None for a rigid lesion.
    """

    lesion: Lesion
    scale: float
    rotation: Quaternion
    mirror: bool
    bend: Displacement | None

    @property
    def volume_ml(self) -> float:
        """Volume after scaling; bending changes the shape and keeps the volume."""
        return self.lesion.volume_ml * self.scale**3

    @property
    def corners_mm(self) -> Points:
        """Corners (2, 3) of a box around the origin that holds the lesion, RAS+ mm."""
        corners = self.lesion.corners_mm * [-1.0 if self.mirror else 1.0, 1.0, 1.0]
        corners = self.scale * corners @ rotation_matrix(self.rotation).T
        slack = 2.0 if self.bend is None else 2.0 + float(np.abs(self.bend.field_mm).max())
        return np.stack([corners.min(axis=0) - slack, corners.max(axis=0) + slack])

    def distance(self, points_mm: Points) -> npt.NDArray[np.float32]:
        """Signed distance (...) at points (..., 3) around the origin; positive inside."""
        if self.bend is not None:
            points_mm = self.bend.move(points_mm)
        turn = rotation_matrix(self.rotation) / self.scale
        if self.mirror:
            turn = turn * [-1.0, 1.0, 1.0]
        return self.lesion.distance(points_mm @ turn)

    def voxels(self, points_mm: Points, voxel_volume_ml: float) -> Region:
        """The lesion on a grid, with its volume kept.

        Args:
            points_mm: Voxel centres (I, J, K, 3) around the origin; they hold ``corners_mm``.
            voxel_volume_ml: Volume of one voxel.

        Returns:
            Boolean (I, J, K): the deepest voxels, as many as make up the volume.
        """
        distance = self.distance(points_mm)
        wanted = max(1, round(self.volume_ml / voxel_volume_ml))
        wanted = min(wanted, distance.size)
        level = np.partition(distance.ravel(), distance.size - wanted)[distance.size - wanted]
        return np.asarray(distance >= level)


def carry(lesion: Lesion, params: dict[str, Any]) -> Carried:
    """The lesion as the ``scale``, ``rotation``, ``mirror`` and ``velocity`` of ``params`` say."""
    w, x, y, z = params["rotation"]
    bend = None
    if params["velocity"] is not None:
        reach_mm = lesion.reach_mm * params["scale"]
        bend = flow(Velocity.from_json(params["velocity"]), reach_mm)
    return Carried(lesion, float(params["scale"]), (w, x, y, z), bool(params["mirror"]), bend)


def grid_around(
    corners_mm: Points, step_mm: float
) -> tuple[Points, tuple[int, int, int], Sequence[int]]:
    """A cubic grid over the box of ``corners_mm`` that has a point at the origin.

    Returns:
        Points (X, Y, Z, 3) in mm, its shape, and the index of the origin.
    """
    low = np.floor(corners_mm[0] / step_mm).astype(int)
    high = np.ceil(corners_mm[1] / step_mm).astype(int)
    x, y, z = (int(n) for n in high - low + 1)
    affine = np.diag([step_mm, step_mm, step_mm, 1.0])
    affine[:3, 3] = low * step_mm
    box = Box((0, 0, 0), (x, y, z))
    return voxel_centres(box, affine), box.shape, (-low).tolist()


def _numbers_at_border(parts: npt.NDArray[np.int32], box: Box, donor: Case) -> set[int]:
    """Numbers of the parts that touch the edge of the scan."""
    cut: set[int] = set()
    for axis in range(3):
        if box.start_ijk[axis] == 0:
            cut |= set(np.unique(parts.take(0, axis=axis)).tolist())
        if box.stop_ijk[axis] == donor.labels.shape[axis]:
            cut |= set(np.unique(parts.take(-1, axis=axis)).tolist())
    return cut
