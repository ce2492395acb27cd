"""Statistics of HU values, such as those inside a mask."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from synthct.metrics.measure import Measure, Painting


class HuStats(NamedTuple):
    """Mean and spread of some voxels.

    Attributes:
        mean_hu: Mean in HU.
        std_hu: Standard deviation of the voxels themselves (not of a sample) in HU.
    """

    mean_hu: float
    std_hu: float


def hu_stats(hu: npt.NDArray[Any]) -> HuStats:
    """Mean and spread of voxels, such as ``hu_stats(ct[mask])``.

    Raises:
        ValueError: If there are no voxels.
    """
    _check_some(hu)
    return HuStats(float(hu.mean(dtype=np.float64)), float(hu.std(dtype=np.float64)))


def share_outside_range(hu: npt.NDArray[Any], range_hu: tuple[float, float]) -> float:
    """Share (0..1) of voxels below or above ``range_hu``, whose limits are inside.

    Raises:
        ValueError: If there are no voxels.
    """
    _check_some(hu)
    low, high = range_hu
    return float(((hu < low) | (hu > high)).mean())


def _check_some(hu: npt.NDArray[Any]) -> None:
    if hu.size == 0:
        raise ValueError("no voxels to measure; is the mask empty?")


def _clipped_fraction(painting: Painting) -> float | None:
    if painting.codec_range_hu is None:
        return None
    return share_outside_range(painting.original[painting.mask], painting.codec_range_hu)


PAINTED_MEAN = Measure(
    "painted_mean_hu", "mean of what was painted", unit="HU",
    of=lambda painting: hu_stats(painting.image[painting.mask]).mean_hu,
)  # fmt: skip
PAINTED_STD = Measure(
    "painted_std_hu", "standard deviation of what was painted", unit="HU",
    of=lambda painting: hu_stats(painting.image[painting.mask]).std_hu,
)  # fmt: skip
REPLACED_MEAN = Measure(
    "replaced_mean_hu", "mean of the tissue that was there", unit="HU", has_limits=False,
    of=lambda painting: hu_stats(painting.original[painting.mask]).mean_hu,
)  # fmt: skip
REPLACED_STD = Measure(
    "replaced_std_hu", "standard deviation of the tissue that was there", unit="HU",
    has_limits=False, of=lambda painting: hu_stats(painting.original[painting.mask]).std_hu,
)  # fmt: skip
CLIPPED_FRACTION = Measure(
    "clipped_fraction", "share of values outside of the model's range", worse="higher",
    of=_clipped_fraction,
)  # fmt: skip
