"""Check that nothing outside the mask has changed."""

from __future__ import annotations

import numpy as np

from synthct.metrics.crop import Hu, Region, check_shapes
from synthct.metrics.measure import Measure


def outside_max_abs_diff(original: Hu, painted: Hu, mask: Region) -> int:
    """Greatest absolute difference outside the mask, in HU; 0 is the only good value.

    Raises:
        ValueError: If a shape differs, the mask is not boolean or a picture is not of integers.
    """
    check_shapes(original, painted, mask)
    for picture in (original, painted):
        if not np.issubdtype(picture.dtype, np.integer):
            raise ValueError(f"pictures are compared as integer HU, not {picture.dtype}")
    # Equality first: it is the usual case and needs no int64 copy.
    different = (original != painted) & ~mask
    if not different.any():
        return 0
    change = painted[different].astype(np.int64) - original[different].astype(np.int64)
    return int(np.abs(change).max())


OUTSIDE_MAX_ABS_DIFF = Measure(
    "outside_max_abs_diff", "greatest change outside of the mask", unit="HU", has_limits=False,
    needs_paint=False, dtype="int32",
    of=lambda painting: outside_max_abs_diff(painting.original, painting.image, painting.mask),
)  # fmt: skip
