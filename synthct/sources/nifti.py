"""Any folder of NIfTI, NRRD or MetaImage files, found by patterns for image and label files."""

from __future__ import annotations

import glob
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from synthct.errors import SourceError, counted
from synthct.sources.base import CaseFiles, FolderContents, Name, expand
from synthct.sources.exported import EXPORT_FILES
from synthct.sources.folder import FolderSection
from synthct.sources.stored import SUFFIXES
from synthct.volume.views import IGNORE

_CASE = "{case}"
#: So many names of cases are listed in a note.
_LISTED = 12


def _check_pattern(pattern: str) -> str:
    """A pattern stays beneath the root and says where the case id stands."""
    parts = PurePosixPath(pattern).parts
    if pattern.startswith(("/", "~")) or ".." in parts or "\\" in pattern or ":" in pattern[1:2]:
        raise ValueError(f"pattern '{pattern}' leads out of root; write it relative to root")
    if _CASE not in pattern:
        raise ValueError(f"pattern '{pattern}' has no {_CASE}, the place of the case's name")
    if any("{" in part.replace(_CASE, "") for part in parts):
        raise ValueError(f"pattern '{pattern}' may hold {_CASE} and *, no other {{...}}")
    if not pattern.endswith(SUFFIXES):
        raise ValueError(f"pattern '{pattern}' must end with {', '.join(SUFFIXES)}")
    return pattern


Pattern = Annotated[str, AfterValidator(_check_pattern)]
LabelValue = Annotated[int, Field(ge=1, le=65535)]


