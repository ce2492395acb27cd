"""``--to dicom``: CT series and SEG files, as viewers and archives read them.

Neighbouring slices of one painting of one lesion form one series, as in ``--to nifti``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from synthct.dataset.rows import parsed
from synthct.dataset.sample import Sample
from synthct.dataset.stack import neighbours, stack
from synthct.publish.export.dicom_files import (
    Origin,
    Series,
    ct_series,
    label_regions,
    require_highdicom,
    segmentation,
)
from synthct.publish.export.export_format import Columns, Item
from synthct.publish.export.runs import RunFormat, run_item, run_stem
from synthct.volume import Array, Box
from synthct.volume.views import IGNORE, VIEW_AXIS

if TYPE_CHECKING:
    from pydicom import Dataset

#: Folders of CT slices; the other columns are SEG files.
_SERIES = ("image", "original")


class DicomSeries(RunFormat):
    """A folder of DICOM files: a row is a series of one or more samples."""

    loader: ClassVar = None
    readme_text: ClassVar = """\
For each painting of a lesion, neighbouring slices form one CT series, with the width of the host's
slices, and lie in the host's scan. Masks and label maps are binary SEG files that refer to it; the
number of a segment is its place in the table below. Files of one host have the same study and the
same frame of reference.

Painted series have `SyntheticData` (0008,001C) `YES`, and all are `DERIVED\\SECONDARY`. UIDs
follow from the content. `PatientID` is the dataset's `patient_id`; there are no names and no dates
(`ContentDate` of SEG, which must be there, is 1900-01-01)."""
    files: ClassVar[Mapping[str, str]] = {
        "image": "folder of a CT series; HU",
        "mask": "SEG; where painted",
        "label_map": "SEG; labels after painting",
        "original": "folder of a CT series; HU of the host before painting",
    }

    def require(self) -> None:
        """Make sure that highdicom is installed."""
        require_highdicom()

    def path_of(self, stem: str, name: str) -> str:
        """The file or folder of an item."""
        return f"{stem}_{name}" if name in _SERIES else f"{stem}_{name}.dcm"

    def write(
        self, rows: Iterable[Columns], folder: Path, start: int, labels: Mapping[str, int]
    ) -> Iterator[Item]:
        """Write the files of some rows; see ``ExportFormat.write``."""
        for number, run in enumerate(neighbours(rows), start):
            stem = run_stem(number, run)
            named: dict[str, str | None] = {}
            for name, files in _files_of(run, labels).items():
                named[f"{name}_file_name"] = path = self.path_of(stem, name) if files else None
                if path is not None:
                    _save(files, folder / path)
            yield run_item(run, named)


def _files_of(run: Sequence[Columns], labels: Mapping[str, int]) -> dict[str, list[Dataset]]:
    """The data sets of neighbouring slices, by column; none of a SEG that would be empty."""
    whole = stack(run)
    box, axis = Box.whole(whole.shape), VIEW_AXIS[whole.plane]
    slices = [whole.crop(box.slab(axis, n)) for n in range(whole.shape[axis])]
    origin = _origin(run, whole)
    image = ct_series(slices, _pictures(slices, "image"), Series(origin, 1, "image"))
    known = dict(sorted(labels.items(), key=lambda pair: pair[1]))
    shown = np.stack(_pictures(slices, "labels"))
    if (shown == IGNORE).any():
        known["ignore"] = IGNORE
    masks = np.stack(_pictures(slices, "mask"))[..., None]
    files = {
        "image": image,
        "mask": _alone(segmentation(image, masks, ["mask"], Series(origin, 2, "mask"))),
        "label_map": _alone(
            segmentation(
                image, label_regions(shown, known), list(known), Series(origin, 3, "labels")
            )
        ),
    }
    if whole.original is not None:
        series = Series(origin, 4, "original")
        files["original"] = ct_series(slices, _pictures(slices, "original"), series)
    return files


def _alone(seg: Dataset | None) -> list[Dataset]:
    return [] if seg is None else [seg]


def _pictures(slices: Sequence[Sample], name: str) -> list[Array]:
    return [one.pictures[name] for one in slices]


def _origin(run: Sequence[Columns], sample: Sample) -> Origin:
    row, painted = run[0], bool(run[0]["is_painted"])
    kind = "synthetic" if painted else "real"
    host = sample.provenance.get("host") or {}
    return Origin(
        patient=row["patient_id"],
        host=f"{row['case_id']} {host.get('voxel_sha256', '')}",
        name=" ".join(f"{one['sample_id']} {one['sample_digest']}" for one in run),
        is_painted=painted,
        description=f"{kind} {row['label'] or row['mask_kind']}",
        window=(sample.window.level_hu, sample.window.width_hu),
        sources=[(parsed(one)[0].get("host") or {}).get("dicom") for one in run],
    )


def _save(files: Sequence[Dataset], path: Path) -> None:
    if path.suffix == ".dcm":
        files[0].save_as(path, enforce_file_format=True)
        return
    path.mkdir()
    for n, data in enumerate(files, start=1):
        data.save_as(path / f"{n:04d}.dcm", enforce_file_format=True)
