"""CT series of DICOM, with labels from SEG and RTSTRUCT files or from NIfTI label maps."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from synthct.errors import SourceError, counted
from synthct.sources.base import CaseFiles, FolderContents, Name, expand
from synthct.sources.dicom_files import DicomFiles, dicom_files
from synthct.sources.folder import FolderSection
from synthct.sources.stored import SUFFIXES, Stored
from synthct.volume.dicom.files import Drawn, Series
from synthct.volume.dicom.kinds import Kind
from synthct.volume.formats import START_BYTES, describe_format
from synthct.volume.views import IGNORE

_FOLDER, _CASE = "{folder}", "{case}"
#: So many names are listed in a note.
_LISTED = 12


def _check_pattern(pattern: str) -> str:
    if pattern.startswith(("/", "~")) or ".." in Path(pattern).parts:
        raise ValueError(f"pattern '{pattern}' leads out of root; write it relative to root")
    if _FOLDER not in pattern and _CASE not in pattern:
        raise ValueError(f"pattern '{pattern}' has neither {_FOLDER} nor {_CASE}")
    if not pattern.endswith(SUFFIXES):
        raise ValueError(f"pattern '{pattern}' must end with {', '.join(SUFFIXES)}")
    return pattern


Pattern = Annotated[str, AfterValidator(_check_pattern)]
LabelValue = Annotated[int, Field(ge=1, le=65535)]
#: What a SEG or RTSTRUCT calls a structure: a name or pattern, or several.
Called = Name | tuple[Name, ...]


class Dicom(FolderSection):
    """A folder of DICOM files: CT series, and what is drawn on them.

    Files belong together by their UIDs, wherever they lie and whatever they are called. A case is a
    CT series; other images (MR, PET, localizers, ...) are left out, and counted in a note. SEG and
    RTSTRUCT files are taken for the series that they name. A structure is called as in the file,
    in small letters with ``_`` for what is no letter or digit (``GTV-1``: ``gtv_1``).

    Attributes:
        layout: The name of the layout.
        root: The folder.
        recursive: Whether the folders below count as well.
        case_names: ``folder`` to call a case by its folder; by default it is called by a hash of
            the UID of its series, since names of folders often say who the patient is. The same
            holds for patients, which are called by a hash of their PatientID.
        keep_uids: Whether a dataset tells the UIDs of the series, so that an export as DICOM refers
            to it and lies in its frame of reference. By default it does not: UIDs lead back to the
            archive.
        series: Only series whose SeriesDescription matches one of these patterns, such as
            ``*soft*``.
        annotations: Which files the structures are from, where several hold them: ``SEG``,
            ``RTSTRUCT``, or a pattern of paths beneath ``root``.
        contours: ``interpolate`` to fill the slices between the contours of an RTSTRUCT, which may
            then lie between slices too. By default a contour lies on a slice, and slices without
            one are empty.
        label_names: Structure to what the files call it, a name, a pattern such as ``GTV*`` or
            several; structures that are not named are left out. With ``labels``, to its value.
        labels: Pattern of a label map (NIfTI, NRRD or MetaImage) for each series, beneath
            ``root``: ``{folder}`` stands for the folder of the series, ``{case}`` for the name of
            the case.
        structures: Structure to the pattern of its own such file.
        unions: Name of a union to its parts, such as kidney to kidney_left and kidney_right.
    """

    layout: Literal["dicom"] = "dicom"
    recursive: bool = True
    case_names: Literal["folder"] | None = None
    keep_uids: bool = False
    series: tuple[Name, ...] | None = None
    annotations: Name | None = None
    contours: Literal["interpolate"] | None = None
    label_names: dict[Name, LabelValue | Called] = Field(default_factory=dict)
    labels: Pattern | None = None
    structures: dict[Name, Pattern] = Field(default_factory=dict)
    unions: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("frame", "label_grid", "orientation"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is for NIfTI images; DICOM says it itself; remove it")
        if self.nan == "fill":
            raise ValueError("nan is for NIfTI images; values of DICOM are finite; remove it")
        values = [value for value in self.label_names.values() if isinstance(value, int)]
        if self.labels is not None and (not values or len(values) < len(self.label_names)):
            raise ValueError("labels (a pattern) needs label_names (name: value)")
        if self.labels is None and values:
            raise ValueError(
                f"label_names gives value {values[0]}, which a label map has (labels); to name "
                "structures of SEG or RTSTRUCT files, write what they are called there"
            )
        if IGNORE in values or len(set(values)) < len(values):
            raise ValueError(f"values of label_names differ, and {IGNORE} means 'ignore'")
        if self.structures and (self.labels is not None or self.label_names):
            raise ValueError("give structures (a file each) or label_names, not both")
        if self.annotations is not None and (self.labels is not None or self.structures):
            raise ValueError("annotations is for SEG and RTSTRUCT files, not for NIfTI; remove it")
        for union, parts in self.unions.items():
            if not parts or union in (*parts, *self.label_names, *self.structures):
                raise ValueError(f"unions: '{union}' has no parts, or is a structure")
        return self

    def files(self) -> tuple[str, ...]:
        """All of them: what a file is stands in it."""
        return ("*",)

    def native_labels(self) -> Mapping[str, int]:
        """``label_names``, of NIfTI label maps."""
        return {n: value for n, value in self.label_names.items() if isinstance(value, int)}

    def named_labels(self) -> Mapping[str, int]:
        """``label_names``, of NIfTI label maps."""
        return self.native_labels()

    def expansions(self, labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Each label to its structures in any case."""
        cases = self.select(self._contents(None)).cases
        found = {
            label: {n for case in cases for n in case.structures_of(label)} for label in labels
        }
        return {
            label: tuple(
                n for n in (expand(label, names, self.unions) or sorted(names)) if n in names
            )
            for label, names in found.items()
        }

    def find(self, cache_dir: Path) -> FolderContents:
        """The CT series; see ``SourceSection.find``."""
        return self._contents(cache_dir)

    def shown(self, case: CaseFiles, text: str) -> str:
        """A message without the names of folders and files, unless ``case_names`` allows them."""
        if self.case_names is not None or not isinstance(case.image, Series):
            return text
        drawn = [path for one in case.label_files.values() for path in _files_of(one)]
        for number, path in enumerate(dict.fromkeys((*case.image.files, *drawn)), start=1):
            for name in (str(path), f"'{path.name}'"):
                text = text.replace(name, f"file {number}")
        for place in (case.image.folder, *{path.parent for path in drawn}):
            text = text.replace(str(place), "its folder")
        return text

    def _contents(self, cache_dir: Path | None) -> FolderContents:
        root = self.require_root()
        found = dicom_files(root, cache_dir, recursive=self.recursive, check=self.inside)
        series: dict[str, list[Path]] = {}
        for path, kind in found.kinds.items():
            if kind.kind == "CT" and self._wants_series(kind.what):
                series.setdefault(kind.series, []).append(path)
        if not series:
            raise SourceError(f"root {root} has no CT series{_instead(found, self.recursive)}")
        names = self._names(series)
        flat = [uid for uid, paths in series.items() if _in_one_place(paths, found.kinds)]
        skipped = tuple((names[uid], f"{_slices(series.pop(uid))} in one place (a single slice, or "
                         "bolus tracking)") for uid in flat)  # fmt: skip
        cases = [
            self._case(
                uid,
                names[uid],
                Series(_folder(paths), tuple(sorted(paths)), self.keep_uids),
                found.kinds,
            )
            for uid, paths in series.items()
        ]
        if not cases:
            raise SourceError(f"root {root} has no CT series of several slices; correct root")
        cases.sort(key=lambda case: case.case_id)
        return FolderContents(tuple(cases), skipped, tuple(self._notes(found, series, cases)))

    def _names(self, series: Mapping[str, Sequence[Path]]) -> dict[str, str]:
        """UID of a series to the name of its case."""
        hashes = {
            uid: hashlib.sha256(f"synthct/dicom/{uid}".encode()).hexdigest() for uid in series
        }
        if self.case_names is None:
            return {uid: f"ct-{digest[:12]}" for uid, digest in hashes.items()}
        folders = {uid: self._relative(_folder(paths)) for uid, paths in series.items()}
        counts = Counter(folders.values())
        return {
            uid: "_".join(Path(folder).parts or (self._root.name,))
            + (f"-{hashes[uid][:6]}" if counts[folder] > 1 else "")
            for uid, folder in folders.items()
        }

    def _case(
        self, uid: str, case_id: str, series: Series, kinds: Mapping[Path, Kind]
    ) -> CaseFiles:
        patients = sorted({kinds[path].patient for path in series.files})
        if len(patients) > 1:
            raise SourceError(
                f"{series.folder}: files of one series have {len(patients)} PatientIDs, so that "
                "the patient is unknown; repair the files, or remove those of one person"
            )
        files: dict[str, Stored] = {}
        values: Mapping[str, int] = {}
        if self.labels is not None:
            path = self._beside(self.labels, case_id, series)
            values = self.native_labels() if path is not None else {}
            files = dict.fromkeys(values, path) if path is not None else {}
        elif self.structures:
            found = {n: self._beside(p, case_id, series) for n, p in self.structures.items()}
            files = {name: path for name, path in found.items() if path is not None}
        else:
            own = {uid, *(kinds[path].instance for path in series.files)}
            drawn = {
                path: kind
                for path, kind in kinds.items()
                if not own.isdisjoint(kind.drawn_on) and self._annotates(path, kind)
            }
            files = dict(self._drawn(case_id, series, drawn))
        unions = {
            union: tuple(part for part in parts if part in files)
            for union, parts in self.unions.items()
            if any(part in files for part in parts)
        }
        patient = patients[0] or None
        return CaseFiles(case_id, series, files, values, unions, patient_id=patient)

    def _wants_series(self, description: str) -> bool:
        return self.series is None or any(
            fnmatchcase(description.lower(), pattern.lower()) for pattern in self.series
        )

    def _beside(self, pattern: str, case_id: str, series: Series) -> Path | None:
        """The NIfTI file for a series."""
        folder = self._relative(series.folder)
        return self.inside(self._root / pattern.replace(_FOLDER, folder).replace(_CASE, case_id))

    def _annotates(self, path: Path, kind: Kind) -> bool:
        wanted = self.annotations
        return wanted in (None, kind.kind) or (
            wanted not in ("SEG", "RTSTRUCT") and fnmatchcase(self._relative(path), str(wanted))
        )

    def _drawn(
        self, case_id: str, series: Series, drawn: Mapping[Path, Kind]
    ) -> Iterator[tuple[str, Drawn]]:
        """The structures that files draw on a series.

        Raises:
            SourceError: If several files have the same structure.
        """
        found: dict[str, dict[Path, list[int]]] = {}
        for path, kind in drawn.items():
            for number, called in kind.structures:
                for name in self._named(called or f"structure {number}"):
                    found.setdefault(name, {}).setdefault(path, []).append(number)
        for name, parts in sorted(found.items()):
            kinds = {drawn[path].kind for path in parts}
            if len(parts) > 1 and (len(kinds) > 1 or not self.label_names):
                listed = ", ".join(self._relative(path) for path in list(parts)[:3])
                raise SourceError(
                    f"case {case_id}: {len(parts)} files draw '{name}' on {series.folder}: "
                    f"{listed}; say with 'annotations: SEG', 'annotations: RTSTRUCT' or a pattern "
                    "of paths which of them to use"
                )
            numbers = tuple((path, tuple(n)) for path, n in parts.items())
            yield name, Drawn(numbers, series, interpolates=self.contours is not None)

    def _named(self, called: str) -> Iterator[str]:
        """The structures that a file means by ``called``."""
        if not self.label_names:
            yield plain_name(called)
        for name, patterns in self.label_names.items():
            for pattern in (patterns,) if isinstance(patterns, str | int) else patterns:
                same = plain_name(called) == plain_name(str(pattern))
                if same or fnmatchcase(called.lower(), str(pattern).lower()):
                    yield name
                    break

    def _notes(
        self, found: DicomFiles, series: Mapping[str, object], cases: Sequence[CaseFiles]
    ) -> Iterator[str]:
        others = Counter(kind.what for kind in found.kinds.values() if kind.kind == "other")
        if others:
            listed = ", ".join(f"{count} {what}" for what, count in sorted(others.items()))
            yield f"DICOM files that are no CT images are left out: {listed}"
        if found.others:
            yield _no_dicom(found.others)
        lost = [k for k in found.kinds.values() if k.kind in ("SEG", "RTSTRUCT")]
        here = series.keys() | {k.instance for k in found.kinds.values() if k.kind == "CT"}
        if lost := [kind for kind in lost if here.isdisjoint(kind.drawn_on)]:
            files = counted(len(lost), "SEG or RTSTRUCT file is", "SEG or RTSTRUCT files are")
            yield f"{files} drawn on no series that is here"
        lacking = dict.fromkeys((*self.label_names, *self.structures), 0)
        for name in lacking:
            if none := [case.case_id for case in cases if name not in case.label_files]:
                more = f" and {len(none) - _LISTED} more" if len(none) > _LISTED else ""
                listed = ", ".join(none[:_LISTED])
                yield f"'{name}' is in no file of {len(none)} of {len(cases)} cases: {listed}{more}"
        unknown = sum(case.patient_id is None for case in cases)
        if unknown:
            have = counted(unknown, "case has", "cases have")
            yield f"{have} no PatientID; each counts as a person of its own"
        if len(cases) > 1 and not unknown and len({case.patient_id for case in cases}) == 1:
            yield (
                f"all {len(cases)} cases have one PatientID and count as one person; if they are "
                "several, say who is who with 'patients'"
            )

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def plain_name(called: str) -> str:
    """A name in small letters, with ``_`` for whatever is no letter or digit."""
    return re.sub(r"[\W_]+", "_", called.strip().lower()).strip("_") or "unnamed"


