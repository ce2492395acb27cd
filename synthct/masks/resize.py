"""A lesion larger or smaller in its place, as it grows or answers to treatment."""

from __future__ import annotations

import numpy as np

from synthct.errors import MaskError
from synthct.masks.base import Mask
from synthct.volume import Box, Volume, distances_mm, shifted
from synthct.volume.case import Case
from synthct.volume.distance import voxels_within
from synthct.volume.regions import Region

#: A mask in soft tissue does not grow into voxels below, such as air.
_LEAST_HU = -300


def resized(mask: Mask, host: Case, volume_factor: float) -> Mask:
    """A mask with another volume around the same core.

    Its surface moves by the same distance everywhere, but not into air, nor into a structure of the
    label map that the mask does not touch: masks of rising factors contain each other.

    Args:
        mask: The drawn mask.
        host: The case that is painted into.
        volume_factor: Voxels afterwards by voxels before.

    Raises:
        MaskError: If nothing is left of it, or there is too little room to grow.
    """
    wanted = round(int(np.count_nonzero(mask.region.array)) * volume_factor)
    if volume_factor == 1:
        return mask
    spacing = mask.region.spacing_mm
    extent_mm = max(n * s for n, s in zip(mask.box.shape, spacing, strict=True))
    reach_mm = max(2 * max(spacing), extent_mm * (max(volume_factor, 1.0) ** (1 / 3) - 0.5))
    affine = mask.region.affine
    wide = mask.box.grow(voxels_within(reach_mm, affine)).clip(host.labels.shape)
    region = np.zeros(wide.shape, dtype=bool)
    region[mask.box.shift([-n for n in wide.start_ijk]).slices] = mask.region.array
    allowed = region | _free(mask, host, wide)
    if not 0 < wanted <= np.count_nonzero(allowed):
        raise MaskError(
            f"case {host.case_id}: a mask of {mask.volume_ml:.3g} ml cannot have "
            f"{volume_factor:g} times its volume here; choose another volume_factor"
        )
    at = shifted(host.labels.affine, wide.start_ijk)
    padded = np.pad(region, 1)  # beyond the scan there is nothing of the mask
    depth = (distances_mm(padded, at) - distances_mm(~padded, at))[1:-1, 1:-1, 1:-1]
    order = np.argsort(-np.where(allowed, depth, -np.inf), axis=None, kind="stable")
    grown = np.zeros(wide.shape, dtype=bool)
    grown.flat[order[:wanted]] = True
    values = None
    if mask.values is not None:
        values = np.full(wide.shape, np.bincount(mask.values[mask.region.array]).argmax())
        values = values.astype(mask.values.dtype)
        values[mask.box.shift([-n for n in wide.start_ijk]).slices] = np.where(
            mask.region.array, mask.values, values.flat[0]
        )
    whole = Mask(Volume(grown, at), wide, mask.label, mask.facts, values)
    tight = whole.restricted_to(grown)
    assert tight is not None, "some voxels are wanted"
    return tight


def _free(mask: Mask, host: Case, wide: Box) -> Region:
    """Where a mask may grow to."""
    labels, hu = host.labels.array[wide.slices], host.scan().array[wide.slices]
    inside = mask.region.array
    touched = np.unique(host.labels.array[mask.box.slices][inside])
    free = np.isin(labels, [0, *touched.tolist()])
    if np.mean(host.scan().array[mask.box.slices][inside]) > _LEAST_HU:
        free &= hu > _LEAST_HU
    return np.asarray(free, dtype=bool)
