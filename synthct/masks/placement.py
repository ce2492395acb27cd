"""A transformed lesion on the host's own voxels: clipped, measured, and checked against all limits.

The check does not rely on the search of ``place``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from synthct.masks.accept import FIELD_OF_VIEW, OBSTACLES, Reason
from synthct.masks.base import box_around
from synthct.masks.lesion import TransformedLesion
from synthct.masks.organ_site import OrganSite
from synthct.masks.shape import Points
from synthct.volume import Box, plane_spacing_mm
from synthct.volume.anatomy import exophytic_share
from synthct.volume.regions import Region, largest_part

#: Least share of a lesion's voxels that must be connected; on a coarse grid it may tear.
LEAST_CONNECTED = 0.95


@dataclass(frozen=True, eq=False)
class Placement:
    """A lesion on the host's voxels, and its measurements.

    Attributes:
        region: Boolean (I, J, K) after clipping.
        box: Where it lies in the host, in voxels.
        facts: Measured numbers that ``accept`` limits, and others.
        reason: The limit that is broken; None for an accepted lesion.
    """

    region: Region
    box: Box
    facts: dict[str, Any]
    reason: Reason | None


def check_placement(
    site: OrganSite, transformed: TransformedLesion, origin_mm: Points
) -> Placement:
    """Put a lesion's origin at ``origin_mm`` (RAS+), clip it at obstacles, and check all limits."""
    host, accept = site.host, site.accept
    low, high = transformed.corners_mm
    ends = np.stack(np.meshgrid(*np.stack([low, high]).T, indexing="ij"), axis=-1)
    box = box_around(ends.reshape(-1, 3) + origin_mm, host.labels).grow((1, 1, 1))
    affine = host.labels.affine.copy()
    affine[:3, 3] -= origin_mm
    region = largest_part(transformed.voxels(box, affine))
    field = site.around(box)
    voxel_ml = host.labels.voxel_volume_ml
    whole = int(np.count_nonzero(region))
    hits = np.bincount(field.codes[region], minlength=len(OBSTACLES))[1:]
    if hits.any():
        region = _clipped(region, field.codes > 0, int(np.argmax(host.labels.spacing_mm)))
    count = int(np.count_nonzero(region))
    inside = int(np.count_nonzero(region & field.part))
    soft = int(np.count_nonzero(region & field.soft))
    tight = Box.around(region) or Box((0, 0, 0), (1, 1, 1))
    middle = np.argwhere(region).mean(axis=0) if count else np.zeros(3)
    centre_mm = affine[:3, :3] @ (middle + box.start_ijk) + host.labels.affine[:3, 3]
    size_ml = count * voxel_ml
    facts = {
        "inside_fraction": round(inside / max(count, 1), 4),
        "organ_fraction": round(size_ml / site.part.volume_ml, 4),
        "clipped_fraction": round(1 - count / whole, 4),
        "soft_tissue_fraction": round(soft / max(count, 1), 4),
        "exophytic_share": round(
            exophytic_share(region, field.organ, plane_spacing_mm(host.labels.affine)), 4
        ),
        "place": site.part.frame.place_of(centre_mm).round(3).tolist(),
        "slices": list(tight.shape),
        "jacobian_min": 1.0
        if transformed.bend is None
        else round(transformed.bend.jacobian_min, 4),
        "jacobian_max": 1.0
        if transformed.bend is None
        else round(transformed.bend.jacobian_max, 4),
    }
    worst: Reason = OBSTACLES[int(hits[1:].argmax()) + 2]  # type: ignore[assignment]  # not free
    limits: dict[Reason, bool] = {
        "folded": transformed.bend is not None and transformed.bend.jacobian_min <= 0,
        "torn": whole < LEAST_CONNECTED * round(transformed.volume_ml / voxel_ml),
        "field_of_view": bool(hits[FIELD_OF_VIEW - 1]),
        worst: count < (1 - accept.clipped_fraction) * whole,
        "organ_fraction": size_ml > accept.organ_fraction * site.part.volume_ml,
        "too_small": size_ml < accept.min_volume_ml or min(tight.shape) < accept.min_slices,
        "inside_fraction": inside < accept.inside_fraction * count,
        "centre_outside": not field.part[tuple(middle.round().astype(int))],
        "soft_tissue": soft > accept.soft_tissue_fraction * count,
    }
    reason = next((name for name, broken in limits.items() if broken), None)
    return Placement(region, box, facts, reason)


def _clipped(region: Region, obstacle: Region, coarse_axis: int) -> Region:
    """``region`` without the obstacles: one part with a smooth edge and no holes."""
    from scipy.ndimage import (
        binary_closing,
        binary_fill_holes,
        binary_opening,
        generate_binary_structure,
    )

    # Within slices only: across thick slices an opening would remove lesions two slices high.
    cross = generate_binary_structure(3, 1)
    cross[tuple(slice(None) if a != coarse_axis else slice(0, 3, 2) for a in range(3))] = False
    # Closed first: specks of noise merge into one obstacle with one edge.
    wall = binary_closing(np.pad(obstacle, 1), cross)[1:-1, 1:-1, 1:-1] | obstacle
    kept = largest_part(binary_opening(region & ~wall, cross))
    return largest_part(binary_fill_holes(kept) & ~obstacle)
