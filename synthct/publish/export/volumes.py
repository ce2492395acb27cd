"""``--to nifti``: volumes that open over the host's scan.

Neighbouring slices of one painting of one lesion form one volume, with the width of the host's
slices and the correct affine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from synthct.dataset.stack import neighbours, stack
from synthct.publish.export.export_format import Columns, Item
from synthct.publish.export.label_files import itksnap_text, label_table_xml, slicer_text
from synthct.publish.export.runs import RunFormat, run_item, run_stem
from synthct.volume import Volume, nifti_bytes
from synthct.volume.views import IGNORE


class Volumes(RunFormat):
    """A folder for ``niftifolder``: a row is a volume, of one or more slices."""

    loader: ClassVar = "niftifolder"
    readme_text: ClassVar = """\
For each painting of a lesion, neighbouring slices form one volume, with the width of the host's
slices; a sample that is a volume stays as it is. It opens at its place in the host's scan. Columns
that differ between its slices are lists, in the order of the slices. Headers of label maps hold the
names of the values, as those of TotalSegmentator do."""
    files: ClassVar[Mapping[str, str]] = {
        "image": "int16; HU",
        "mask": "uint8; 1 where painted, else 0",
        "label_map": "label values after painting",
        "original": "int16; HU of the host before painting",
    }

    def path_of(self, stem: str, name: str) -> str:
        """The file of an item."""
        return f"{stem}_{name}.nii.gz"

    def label_files(self, labels: Mapping[str, int]) -> dict[str, tuple[str, str]]:
        """Names of the label values for ITK-SNAP and 3D Slicer."""
        known = {**labels, "ignore": IGNORE}
        return {
            "labels.itksnap.txt": (itksnap_text(known), "names of the label values for ITK-SNAP"),
            "labels.ctbl": (slicer_text(known), "names of the label values for 3D Slicer"),
        }

    def write(
        self, rows: Iterable[Columns], folder: Path, start: int, labels: Mapping[str, int]
    ) -> Iterator[Item]:
        """Write the files of some rows; see ``ExportFormat.write``."""
        table = label_table_xml({**labels, "ignore": IGNORE}).encode()
        for number, run in enumerate(neighbours(rows), start):
            stem, named = run_stem(number, run), {}
            for name, volume in _volumes_of(run).items():
                named[f"{name}_file_name"] = file = self.path_of(stem, name)
                extension = table if name == "label_map" else None
                content = nifti_bytes(volume, compress=True, extension=extension)
                (folder / file).write_bytes(content)
            yield run_item(run, named)


def _volumes_of(run: Sequence[Columns]) -> dict[str, Volume]:
    """The volumes of neighbouring slices, by name."""
    whole = stack(run)
    volumes = {
        "image": whole.volume("image"),
        "mask": Volume(whole.mask.astype(np.uint8), whole.affine),
        "label_map": whole.volume("labels"),
    }
    return volumes if whole.original is None else {**volumes, "original": whole.volume("original")}
