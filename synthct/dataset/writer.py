"""Shards: the unit of work, of resume and of checking.

A shard is made whole in memory and put on disk in one step. One function seals all shards with
fixed settings, so the same rows are the same bytes under one version of pyarrow. An entry in the
journal then says that it is done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from synthct.dataset.added import OPTIONAL, with_added_columns
from synthct.dataset.schema import flat_columns, flat_schema
from synthct.errors import ResourceError, VerifyError
from synthct.metrics.table import MEASURES
from synthct.storage.files import atomic_write, make_folder, resource_error

#: Few enough rows that a viewer can fetch one group, many enough that scans stay long.
ROW_GROUP_ROWS = 64

_CODEC, _CODEC_LEVEL = "zstd", 3

#: A column that only patch-only releases have.
_PATCH_DIGEST = "patch_digest"

#: Columns that shards of earlier formats, of slices, or of full releases have not.
_OPTIONAL = {
    *OPTIONAL, *(name for name, measure in MEASURES.items() if measure.of_volumes), _PATCH_DIGEST,
}  # fmt: skip


@dataclass(frozen=True)
class Rejection:
    """A planned sample that was not accepted.

    Attributes:
        sample_id: Its id in the plan.
        reason: A few words, the same for all samples rejected for the same reason.
        measure: Name of the measure that broke a limit, if one did.
        value: Its value.
        columns: The flat columns of the row that was painted; empty if none was.
        detail: The whole message where its mask cannot be drawn or painted; not stored.
    """

    sample_id: str
    reason: str
    measure: str | None = None
    value: float | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    detail: str = field(default="", compare=False)


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard.

    Attributes:
        path: Relative to the dataset's folder, with forward slashes.
        split: The split that its rows belong to.
        rows: Number of rows.
        bytes: Size of the file.
        sha256: Hash of the file in hex.
        rejected: The planned samples that are not among its rows.
    """

    path: str
    split: str
    rows: int
    bytes: int
    sha256: str
    rejected: tuple[Rejection, ...] = ()


def reject(
    row: Mapping[str, Any], reason: str, measure: str | None = None, value: float | None = None
) -> Rejection:
    """A row that was painted and is not good enough, without its pictures."""
    flat = {name: row[name] for name in flat_schema(volume=row["view"] == "volume").names}
    return Rejection(row["sample_id"], reason, measure, value, flat)


def shard_name(split: str, index: int, count: int) -> str:
    """Path of a shard in its dataset: ``data/train-00000-of-00012.parquet``."""
    return f"data/{split}-{index:05d}-of-{count:05d}.parquet"


def write_shard(
    folder: Path,
    path: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    split: str,
    schema: pa.Schema,
    rejected: Sequence[Rejection] = (),
) -> ShardRecord:
    """Seal rows as one shard, durably, replacing a file of that name in one step.

    Args:
        folder: The dataset's folder.
        path: The shard's ``shard_name``.
        rows: By column, in the order of the plan.
        split: The split of all rows.
        schema: The columns of the dataset.
        rejected: What the plan has and the rows have not.

    Returns:
        The record for ``record_shard``.

    Raises:
        ResourceError: If the disk is full or the folder cannot be written.
    """
    data = shard_bytes(rows, schema)
    make_folder((folder / path).parent)
    atomic_write(folder / path, data)
    digest = hashlib.sha256(data).hexdigest()
    return ShardRecord(path, split, len(rows), len(data), digest, tuple(rejected))


def shard_bytes(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> memoryview:
    """The parquet file of some rows: fixed row groups, codec and level, and page checksums."""
    arrays = [_array([row[field.name] for row in rows], field.type) for field in schema]
    flat = flat_columns(schema)
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=schema).combine_chunks(),
        sink,
        row_group_size=ROW_GROUP_ROWS,
        version="2.6",
        data_page_version="1.0",
        compression=_CODEC,
        compression_level=_CODEC_LEVEL,
        use_dictionary=flat,
        write_statistics=flat,
        write_page_index=True,
        write_page_checksum=True,
        store_schema=True,
    )
    return memoryview(sink.getvalue())  # not copied: of volumes, it is large


def writer_settings() -> dict[str, Any]:
    """What decides a shard's bytes beside its rows; for the lock."""
    return {
        "codec": _CODEC,
        "codec_level": _CODEC_LEVEL,
        "page_checksums": True,
        "pyarrow": pa.__version__,
        "row_group_rows": ROW_GROUP_ROWS,
    }


def read_shard(path: Path, columns: Collection[str] | None = None) -> pa.Table:
    """Read a shard with its page checksums verified, which readers do not do by themselves.

    Raises:
        VerifyError: If a page's checksum is wrong or the file is no parquet.
        ResourceError: If it cannot be opened.
    """
    try:
        with (
            path.open("rb") as stream,
            # A third of the time of pyarrow's read_table, which can read whole folders too.
            pq.ParquetFile(
                pa.PythonFile(stream, mode="r"), page_checksum_verification=True
            ) as file,
        ):
            there = file.schema_arrow.names
            wanted = there if columns is None else columns
            stored = [name for name in wanted if name in there or name not in _OPTIONAL]
            if missing := set(stored) - set(there):  # which pyarrow passes over here
                raise ValueError(f"it has no column {min(missing)}")
            return with_added_columns(file.read(stored, use_threads=False), columns)
    except (FileNotFoundError, PermissionError) as err:
        raise ResourceError(f"{path}: {err.strerror}; it belongs to the dataset") from err
    except (pa.ArrowException, OSError, ValueError) as err:
        if isinstance(err, OSError) and err.errno is not None:  # of the disk, not of pyarrow
            raise resource_error(path, err) from err
        raise VerifyError(f"{path}: damaged ({err}); delete it and build again") from err


class RowDigests(NamedTuple):
    """The digests that the rows of some shards state.

    Attributes:
        samples: Of the full samples.
        patches: Of what the rows hold themselves, in a patch-only release; else None.
    """

    samples: list[str]
    patches: list[str] | None

    @property
    def own(self) -> list[str]:
        """Those of what the rows hold themselves."""
        return self.samples if self.patches is None else self.patches

    def joined(self, more: RowDigests) -> RowDigests:
        """These and those of the next shard."""
        patches = None if more.patches is None else [*(self.patches or ()), *more.patches]
        return RowDigests(self.samples + more.samples, patches)


def row_digests(path: Path) -> RowDigests:
    """The digests in a shard.

    Raises:
        VerifyError: If it is damaged.
        ResourceError: If it cannot be opened.
    """
    table = read_shard(path, ["sample_digest", _PATCH_DIGEST])
    is_patch = _PATCH_DIGEST in table.column_names
    patches = table[_PATCH_DIGEST].to_pylist() if is_patch else None
    return RowDigests(table["sample_digest"].to_pylist(), patches)


def _array(values: list[Any], type_: pa.DataType) -> pa.Array:
    if isinstance(type_, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(type_, pa.array(values, type_.storage_type))
    return pa.array(values, type_)
