"""``samples.csv``: the rows of an export's table of samples."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from synthct.publish.export.export_format import Columns
from synthct.sources.exported import is_formula


def samples_table(rows: Sequence[Columns], schema: pa.Schema) -> pa.Table:
    """Rows for a CSV file; a row without a column has null there.

    An apostrophe stands before every text that a spreadsheet would run as a formula.
    """
    columns = {name: [_inert(row.get(name)) for row in rows] for name in schema.names}
    return pa.table(columns, schema)


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and is_formula(value) else value
