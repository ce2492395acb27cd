"""Volumes: an array that never travels without its affine.

Crops, pastes and brings scans into closest-canonical (RAS+)
orientation. Knows nothing of files, HU windows, labels or masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.volume.grid import (
    Affine,
    Box,
    Index3,
    Spacing,
    corner_distance_mm,
    same_grid,
    shifted,
    spacing_of,
)

Array = npt.NDArray[Any]

#: Paddings of -2048 and -3024 and values above 3071 occur in real files; both are outside of HU.
HU_MIN, HU_MAX = -1024, 3071


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D array and where it lies in the patient.

    Attributes:
        array: (I, J, K); int16 HU, an integer label map, or a boolean region. Treat as read-only.
        affine: (4, 4) float64, from voxel index (i, j, k, 1) to RAS+ millimetres.

    Example:
        >>> ct = synthct.Volume(np.zeros((4, 5, 6), np.int16), np.diag([0.8, 0.8, 2.5, 1]))
        >>> ct.spacing_mm, ct.orientation
        ((0.8, 0.8, 2.5), 'RAS')
    """

    array: Array
    affine: Affine

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise ValueError(f"a Volume has three axes, not shape {self.array.shape}")
        if self.affine.shape != (4, 4):
            raise ValueError(f"an affine is (4, 4), not {self.affine.shape}")

    @property
    def shape(self) -> Index3:
        """Number of voxels along i, j, k."""
        i, j, k = self.array.shape
        return i, j, k

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size in mm along i, j, k."""
        return spacing_of(self.affine)

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        """RAS+ position of the centre of voxel (0, 0, 0) in mm."""
        x, y, z = self.affine[:3, 3]
        return float(x), float(y), float(z)

    @property
    def orientation(self) -> str:
        """The patient direction in which i, j and k increase, such as ``RAS``."""
        from nibabel.orientations import aff2axcodes

        return "".join(aff2axcodes(self.affine))

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in ml."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def has_grid_of(self, other: Volume) -> bool:
        """Whether both have the same shape and lie within a twentieth of a voxel."""
        return self.shape == other.shape and same_grid(self.shape, self.affine, other.affine)

    def grid_difference(self, other: Volume) -> str:
        """How two grids differ, for a message: the shapes and, if equal, the distance in mm."""
        shapes = f"{self.shape}, not {other.shape}"
        if self.shape != other.shape:
            return shapes
        distance = corner_distance_mm(self.shape, self.affine, other.affine)
        return f"{shapes}, {distance:.2f} mm away"

    def crop(self, box: Box) -> Volume:
        """The voxels inside ``box``; the origin moves by whole voxels.

        Raises:
            ValueError: If the box is empty or leaves the volume.
        """
        if 0 in box.shape or box.clip(self.shape) != box:
            raise ValueError(f"box {box.start_ijk}..{box.stop_ijk} leaves the volume {self.shape}")
        return Volume(self.array[box.slices], shifted(self.affine, box.start_ijk))

    def slab(self, axis: int, index: int) -> Volume:
        """The slice ``index`` along ``axis``, one voxel thick; a view, not a copy.

        Raises:
            ValueError: If the volume has no such slice.
        """
        return self.crop(Box.whole(self.shape).slab(axis, index))

    def paste(self, values: Array, *, where: npt.NDArray[np.bool_]) -> Volume:
        """A copy in which the voxels of ``where`` hold ``values``; all others stay bit-identical.

        Args:
            values: (I, J, K), of any real type; rounded and cast to this volume's type.
            where: Boolean (I, J, K).

        Raises:
            ValueError: If a shape differs, ``where`` is not boolean or a value overflows the type.
        """
        if values.shape != self.shape or where.shape != self.shape:
            raise ValueError(f"cannot paste {values.shape} where {where.shape} into {self.shape}")
        if where.dtype != bool:
            raise ValueError(f"where is {where.dtype}, not boolean")
        new = values[where]
        if np.issubdtype(self.array.dtype, np.integer):
            limits = np.iinfo(self.array.dtype)
            new = np.rint(new) if np.issubdtype(new.dtype, np.floating) else new
            if new.size and not (limits.min <= new.min() and new.max() <= limits.max):
                raise ValueError(f"values {new.min()}..{new.max()} overflow {self.array.dtype}")
        out = self.array.copy()
        out[where] = new.astype(self.array.dtype)
        return Volume(out, self.affine)


def canonical(volume: Volume) -> Volume:
    """Flip and permute axes so that i, j, k run closest to right, anterior, superior.

    Only whole axes move, so no voxel value changes and the step can be reversed.
    """
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    ornt = io_orientation(volume.affine)
    array = np.ascontiguousarray(apply_orientation(volume.array, ornt))
    return Volume(array, volume.affine @ inv_ornt_aff(ornt, volume.shape))


def restore_orientation(volume: Volume, like_affine: Affine) -> Volume:
    """Undo ``canonical``: bring a volume back to the axes and directions of ``like_affine``."""
    from nibabel.orientations import (
        apply_orientation,
        inv_ornt_aff,
        io_orientation,
        ornt_transform,
    )

    ornt = ornt_transform(io_orientation(volume.affine), io_orientation(like_affine))
    array = np.ascontiguousarray(apply_orientation(volume.array, ornt))
    return Volume(array, volume.affine @ inv_ornt_aff(ornt, volume.shape))
