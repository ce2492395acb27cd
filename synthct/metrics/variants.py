"""Diversity: whether several paintings of one mask differ."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.metrics.measure import Measure, Painting


def variant_diversity(hu: npt.NDArray[Any], others: Iterable[npt.NDArray[Any]]) -> float:
    """1 minus the correlation with the most similar other painting of the same mask.

    0 is a copy, whatever its brightness and contrast; about 1 is as different as two places in
    one tissue. (Box masks over several organs correlate by their anatomy.)

    Args:
        hu: HU inside the mask, (N,).
        others: HU inside the mask of other variants, (N,) each.

    Returns:
        Between 0 and 2, or NaN without others.

    Raises:
        ValueError: If a shape differs.
    """
    return min((1 - _correlation(hu, other) for other in others), default=float("nan"))


def _correlation(one: npt.NDArray[Any], two: npt.NDArray[Any]) -> float:
    if one.shape != two.shape or one.ndim != 1:
        raise ValueError(f"variants of one mask have as many voxels, not {one.shape}, {two.shape}")
    a, b = one.astype(np.float64), two.astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    if scale == 0:  # two flat pictures are copies of each other
        return 1.0 if not a.any() and not b.any() else 0.0
    return min(1.0, float(a @ b) / scale)


def _of_earlier(painting: Painting) -> float | None:
    """None for the first variant, which has no earlier ones."""
    if not painting.earlier:
        return None
    return variant_diversity(painting.image[painting.mask], painting.earlier)


VARIANT_DIVERSITY = Measure(
    "variant_diversity", "1 - correlation with the most similar earlier variant", worse="lower",
    of=_of_earlier,
)  # fmt: skip
