"""Volumes: arrays with their affine, and the strict reading and writing of NIfTI files."""

from synthct.volume.distance import (
    distances_mm,
    is_sheared,
    nearest_outside,
    plane_spacing_mm,
    voxels_within,
)
from synthct.volume.grid import (
    GRID_TOLERANCE,
    Affine,
    Box,
    Index3,
    Spacing,
    corner_distance_mm,
    same_grid,
    shifted,
    spacing_of,
    start_within,
)
from synthct.volume.nifti import (
    CtReading,
    LabelReading,
    nifti_bytes,
    read_ct,
    read_ct_counting,
    read_labels,
    write_volume,
)
from synthct.volume.volume import (
    HU_MAX,
    HU_MIN,
    Array,
    Volume,
    canonical,
    restore_orientation,
)

__all__ = [
    "GRID_TOLERANCE",
    "HU_MAX",
    "HU_MIN",
    "Affine",
    "Array",
    "Box",
    "CtReading",
    "Index3",
    "LabelReading",
    "Spacing",
    "Volume",
    "canonical",
    "corner_distance_mm",
    "distances_mm",
    "is_sheared",
    "nearest_outside",
    "nifti_bytes",
    "plane_spacing_mm",
    "read_ct",
    "read_ct_counting",
    "read_labels",
    "restore_orientation",
    "same_grid",
    "shifted",
    "spacing_of",
    "start_within",
    "voxels_within",
    "write_volume",
]
