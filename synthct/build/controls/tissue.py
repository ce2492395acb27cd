"""Which voxels of a scan tell a control what tissue looks like, and their HU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from synthct.errors import MaskError
from synthct.masks.base import Mask
from synthct.volume import Box, distances_mm, voxels_within
from synthct.volume.case import Case
from synthct.volume.regions import Region, seen_through, structure
from synthct.volume.views import VIEW_AXIS, Plane

#: Fewer voxels say nothing of a tissue.
LEAST_VOXELS = 200

#: HU of kidneys and kidney tumours without contrast medium (Pooler et al., AJR 2012: regions of
#: 193 carcinomas measure from 28 to 40 on average), and of an organ that is surely enhanced.
UNENHANCED_HU, ENHANCED_HU = 35.0, 60.0

#: A lesion is at most so many times as enhanced as it was.
MOST_ENHANCED = 4.0

#: Tissue around a mask: so near to it.
SHELL_MM = 8.0


def median_hu(case: Case, label: str) -> float | None:
    """Median HU of a structure; None if the case has no image or too little of the structure."""
    found = _structure(case, label)
    if case.ct is None or found is None:
        return None
    region, box = found
    return float(np.median(case.ct.array[box.slices][region]))


def shift_hu(level: float, own: float | None, other: float | None) -> float | None:
    """What is to be added to a lesion's HU where its organ is differently enhanced.

    So much that the lesion is enhanced as it was, relative to the organ. (The plain difference of
    the organs would turn a tumour of a contrast scan into fat in a plain one.) What is not above
    unenhanced tissue, such as a cyst, takes up nothing and stays as it is.

    Args:
        level: Median of the lesion.
        own: Median of the organ that it is put into.
        other: Median of the organ that it comes from.

    Returns:
        HU; None where the enhancement cannot be compared, and nothing is to be added.
    """
    if own is None or other is None or other < ENHANCED_HU:
        return None
    ratio = float(np.clip((own - UNENHANCED_HU) / (other - UNENHANCED_HU), 0, MOST_ENHANCED))
    return round(max(level - UNENHANCED_HU, 0.0) * (ratio - 1), 2) + 0.0  # no negative zero


def tissue_of(host: Case, label: str, mask: Mask, view: Plane) -> tuple[Region, Box] | None:
    """Voxels of a structure that show it best: not masked, and not at its edge, if that leaves any.

    Args:
        host: The case.
        label: The structure.
        mask: The 3D mask.
        view: The plane in which edges are left out.

    Returns:
        Boolean crop (I, J, K) and its box; None if the host has too little of the structure.
    """
    found = _structure(host, label)
    if found is None:
        return None
    region, box = found
    for candidate in _candidates(region, seen_through(box, mask.region.array, mask.box), view):
        if np.count_nonzero(candidate) >= LEAST_VOXELS:
            return candidate, box
    return region, box


def tissue_around(host: Case, mask: Mask) -> tuple[Region, Box]:
    """Voxels of the scan within 8 mm of the mask.

    Returns:
        Boolean crop (I, J, K) and its box.

    Raises:
        MaskError: If the mask leaves nothing of the scan.
    """
    affine = host.labels.affine
    wide = mask.box.grow(voxels_within(SHELL_MM, affine)).clip(host.labels.shape)
    masked = seen_through(wide, mask.region.array, mask.box)
    near = ~masked & (distances_mm(~masked, affine, reach_mm=SHELL_MM) <= SHELL_MM)
    if not near.any():
        raise MaskError(f"case {host.case_id}: the mask leaves no tissue around it to measure")
    return near, wide


def _structure(case: Case, label: str) -> tuple[Region, Box] | None:
    try:
        region, box = structure(case, [label])
    except MaskError:
        return None
    return (region, box) if np.count_nonzero(region) >= LEAST_VOXELS else None


def _candidates(
    region: Region, masked: npt.NDArray[np.bool_], view: Plane
) -> Iterator[npt.NDArray[np.bool_]]:
    from scipy.ndimage import binary_erosion

    cross = np.zeros((3, 3, 3), dtype=bool)
    for axis in range(3):
        if axis != VIEW_AXIS[view]:
            cross[tuple(slice(None) if a == axis else 1 for a in range(3))] = True
    inner = binary_erosion(region, cross)
    yield inner & ~masked
    yield region & ~masked
    yield inner
