"""TotalSegmentator, v1 to v3: one folder per case, one file per structure, named unions."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from synthct.errors import SourceError, counted
from synthct.sources.base import CaseFiles, FolderContents
from synthct.sources.folder import FolderSection

_LUNG_LEFT = ("lung_upper_lobe_left", "lung_lower_lobe_left")
_LUNG_RIGHT = ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right")
_RIBS_LEFT = tuple(f"rib_left_{n}" for n in range(1, 13))
_RIBS_RIGHT = tuple(f"rib_right_{n}" for n in range(1, 13))
_GLUTEUS = tuple(
    f"gluteus_{part}_{side}"
    for part in ("maximus", "medius", "minimus")
    for side in ("left", "right")
)

#: Unions of more than a left and a right part, under the file names of v1 to v3.
NAMED_UNIONS: Mapping[str, tuple[str, ...]] = {
    "lung": (*_LUNG_LEFT, *_LUNG_RIGHT),
    "lung_left": _LUNG_LEFT,
    "lung_right": _LUNG_RIGHT,
    # v2 has one structure ``heart``, v1 has its parts
    "heart": (
        "heart_myocardium",
        "heart_atrium_left",
        "heart_ventricle_left",
        "heart_atrium_right",
        "heart_ventricle_right",
    ),
    "airways": ("trachea", "lung_trachea_bronchia"),
    "bowel": ("duodenum", "small_bowel", "colon"),
    "vertebrae": (
        *(f"vertebrae_C{n}" for n in range(1, 8)),
        *(f"vertebrae_T{n}" for n in range(1, 13)),
        *(f"vertebrae_L{n}" for n in range(1, 7)),  # v3 has L6 in place of S1
        "vertebrae_S1",
    ),
    "ribs": (*_RIBS_LEFT, *_RIBS_RIGHT),
    "ribs_left": _RIBS_LEFT,
    "ribs_right": _RIBS_RIGHT,
    "gluteus": _GLUTEUS,
}

_CASE_NAME = re.compile(r"s\d{4}")
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_SUFFIXES = (".nii.gz", ".nii")
_MAX_TABLE_BYTES = 1 << 24


class TotalSegmentator(FolderSection):
    """A folder of the TotalSegmentator dataset: ``s0001/ct.nii.gz``, ``s0001/segmentations/*``.

    Any structure is a label by its file name, and so is any union of ``NAMED_UNIONS`` or of a
    ``_left`` and a ``_right`` (``kidney``). A union counts the parts that a case has a file for:
    some copies leave empty structures out. Where a file has the name of a union whose parts are
    there too (``lung.nii.gz`` in v1), the parts win, as the file overlaps them.

    Attributes:
        layout: The name of the layout.
        root: The folder with the case folders and ``meta.csv``.
    """

    obtain: ClassVar[str] = (
        "The TotalSegmentator dataset (CC BY 4.0) comes from "
        "https://doi.org/10.5281/zenodo.6802613: unpack its zip file. "
    )
    variable: ClassVar[str] = "TOTALSEGMENTATOR_ROOT"

    marks: ClassVar[str] = (
        "the TotalSegmentator dataset (meta.csv with its cases, named s0000 and the like)"
    )

    layout: Literal["totalsegmentator"] = "totalsegmentator"
    licence: str | None = "CC-BY-4.0"
    attribution: str | None = (
        "TotalSegmentator dataset: Wasserthal et al., Radiology: Artificial Intelligence 2023, "
        "doi:10.1148/ryai.230024 (CC BY 4.0)"
    )

    def files(self) -> tuple[str, ...]:
        """The table, and images and structures of all cases."""
        return ("meta.csv", "*/ct.nii*", "*/segmentations/*", "*/segmentations_extra/*")

    def known_terms(self) -> dict[str, str | None]:
        """Known where all cases have the dataset's names and stand in its ``meta.csv``.

        AbdomenAtlas and others have the same file names, and other licences.
        """
        table = self.inside(self._root / "meta.csv")
        listed = {row.get("image_id") for row in _read_table(table)} if table is not None else ()
        names = [path.name for path in self._folders() if self._wants(path.name)]
        if names and all(_CASE_NAME.fullmatch(name) and name in listed for name in names):
            return {}
        return {"licence": None, "attribution": None}

    def _folders(self) -> list[Path]:
        """The folders that may be cases."""
        return [
            folder
            for folder in sorted(self._root.iterdir())
            if not folder.name.startswith((".", "__MACOSX")) and folder.is_dir()
        ]

    def find(self, cache_dir: Path) -> FolderContents:
        """The folders with a ``ct.nii.gz``; see ``SourceSection.find``."""
        del cache_dir
        root = self.require_root()
        table = self.inside(root / "meta.csv")
        splits = _read_splits(table) if table is not None else {}
        cases, skipped = [], []
        for folder in self._folders():
            image = self.inside(folder / "ct.nii.gz") or self.inside(folder / "ct.nii")
            if image is None:
                skipped.append((folder.name, "has no ct.nii.gz"))
                continue
            files = self._structure_files(folder)
            unions = _unions_of(files)
            # the parts win over a file that has the union's name
            files = {name: path for name, path in files.items() if name not in unions}
            cases.append(
                CaseFiles(folder.name, image, files, unions=unions, split=splits.get(folder.name))
            )
        if not cases:
            nested = sorted({path.parent.parent for path in root.glob("*/*/ct.nii*")})
            hint = f"use {nested[0]}" if nested else self.remedy()
            raise SourceError(f"root {root} has no */ct.nii.gz; {hint}")
        notes = [*_left_out(cases)]
        known = {case.case_id for case in cases} | {name for name, _ in skipped}
        if missing := sorted(splits.keys() - known):
            notes.append(
                f"meta.csv lists {counted(len(missing), 'case')} without a folder, "
                f"such as {missing[0]}"
            )
        return FolderContents(tuple(cases), tuple(skipped), tuple(notes))

    def expansions(self, labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Each label to its structures in any case: parts in their order, then its own file."""
        cases = self.select(self.find(Path())).cases
        structures = {
            label: {n for case in cases for n in case.structures_of(label)} for label in labels
        }
        return {
            label: tuple(
                dict.fromkeys(
                    name for name in (*NAMED_UNIONS.get(label, ()), *sorted(names)) if name in names
                )
            )
            for label, names in structures.items()
        }

    def _structure_files(self, folder: Path) -> dict[str, Path]:
        """Structure to file of one case; ``segmentations`` wins over ``segmentations_extra``."""
        files: dict[str, Path] = {}
        for place in ("segmentations", "segmentations_extra"):
            self.require_inside(folder / place)
            try:
                with os.scandir(folder / place) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            for entry in entries:
                suffix = next((s for s in _SUFFIXES if entry.name.endswith(s)), None)
                structure = entry.name.removesuffix(suffix) if suffix else ""
                if not structure or structure.startswith(".") or structure in files:
                    continue
                path = folder / place / entry.name
                # Of a folder that lies inside only links can lead out: 130,000 files need no look.
                if entry.is_file(follow_symlinks=False) or self.inside(path) is not None:
                    files[structure] = path
        return files


def _unions_of(structures: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The unions with at least one part among ``structures``, and the parts that are there."""
    present = set(structures)
    unions: dict[str, tuple[str, ...]] = {}
    for name in sorted(present):
        stem = name.removesuffix("_left").removesuffix("_right")
        if stem != name:
            unions[stem] = (*unions.get(stem, ()), name)
    for union, parts in NAMED_UNIONS.items():
        if present_parts := tuple(part for part in parts if part in present):
            unions[union] = present_parts
    return unions


def _left_out(cases: Sequence[CaseFiles]) -> Iterator[str]:
    """Notes on structures of some case that look like parts of a union and are in none."""
    unions = {name: parts for case in cases for name, parts in case.unions.items()}
    members = {part for case in cases for parts in case.unions.values() for part in parts}
    present = {name for case in cases for name in case.label_files}
    for name in sorted(present - members - unions.keys()):
        if alike := [union for union in sorted(unions) if name.startswith(_starts(union))]:
            yield (
                f"'{name}' looks like a part of {' and '.join(alike)} but is not counted there; if "
                "it is one, name your unions with layout 'nifti'"
            )


def _starts(union: str) -> tuple[str, ...]:
    """How the names of a union's parts begin: ``vertebrae_``, ``rib_left_``, ``kidney_left_``."""
    parts = NAMED_UNIONS.get(union, ())
    starts = {part.rpartition("_")[0] for part in parts} - {""}
    return tuple(f"{start}_" for start in starts or (f"{union}_left", f"{union}_right"))


def _read_table(path: Path) -> list[dict[str, str]]:
    """The rows of ``meta.csv``.

    Raises:
        SourceError: If it is too large, no text or no table.
    """
    if path.stat().st_size > _MAX_TABLE_BYTES:
        raise SourceError(f"{path}: larger than 16 MiB, the limit of a table of cases")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise SourceError(f"{path}: cannot be read as UTF-8 text ({err})") from err
    header = text.split("\n", 1)[0]
    try:
        return list(csv.DictReader(text.splitlines(), delimiter=";" if ";" in header else ","))
    except csv.Error as err:
        raise SourceError(f"{path}: is no table of cases ({err}); repair or remove it") from err


def _read_splits(path: Path) -> dict[str, str]:
    """Case id to split by ``meta.csv``; empty where there is no such column.

    Raises:
        SourceError: If it holds no splits, or two for one case.
    """
    splits: dict[str, str] = {}
    for row in _read_table(path):
        split = (row.get("split") or "").strip().lower()
        if split and split not in _SPLITS:
            allowed = ", ".join(_SPLITS)
            raise SourceError(
                f"{path}: split '{split:.40}' of {row.get('image_id')} is not of {allowed}"
            )
        case_id = (row.get("image_id") or "").strip()
        if not split or not case_id:
            continue
        if (first := splits.setdefault(case_id, _SPLITS[split])) != _SPLITS[split]:
            raise SourceError(
                f"{path}: lists {case_id} twice, in split {first} and in {split}; remove one"
            )
    return splits
