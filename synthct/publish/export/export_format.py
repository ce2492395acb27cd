"""The protocol of export formats, the columns of their tables, and file names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

#: Most bytes of a name in a file name; file systems allow 255 in all.
_NAME_BYTES = 150

Columns = Mapping[str, Any]


@dataclass(frozen=True)
class Item:
    """One set of exported files, and its rows in the tables.

    Attributes:
        record: Its row of ``metadata.parquet``.
        samples: Its rows of ``samples.csv``, one per sample.
    """

    record: Columns
    samples: tuple[Columns, ...]


class ExportFormat(Protocol):
    """An export format. Subclasses state what differs from a table of the dataset's columns."""

    @property
    def loader(self) -> str | None:
        """Name of the loader for ``datasets.load_dataset``; None if it has none."""

    @property
    def readme_text(self) -> str:
        """How to read its files, as Markdown."""

    @property
    def files(self) -> Mapping[str, str]:
        """Description of each file of an item, by the column that it is loaded as."""

    def require(self) -> None:
        """Make sure that the packages that it needs are installed.

        Raises:
            RecipeError: If one is not.
        """
        return

    def path_of(self, stem: str, name: str) -> str:
        """The file (or folder) of an item for a column of ``files``.

        Args:
            stem: The common part of the item's names.
            name: The column.
        """

    def label_files(self, labels: Mapping[str, int]) -> dict[str, tuple[str, str]]:
        """Further files of the export that tell the names of label values.

        Args:
            labels: Name to value.

        Returns:
            File name to text and description.
        """
        del labels
        return {}

    def record_schema(self, keep_original: bool, flat: pa.Schema) -> pa.Schema:
        """The columns of ``metadata.parquet``; ``flat`` are the dataset's with plain values."""
        return self.sample_schema(keep_original, flat)

    def sample_schema(self, keep_original: bool, flat: pa.Schema) -> pa.Schema:
        """The columns of ``samples.csv``."""
        return pa.schema([*file_columns(self, keep_original), *flat])

    def write(
        self, rows: Iterable[Columns], folder: Path, start: int, labels: Mapping[str, int]
    ) -> Iterator[Item]:
        """Write the files of some rows.

        Args:
            rows: Stored rows of one split, in the order of the dataset.
            folder: The split's folder.
            start: Number of the first item.
            labels: Values of the label map by name.

        Raises:
            VerifyError: If a row is damaged.
        """


def files_of(fmt: ExportFormat, keep_original: bool) -> list[str]:
    """The columns that an item has files for."""
    return [name for name in fmt.files if keep_original or name != "original"]


def file_columns(fmt: ExportFormat, keep_original: bool) -> list[tuple[str, pa.DataType]]:
    """The columns that name files; ``datasets`` loads ``mask_file_name`` as column ``mask``."""
    return [(f"{name}_file_name", pa.string()) for name in files_of(fmt, keep_original)]


def file_stem(number: int, name: str) -> str:
    """The common part of an item's file names.

    The number makes it unique, also on case-insensitive file systems, and prevents that
    ``datasets`` takes a name that starts with ``test`` for a split.

    Args:
        number: Number of the item in the whole dataset.
        name: Any text.
    """
    known = unicodedata.normalize("NFC", name)
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in known)
    return f"{number:06d}-{plain.encode()[:_NAME_BYTES].decode(errors='ignore')}"
