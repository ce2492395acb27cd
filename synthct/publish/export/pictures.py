"""``--to png``: the pictures of each sample, byte for byte as in the dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from synthct.publish.export.export_format import (
    Columns,
    ExportFormat,
    Item,
    file_columns,
    file_stem,
    files_of,
)

#: Further columns; the provenance is JSON text.
_MORE = [
    ("spacing_mm", pa.list_(pa.float64())),
    ("affine", pa.list_(pa.float64())),
    ("provenance", pa.string()),
]


class Pictures(ExportFormat):
    """A folder for ``imagefolder``: a row is a sample."""

    loader: ClassVar = "imagefolder"
    readme_text: ClassVar = """\
A row is a sample. `affine` (4 x 4 by rows) takes picture index (row, column, 0, 1) to RAS+
millimetres; HU are `np.asarray(sample["image"]).astype(np.int16) - 1024`. The patient's right
(axial, coronal) or front (sagittal) is on the left of a picture."""
    files: ClassVar[Mapping[str, str]] = {
        "image": "16-bit; HU + 1024",
        "mask": "8-bit; 255 where painted, else 0",
        "label_map": "label values after painting",
        "original": "16-bit; HU + 1024 of the host before painting",
        "preview": "8-bit, windowed, with the mask outlined: for viewing only",
    }

    def path_of(self, stem: str, name: str) -> str:
        """The file of an item."""
        return f"{stem}_{name}.png"

    def record_schema(self, keep_original: bool, flat: pa.Schema) -> pa.Schema:
        """The columns of ``metadata.parquet``."""
        return pa.schema([*file_columns(self, keep_original), *flat, *_MORE])

    def write(
        self, rows: Iterable[Columns], folder: Path, start: int, labels: Mapping[str, int]
    ) -> Iterator[Item]:
        """Write the files of some rows; see ``ExportFormat.write``."""
        del labels
        for number, row in enumerate(rows, start):
            stem = file_stem(number, row["sample_id"])
            named = {}
            for name in files_of(self, "original" in row):
                named[f"{name}_file_name"] = file = self.path_of(stem, name)
                (folder / file).write_bytes(row[name]["bytes"])
            record = {**row, **named}
            yield Item(record, (record,))
