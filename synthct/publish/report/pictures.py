"""Pictures of a sample: the surroundings of its mask in several windows, and the difference."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from synthct.dataset.sample import Sample
from synthct.dataset.stack import widest_slice
from synthct.dataset.tiles import Rgb, windowed
from synthct.volume.intensity import BONE, LUNG, SOFT_TISSUE, Window

Hu = npt.NDArray[np.int16]
Region = npt.NDArray[np.bool_]

WINDOWS: Mapping[str, Window] = {"soft": SOFT_TISSUE, "lung": LUNG, "bone": BONE}

#: Side of a crop: a multiple of the mask's larger extent, and at least a number of mm.
CONTEXT, LEAST_MM = 1.6, 40.0

#: Difference in HU with the full colour.
DIFFERENCE_HU = 200

_OUTLINE, _HIDDEN = (255, 196, 0), (52, 84, 132)


@dataclass(frozen=True, eq=False)
class MaskCrop:
    """The surroundings of a mask.

    Attributes:
        painted: HU (rows, columns).
        original: HU before painting; None if the dataset does not keep it.
        mask: Boolean (rows, columns).
        spacing_mm: Size of a pixel along rows' and along columns' index.
        columns: The flat columns of the row.
        provenance: The sample's provenance.
    """

    painted: Hu
    original: Hu | None
    mask: Region
    spacing_mm: tuple[float, ...]
    columns: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width."""
        rows, columns = self.mask.shape
        return rows * self.spacing_mm[0], columns * self.spacing_mm[1]


def crop_around_mask(sample: Sample, columns: Mapping[str, Any]) -> MaskCrop:
    """The square around a sample's mask, within the slice; of a volume in its widest slice."""
    sample = widest_slice(sample)
    pictures, spacing = sample.pictures, sample.pixel_mm
    mask = pictures["mask"]
    hits = [np.flatnonzero(mask.any(axis=1 - axis)) for axis in (0, 1)]
    if any(len(hit) == 0 for hit in hits):
        hits = [np.arange(length) for length in mask.shape]
    extent_mm = max((hit[-1] - hit[0] + 1) * s for hit, s in zip(hits, spacing, strict=True))
    side_mm = max(LEAST_MM, CONTEXT * float(extent_mm))
    part = tuple(
        around(int(hit[0] + hit[-1]) // 2, round(side_mm / s), length)
        for hit, s, length in zip(hits, spacing, mask.shape, strict=True)
    )
    return MaskCrop(
        painted=pictures["image"][part].copy(),  # a view would keep the whole slice
        original=pictures["original"][part].copy() if "original" in pictures else None,
        mask=mask[part].copy(),
        spacing_mm=spacing,
        columns={k: v for k, v in columns.items() if isinstance(v, str | int | float | None)},
        provenance=sample.provenance,
    )


def masked(crop: MaskCrop, window: Window) -> Rgb:
    """The model's input: the slice with the mask in blue."""
    hidden: Rgb = np.where(
        crop.mask[..., None], np.array(_HIDDEN, np.uint8), windowed(crop.painted, window)
    )
    return hidden


def outlined(hu: Hu, mask: Region, window: Window) -> Rgb:
    """A picture with a line just outside of the mask."""
    picture = windowed(hu, window)
    picture[rim(mask)] = _OUTLINE
    return picture


def rim_picture(mask: Region) -> Rgb:
    """The line just outside of a mask as (rows, columns, 4), transparent everywhere else."""
    picture = np.zeros((*mask.shape, 4), np.uint8)
    picture[rim(mask)] = (*_OUTLINE, 255)
    return picture


def rim(mask: npt.NDArray[np.bool_], across: int | None = None) -> npt.NDArray[np.bool_]:
    """The pixels just outside of a region, in the plane of its slices.

    Args:
        mask: Boolean (rows, columns), or (I, J, K) of slices.
        across: The axis across the slices; None for a picture.
    """
    near = np.zeros_like(mask)
    for axis in range(mask.ndim):
        if axis != across:
            ahead, behind = np.moveaxis(near, axis, 0), np.moveaxis(mask, axis, 0)
            ahead[1:] |= behind[:-1]
            ahead[:-1] |= behind[1:]
    return near & ~mask


def difference(hu: Hu, base: Hu) -> Rgb:
    """Difference in HU: brighter is red, darker is blue, unchanged is white."""
    share = np.clip((hu.astype(np.float64) - base) / DIFFERENCE_HU, -1, 1)
    fade = np.rint(255 * (1 - np.abs(share))).astype(np.uint8)
    full = np.full_like(fade, 255)
    red, blue = np.where(share < 0, fade, full), np.where(share > 0, fade, full)
    picture: Rgb = np.stack([red, fade, blue], axis=-1)
    return picture


def data_uri(picture: Rgb) -> str:
    """A picture as a PNG data URI; with four channels, the last is opacity."""
    grey = picture.shape[-1] == 3 and bool((picture == picture[..., :1]).all())
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if grey else picture).save(buffer, "PNG", compress_level=9)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def around(centre: int, side: int, length: int) -> slice:
    """``side`` pixels around ``centre``, within a picture of ``length`` pixels."""
    side = min(side, length)
    start = max(0, min(centre - side // 2, length - side))
    return slice(start, start + side)
