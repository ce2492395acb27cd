from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from dataset_rows import make_test_row
from PIL import Image

from synthct.dataset.documents.sheet import TILE, TILES, dataset_sheet
from synthct.dataset.schema import arrow_schema
from synthct.dataset.tiles import GAP
from synthct.dataset.writer import write_shard


def picture_of(png: bytes | None) -> np.ndarray:
    assert png is not None
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def shards_of(folder: Path, *counts: int) -> list[Path]:
    (folder / "data").mkdir()
    paths, number = [], 0
    for index, count in enumerate(counts):
        rows = [make_test_row(number + n) for n in range(count)]
        number += count
        record = write_shard(folder, f"data/{index}.parquet", rows, split="train",
                             schema=arrow_schema(keep_original=False))  # fmt: skip
        paths.append(folder / record.path)
    return paths


def test_the_datasets_sheet_shows_every_sample_of_a_small_one(tmp_path: Path) -> None:
    picture = picture_of(dataset_sheet(shards_of(tmp_path, 2, 0, 3)))
    assert picture.shape[1] == 3 * (2 * TILE + GAP)
    filled = [bool(tile.max() > 0) for tile in tiles(picture, rows=2)]
    assert filled == [True] * 5 + [False]


def test_the_datasets_sheet_takes_a_share_of_a_large_one(tmp_path: Path) -> None:
    picture = picture_of(dataset_sheet(shards_of(tmp_path, 11, 9)))
    assert all(tile.max() > 0 for tile in tiles(picture, rows=TILES // 3))


def tiles(picture: np.ndarray, rows: int) -> list[np.ndarray]:
    return [
        tile for row in np.array_split(picture, rows) for tile in np.array_split(row, 3, axis=1)
    ]


@pytest.mark.parametrize("counts", [(), (0,)])
def test_an_empty_dataset_has_no_sheet(tmp_path: Path, counts: tuple[int, ...]) -> None:
    assert dataset_sheet(shards_of(tmp_path, *counts)) is None
