"""Distance of the HU of a painting from those of real tissue of its label."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.metrics.measure import Measure, Painting

Quantiles = npt.NDArray[np.float64]

#: Number of stored quantiles; 201 give the distance to well below 1 HU.
LEVELS = 201


def hu_quantiles(hu: npt.NDArray[Any]) -> Quantiles:
    """The quantile function of voxels at ``LEVELS`` evenly spaced levels, (n + 0.5) / LEVELS.

    Args:
        hu: HU of any shape.

    Raises:
        ValueError: If there are no voxels.
    """
    if hu.size == 0:
        raise ValueError("no voxels to measure; is the mask empty?")
    levels = (np.arange(LEVELS) + 0.5) / LEVELS
    quantiles: Quantiles = np.quantile(hu, levels, method="inverted_cdf").astype(np.float64)
    return quantiles


def hu_wasserstein(
    hu: npt.NDArray[Any], reference: Quantiles, range_hu: tuple[float, float] | None = None
) -> float:
    """Wasserstein-1 distance in HU between voxels and a reference distribution.

    It is the area between both quantile functions: the least mean shift in HU that turns one
    distribution into the other.

    Args:
        hu: HU of any shape, such as ``ct[mask]``.
        reference: From ``hu_quantiles``.
        range_hu: Least and greatest HU to clip both to, or None.

    Raises:
        ValueError: If there are no voxels, or the reference has another number of levels.
    """
    if reference.shape != (LEVELS,):
        raise ValueError(f"a reference has {LEVELS} quantiles, not the shape {reference.shape}")
    quantiles = hu_quantiles(hu)
    if range_hu is not None:
        quantiles, reference = np.clip(quantiles, *range_hu), np.clip(reference, *range_hu)
    return float(np.abs(quantiles - reference).mean())


def _of_label(painting: Painting) -> float | None:
    """For the painted voxels of the label; None without a label or without real tissue of it."""
    if painting.labelled is None or painting.quantiles is None:
        return None
    tissue = painting.image[painting.labelled & painting.mask]
    return hu_wasserstein(tissue, painting.quantiles, painting.range_hu) if tissue.size else None


HU_WASSERSTEIN = Measure(
    "hu_wasserstein", "distance to real tissue of the label", unit="HU", worse="higher",
    of=_of_label,
)  # fmt: skip
