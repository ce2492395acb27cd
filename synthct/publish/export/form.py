"""What all kinds of export share: items, the columns of their tables, and file names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from synthct.dataset.schema import arrow_schema, flat_columns

#: Bytes of a name that are kept; file systems take 255 with what is added.
_NAME_BYTES = 150

Columns = Mapping[str, Any]


@dataclass(frozen=True)
class Item:
    """One set of files, and its rows in the tables.

    Attributes:
        record: Its row of ``metadata.parquet``.
        samples: A row of ``samples.csv`` for each sample that it shows.
    """

    record: Columns
    samples: tuple[Columns, ...]


class Form(Protocol):
    """A kind of export."""

    @property
    def loader(self) -> str:
        """The loader of ``load_dataset`` that reads it."""

    @property
    def suffix(self) -> str:
        """The suffix of its files."""

    @property
    def explained(self) -> str:
        """How its files are to be read, as Markdown."""

    @property
    def files(self) -> Mapping[str, str]:
        """What each file of an item holds, by the column that it is loaded as."""

    def record_schema(self, keep_original: bool) -> pa.Schema:
        """The columns of ``metadata.parquet``."""

    def sample_schema(self, keep_original: bool) -> pa.Schema:
        """The columns of ``samples.csv``."""

    def write(self, rows: Iterable[Columns], folder: Path, start: int) -> Iterator[Item]:
        """Write the files of some rows.

        Args:
            rows: Stored rows of one split, in the order of the dataset.
            folder: The split's folder.
            start: Number of the first item.

        Raises:
            VerifyError: If a row is damaged.
        """


def files_of(form: Form, keep_original: bool) -> list[str]:
    """Names of the files of each item."""
    return [name for name in form.files if keep_original or name != "original"]


def file_columns(form: Form, keep_original: bool) -> list[tuple[str, pa.DataType]]:
    """The columns that name files; ``datasets`` loads ``mask_file_name`` as column ``mask``."""
    return [(f"{name}_file_name", pa.string()) for name in files_of(form, keep_original)]


def flat_schema() -> list[tuple[str, pa.DataType]]:
    """Names and types of the columns that people filter by."""
    schema = arrow_schema(keep_original=False)
    return [(name, schema.field(name).type) for name in flat_columns(schema)]


def file_stem(number: int, name: str) -> str:
    """The part of file names that an item's files share.

    The number keeps it unique, also where a file system does not tell ``a`` from ``A``, and from
    being taken for a split (``datasets`` looks for ``test`` at the beginning of names).

    Args:
        number: Of the item, in the whole dataset.
        name: Any text.
    """
    known = unicodedata.normalize("NFC", name)
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in known)
    return f"{number:06d}-{plain.encode()[:_NAME_BYTES].decode(errors='ignore')}"
