"""``--to nnunet``: whole painted scans, and real ones beside them, as a raw dataset of nnU-Net.

Patients of train and validation are in ``imagesTr``, those of test in ``imagesTs``. Label values
are 1, 2, ... in the order of the dataset's, and the one after them is ``ignore`` where voxels have
unknown content. Format: https://github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv
from tqdm import tqdm

from synthct.dataset.manifest import Manifest
from synthct.dataset.markdown import code, inert, table
from synthct.dataset.rows import parsed
from synthct.dataset.schema import flat_schema
from synthct.errors import RecipeError, counted
from synthct.publish.export.export_format import Columns, file_stem
from synthct.publish.export.samples import samples_table
from synthct.publish.export.scans import PaintedScan, PaintedScans, rows_of_split
from synthct.seeds import derive_seed
from synthct.sources import CaseEntry
from synthct.volume import Volume, nifti_bytes, restore_orientation
from synthct.volume.nifti_file import NiftiFile
from synthct.volume.views import IGNORE

_FOLDER = re.compile(r"Dataset\d{3}_[A-Za-z0-9_-]+")
_ENDING = ".nii.gz"
#: nnU-Net's default number of folds.
_FOLDS = 5

#: Columns of ``samples.csv`` beside the dataset's own.
_OF_CASE = (
    ("image_file_name", pa.string()),
    ("label_file_name", pa.string()),
    ("is_real_scan", pa.bool_()),
    ("number", pa.int32()),
    ("host_licence", pa.string()),
    ("donor_licence", pa.string()),
    ("licence", pa.string()),
)


@dataclass(frozen=True)
class WrittenCase:
    """A case of nnU-Net's.

    Attributes:
        name: Its identifier.
        split: The split of its patient.
        patient: The host's patient.
        people: The patients of whom anything is in it: host and donors.
        is_real: Whether it is a host as it is.
    """

    name: str
    split: str
    patient: str
    people: frozenset[str]
    is_real: bool


def default_name(name: str) -> str:
    """``Dataset501_KitsTumors`` for the dataset ``kits-tumors``."""
    return f"Dataset501_{''.join(part.capitalize() for part in name.split('-'))}"


def require_name(folder: Path) -> None:
    """Refuse a folder that nnU-Net would not find.

    Raises:
        RecipeError: If its name is not ``DatasetXXX_Name``.
    """
    if not _FOLDER.fullmatch(folder.name):
        raise RecipeError(
            f"nnU-Net reads folders that are called DatasetXXX_Name with a number of three "
            f"digits, not '{folder.name}'; write --output {folder.parent / 'Dataset501_Name'}"
        )


class NnUnet:
    """Writes a raw dataset of nnU-Net.

    Args:
        scans: The scans of the dataset.
        real: Also write the hosts as they are.
    """

    def __init__(self, scans: PaintedScans, *, real: bool) -> None:
        self._scans, self._real = scans, real
        labels = sorted(scans.lock.labels.items(), key=lambda label: label[1])
        self._names = {"background": 0} | {name: n for n, (name, _) in enumerate(labels, 1)}
        self._ignore = len(self._names)
        dtype = np.uint8 if self._ignore <= np.iinfo(np.uint8).max else np.uint16
        self._values = np.zeros(1 + max([IGNORE, *scans.lock.labels.values()]), dtype)
        for name, value in labels:
            self._values[value] = self._names[name]
        self._values[IGNORE] = self._ignore
        self._is_ignored = False

    def write(self, folder: Path, manifest: Manifest, tree: Path, progress: bool) -> None:
        """Write all files but those that are copied from the version.

        Args:
            folder: The folder of the version.
            manifest: Its manifest.
            tree: The folder to write, which is empty.
            progress: Show a progress bar.
        """
        for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (tree / name).mkdir()
        schema = pa.schema([("split", pa.string()), *_OF_CASE, *flat_schema(volume=True)])
        cases: list[WrittenCase] = []
        splits: dict[str, str] = {}
        with (
            tqdm(unit="scan", disable=not progress) as bar,
            pa_csv.CSVWriter(tree / "samples.csv", schema) as listed,
        ):
            for split in (one.name for one in manifest.release.splits if one.rows):
                for scan in self._scans.of(rows_of_split(folder, manifest, split)):
                    case, rows = self._write_painted(tree, scan, split, len(cases))
                    cases.append(case)
                    splits |= dict.fromkeys(case.people, split)
                    listed.write_table(samples_table(rows, schema))
                    bar.update()
            for entry in self._scans.hosts if self._real else ():
                # Nothing of a patient whom no sample is about is in any other split.
                split = splits.get(entry.patient_id, "train")
                case, row = self._write_real(tree, entry, split, len(cases))
                cases.append(case)
                listed.write_table(samples_table([row], schema))
                bar.update()
        self._write_json(tree, manifest, cases)
        (tree / "README.md").write_text(self._page(manifest, cases), encoding="utf-8")

    def _write_painted(
        self, tree: Path, scan: PaintedScan, split: str, number: int
    ) -> tuple[WrittenCase, list[Columns]]:
        first = scan.rows[0][0]
        more = f"_{scan.part}" if scan.parts > 1 else ""
        name = _name(number, f"{scan.case.case_id}_v{scan.variant}{more}")
        image = Volume(scan.painted(), scan.case.scan().affine)
        named = self._write_files(tree, name, split, scan.entry, image, scan.labels)
        people = {row["donor_patient_id"] for row, _ in scan.rows} - {None}
        case = WrittenCase(
            name, split, first["patient_id"], frozenset({first["patient_id"], *people}), False
        )
        own = {**named, "split": split, "is_real_scan": False, "licence": self._scans.lock.licence}
        return case, [{**row, **own, **_licences(row), "number": n} for row, n in scan.rows]

    def _write_real(
        self, tree: Path, entry: CaseEntry, split: str, number: int
    ) -> tuple[WrittenCase, Columns]:
        case = self._scans.host(entry)
        name = _name(number, f"{entry.case_id}_real")
        named = self._write_files(tree, name, split, entry, case.scan(), case.labels.array)
        written = WrittenCase(name, split, entry.patient_id, frozenset({entry.patient_id}), True)
        return written, {
            **named,
            "split": split,
            "is_real_scan": True,
            "is_painted": False,
            "case_id": entry.case_id,
            "patient_id": entry.patient_id,
            "host_licence": entry.licence,
            "licence": entry.licence,
        }

    def _write_files(
        self,
        tree: Path,
        name: str,
        split: str,
        entry: CaseEntry | None,
        image: Volume,
        labels: npt.NDArray[Any],
    ) -> dict[str, str]:
        """Write scan and label map of a case in the orientation of the host's file, if there is."""
        self._is_ignored = self._is_ignored or bool((labels == IGNORE).any())
        volumes = {"image": image, "label": Volume(self._values[labels], image.affine)}
        file = None if entry is None else NiftiFile.open(entry.image, entry.reading)
        part = "Ts" if split == "test" else "Tr"
        names = {
            "image": f"images{part}/{name}_0000{_ENDING}",
            "label": f"labels{part}/{name}{_ENDING}",
        }
        for what, volume in volumes.items():
            turned = volume
            if file is not None:
                turned = Volume(restore_orientation(volume, file.affine).array, file.affine)
            (tree / names[what]).write_bytes(nifti_bytes(turned, compress=True))
        return {f"{what}_file_name": path for what, path in names.items()}

    def _labels(self) -> dict[str, int]:
        return {**self._names, **({"ignore": self._ignore} if self._is_ignored else {})}

    def _write_json(self, tree: Path, manifest: Manifest, cases: Sequence[WrittenCase]) -> None:
        release, lock = manifest.release, self._scans.lock
        content = {
            "channel_names": {"0": "CT"},
            "labels": self._labels(),
            "numTraining": sum(case.split != "test" for case in cases),
            "file_ending": _ENDING,
            "name": release.name,
            "description": f"content {release.content_id}",
            "release": release.version,
            "licence": lock.licence or "unknown",
        }
        _write_text(tree / "dataset.json", content)
        if folds := folds_of(cases):
            _write_text(tree / "splits_final.json", folds)

    def _page(self, manifest: Manifest, cases: Sequence[WrittenCase]) -> str:
        release = manifest.release
        painted = sum(not case.is_real for case in cases)
        files = [
            ["`imagesTr`, `labelsTr`", "scans and label maps of train and validation"],
            ["`imagesTs`, `labelsTs`", "those of test"],
            ["`splits_final.json`", "folds in which no patient is on both sides, be it as donor; "
             "copy it into `nnUNet_preprocessed/` after planning"],
            ["`samples.csv`", "which painted lesion is in which scan, of whom it was made, and the "
             "licences"],
            ["`synthct.lock`, `attribution.md`", "every input by hash; who is to be named"],
        ]  # fmt: skip
        scans = (
            f"{counted(painted, 'painted scan')} and {counted(len(cases) - painted, 'real scan')}"
        )
        sections = [
            f"# {inert(release.name)} {release.version}, for nnU-Net",
            f"{scans} of {code(release.label)}. Scans are HU as int16 in the orientation of their "
            "files.",
            table(["file", "content"], files),
            "Values of the label maps:",
            table(["value", "name"], [[v, code(n)] for n, v in self._labels().items()]),
        ]
        return "\n\n".join(sections) + "\n"


