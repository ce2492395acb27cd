"""What contact sheets are made of: windowed pictures, captions, and a grid of tiles as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from synthct.volume.intensity import Window

Grey = npt.NDArray[np.uint8]
Rgb = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

#: Words of a caption, in a colour.
Span = tuple[str, Colour]

TEXT: Colour = (205, 205, 205)

#: Pixels between tiles, of text, and from one line of a caption to the next.
GAP, FONT, LINE = 10, 12, 16


def windowed(hu: npt.NDArray[np.int16], window: Window) -> Rgb:
    """HU (rows, columns) as a grey picture (rows, columns, 3)."""
    grey: Grey = np.rint((window.encode(hu) + 1) * 127.5).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def captioned(picture: Rgb, lines: Sequence[Sequence[Span]]) -> Rgb:
    """A picture with lines of text beneath."""
    band = Image.new("RGB", (picture.shape[1], LINE * len(lines) + 4))
    draw = ImageDraw.Draw(band)
    for number, line in enumerate(lines):
        left = 3.0
        for words, colour in line:
            # The built-in font knows Latin letters only; other signs become question marks.
            plain = words.encode("latin-1", "replace").decode("latin-1")
            draw.text((left, 1 + LINE * number), plain, fill=colour, font_size=FONT)
            left += draw.textlength(plain, font_size=FONT)
    return np.vstack([picture, np.asarray(band)])


def contact_sheet(tiles: Sequence[Rgb], columns: int) -> bytes | None:
    """Tiles row by row, as PNG; None if there is none."""
    if not tiles:
        return None
    height = max(tile.shape[0] for tile in tiles) + GAP
    width = max(tile.shape[1] for tile in tiles) + GAP
    rows = -(-len(tiles) // columns)
    across = min(columns, len(tiles))
    sheet = np.zeros((rows * height, across * width, 3), dtype=np.uint8)
    for n, tile in enumerate(tiles):
        top, left = n // columns * height, n % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG")
    return buffer.getvalue()
