"""A donor's lesion as a smooth solid that can be rotated, scaled, deformed and resampled.

The lesion is a field of signed distances in mm, not voxels: between slices 5 mm apart its shape is
interpolated without steps. On each grid the deepest voxels are taken, as many as give the lesion's
volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.errors import MaskError, counted
from synthct.masks.base import voxel_centres
from synthct.masks.deform import Displacement, Velocity, flow
from synthct.masks.shape import Points, Quaternion, rotation_matrix
from synthct.volume import Affine, Box, distances_mm, shifted, voxels_within
from synthct.volume.anatomy import hull_mm, lesion_parts
from synthct.volume.case import Case
from synthct.volume.regions import Region, move

#: Margin around the lesion in which distances are computed, in units of the coarsest spacing.
MARGIN = 1.5

#: Smoothing of the distances, as a share of the coarsest spacing; hides the steps of thick slices.
SMOOTHING = 0.35

#: Radius of the ball for the opening of a lesion, as a share of the lesion's and within bounds; and
#: the least share of its volume that must remain, else the lesion is thin and stays unopened.
ARM, ARM_RANGE_MM, LEAST_BODY = 0.12, (1.5, 4.0), 0.9

#: Cells per diameter of the grid for a transformed lesion, and bounds of the cell size.
CELLS = 16
STEP_RANGE_MM = (0.75, 3.0)


@dataclass(frozen=True, eq=False)
class Lesion:
    """One connected part of a donor's label.

    Attributes:
        spline: (I, J, K) float32, cubic spline coefficients of the signed distance in mm,
            positive inside.
        affine: (4, 4), from voxels of ``spline`` to RAS+ mm of the donor.
        centre_mm: Centroid in RAS+ mm.
        corners_mm: (N, 3), corners of the lesion's convex hull, around ``centre_mm``.
        reach_mm: No voxel is farther from the centre.
        volume_ml: Volume of its voxels.
        number: 1 for the largest part of the label.
    """

    spline: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    centre_mm: Points
    corners_mm: Points
    reach_mm: float
    volume_ml: float
    number: int

    @property
    def radius_mm(self) -> float:
        """Radius of a ball of the same volume."""
        return float((self.volume_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3))

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


def find_lesion(donor: Case, label: str, number: int) -> Lesion:
    """The ``number``-th largest connected part of a donor's label; computed once per case.

    Raises:
        MaskError: If there are fewer parts, or the donor has nothing of the label.
    """
    return donor.once(("lesion", label, number), lambda: _smooth(donor, label, number))


def _smooth(donor: Case, label: str, number: int) -> Lesion:
    from scipy.ndimage import (
        binary_fill_holes,
        gaussian_filter,
        spline_filter,
    )

    numbers, counts, box = lesion_parts(donor, label)
    if not 1 <= number <= len(counts):
        raise MaskError(
            f"case {donor.case_id}: '{label}' has {counted(len(counts), 'part')} but part {number} "
            "was drawn; was its label map changed?"
        )
    tight = Box.around(numbers == number)
    assert tight is not None
    spacing = donor.labels.spacing_mm
    margin = voxels_within(MARGIN * max(spacing), donor.labels.affine)
    affine = shifted(donor.labels.affine, move(tight, box.start_ijk).grow(margin).start_ijk)
    solid = binary_fill_holes(np.pad(numbers[tight.slices] == number, [(n, n) for n in margin]))
    body = _without_arms(solid, affine)
    inner, outer = (distances_mm(r, affine) for r in (body, ~body))
    sigma = [SMOOTHING * max(spacing) / s for s in spacing]
    distance = gaussian_filter((inner - outer).astype(np.float32), sigma, mode="nearest")
    voxels = np.argwhere(solid)
    middle = voxels.mean(axis=0)
    reach = np.linalg.norm((voxels - middle) @ affine[:3, :3].T, axis=1).max()
    centre = affine[:3, :3] @ middle + affine[:3, 3]
    return Lesion(
        spline=spline_filter(distance, order=3, output=np.float32),
        affine=affine,
        centre_mm=centre,
        corners_mm=hull_mm(solid, affine) - centre,
        reach_mm=float(reach),
        volume_ml=len(voxels) * donor.labels.voxel_volume_ml,
        number=number,
    )


def _without_arms(solid: Region, affine: Affine) -> Region:
    """``solid`` opened by a ball: without the thin rims that contouring leaves along an organ."""
    volume_mm3 = np.count_nonzero(solid) * abs(float(np.linalg.det(affine[:3, :3])))
    arm_mm = float(np.clip(ARM * (volume_mm3 * 3 / (4 * np.pi)) ** (1 / 3), *ARM_RANGE_MM))
    core = distances_mm(solid, affine, reach_mm=arm_mm) > arm_mm
    if not core.any():
        return solid
    body = solid & (distances_mm(~core, affine, reach_mm=arm_mm) <= arm_mm)
    enough = np.count_nonzero(body) >= LEAST_BODY * np.count_nonzero(solid)
    return np.asarray(body if enough else solid)


@dataclass(frozen=True, eq=False)
class TransformedLesion:
    """A lesion after mirroring, scaling, rotation and deformation, around its own origin.

    Attributes:
        lesion: The donor's lesion.
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
        """Volume after scaling; the deformation keeps it."""
        return self.lesion.volume_ml * self.scale**3

    @property
    def radius_mm(self) -> float:
        """Radius of a ball of the same volume."""
        return self.lesion.radius_mm * self.scale

    @property
    def corners_mm(self) -> Points:
        """Corners (2, 3) of a box around the origin that holds the lesion, RAS+ mm."""
        corners = self.lesion.corners_mm * [-1.0 if self.mirror else 1.0, 1.0, 1.0]
        corners = self.scale * corners @ rotation_matrix(self.rotation).T
        slack = np.full(3, 2.0)
        if self.bend is not None:
            slack = slack + np.abs(self.bend.field_mm).max(axis=(0, 1, 2))
        return np.stack([corners.min(axis=0) - slack, corners.max(axis=0) + slack])

    @cached_property
    def field(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """Signed distances on a cubic grid around the origin, and the affine of that grid.

        Rotation and deformation are computed here once, so that resampling to a fine grid is one
        linear interpolation.
        """
        step_mm = float(np.clip(2 * self.radius_mm / CELLS, *STEP_RANGE_MM))
        box, affine = grid_around(self.corners_mm, step_mm)
        points = self._undo(voxel_centres(box, affine))
        return self.lesion.distance(points), shifted(affine, box.start_ijk)

    def origins(self, points_mm: Points) -> Points:
        """Donor coordinates (RAS+ mm) of points (..., 3) around the origin."""
        return self._undo(points_mm) + self.lesion.centre_mm

    def _undo(self, points_mm: Points) -> Points:
        """Points (..., 3) around the origin, mapped back to the lesion's centre in the donor."""
        if self.bend is not None:
            points_mm = self.bend.move(points_mm)
        turn = rotation_matrix(self.rotation) / self.scale
        if self.mirror:
            turn = turn * [-1.0, 1.0, 1.0]
        return np.asarray(points_mm @ turn)

    def voxels(self, box: Box, affine: npt.NDArray[np.float64]) -> Region:
        """The lesion on a grid, with its volume kept.

        Args:
            box: Voxels of the grid that contain ``corners_mm``.
            affine: (4, 4), from voxels of the grid to mm around the origin.

        Returns:
            Boolean of the box's shape: the deepest voxels, as many as give the volume.
        """
        from scipy.ndimage import affine_transform

        values, lattice = self.field
        to_lattice = np.linalg.inv(lattice) @ shifted(affine, box.start_ijk)
        distance = affine_transform(
            values, to_lattice[:3, :3], to_lattice[:3, 3], box.shape, order=1, mode="nearest"
        )
        voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
        count = min(max(1, round(self.volume_ml / voxel_ml)), distance.size)
        level = np.partition(distance.ravel(), -count)[-count]
        return np.asarray(distance >= level)


def transform_lesion(
    lesion: Lesion, params: dict[str, Any], bend: Displacement | None = None
) -> TransformedLesion:
    """Apply ``scale``, ``rotation``, ``mirror`` and ``velocity`` of a transplant."""
    w, x, y, z = params["rotation"]
    if bend is None and params["velocity"] is not None:
        velocity = Velocity.from_json(params["velocity"])
        bend = flow(velocity, lesion.reach_mm * params["scale"])
    return TransformedLesion(
        lesion, float(params["scale"]), (w, x, y, z), bool(params["mirror"]), bend
    )


def grid_around(corners_mm: Points, step_mm: float) -> tuple[Box, npt.NDArray[np.float64]]:
    """The box around ``corners_mm`` (2, 3) on a cubic grid through the origin, and its affine."""
    i, j, k = np.floor(corners_mm[0] / step_mm).astype(int).tolist()
    i2, j2, k2 = (np.ceil(corners_mm[1] / step_mm).astype(int) + 1).tolist()
    return Box((i, j, k), (i2, j2, k2)), np.diag([step_mm, step_mm, step_mm, 1.0])
