"""The contact sheet of a finished dataset: what was left to paint, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from synthct.dataset.patch_rows import box_affine
from synthct.dataset.stored import decode_hu, decode_mask
from synthct.dataset.tiles import TEXT, Rgb, captioned, contact_sheet, windowed
from synthct.dataset.writer import read_shard
from synthct.volume import Array
from synthct.volume.intensity import window_for
from synthct.volume.views import VIEW_AXIS, plane_of, to_picture

#: Side of a tile in pixels, samples per sheet, and how much around a mask is shown.
TILE, TILES, CONTEXT = 224, 12, 1.6


def dataset_sheet(
    shards: Sequence[Path], *, keep_original: bool = False, patch_only: bool = False
) -> bytes | None:
    """Samples from a finished dataset: what was left to the model, and what it made of it.

    Where the dataset keeps the original slice, that is shown beside them; of a patch-only release
    only the paint is there to be shown.

    Args:
        shards: The parquet files; painted rows are taken evenly from all of them.
        keep_original: Whether there is a column ``original``.
        patch_only: Whether there is a column ``paint`` instead of ``image``.

    Returns:
        A PNG; None if the dataset is empty.
    """
    names = ["sample_id", "label", "replaced_mean_hu", "spacing_mm", "view", "affine", "mask"]
    names += ["paint", "corner"] if patch_only else ["image"]
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
            rows = read_shard(path, names)
            show = _paint_alone if patch_only else _before_and_after
            # one by one: a row may be a whole scan
            tiles += [show(rows.slice(place, 1).to_pylist()[0]) for place in places]
            del rows
    return contact_sheet(tiles, columns=2 if keep_original else 3)


def _paint_alone(row: dict[str, Any]) -> Rgb:
    window = window_for(row["label"], row["replaced_mean_hu"])
    shown, pixel_mm = _pictures(row)
    painted = windowed(shown["paint"], window)
    tile = _tile(np.where(shown["mask"][..., None], painted, np.uint8(96)), *pixel_mm)
    return captioned(tile, [[(f"{row['sample_id']}: {row['label'] or 'whatever fits'}", TEXT)]])


def _before_and_after(row: dict[str, Any]) -> Rgb:
    window = window_for(row["label"], row["replaced_mean_hu"])
    shown, pixel_mm = _pictures(row)
    mask, painted = shown["mask"], windowed(shown["image"], window)
    pictures = [np.where(mask[..., None], np.uint8(96), painted), painted]
    if "original" in shown:
        pictures.append(windowed(shown["original"], window))
    tiles = [_tile(_around(picture, mask), *pixel_mm) for picture in pictures]
    text = f"{row['sample_id']}: {row['label'] or 'whatever fits'}"
    return captioned(np.hstack(tiles), [[(text, TEXT)]])


def _pictures(row: dict[str, Any]) -> tuple[dict[str, Array], Sequence[float]]:
    """The pictures of a row, of a volume in its widest slice; and the size of a pixel."""
    affine, view = np.array(row["affine"]).reshape(4, 4), row["view"]
    if "corner" in row:
        affine = box_affine(row, affine)
    arrays: dict[str, Array] = {"mask": decode_mask(row["mask"]["bytes"], affine, view)}
    for name in ("paint", "image", "original"):
        if name in row:
            arrays[name] = decode_hu(row[name]["bytes"], affine, view)
    if view != "volume":
        return arrays, row["spacing_mm"]
    plane = plane_of(view, row["spacing_mm"])
    axis = VIEW_AXIS[plane]
    across = tuple(n for n in range(3) if n != axis)
    index = int(np.argmax(np.count_nonzero(arrays["mask"], axis=across)))
    flat = {name: to_picture(a.take([index], axis=axis), plane) for name, a in arrays.items()}
    # rows of a picture run along the later axis
    return flat, [row["spacing_mm"][n] for n in reversed(across)]


def _around(picture: Rgb, mask: npt.NDArray[np.bool_]) -> Rgb:
    """The square around a mask, ``CONTEXT`` times as wide."""
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
