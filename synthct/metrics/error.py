"""How far a painting is from the voxels it replaced.

Only a measure where the replaced tissue is the truth, as in a benchmark that paints over what was
there: a perfect random painting still has about 1.41 times the error of the best guess.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.metrics.crop import Region, crop_to_mask


def mean_absolute_error(
    original: npt.NDArray[Any],
    painted: npt.NDArray[Any],
    mask: Region,
    range_hu: tuple[float, float] | None = None,
) -> float:
    """Mean absolute difference in HU over the mask.

    Args:
        original: HU of any shape.
        painted: HU of the same shape; not rounded here, so a mean of variants may be given.
        mask: Boolean, of the same shape, not empty.
        range_hu: Least and greatest HU to clip both pictures to, or None.

    Raises:
        ValueError: If a shape differs, the mask is empty or not boolean.
    """
    return float(np.abs(_change(original, painted, mask, range_hu)).mean())


def mean_error(
    original: npt.NDArray[Any],
    painted: npt.NDArray[Any],
    mask: Region,
    range_hu: tuple[float, float] | None = None,
) -> float:
    """Mean of the painted less the mean of the original HU over the mask (signed).

    Arguments and errors as of ``mean_absolute_error``.
    """
    return float(_change(original, painted, mask, range_hu).mean())


def _change(
    original: npt.NDArray[Any],
    painted: npt.NDArray[Any],
    mask: Region,
    range_hu: tuple[float, float] | None,
) -> npt.NDArray[np.float64]:
    before, after, inside = crop_to_mask(original, painted, mask, range_hu, margin=0)
    if not inside.any():
        raise ValueError("no voxels to measure; the mask is empty")
    change: npt.NDArray[np.float64] = after[inside] - before[inside]
    return change
