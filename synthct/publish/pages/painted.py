"""The painted rows of a dataset, any of them read when it is looked at."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from synthct.dataset.added import with_added_columns
from synthct.dataset.rows import Columns
from synthct.dataset.writer import read_shard
from synthct.errors import VerifyError
from synthct.evaluate.stream import Dataset

_NAMES = ("sample_id", "sample_digest", "mask_id", "label", "is_painted")


class _Place(NamedTuple):
    """Where a row is."""

    shard: Path
    group: int
    row: int


class PaintedRows:
    """The painted rows, in the order of the dataset.

    Args:
        folder: The folder of a version.

    Attributes:
        dataset: The dataset.
        facts: Of each row some flat columns.

    Raises:
        VerifyError: If the dataset is damaged or has no pictures.
    """

    def __init__(self, folder: Path) -> None:
        self.dataset = Dataset(folder)
        self.facts: list[dict[str, Any]] = []
        self._places: list[_Place] = []
        for shard in self.dataset.shards:
            for place, row in zip(_places(shard), _facts(shard), strict=True):
                if row["is_painted"] is not False:
                    self._places.append(place)
                    self.facts.append(row)
        self._group = lru_cache(maxsize=2)(_row_group)

    def __len__(self) -> int:
        return len(self.facts)

    def columns(self, number: int) -> Columns:
        """A row as it is stored, without its preview.

        Raises:
            IndexError: If there is no such row.
            VerifyError: If its shard is damaged.
        """
        place = self._places[number]
        table = with_added_columns(self._group(place.shard, place.group), None)
        columns: dict[str, Any] = table.slice(place.row, 1).to_pylist()[0]
        return columns


def _facts(shard: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_shard(shard, list(_NAMES)).to_pylist()
    return rows


def _places(shard: Path) -> list[_Place]:
    with pq.ParquetFile(shard) as file:
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    return [_Place(shard, group, row) for group, size in enumerate(sizes) for row in range(size)]


def _row_group(shard: Path, group: int) -> pa.Table:
    try:
        with pq.ParquetFile(shard, page_checksum_verification=True) as file:
            names = [name for name in file.schema_arrow.names if name != "preview"]
            return file.read_row_group(group, columns=names)
    except (pa.ArrowException, OSError) as err:
        raise VerifyError(f"{shard}: damaged ({err}); build it again") from err
