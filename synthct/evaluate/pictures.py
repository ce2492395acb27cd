"""The inputs of extractors: slices or volumes, and crops of them around masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from synthct.volume.intensity import Window

#: Side of a crop: a multiple of the mask's larger extent, and at least a number of mm.
CONTEXT, LEAST_MM = 1.5, 40.0

Hu = npt.NDArray[np.int16]
Region = npt.NDArray[np.bool_]


class Extracted(NamedTuple):
    """The output of an extractor for N crops.

    Attributes:
        features: (N, D) float32.
        probabilities: (N, C) float32 of the classifier's classes; None without a classifier.
    """

    features: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Crop:
    """A part of a slice or of a volume, with the painted mask.

    Attributes:
        hu: (rows, columns), of a volume (I, J, K).
        mask: Boolean, of the same shape.
        spacing_mm: Size of a pixel or voxel along each index.
        window: Window for viewing; it follows from the label and the replaced tissue, not from
            the codec, so that all arms have the same.
    """

    hu: Hu
    mask: Region
    spacing_mm: tuple[float, ...]
    window: Window


class Extractor(Protocol):
    """Turns crops into features.

    Attributes:
        name: Name on the command line and in tables.
        key: Key of its features in the cache; changes with weights and computation.
        dim: Number of features.
        sees_slices: Whether whole slices are a useful input.
        sees_volumes: Whether it takes a volume as it is; if not, the slices that show its mask.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def sees_slices(self) -> bool: ...  # noqa: D102
    @property
    def sees_volumes(self) -> bool: ...  # noqa: D102

    def extract(self, crops: Sequence[Crop]) -> Extracted:
        """Features of crops, each independent of the others in the batch."""
        ...


def crop_to_mask(whole: Crop) -> Crop:
    """Crop to the square or cube (in mm) around the mask, within the slice or volume.

    Raises:
        ValueError: If the mask is empty.
    """
    bounds = []
    for axis in range(whole.mask.ndim):
        across = tuple(n for n in range(whole.mask.ndim) if n != axis)
        hit = np.flatnonzero(whole.mask.any(axis=across))
        if not hit.size:
            raise ValueError("an empty mask has no crop around it")
        bounds.append((int(hit[0]), int(hit[-1]) + 1))
    extent = [(b - a) * s for (a, b), s in zip(bounds, whole.spacing_mm, strict=True)]
    side_mm = max(LEAST_MM, CONTEXT * max(extent))
    part = []
    for (a, b), spacing, length in zip(bounds, whole.spacing_mm, whole.hu.shape, strict=True):
        side = min(length, max(b - a, round(side_mm / spacing)))
        start = min(max(0, (a + b - side) // 2), length - side)
        part.append(slice(start, start + side))
    index = tuple(part)
    # copies, which do not keep the whole in memory
    return replace(whole, hu=whole.hu[index].copy(), mask=whole.mask[index].copy())


def to_network(crops: Sequence[Crop], size: int) -> Any:
    """Crops as input of an ImageNet network: windowed, 0..255, three equal channels.

    Args:
        crops: Of any size; resized to a square.
        size: Side in pixels.

    Returns:
        A float32 tensor (N, 3, size, size), not rounded to 8 bits, which would lose precision.
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
