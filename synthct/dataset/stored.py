"""The files that a row stores of its arrays: PNG of slices (rows, columns), NIfTI of volumes.

Affines take an array's index to RAS+ millimetres; a PNG has none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.dataset import nii, png
from synthct.volume import HU_MIN, Affine, Array
from synthct.volume.grid import spacing_of
from synthct.volume.intensity import Window
from synthct.volume.views import PLANES, VIEW_AXIS, View, to_picture

#: Pixels between the planes of a volume's preview.
_GAP = 4


def encode_hu(hu: npt.NDArray[np.int16], affine: Affine) -> bytes:
    """HU within -1024..3071."""
    return png.encode_hu(hu) if hu.ndim == 2 else nii.encode_hu(hu, affine)


def encode_mask(mask: npt.NDArray[np.bool_], affine: Affine) -> bytes:
    """A region."""
    return png.encode_mask(mask) if mask.ndim == 2 else nii.encode_mask(mask, affine)


def encode_labels(labels: npt.NDArray[Any], affine: Affine) -> bytes:
    """Label values, uint8 or uint16."""
    return png.encode_labels(labels) if labels.ndim == 2 else nii.encode_labels(labels, affine)


def decode_hu(data: bytes, affine: Affine, view: View) -> npt.NDArray[np.int16]:
    """HU; a ``VerifyError`` if the bytes are damaged or something else."""
    return nii.decode_hu(data, affine) if view == "volume" else png.decode_hu(data)


def decode_mask(data: bytes, affine: Affine, view: View) -> npt.NDArray[np.bool_]:
    """A region; a ``VerifyError`` if the bytes are damaged or something else."""
    return nii.decode_mask(data, affine) if view == "volume" else png.decode_mask(data)


def decode_labels(data: bytes, affine: Affine, view: View) -> npt.NDArray[Any]:
    """Label values; a ``VerifyError`` if the bytes are damaged or something else."""
    return nii.decode_labels(data, affine) if view == "volume" else png.decode_labels(data)


def encode_preview(
    hu: npt.NDArray[np.int16], affine: Affine, window: Window, mask: npt.NDArray[np.bool_]
) -> bytes:
    """A slice for display, or a volume's three planes where each shows most of the mask."""
    if hu.ndim == 2:
        return png.encode_preview(hu, window, mask)
    return png.encode_preview(_planes(hu, mask, affine, HU_MIN), window,
                              _planes(mask, mask, affine, False))  # fmt: skip


def _planes(array: Array, mask: npt.NDArray[np.bool_], affine: Affine, fill: Any) -> Array:
    """Three planes of a volume (I, J, K) side by side, in square pixels, by nearest voxels."""
    spacing = spacing_of(affine)
    fine = min(spacing)
    pictures = []
    for plane in PLANES:
        axis = VIEW_AXIS[plane]
        across = tuple(n for n in range(3) if n != axis)
        index = int(np.argmax(np.count_nonzero(mask, axis=across)))
        picture = to_picture(array.take([index], axis=axis), plane)
        steps = [spacing[n] / fine for n in reversed(across)]  # rows run along the later axis
        at = [
            np.minimum(((np.arange(round(n * step)) + 0.5) / step).astype(int), n - 1)
            for n, step in zip(picture.shape, steps, strict=True)
        ]
        pictures.append(picture[np.ix_(*at)])
    sheet = np.full(
        (max(p.shape[0] for p in pictures), sum(p.shape[1] + _GAP for p in pictures) - _GAP),
        fill,
        dtype=array.dtype,
    )
    left = 0
    for picture in pictures:
        sheet[: picture.shape[0], left : left + picture.shape[1]] = picture
        left += picture.shape[1] + _GAP
    return sheet
