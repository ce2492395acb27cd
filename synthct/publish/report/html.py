"""The pictures of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from synthct.dataset.tiles import Rgb
from synthct.publish.report.pictures import data_uri, rim_picture

#: Width of a picture on a wide page, in pixels.
_WIDTH = 180


class Picture(NamedTuple):
    """A picture in several windows, one of which is visible.

    Attributes:
        name: Caption.
        images: CSS class of the window to data URI.
        width: In pixels.
        height: In pixels.
        notes: Lines below the caption.
        rim: Data URI of the mask's outline, which lies over the picture and can be switched off.
    """

    name: str
    images: Mapping[str, str]
    width: int
    height: int
    notes: Sequence[str] = ()
    rim: str | None = None


def pictured(
    name: str,
    pictures: Mapping[str, Rgb],
    size_mm: tuple[float, float],
    notes: Sequence[str] = (),
    *,
    mask: npt.NDArray[np.bool_] | None = None,
) -> Picture:
    """A picture of height and width ``size_mm``, from arrays by window.

    Args:
        name: Caption.
        pictures: CSS class of the window to picture.
        size_mm: Height and width.
        notes: Lines below the caption.
        mask: What the outline is around; None for no outline.
    """
    height, width = size_mm
    uris = {key: data_uri(_in_proportion(picture, size_mm)) for key, picture in pictures.items()}
    rim = None if mask is None else data_uri(_in_proportion(rim_picture(mask), size_mm))
    return Picture(name, uris, _WIDTH, round(_WIDTH * height / width), notes, rim)


def _in_proportion(picture: Rgb, size_mm: tuple[float, float]) -> Rgb:
    """A picture with square pixels: browsers go by the pixels of a file, not by millimetres.

    Of two sizes of a pixel the smaller one is kept, and the other is repeated.
    """
    rows, columns = picture.shape[:2]
    pixel_mm = min(size_mm[0] / rows, size_mm[1] / columns)
    height, width = (round(length / pixel_mm) for length in size_mm)
    if (height, width) == (rows, columns):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST))
