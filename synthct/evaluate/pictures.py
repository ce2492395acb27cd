"""What is compared: squares around masks and whole slices, as extractors take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from synthct.volume.intensity import Window

#: A square around a mask is so many times its larger extent, and at least so many millimetres.
CONTEXT, LEAST_MM = 1.5, 40.0

Hu = npt.NDArray[np.int16]
Region = npt.NDArray[np.bool_]


class Extracted(NamedTuple):
    """What an extractor makes of N crops.

    Attributes:
        features: (N, D) float32.
        probabilities: (N, C) float32 of the classifier's classes; None if there is none.
    """

    features: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Crop:
    """A piece of a slice, and what was painted of it.

    Attributes:
        hu: (rows, columns).
        mask: Boolean, of the same shape.
        spacing_mm: Size of a pixel along rows' and columns' index.
        window: In which it is looked at: by what was painted and what was there, not by the
            codec, so that all arms are seen alike.
    """

    hu: Hu
    mask: Region
    spacing_mm: tuple[float, float]
    window: Window


class Extractor(Protocol):
    """Turns crops into features.

    Attributes:
        name: As the command line and the tables call it.
        key: Names features in the cache: another key for other weights or other sums.
        dim: Number of features.
        sees_slices: Whether whole slices make sense to it.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def sees_slices(self) -> bool: ...  # noqa: D102

    def extract(self, crops: Sequence[Crop]) -> Extracted:
        """Features of some crops, each independent of the others."""
        ...


def around_mask(whole: Crop) -> Crop:
    """The square (in millimetres) around the mask of a slice, within the slice.

    Raises:
        ValueError: If the mask is empty.
    """
    bounds = []
    for axis in (0, 1):
        hit = np.flatnonzero(whole.mask.any(axis=1 - axis))
        if not hit.size:
            raise ValueError("there is no square around an empty mask")
        bounds.append((int(hit[0]), int(hit[-1]) + 1))
    extent = [(b - a) * s for (a, b), s in zip(bounds, whole.spacing_mm, strict=True)]
    side_mm = max(LEAST_MM, CONTEXT * max(extent))
    part = []
    for (a, b), spacing, length in zip(bounds, whole.spacing_mm, whole.hu.shape, strict=True):
        side = min(length, max(b - a, round(side_mm / spacing)))
        start = min(max(0, (a + b - side) // 2), length - side)
        part.append(slice(start, start + side))
    index = tuple(part)
    return replace(whole, hu=whole.hu[index], mask=whole.mask[index])


def to_network(crops: Sequence[Crop], size: int) -> Any:
    """Crops as a network for photographs takes them: windowed, 0..255, three equal channels.

    Args:
        crops: Of any size; stretched to a square, so give squares or accept the stretch.
        size: Side in pixels.

    Returns:
        A float32 tensor (N, 3, size, size), not rounded: an 8-bit picture would cost a window of
        400 HU a third of its grey levels' precision for nothing.
    """
    import torch
    from torch.nn.functional import interpolate

    pictures = []
    for crop in crops:
        grey = (crop.window.encode(crop.hu) + 1) * np.float32(127.5)
        picture = torch.from_numpy(grey)[None, None]
        small = interpolate(picture, (size, size), mode="bilinear", antialias=True)
        pictures.append(small.clamp(0, 255)[0])
    return torch.stack(pictures).expand(-1, 3, -1, -1)
