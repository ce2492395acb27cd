"""Lossless pictures: 16-bit PNG for HU, 8-bit for masks and label maps, 8-bit previews for display.

The same array gives the same bytes with the same Pillow build; across builds only the decoded
picture is promised. (Pillow objects of mode ``I;16`` would be stored as TIFF by ``datasets``,
hence bytes.)
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from synthct.errors import VerifyError
from synthct.volume import HU_MAX, HU_MIN
from synthct.volume.intensity import Window

#: What is added to HU before they are stored as unsigned 16-bit numbers.
HU_OFFSET = 1024

#: Only runs are looked for: on CT as small as zlib's search at level 4, in half of the time.
_COMPRESSION = {"compress_level": 1, "compress_type": zlib.Z_RLE}

#: The last chunk of every PNG, and all kinds of chunks that are written here. Others hold text,
#: times or other pictures.
_END = b"\0\0\0\0IEND\xaeB\x60\x82"
_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")

#: The highest index of the preview's palette draws the outline; the others are greys.
_OUTLINE = 255
_OUTLINE_RGB = (255, 176, 0)
_PALETTE = bytes(
    value for index in range(_OUTLINE) for value in (round(index * 255 / (_OUTLINE - 1)),) * 3
) + bytes(_OUTLINE_RGB)


def encode_hu(hu: npt.NDArray[np.int16]) -> bytes:
    """HU (rows, columns) within -1024..3071 as a 16-bit greyscale PNG of HU + 1024."""
    if hu.size and not (hu.min() >= HU_MIN and hu.max() <= HU_MAX):
        raise ValueError(f"HU {hu.min()}..{hu.max()} are not within {HU_MIN}..{HU_MAX}")
    return _encode((hu + HU_OFFSET).astype(np.uint16))


def decode_hu(png: bytes) -> npt.NDArray[np.int16]:
    """HU (rows, columns) from a 16-bit PNG of HU + 1024.

    Raises:
        VerifyError: If the bytes are damaged, or not a 16-bit greyscale PNG.
    """
    stored = _decode(png, ("I;16",))
    return (stored.astype(np.int32) - HU_OFFSET).astype(np.int16)


def encode_mask(mask: npt.NDArray[np.bool_]) -> bytes:
    """A region (rows, columns) as an 8-bit PNG: 255 inside, 0 outside, so that eyes see it."""
    return _encode(np.where(mask, np.uint8(255), np.uint8(0)))


def decode_mask(png: bytes) -> npt.NDArray[np.bool_]:
    """The region (rows, columns) of an 8-bit PNG of 0 and 255.

    Raises:
        VerifyError: If the bytes are damaged, or hold other values.
    """
    stored = _decode(png, ("L",))
    inside: npt.NDArray[np.bool_] = stored == 255
    if not np.array_equal(inside, stored != 0):
        raise VerifyError("a mask holds values other than 0 and 255")
    return inside


def encode_labels(labels: npt.NDArray[Any]) -> bytes:
    """Label values (rows, columns), uint8 or uint16, as a PNG of as many bits."""
    if labels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"a label map is uint8 or uint16, not {labels.dtype}")
    return _encode(labels)


def decode_labels(png: bytes) -> npt.NDArray[Any]:
    """Label values (rows, columns), uint8 or uint16, from a PNG.

    Raises:
        VerifyError: If the bytes are damaged, or not an 8- or 16-bit greyscale PNG.
    """
    return _decode(png, ("L", "I;16"))


def encode_preview(
    hu: npt.NDArray[np.int16], window: Window, region: npt.NDArray[np.bool_] | None = None
) -> bytes:
    """HU (rows, columns) in a window, for display: an 8-bit PNG of 255 greys and one colour.

    Args:
        hu: The slice.
        window: What is black and what is white.
        region: A region to outline; the line runs just outside of it and covers nothing inside.
    """
    grey = np.rint((window.encode(hu) + 1) * ((_OUTLINE - 1) / 2)).astype(np.uint8)
    if region is not None:
        grey[_grown(region) & ~region] = _OUTLINE
    image = Image.fromarray(grey)
    image.putpalette(_PALETTE)
    return _save(image)


def decode_preview(png: bytes) -> npt.NDArray[np.uint8]:
    """What a preview shows: (rows, columns, 3) RGB.

    Raises:
        VerifyError: If the bytes are damaged, or not a preview.
    """
    return _decode(png, ("P",), shown_as="RGB")


def require_bare(png: bytes) -> None:
    """Refuse a PNG that holds more than a picture.

    Raises:
        VerifyError: If it has a chunk such as ``tEXt``, or anything after its end.
    """
    place = 8
    while place < len(png):
        length, kind = struct.unpack_from(">I4s", png.ljust(place + 8), place)
        if kind not in _CHUNKS:
            raise VerifyError(f"a picture is damaged, or holds {kind!r} beside its pixels")
        place += length + 12
        if kind == b"IEND" and place != len(png):
            raise VerifyError("a picture is followed by other data")


def _grown(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The region and its neighbours, corners included."""
    tall = region.copy()
    tall[1:] |= region[:-1]
    tall[:-1] |= region[1:]
    out = tall.copy()
    out[:, 1:] |= tall[:, :-1]
    out[:, :-1] |= tall[:, 1:]
    return out


def _encode(array: npt.NDArray[Any]) -> bytes:
    if array.ndim != 2:
        raise ValueError(f"a picture has rows and columns, not the shape {array.shape}")
    return _save(Image.fromarray(np.ascontiguousarray(array)))


def _save(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **_COMPRESSION)
    return buffer.getvalue()


def _decode(png: bytes, modes: tuple[str, ...], *, shown_as: str | None = None) -> npt.NDArray[Any]:
    if not png.endswith(_END):  # Pillow would show what there is
        raise VerifyError("a picture is cut off")
    require_bare(png)
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.mode not in modes:
                raise VerifyError(f"a picture of mode {image.mode} where {modes[0]} is expected")
            return np.array(image.convert(shown_as) if shown_as else image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as err:
        raise VerifyError(f"a picture is damaged ({err})") from err
