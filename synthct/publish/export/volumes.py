"""``--to nifti``: volumes that open over the host's scan.

Neighbouring slices of one painting of one lesion form one volume, with the width of the host's
slices and the correct affine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from synthct.dataset.stack import neighbours, stack
from synthct.publish.export.export_format import Columns, Item, file_columns, file_stem
from synthct.volume import Volume, nifti_bytes

#: Columns that are equal for all slices of a volume; the others are lists in the metadata.
_SHARED = (
    "lesion_id", "case_id", "patient_id", "donor_case_id", "donor_patient_id", "is_painted",
    "has_lesion", "mask_name", "mask_kind", "label", "view", "variant", "host_in_training",
)  # fmt: skip


class Volumes:
    """A folder for ``niftifolder``: a row is a volume, of one or more slices."""

    loader: ClassVar = "niftifolder"
    suffix: ClassVar = "nii.gz"
    readme_text: ClassVar = """\
For each painting of a lesion, neighbouring slices form one volume, with the width of the host's
slices; a sample that is a volume stays as it is. It opens at its place in the host's scan. Columns
that differ between its slices are lists, in the order of the slices."""
    files: ClassVar[Mapping[str, str]] = {
        "image": "int16; HU",
        "mask": "uint8; 1 where painted, else 0",
        "label_map": "label values after painting",
        "original": "int16; HU of the host before painting",
    }

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

    def write(self, rows: Iterable[Columns], folder: Path, start: int) -> Iterator[Item]:
        """Write the files of some rows; see ``ExportFormat.write``."""
        for number, run in enumerate(neighbours(rows), start):
            first = run[0]
            painting = "real" if first["variant"] is None else f"v{first['variant']}"
            stem = file_stem(number, f"{first['lesion_id']}.{painting}")
            named = {}
            for name, volume in _volumes_of(run).items():
                named[f"{name}_file_name"] = file = f"{stem}_{name}.{self.suffix}"
                (folder / file).write_bytes(nifti_bytes(volume, compress=True))
            lists = {name: [row[name] for row in run] for name in first if name not in _SHARED}
            record = {**lists, **{name: first[name] for name in _SHARED}, **named}
            samples = ({**row, **named, "slice": n} for n, row in enumerate(run))
            yield Item(record, tuple(samples))


def _volumes_of(run: Sequence[Columns]) -> dict[str, Volume]:
    """The volumes of neighbouring slices, by name."""
    whole = stack(run)
    volumes = {
        "image": whole.volume("image"),
        "mask": Volume(whole.mask.astype(np.uint8), whole.affine),
        "label_map": whole.volume("labels"),
    }
    return volumes if whole.original is None else {**volumes, "original": whole.volume("original")}
