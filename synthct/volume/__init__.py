"""Volumes: arrays with their affine, and the strict reading and writing of NIfTI files."""

from synthct.volume.grid import (
    GRID_TOLERANCE_MM,
    Affine,
    Box,
    Index3,
    Spacing,
    corner_distance_mm,
    shifted,
    spacing_of,
)
from synthct.volume.nifti import (
    CtReading,
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
    "GRID_TOLERANCE_MM",
    "HU_MAX",
    "HU_MIN",
    "Affine",
    "Array",
    "Box",
    "CtReading",
    "Index3",
    "Spacing",
    "Volume",
    "canonical",
    "corner_distance_mm",
    "nifti_bytes",
    "read_ct",
    "read_ct_counting",
    "read_labels",
    "restore_orientation",
    "shifted",
    "spacing_of",
    "write_volume",
]
