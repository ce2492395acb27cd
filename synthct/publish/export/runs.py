"""Items of neighbouring slices: what exports of volumes have in common, whatever their format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import pyarrow as pa

from synthct.publish.export.export_format import (
    Columns,
    ExportFormat,
    Item,
    file_columns,
    file_stem,
)

#: Columns that are equal for all slices of a volume; the others are lists in the metadata.
_SHARED = (
    "lesion_id", "case_id", "patient_id", "donor_case_id", "donor_patient_id", "is_painted",
    "has_lesion", "mask_name", "mask_kind", "label", "view", "variant", "host_in_training",
)  # fmt: skip


class RunFormat(ExportFormat, Protocol):
    """A format whose items are runs of neighbouring slices."""

    def record_schema(self, keep_original: bool, flat: pa.Schema) -> pa.Schema:
        """The columns of ``metadata.parquet``."""
        types = {field.name: field.type for field in flat}
        shared = [(name, types.pop(name)) for name in _SHARED]
        of_slices = [*types.items(), ("provenance", pa.string())]
        lists = [(name, pa.list_(type_)) for name, type_ in of_slices]
        return pa.schema([*file_columns(self, keep_original), *shared, *lists])

    def sample_schema(self, keep_original: bool, flat: pa.Schema) -> pa.Schema:
        """The columns of ``samples.csv``; ``slice`` counts from 0 along the volume's axis."""
        files = file_columns(self, keep_original)
        return pa.schema([*files, ("slice", pa.int32()), *flat])


def run_stem(number: int, run: Sequence[Columns]) -> str:
    """The common part of the file names of neighbouring slices."""
    first = run[0]
    painting = "real" if first["variant"] is None else f"v{first['variant']}"
    return file_stem(number, f"{first['lesion_id']}.{painting}")


def run_item(run: Sequence[Columns], named: Mapping[str, str | None]) -> Item:
    """The rows of neighbouring slices in the tables.

    Args:
        run: Their stored rows.
        named: Columns with the names of their files.
    """
    first = run[0]
    lists = {name: [row[name] for row in run] for name in first if name not in _SHARED}
    record = {**lists, **{name: first[name] for name in _SHARED}, **named}
    return Item(record, tuple({**row, **named, "slice": n} for n, row in enumerate(run)))