class Nifti(FolderSection):
    """A folder of NIfTI, NRRD or MetaImage files of any arrangement, such as nnU-Net's.

    A pattern is a path beneath ``root`` in which ``{case}`` stands for the case's name (any
    characters but ``/``) and ``*`` for anything but ``/``: ``imagesTr/{case}_0000.nii.gz``.
    Give the labels as one label map (``labels`` with ``label_names``), or as one file per
    structure (``structures``), or not at all.

    Attributes:
        layout: The name of the layout.
        root: The folder.
        image: Pattern of the CT; None for donors that have only labels.
        labels: Pattern of the label map.
        label_names: Structure to its value in the label map; other values are background.
        structures: Structure to the pattern of its own file; whatever is not zero belongs to it.
        unions: Name of a union to its parts, such as kidney to kidney_left and kidney_right.
    """

    layout: Literal["nifti"] = "nifti"
    image: Pattern | None = None
    labels: Pattern | None = None
    label_names: dict[Name, LabelValue] = Field(default_factory=dict)
    structures: dict[Name, Pattern] = Field(default_factory=dict)
    unions: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Nifti:
        if self.image is None and self.labels is None and not self.structures:
            raise ValueError("give a pattern for image, labels or structures")
        if (self.labels is None) != (not self.label_names):
            raise ValueError("labels (a pattern) and label_names (name: value) go together")
        if self.labels is not None and self.structures:
            raise ValueError("give labels (one label map) or structures (a file each), not both")
        if self.image is not None and self.image in (self.labels, *self.structures.values()):
            raise ValueError(f"image and labels have the same pattern, {self.image}; mend one")
        if self.label_grid is not None and self.image is None:
            raise ValueError("label_grid: image takes the grid of the scans: name them with image")
        if IGNORE in self.label_names.values():
            raise ValueError(
                f"label value {IGNORE} means 'unknown' and is no structure; read masks of 0 and "
                f"{IGNORE} with 'structures' (name: pattern) in place of labels and label_names"
            )
        values = list(self.label_names.values())
        if doubled := sorted({value for value in values if values.count(value) > 1}):
            raise ValueError(f"label_names gives value {doubled[0]} to two structures")
        known = {*self.label_names, *self.structures}
        for union, parts in self.unions.items():
            if union in known:
                raise ValueError(f"unions: '{union}' is already a structure")
            if unknown := sorted(set(parts) - known):
                raise ValueError(f"unions: part '{unknown[0]}' of '{union}' is not a structure")
            if not parts:
                raise ValueError(f"unions: '{union}' has no parts")
        return self

    @property
    def patterns(self) -> tuple[str, ...]:
        """Of all files: image, label map, structures."""
        return tuple(p for p in (self.image, self.labels, *self.structures.values()) if p)

    def files(self) -> tuple[str, ...]:
        """Whatever the patterns match, and the tables of an export of synthct."""
        globs = [_glob(pattern) for pattern in self.patterns]
        raw = [f"{one[:-5]}.*" for one in globs if one.endswith((".mhd", "nhdr"))]
        return (*globs, *raw, *EXPORT_FILES)

    def native_labels(self) -> Mapping[str, int]:
        """``label_names``."""
        return self.label_names

    def named_labels(self) -> Mapping[str, int]:
        """``label_names``."""
        return self.label_names

    def expansions(self, labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Each label to those of ``structures`` that it comes to."""
        return {label: expand(label, self.structures, self.unions) for label in labels}

    def find(self, cache_dir: Path) -> FolderContents:
        """The cases that the patterns match; see ``SourceSection.find``."""
        del cache_dir
        root = self.require_root()
        images = self._match(root, self.image) if self.image else {}
        if self.image and not images:
            below = sorted(p for p in root.iterdir() if next(p.glob(_glob(self.image)), None))
            hint = f"use {below[0]} as root" if below else "correct it"
            raise SourceError(
                f"image: the pattern {self.image} matches no file{_there(root, self.image)}; "
                f"{hint}, or leave image out of a source of donors that have only label maps"
            )
        maps = self._match(root, self.labels) if self.labels else {}
        files = {name: self._match(root, pattern) for name, pattern in self.structures.items()}
        labelled = {*maps, *(case_id for matches in files.values() for case_id in matches)}
        cases, skipped = [], []
        for case_id in sorted({*images, *labelled}):
            if self.labels and case_id not in maps:
                skipped.append((case_id, f"has no label map like {self.labels}"))
                continue
            own = {name: paths[case_id] for name, paths in files.items() if case_id in paths}
            own |= dict.fromkeys(self.label_names, maps[case_id]) if self.labels else {}
            unions = {
                union: tuple(part for part in parts if part in own)
                for union, parts in self.unions.items()
                if any(part in own for part in parts)
            }
            cases.append(CaseFiles(case_id, images.get(case_id), own, self.label_names, unions))
        if not cases:
            if images and self.labels:
                some = f"the cases of image are {', '.join([*images][:3])}"
                raise SourceError(
                    f"labels: the pattern {self.labels} matches no file"
                    f"{_there(root, self.labels)}, and {some}; correct it"
                )
            tried = ", ".join(self.patterns)
            raise SourceError(f"root {root} has no case that matches {tried}; mend the patterns")
        gaps = self._gaps([case for case in cases if self._wants(case.case_id)])
        return FolderContents(tuple(cases), tuple(skipped), tuple(gaps))

    def _gaps(self, cases: Sequence[CaseFiles]) -> Iterator[str]:
        """What the patterns name and cases have no file for."""
        if self.image is not None:
            yield from _lacking(
                f"image: {self.image}", [c.case_id for c in cases if c.image is None], len(cases)
            )
        for name, pattern in self.structures.items():
            lacking = [case.case_id for case in cases if name not in case.label_files]
            yield from _lacking(f"structures: '{name}' ({pattern})", lacking, len(cases))

    def _match(self, root: Path, pattern: str) -> dict[str, Path]:
        """Case id to the one file that matches ``pattern`` for it.

        ``{case}.nii.gz`` also matches what ``{case}_0000.nii.gz`` names: the narrower one has it.

        Raises:
            SourceError: If two files match for one case.
        """
        regex = _regex(pattern)
        narrower = [_regex(other) for other in self.patterns if longer_name(pattern, other)]
        files: dict[str, Path] = {}
        # Unlike ``Path.glob`` this finds links that lead nowhere, which are told when read.
        for name in sorted(glob.glob(_glob(pattern), root_dir=root)):  # noqa: PTH207
            parts = PurePosixPath(name).parts
            match = regex.fullmatch(name)
            hidden = any(
                name.startswith(".") and not piece.startswith(".")
                for name, piece in zip(parts, PurePosixPath(pattern).parts, strict=True)
            )
            if match is None or hidden or any(one.fullmatch(name) for one in narrower):
                continue
            path = root / name
            if self.inside(path) is None:
                continue
            # macOS writes what it unpacks or copies with letters and accents apart.
            case_id = unicodedata.normalize("NFC", match["case"])
            if case_id in files:
                raise SourceError(
                    f"pattern '{pattern}': case {case_id} has two files, "
                    f"{files[case_id].relative_to(root)} and {path.relative_to(root)}; narrow it"
                )
            files[case_id] = path
        return files


def _there(root: Path, pattern: str) -> str:
    """Where a pattern was looked for in vain, and what is there instead."""
    folder = root
    for part in PurePosixPath(pattern).parts[:-1]:
        if _pieces(part) != [part] or not (folder / part).is_dir():
            break
        folder /= part
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    some = ", ".join(names[:3]) or "nothing"
    pull = ", of DVC: run 'dvc pull'" if any(name.endswith(".dvc") for name in names) else ""
    return f" in {folder} (there is: {some}{pull})"


def longer_name(pattern: str, other: str) -> str | None:
    """What a pattern takes for the case's name in files of another: ``{case}_0000`` for instance.

    None if it does not match them, or by the same name.
    """
    match = _regex(pattern).fullmatch(other)
    name = match["case"] if match is not None else _CASE
    return name if name != _CASE and _CASE in name else None


def _regex(pattern: str) -> re.Pattern[str]:
    """What matches the paths that a pattern names, with the group ``case``."""
    regex, named = "", False
    for piece in _pieces(pattern):
        if piece == _CASE:
            regex += "(?P=case)" if named else "(?P<case>[^/]+)"
            named = True
        else:
            regex += "[^/]*" if piece == "*" else re.escape(piece)
    return re.compile(regex)


def _lacking(name: str, cases: Sequence[str], total: int) -> Iterator[str]:
    """A note on the cases that have no file for ``name``."""
    if len(cases) == total:
        yield f"{name} matches no file of any case"
    elif cases:
        more = f" and {len(cases) - _LISTED} more" if len(cases) > _LISTED else ""
        listed = ", ".join(cases[:_LISTED])
        yield f"{name} has no file in {len(cases)} of {counted(total, 'case')}: {listed}{more}"


def _pieces(pattern: str) -> list[str]:
    """A pattern in pieces, each ``{case}``, ``*`` or text."""
    return re.split(r"(\{case\}|\*)", pattern)


def _glob(pattern: str) -> str:
    """A pattern for ``glob`` and ``fnmatch``, to which ``?`` and ``[`` would mean more."""
    return re.sub(r"([?\[])", r"[\1]", pattern.replace(_CASE, "*"))
