"""Shared by the measures: crops around the mask, clipped, without thin axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Region = npt.NDArray[np.bool_]
Picture = npt.NDArray[np.float64]

#: HU of any number type; a range of HU.
Hu = npt.NDArray[Any]
Range = tuple[float, float]


def check_shapes(original: Hu, painted: Hu, mask: Region) -> None:
    """Raise a ``ValueError`` if a shape differs or the mask is not boolean."""
    if not original.shape == painted.shape == mask.shape:
        raise ValueError(
            f"original {original.shape}, painted {painted.shape} and mask {mask.shape} "
            "must have one shape"
        )
    if mask.dtype != bool:
        raise ValueError(f"the mask is {mask.dtype}, not boolean")


def crop_to_mask(
    original: Hu,
    painted: Hu,
    mask: Region,
    range_hu: Range | None,
    margin: int | Sequence[int] = 1,
) -> tuple[Picture, Picture, Region]:
    """Crop to the mask's bounding box and a margin, within the picture.

    Axes one voxel long are dropped, so that a slice of any view is (H, W).

    Args:
        original: HU of any shape.
        painted: HU of the same shape.
        mask: Boolean, of the same shape; the crop of an empty mask is empty.
        range_hu: Least and greatest HU to clip both pictures to, or None.
        margin: Voxels around the mask's box, along each axis that is left or alike along all.

    Returns:
        Original and painted as float64, and the mask, all cropped alike.
    """
    check_shapes(original, painted, mask)
    original, painted, mask = original.squeeze(), painted.squeeze(), mask.squeeze()
    margins = [margin] * mask.ndim if isinstance(margin, int) else margin
    window = []
    for axis, around in enumerate(margins):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        first, last = (int(hit[0]), int(hit[-1])) if hit.size else (around, -1 - around)
        window.append(slice(max(0, first - around), last + 1 + around))
    index = tuple(window)
    before, after = original[index].astype(np.float64), painted[index].astype(np.float64)
    if range_hu is not None:
        before, after = np.clip(before, *range_hu), np.clip(after, *range_hu)
    return before, after, mask[index]


def ratio(painted: float, original: float) -> float:
    """``painted / original``; NaN if the original is not positive."""
    return painted / original if original > 0 else float("nan")


def along(axes: Iterable[int], ndim: int) -> Region:
    """The structuring element of a voxel and its face neighbours along some axes."""
    cross = np.zeros((3,) * ndim, dtype=bool)
    for axis in axes:
        cross[tuple(slice(None) if n == axis else 1 for n in range(ndim))] = True
    return cross