def _files_of(stored: Stored) -> tuple[Path, ...]:
    return tuple(path for path, _ in stored.parts) if isinstance(stored, Drawn) else ()


def _folder(paths: Sequence[Path]) -> Path:
    """The folder that all of some files lie in or below."""
    folder = paths[0].parent
    while not all(path.is_relative_to(folder) for path in paths):
        folder = folder.parent
    return folder


def _in_one_place(paths: Sequence[Path], kinds: Mapping[Path, Kind]) -> bool:
    """Whether a series is no volume: all of its files are single slices of one position."""
    places = {kinds[path].place for path in paths}
    return len(places) == 1 and places != {""}


def _slices(paths: Sequence[Path]) -> str:
    return "its only slice lies" if len(paths) == 1 else f"all {len(paths)} slices lie"


def _no_dicom(paths: Sequence[Path]) -> str:
    called = counted(len(paths), "file is called", "files are called")
    return f"{called} .dcm or .ima but {'is' if len(paths) == 1 else 'are'} no DICOM"


def _instead(found: DicomFiles, recursive: bool) -> str:
    """What a folder without a CT series holds, and what to do."""
    if not found.kinds:
        if found.others:
            with found.others[0].open("rb") as file:
                strange = describe_format(file.read(START_BYTES)) or "they have no mark of DICOM"
            return f": {_no_dicom(found.others)} ('{found.others[0].name}': {strange})"
        below = "" if recursive else ", or below it with 'recursive: true'"
        return f": there is no DICOM file in it{below}; correct root"
    kinds = Counter(
        kind.what if kind.kind == "other" else kind.kind for kind in found.kinds.values()
    )
    listed = ", ".join(f"{count} {what}" for what, count in sorted(kinds.items()))
    if kinds["CT"]:
        names = sorted({k.what for k in found.kinds.values() if k.kind == "CT"})
        return f" that 'series' matches; it has {', '.join(map(repr, names[:_LISTED]))}"
    return f", only other DICOM files ({listed}); correct root"