def folds_of(cases: Iterable[WrittenCase]) -> list[dict[str, list[str]]]:
    """The folds of ``splits_final.json``; empty if there are too few patients for one.

    A fold trains on nothing of whom it validates on, neither as host nor as donor. It validates
    on real scans where there are any. A validation split is the only fold; without one, patients
    are divided into five.
    """
    known = [case for case in cases if case.split != "test"]
    judges = [case for case in known if case.is_real] or known
    held_out = sorted({case.patient for case in judges if case.split == "validation"})
    if held_out:
        groups = [held_out]
    else:
        patients = {case.patient for case in judges}
        shuffled = sorted(patients, key=lambda patient: (derive_seed(0, "fold", patient), patient))
        number = min(_FOLDS, len(shuffled))
        groups = [shuffled[n::number] for n in range(number)]
    folds = [
        {
            "train": [c.name for c in known if c.people.isdisjoint(group)],
            "val": [c.name for c in judges if c.patient in group],
        }
        for group in map(frozenset, groups)
    ]
    return folds if all(fold["train"] for fold in folds) else []


def _name(number: int, text: str) -> str:
    """A case's identifier; nnU-Net reads what follows a dot or four digits at the end otherwise."""
    return file_stem(number, text).replace(".", "_")


def _licences(row: Columns) -> dict[str, str | None]:
    provenance: Mapping[str, Any] = parsed(row)[0]
    donor = provenance.get("donor") or {}
    return {
        "host_licence": provenance["host"].get("licence"),
        "donor_licence": donor.get("licence"),
    }


def _write_text(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
