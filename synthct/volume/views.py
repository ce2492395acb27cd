"""Slices as pictures the way radiologists show them, and back to voxels.

A sample of view ``volume`` is stored as its voxels, so here it is its own picture.

A canonical (RAS+) slice becomes a picture by one rule for all views: transpose, then flip both
axes. So rows run to posterior (axial) or inferior (coronal, sagittal), columns run to the
patient's left (axial, coronal) or posterior (sagittal): anterior or superior is up, and the
patient's right, or front, is on the left of the picture. The rule is its own inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from synthct.volume import Affine, Array

#: The planes of slices.
Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
#: What a sample shows: a slice, or the whole mask in 3D.
View = Literal["axial", "coronal", "sagittal", "volume"]

#: Axis of a canonical array along which the slices of a plane are stacked.
VIEW_AXIS: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}

#: Another plane than the axial one is a volume's own where its slices are farther apart than this.
_COARSER = 1.01

#: Value of voxels in a label map whose structure is unknown.
IGNORE = 255

#: Voxel axes that become (row, column, slice) of the picture.
PICTURE_AXES: dict[Plane, tuple[int, int, int]] = {
    "axial": (1, 0, 2),
    "coronal": (2, 0, 1),
    "sagittal": (2, 1, 0),
}


def plane_of(view: View, spacing_mm: Sequence[float]) -> Plane:
    """The plane of the slices that a sample has, or that a volume is painted and measured in.

    A volume is taken slice by slice along the axis with the largest voxels, axial where none is
    larger.

    Args:
        view: Of the sample.
        spacing_mm: Voxel size along i, j, k.
    """
    if view != "volume":
        return view
    i, j, k = spacing_mm
    coarsest = max(i, j)
    if coarsest <= k * _COARSER:
        return "axial"
    return "sagittal" if i > j else "coronal"


def to_picture(array: Array, view: View) -> Array:
    """A slice of canonical voxels as a picture.

    Args:
        array: (I, J, K), one voxel thick along the view's axis.
        view: The plane of the slice; ``volume`` for voxels that stay as they are.

    Returns:
        (rows, columns) or, of a volume, (I, J, K); C-contiguous, of the same type.
    """
    if view == "volume":
        return np.ascontiguousarray(array)
    *_, through = PICTURE_AXES[view]
    if array.ndim != 3 or array.shape[through] != 1:
        raise ValueError(f"a slice in {view} view cannot have the shape {array.shape}")
    return np.ascontiguousarray(array.squeeze(through).T[::-1, ::-1])


def from_picture(picture: npt.NDArray[Any], view: View) -> Array:
    """The canonical voxels (I, J, K), one thick along the view's axis, of a picture."""
    if view == "volume":
        return picture
    *_, through = PICTURE_AXES[view]
    return np.ascontiguousarray(np.expand_dims(picture[::-1, ::-1].T, through))


def picture_affine(affine: Affine, shape: tuple[int, int, int], view: View) -> Affine:
    """The affine of the picture: (row, column, 0, 1) to RAS+ millimetres.

    Args:
        affine: (4, 4), of the one-voxel-thick canonical volume.
        shape: (I, J, K) of that volume.
        view: The plane of the slice.

    Returns:
        (4, 4) float64; its columns run along rows, columns and the slice's normal, so
        ``picture[:, :, None]`` with this affine is a valid volume.
    """
    if view == "volume":
        return affine + 0.0
    row, column, through = PICTURE_AXES[view]
    out = np.eye(4)
    out[:3, 0] = -affine[:3, row]
    out[:3, 1] = -affine[:3, column]
    out[:3, 2] = affine[:3, through]
    first = np.zeros(3)
    first[row], first[column] = shape[row] - 1, shape[column] - 1
    out[:3, 3] = affine[:3, :3] @ first + affine[:3, 3]
    return out + 0.0  # no negative zeros, which would change a digest but not a number


def volume_affine(affine: Affine, shape: Sequence[int], view: View) -> Affine:
    """The affine of the canonical voxels of a picture: the inverse of ``picture_affine``.

    Args:
        affine: (4, 4), of the picture.
        shape: Its (rows, columns).
        view: The plane of the slice.

    Returns:
        (4, 4) float64, from voxel index (i, j, k, 1) of ``from_picture`` to RAS+ millimetres.
    """
    if view == "volume":
        return affine
    row, column, through = PICTURE_AXES[view]
    out = np.eye(4)
    out[:3, row] = -affine[:3, 0]
    out[:3, column] = -affine[:3, 1]
    out[:3, through] = affine[:3, 2]
    last = np.array([shape[0] - 1, shape[1] - 1, 0])
    out[:3, 3] = affine[:3, :3] @ last + affine[:3, 3]
    return out + 0.0
