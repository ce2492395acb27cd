"""What every source layout has in common: its section of the recipe, its files, its cases.

A layout finds files by name and says which structure is in which file. It reads no voxels: that
is done in ``facts`` (once, for the index) and in ``read`` (for a case that is needed).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from synthct.errors import SourceError
from synthct.sources.stored import Stored, name_of
from synthct.volume import (
    GRID_TOLERANCE,
    Affine,
    Box,
    CtReading,
    Gridded,
    Index3,
    LabelReading,
    Spacing,
    corner_distance_mm,
    same_grid,
    spacing_of,
    start_within,
)
from synthct.volume.anatomy import LesionFacts

Name = Annotated[str, Field(min_length=1)]

#: A label whose connected parts are taken from donors, and the organ that these lie in.
LesionLabel = tuple[str, str]


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case; no voxel of them is read yet.

    Attributes:
        case_id: Name of the case within its source.
        image: The CT, or None for a donor that has only labels.
        label_files: Structure to the file it is in; many structures may share a label map.
        label_values: Structure to its value in its file; a structure without one is whatever is
            not zero there.
        unions: Union to those of its parts that the case has a file for.
        split: The split that the source's own table gives the case, if it has one.
        patient_id: The person by the source's own table, if it has one.
    """

    case_id: str
    image: Stored | None
    label_files: Mapping[str, Stored]
    label_values: Mapping[str, int] = field(default_factory=dict)
    unions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    split: str | None = None
    patient_id: str | None = None

    def structures_of(self, label: str) -> tuple[str, ...]:
        """The structures that make up ``label``; empty if the case knows no such label."""
        return expand(label, self.label_files, self.unions)


