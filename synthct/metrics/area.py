"""How much of a slice was painted."""

from __future__ import annotations

import numpy as np

from synthct.metrics.measure import Measure, Painting


def _mask_area_mm2(painting: Painting) -> float:
    rows_mm, columns_mm = painting.spacing_mm
    return int(np.count_nonzero(painting.mask)) * rows_mm * columns_mm


def _painted_fraction(painting: Painting) -> float:
    return int(np.count_nonzero(painting.mask & painting.is_painted)) / painting.mask.size


MASK_AREA = Measure(
    "mask_area_mm2", "area of the mask", unit="mm²", has_limits=False, needs_paint=False,
    of=_mask_area_mm2,
)  # fmt: skip
PAINTED_FRACTION = Measure(
    "painted_fraction", "share of the slice that was painted", has_limits=False, needs_paint=False,
    of=_painted_fraction,
)  # fmt: skip
