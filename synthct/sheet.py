"""Contact sheets as PNG: planned masks on the scans, and what a finished dataset looks like."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from synthct.dataset.picture import to_picture
from synthct.dataset.png import decode_hu, decode_mask
from synthct.dataset.writer import read_shard
from synthct.intensity import LUNG, SOFT_TISSUE, Window
from synthct.masks import View
from synthct.sample import Prepared

Grey = npt.NDArray[np.uint8]
Rgb = npt.NDArray[np.uint8]

#: Side of a tile in pixels, tiles per sheet, how much around a mask is shown, pixels between pairs.
TILE, TILES, CONTEXT, GAP = 224, 12, 1.6, 10
MASK_COLOUR, ORGAN_COLOUR = (255, 196, 0), (90, 200, 255)


def plan_sheet(masks: Sequence[Prepared], view: View) -> bytes | None:
    """Masks on the scans before anything is painted: each whole slice, and close up with outlines.

    The mask is outlined in yellow, the structures of the label map in blue; beneath stand the
    sample, its label and the numbers of the mask.

    Args:
        masks: What ``prepare`` made.
        view: The plane of the slices.

    Returns:
        A PNG; None if there is no mask.
    """
    tiles = []
    for mask in masks[:TILES]:
        hu = to_picture(mask.plane.array, view)
        region = to_picture(mask.region.array, view)
        labels = to_picture(mask.labels, view)
        rows_mm, columns_mm = _spacing(mask, view)
        picture = _colour(_windowed(hu, mask.window))
        _outline(picture, region, MASK_COLOUR)
        whole = _tile(picture, rows_mm, columns_mm)
        for value in np.unique(labels[(labels > 0) & (labels < 255)]):
            _outline(picture, labels == value, ORGAN_COLOUR)
        _outline(picture, region, MASK_COLOUR)
        close = _tile(_around(picture, region), rows_mm, columns_mm)
        tiles.append(_captioned(np.hstack([whole, close]), _caption(mask)))
    return _sheet(tiles, columns=3)


def dataset_sheet(shards: Sequence[Path], *, keep_original: bool = False) -> bytes | None:
    """Samples from a finished dataset: what was left to the model, and what it made of it.

    Where the dataset keeps the original slice, that is shown beside them.

    Args:
        shards: The parquet files; painted rows are taken evenly from all of them.
        keep_original: Whether there is a column ``original``.

    Returns:
        A PNG; None if the dataset is empty.
    """
    names = ["image", "mask", "label", "spacing_mm", "sample_id"]
    names += ["original"] if keep_original else []
    painted = [
        (number, place)
        for number, path in enumerate(shards)
        for place, is_painted in enumerate(
            read_shard(path, ["is_painted"])["is_painted"].to_pylist()
        )
        if is_painted
    ]
    shown = min(TILES, len(painted))
    chosen = [painted[n * len(painted) // shown] for n in range(shown)]
    tiles = []
    for number, path in enumerate(shards):
        places = [place for shard, place in chosen if shard == number]
        if places:
            rows = read_shard(path, names).take(places).to_pylist()
            tiles += [_before_and_after(row) for row in rows]
    return _sheet(tiles, columns=2 if keep_original else 3)


def _before_and_after(row: dict[str, Any]) -> Rgb:
    window = LUNG if row["label"] == "lung" else SOFT_TISSUE
    mask = decode_mask(row["mask"]["bytes"])
    painted = _windowed(decode_hu(row["image"]["bytes"]), window)
    pictures = [np.where(mask, np.uint8(96), painted), painted]
    if "original" in row:
        pictures.append(_windowed(decode_hu(row["original"]["bytes"]), window))
    tiles = [_tile(_around(_colour(picture), mask), *row["spacing_mm"]) for picture in pictures]
    return _captioned(np.hstack(tiles), f"{row['sample_id']}: {row['label'] or 'whatever fits'}")


def _spacing(mask: Prepared, view: View) -> tuple[float, float]:
    """Size in mm of a pixel of the picture along rows and columns."""
    i, j, k = mask.plane.spacing_mm
    return {"axial": (j, i), "coronal": (k, i), "sagittal": (k, j)}[view]


def _caption(mask: Prepared) -> str:
    numbers = ", ".join(
        f"{name} {value:.3g}"
        for name, value in mask.facts.items()
        if name in ("volume_ml", "inside_fraction", "organ_fraction", "jacobian_min")
        and isinstance(value, float | int)
    )
    return f"{mask.specs[0].mask_id}: {mask.label or 'whatever fits'}\n{numbers}"


def _windowed(hu: npt.NDArray[np.int16], window: Window) -> Grey:
    grey: Grey = np.rint((window.encode(hu) + 1) * 127.5).astype(np.uint8)
    return grey


def _colour(grey: Grey) -> Rgb:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _outline(picture: Rgb, region: npt.NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
    """Draw the inner edge of a region, in place."""
    from scipy.ndimage import binary_erosion

    picture[region & ~binary_erosion(region)] = colour


def _around(picture: Rgb, mask: npt.NDArray[np.bool_]) -> Rgb:
    """The square around a mask, with as much context again."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    side = int(min(max(48, side * CONTEXT), *picture.shape[:2]))
    top = _start(int(rows[0] + rows[-1]) // 2, side, picture.shape[0])
    left = _start(int(columns[0] + columns[-1]) // 2, side, picture.shape[1])
    square: Rgb = picture[top : top + side, left : left + side]
    return square


def _start(centre: int, side: int, length: int) -> int:
    return max(0, min(centre - side // 2, length - side))


def _tile(picture: Rgb, rows_mm: float, columns_mm: float) -> Rgb:
    """The picture in a square of ``TILE`` pixels, its pixels as tall and wide as in the body."""
    height, width = picture.shape[0] * rows_mm, picture.shape[1] * columns_mm
    scale = TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    square = Image.new("RGB", (TILE, TILE))
    square.paste(small, ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return np.asarray(square)


def _captioned(picture: Rgb, text: str) -> Rgb:
    lines = text.strip().split("\n")
    band = Image.new("RGB", (picture.shape[1], 13 * len(lines) + 3))
    for number, line in enumerate(lines):
        # The built-in font knows Latin letters only; other signs become question marks.
        plain = line.encode("latin-1", "replace").decode("latin-1")
        ImageDraw.Draw(band).text((3, 1 + 13 * number), plain, fill=(200, 200, 200))
    return np.vstack([picture, np.asarray(band)])


def _sheet(tiles: Sequence[Rgb], columns: int) -> bytes | None:
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
