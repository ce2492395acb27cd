"""How much of a slice or volume was painted."""

from __future__ import annotations

import math

import numpy as np

from synthct.metrics.measure import Measure, Painting


def _mask_area_mm2(painting: Painting) -> float | None:
    """None for a volume."""
    if painting.axis is not None:
        return None
    rows_mm, columns_mm = painting.spacing_mm
    return int(np.count_nonzero(painting.mask)) * rows_mm * columns_mm


def _mask_volume_ml(painting: Painting) -> float | None:
    if painting.axis is None:
        return None
    return int(np.count_nonzero(painting.mask)) * math.prod(painting.spacing_mm) / 1000


def _painted_fraction(painting: Painting) -> float:
    return int(np.count_nonzero(painting.mask & painting.is_painted)) / painting.mask.size


MASK_AREA = Measure(
    "mask_area_mm2", "area of the mask", unit="mm²", has_limits=False, needs_paint=False,
    of=_mask_area_mm2,
)  # fmt: skip
MASK_VOLUME = Measure(
    "mask_volume_ml", "volume of the mask", unit="ml", has_limits=False, needs_paint=False,
    of_volumes=True, of=_mask_volume_ml,
)  # fmt: skip
PAINTED_FRACTION = Measure(
    "painted_fraction", "share of the slice that was painted", has_limits=False, needs_paint=False,
    of=_painted_fraction,
)  # fmt: skip
