"""``--to nifti --whole``: whole painted scans, in the files' own grid, orientation and values.

Voxels outside of the masks are those of the host's file, bit for bit where that is a NIfTI file in
3D, else the canonical HU that it is read as. So they are of rows that show whole scans, if no hosts
are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from synthct.publish.export.export_format import Columns, Item, file_columns, file_stem
from synthct.publish.export.scans import PaintedScan, PaintedScans
from synthct.publish.export.volumes import Volumes
from synthct.volume import Volume, nifti_bytes, restore_orientation
from synthct.volume.nifti_file import NiftiFile

#: Columns of a scan.
_OF_SCAN = (
    ("case_id", pa.string()),
    ("patient_id", pa.string()),
    ("variant", pa.int32()),
    ("lesions", pa.int32()),
    ("sample_ids", pa.list_(pa.string())),
    ("labels", pa.list_(pa.string())),
)


class WholeScans(Volumes):
    """A folder for ``niftifolder``: a row is a whole scan with one or more painted lesions.

    Args:
        scans: The scans of the dataset.
    """

    readme_text: ClassVar = """\
Whole scans, with every lesion of the host that does not overlap another; what does not fit, and
every other variant, has a scan of its own. Grid, orientation, type and values are those of the
host's file, but for the voxels of the masks; where no NIfTI file of the host was given, they are
canonical: int16 HU within -1024..3071, axes to the right, anterior and superior."""
    files: ClassVar[Mapping[str, str]] = {
        "image": "the host with the painted voxels in it",
        "mask": "uint8; 0 outside of the masks, n in those of the scan's n-th lesion (column "
        "`number` of `samples.csv`)",
        "label_map": "label values after painting",
    }

    def __init__(self, scans: PaintedScans) -> None:
        self._scans = scans

    def record_schema(self, keep_original: bool, flat: pa.Schema) -> pa.Schema:
        """The columns of ``metadata.parquet``."""
        del keep_original, flat
        return pa.schema([*file_columns(self, False), *_OF_SCAN])

    def sample_schema(self, keep_original: bool, flat: pa.Schema) -> pa.Schema:
        """The columns of ``samples.csv``; ``number`` is that of the lesion in the scan."""
        del keep_original
        return pa.schema([*file_columns(self, False), ("number", pa.int32()), *flat])

    def write(
        self, rows: Iterable[Columns], folder: Path, start: int, labels: Mapping[str, int]
    ) -> Iterator[Item]:
        """Write the files of some rows; see ``ExportFormat.write``."""
        del labels  # the hosts' label maps have no names in their headers either
        for number, scan in enumerate(self._scans.of(rows), start):
            more = f".{scan.part}" if scan.parts > 1 else ""
            stem = file_stem(number, f"{scan.case.case_id}.v{scan.variant}{more}")
            yield _item(scan, _write(scan, folder, stem))


def _write(scan: PaintedScan, folder: Path, stem: str) -> dict[str, str]:
    """Write the files of a scan; their names by column."""
    file = None if scan.entry is None else NiftiFile.open(scan.entry.image, scan.entry.reading)
    affine = scan.case.labels.affine
    volumes = {
        "mask": Volume(scan.number, affine),
        "label_map": Volume(scan.labels, affine),
    }
    painted = Volume(scan.painted(), affine)
    if file is None:
        content = {"image": nifti_bytes(painted, compress=True)}
    else:
        own = restore_orientation(painted, file.affine).array
        where = restore_orientation(Volume(scan.number > 0, affine), file.affine).array
        content = {"image": file.with_values(own, where)}
        volumes = {
            name: Volume(restore_orientation(one, file.affine).array, file.affine)
            for name, one in volumes.items()
        }
    content |= {name: nifti_bytes(one, compress=True) for name, one in volumes.items()}
    named = {}
    for name, data in content.items():
        named[f"{name}_file_name"] = path = f"{stem}_{name}.nii.gz"
        (folder / path).write_bytes(data)
    return named


def _item(scan: PaintedScan, named: Mapping[str, str]) -> Item:
    first = scan.rows[0][0]
    record = {
        **named,
        "case_id": first["case_id"],
        "patient_id": first["patient_id"],
        "variant": scan.variant,
        "lesions": len(scan.lesions),
        "sample_ids": [row["sample_id"] for row, _ in scan.rows],
        "labels": [row["label"] for row, _ in scan.rows],
    }
    samples = tuple({**row, **named, "number": number} for row, number in scan.rows)
    return Item(record, samples)
