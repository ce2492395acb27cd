"""An export as somebody would add it: the HU of each sample as NumPy writes them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from synthct.publish.export.export_format import (
    Columns,
    ExportFormat,
    Item,
    file_stem,
)


class Raw(ExportFormat):
    """A ``.npy`` file for each sample."""

    loader: ClassVar = None
    readme_text: ClassVar = "`numpy.load` reads them."
    files: ClassVar[Mapping[str, str]] = {"image": "int16; HU"}

    def path_of(self, stem: str, name: str) -> str:
        del name
        return f"{stem}.npy"

    def write(
        self, rows: Iterable[Columns], folder: Path, start: int, labels: Mapping[str, int]
    ) -> Iterator[Item]:
        del labels
        for number, row in enumerate(rows, start):
            file = self.path_of(file_stem(number, row["sample_id"]), "image")
            stored = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
            np.save(folder / file, stored.astype(np.int16) - 1024)
            record = {**row, "image_file_name": file}
            yield Item(record, (record,))
