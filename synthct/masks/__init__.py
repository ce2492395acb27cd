"""Masks: where the model paints. One file per kind; a new kind adds its name to `MaskKind`."""

from typing import Annotated

from pydantic import Field

from synthct.masks.base import (
    LabelPolicy,
    Mask,
    MaskSection,
    Params,
    PlacementError,
    SeveralSlices,
    SliceRule,
    voxel_centres,
)
from synthct.masks.blob import Blob
from synthct.masks.box import BoxMask
from synthct.masks.ellipsoid import Ellipsoid
from synthct.masks.organ import Organ
from synthct.masks.own import Own
from synthct.masks.removal import Removal
from synthct.masks.slicing import (
    draw_slices,
    on_slice,
    paint_labels,
    slice_of,
)
from synthct.masks.transplant import Transplant

MaskKind = Annotated[
    Organ | BoxMask | Transplant | Ellipsoid | Removal | Blob | Own, Field(discriminator="kind")
]

__all__ = [
    "Blob",
    "BoxMask",
    "Ellipsoid",
    "LabelPolicy",
    "Mask",
    "MaskKind",
    "MaskSection",
    "Organ",
    "Own",
    "Params",
    "PlacementError",
    "Removal",
    "SeveralSlices",
    "SliceRule",
    "Transplant",
    "draw_slices",
    "on_slice",
    "paint_labels",
    "slice_of",
    "voxel_centres",
]