@dataclass(frozen=True)
class FolderContents:
    """What a layout finds in its folder.

    Attributes:
        cases: The usable cases, by case id.
        skipped: (case id, reason) of each folder that looks like a case but is of no use.
        notes: What the user should know, such as an ``exclude`` that excludes nothing.
    """

    cases: tuple[CaseFiles, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelStats:
    """How much there is of a label, and where.

    Attributes:
        voxels: Number of voxels, more than 0.
        volume_ml: Their volume in ml.
        box: The smallest box around them, in voxels of the canonical grid.
    """

    voxels: int
    volume_ml: float
    box: Box


@dataclass(frozen=True, eq=False)
class CaseEntry:
    """What the index knows of one case: enough to plan without reading a voxel.

    Attributes:
        source: Name of the source in the recipe, such as ``hosts``.
        layout: Layout of the source, such as ``kits23``.
        case_id: Name of the case, unique within its source.
        patient_id: The person. The same id in two sources is taken to be the same person.
        image: The CT, or None for a donor that has only labels.
        label_files: Structure to the file it is in.
        label_values: Structure to its value in its file; without one, whatever is not zero.
        shape: Shape (I, J, K) of the canonical grid.
        affine: (4, 4) of the canonical grid.
        labels: Structures and unions that are indexed and not empty. A structure-per-file layout
            indexes only those that were requested. A union counts the sum of its parts.
        unnamed: Values of the label map that are no structure's.
        available: All structures and unions that can be requested, whether empty or not.
        unions: Union to those of its parts that the case has a file for.
        image_sha256: Of the bytes of the image file.
        voxel_sha256: Of the decoded image: canonical clipped int16 HU, shape and affine.
        label_sha256: Of the indexed label files: of the label map's bytes, or of the list of
            structures with the sha256 of each file.
        split: ``train``, ``validation`` or ``test`` where the source's own table says so.
        licence: SPDX id of the licence, or None if unknown.
        file_sha256: Indexed file to the sha256 of its bytes, which it must still have when read.
        reading: What is allowed in the image beside a plain CT.
        label_reading: What the user says of where the label files lie.
        fingerprint: Of the image; survives flips, permuted axes, another affine or voxel type.
        label_fingerprint: Of the decoded label files; None if all of them are empty.
        lesions: Label and organ to the lesions of that label, where they were requested.
    """

    source: str
    layout: str
    case_id: str
    patient_id: str
    image: Stored | None
    label_files: Mapping[str, Stored]
    label_values: Mapping[str, int]
    shape: Index3
    affine: Affine
    labels: Mapping[str, LabelStats]
    available: tuple[str, ...]
    unions: Mapping[str, tuple[str, ...]]
    image_sha256: str | None
    voxel_sha256: str | None
    label_sha256: str
    split: str | None
    licence: str | None
    file_sha256: Mapping[Stored, str] = field(default_factory=dict)
    unnamed: frozenset[int] = frozenset()
    reading: CtReading = field(default_factory=CtReading)
    label_reading: LabelReading = field(default_factory=LabelReading)
    fingerprint: str | None = None
    label_fingerprint: str | None = None
    lesions: Mapping[LesionLabel, tuple[LesionFacts, ...]] = field(default_factory=dict)

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size in mm along i, j, k."""
        return spacing_of(self.affine)

    def structures_of(self, label: str) -> tuple[str, ...]:
        """The structures that make up ``label``; empty if the case knows no such label."""
        return expand(label, self.label_files, self.unions)


class SourceSection(BaseModel):
    """The part of a source's section of the recipe that all layouts share.

    Attributes:
        layout: How the files lie; each layout narrows it to its own names.
        cases: Only these cases; names or patterns such as ``case_000*``. None means all.
        exclude: Not these cases; names or patterns.
        licence: SPDX id of the licence of the data; layouts of one dataset know theirs.
        attribution: Whom to credit, and how; layouts of one dataset know that too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: str
    cases: tuple[Name, ...] | None = None
    exclude: tuple[Name, ...] = ()
    licence: str | None = None
    attribution: str | None = None

    def download(self, cache_dir: Path) -> Self:
        """The source with its files on this machine, and the licence that they are known to have.

        Args:
            cache_dir: Where what comes from the Hub is kept.

        Raises:
            HubError: If the Hub does not deliver them.
            ResourceError: If there is no place for them.
        """
        del cache_dir
        return self

    def find(self, cache_dir: Path) -> FolderContents:
        """The cases of the source, by their file names.

        Args:
            cache_dir: Where a layout that makes its own data keeps it.

        Raises:
            SourceError: If there is no folder, no case, or a file that leads out of the folder.
        """
        raise NotImplementedError

    def shown(self, case: CaseFiles, text: str) -> str:
        """What is wrong with a case, as it may be published: without names that tell the patient.

        Args:
            case: The case.
            text: What is wrong with it.
        """
        del case
        return text

    def prepare(self, cases: Sequence[CaseFiles], *, progress: bool = False) -> None:
        """Make sure that the files of ``cases`` exist, in a layout that makes its own data.

        Args:
            cases: The cases that are wanted.
            progress: Show a progress bar.
        """
        del cases, progress

    def patient_of(self, case_id: str, listed: str | None = None) -> str:
        """The person whose scan the case is; one person per case unless the source says more.

        Args:
            case_id: The case.
            listed: The person by the source's own table.
        """
        return case_id if listed is None else listed

    def native_labels(self) -> Mapping[str, int]:
        """Structures of the source's label maps and their values there; empty if it has none."""
        return {}

    def named_labels(self) -> Mapping[str, int]:
        """Those of ``native_labels`` that are worth a note if no case has them."""
        return {}

    def reading(self) -> CtReading:
        """What the recipe allows in images beside plain CT."""
        return CtReading()

    def label_reading(self, image: Stored | None) -> LabelReading:
        """What the recipe says of where the label files of a case lie.

        Args:
            image: The case's CT, if it has one.
        """
        del image
        return LabelReading()

    def follows_links(self) -> bool:
        """Whether links may lead out of the source's folder."""
        return False

    def unused_options(self, remarks: Collection[str]) -> Iterator[str]:
        """A note for each option of the recipe that no case needed.

        Args:
            remarks: What was said of how the files of all cases were read.
        """
        del remarks
        return iter(())

    def closed_labels(self) -> bool:
        """Whether a label map may hold no other values than ``native_labels`` and 0."""
        return False

    def expansions(self, labels: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """Each of ``labels`` to the structures that it comes to in any case of the source.

        Asked only of sources without ``native_labels``.
        """
        raise NotImplementedError

    def folder(self, cache_dir: Path) -> Path:
        """The folder that all files of the source lie beneath."""
        raise NotImplementedError

    def select(self, contents: FolderContents) -> FolderContents:
        """Apply ``cases`` and ``exclude``.

        Raises:
            SourceError: If a name or pattern of ``cases`` matches no case.
        """
        ids = [case.case_id for case in contents.cases]
        known = [*ids, *(case_id for case_id, _ in contents.skipped)]
        for pattern in self.cases or ():
            if not any(fnmatchcase(case_id, pattern) for case_id in known):
                raise SourceError(
                    f"cases: '{pattern}' matches no case{nearest_case(pattern, known)}"
                )
        notes = [
            f"exclude: '{pattern}' matches no case{nearest_case(pattern, known)}"
            for pattern in self.exclude
            if not any(fnmatchcase(case_id, pattern) for case_id in known)
        ]
        return FolderContents(
            tuple(case for case in contents.cases if self._wants(case.case_id)),
            tuple(skip for skip in contents.skipped if self._wants(skip[0])),
            (*contents.notes, *notes),
        )

    def _wants(self, case_id: str) -> bool:
        wanted = self.cases is None or any(fnmatchcase(case_id, p) for p in self.cases)
        return wanted and not any(fnmatchcase(case_id, p) for p in self.exclude)


def expand(
    label: str, structures: Iterable[str], unions: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """The structures that make up ``label``, a union or a structure; empty if it is neither."""
    if label in unions:
        return unions[label]
    return (label,) if label in structures else ()


def check_grid(case_id: str, file: Stored | None, own: Gridded, case: Gridded) -> None:
    """Make sure that a file, where it is known, lies on the grid of its case; nothing is resampled.

    Raises:
        SourceError: If the shapes differ, or the voxels by more than ``GRID_TOLERANCE``.
    """
    name = name_of(file) if file is not None else "the file"
    # A label map in the stored order of its scan may be permuted once its affine is lost.
    option = (
        ". If only its affine is wrong and its voxels are those of the image, say so with "
        "'label_grid: image' in the source"
        if sorted(own.shape) == sorted(case.shape)
        else ""
    )
    if own.shape != case.shape:
        raise SourceError(
            f"case {case_id}: {name} is on another grid {own.shape} than the case {case.shape}; "
            f"resample it first{option}"
        )
    if not same_grid(own.shape, case.affine, own.affine):
        distance = corner_distance_mm(own.shape, own.affine, case.affine)
        raise SourceError(
            f"case {case_id}: {name} lies {distance:.2f} mm off the grid of the case (corners; at "
            f"most {GRID_TOLERANCE:.0%} of a voxel); mend its affine or resample it{option}"
        )


def start_in_case(case_id: str, file: Stored, own: Gridded, case: Gridded) -> Index3:
    """Where a label file begins in the grid of its case; (0, 0, 0) unless it covers only a part.

    Raises:
        SourceError: If it is not on that grid.
    """
    start = start_within(own, case)
    if start is None:
        check_grid(case_id, file, own, case)
        raise AssertionError("the same grid is a part of itself")
    return start


def nearest_case(name: str, known: Sequence[str]) -> str:
    """The end of a message about a name of a case that is not ``known``: the one that is meant."""
    close = get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f" (first of {len(known)}: {', '.join(sorted(known)[:3])})" if known else ""
