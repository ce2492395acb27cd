"""Sources that are a folder of files, here or in a repository on the Hub."""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from synthct.errors import SourceError
from synthct.sources.base import FolderContents, Name, SourceSection, nearest_case
from synthct.sources.exported import export_terms, with_export_tables
from synthct.sources.stored import Stored
from synthct.storage.hub import HUB_ID, dataset_files
from synthct.volume import CtReading, LabelReading
from synthct.volume.formats import not_a_file

#: Options that a resolved recipe names only where they are used, so that recipes of before they
#: were there keep their hash.
_NEW_OPTIONS = ("orientation", "label_grid", "links", "aggregation", "channel")

FolderPath = Annotated[Path, AfterValidator(Path.expanduser)]


def _check_repo(name: str) -> str:
    if not HUB_ID.fullmatch(name):
        raise ValueError(f"'{name}' is no dataset repository on the Hub; write it as owner/name")
    return name


def check_orientation(code: str) -> str:
    """Three letters that name the directions of three axes.

    Raises:
        ValueError: If they do not.
    """
    axes = sorted(axis for letter in code for axis in ("RL", "AP", "SI") if letter in axis)
    if len(code) != 3 or axes != ["AP", "RL", "SI"]:
        raise ValueError(
            f"'{code}' is no orientation; give the directions in which the three axes run, such "
            "as LAS (left, anterior, superior)"
        )
    return code


class FolderSection(SourceSection):
    """A source that is a folder of the user's, or a dataset repository on the Hub.

    Attributes:
        root: The folder. Of a repository there is one after ``download``.
        repo: The repository, ``owner/name``; its top folder takes the place of ``root``.
        revision: Its tag, branch or commit; after ``download``, the commit.
        patients: Case id to patient id, where one person has several cases (here or in another
            source). A case that is not named is a person of its own, called as the case.
        frame: Which 3D scan of 4D images to take, from 0; without it they are refused.
        nan: What to do about voxels that are not finite numbers: ``refuse`` the scan, or ``fill``
            them with air (-1024 HU).
        orientation: Patient directions in which i, j and k increase, such as ``LAS``, of files that
            do not say it (NIfTI with both form codes 0, NRRD without a space of a patient,
            MetaImage without TransformMatrix); without it they are refused.
        label_grid: ``image`` for label maps that have lost their affine: one that has the stored
            shape of its image but lies elsewhere takes the image's grid.
        links: ``follow`` links that lead out of ``root``, as in folders of links and in the Hub's
            cache; without it they are refused.
    """

    #: What to download from where, under which licence; and the variable that recipes use.
    obtain: ClassVar[str] = ""
    variable: ClassVar[str] = ""
    #: What tells the dataset of which the layout knows licence and credit from other data.
    marks: ClassVar[str] = ""

    root: FolderPath | None = None
    repo: Annotated[str, AfterValidator(_check_repo)] | None = None
    revision: Name | None = None
    patients: dict[str, str] = Field(default_factory=dict)
    frame: Annotated[int, Field(ge=0)] | None = None
    nan: Literal["refuse", "fill"] = "refuse"
    orientation: Annotated[str, AfterValidator(check_orientation)] | None = None
    label_grid: Literal["image"] | None = None
    links: Literal["follow"] | None = None

    @model_serializer(mode="wrap")
    def _without_unused_options(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = dump(self)
        for name in _NEW_OPTIONS:
            if name in data and data[name] is None:
                del data[name]
        return data

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if (self.root is None) == (self.repo is None):
            problem = "not both" if self.root is not None else "neither is there"
            raise ValueError(f"give root (a folder) or repo (owner/name on the Hub); {problem}")
        if self.repo is None and self.revision is not None:
            raise ValueError("revision belongs to repo, which is missing; remove it")
        if self.repo is not None and self.revision is None:
            raise ValueError(
                "repo needs a revision (a tag or commit), so that the scans stay the same"
            )
        return self

    def files(self) -> tuple[str, ...]:
        """Patterns of the files that the layout looks at; ``*`` also stands for ``/``."""
        raise NotImplementedError

    def download(self, cache_dir: Path) -> Self:
        """The source in a folder; see ``SourceSection.download``."""
        if self.repo is None or self.revision is None:
            return self.with_known_licence()
        folder, commit = dataset_files(self.repo, self.revision, self.files(), cache_dir)
        section = self.model_copy(update={"root": folder, "revision": commit})
        return section.with_known_licence()

    def known_terms(self) -> dict[str, str | None]:
        """Licence and attribution as the folder's own marks tell them; None for what they do not.

        Empty if the layout's own hold.
        """
        return {}

    def with_known_licence(self) -> Self:
        """The source with licence and credit, of what the recipe does not state, by its folder.

        A folder of the same file names may hold other data: a licence is known only where the
        dataset's own marks are.
        """
        if self.root is None or not self.root.is_dir():  # ``find`` says so
            return self
        terms = export_terms(self.root) or self.known_terms()
        open_fields = {n: v for n, v in terms.items() if n not in self.model_fields_set}
        return self.model_copy(update=open_fields) if open_fields else self

    def in_folder(self, root: Path) -> Self:
        """The source in another folder, wherever it was to come from."""
        return self.model_copy(update={"root": root, "repo": None, "revision": None})

    def reading(self) -> CtReading:
        """``frame``, ``nan`` and ``orientation``."""
        return CtReading(self.frame, self.nan == "fill", self.orientation)

    def label_reading(self, image: Stored | None) -> LabelReading:
        """``orientation`` and ``label_grid``."""
        grid = image if self.label_grid == "image" and isinstance(image, Path) else None
        return LabelReading(self.orientation, grid)

    def follows_links(self) -> bool:
        """``links``."""
        return self.links == "follow"

    def unused_options(self, remarks: Collection[str]) -> Iterator[str]:
        """``orientation`` and ``label_grid``, where all files say how they lie."""
        for name in ("orientation", "label_grid"):
            value = getattr(self, name)
            if value is not None and not any(name in text for text in remarks):
                yield f"{name}: {value} was needed by no case; all files say how they lie"

    def patient_of(self, case_id: str, listed: str | None = None) -> str:
        """The person whose scan the case is, by ``patients``, else by the source's own table."""
        return self.patients.get(case_id, super().patient_of(case_id, listed))

    def select(self, contents: FolderContents) -> FolderContents:
        """Apply ``cases`` and ``exclude``; notes on ``patients`` not there and unknown licences."""
        known = [case.case_id for case in contents.cases]
        notes = [
            f"patients: there is no case '{case_id}'{nearest_case(case_id, known)}"
            for case_id in self.patients
            if case_id not in known
        ]
        if self.marks and self.with_known_licence().licence is None:
            notes.append(
                f"its licence is unknown, since it has not the marks of {self.marks}; state it "
                "with 'licence' and 'attribution' in the source"
            )
        selected = super().select(replace(contents, notes=(*contents.notes, *notes)))
        return with_export_tables(selected)

    def folder(self, cache_dir: Path) -> Path:
        """``root``."""
        del cache_dir
        return self._root

    @property
    def _root(self) -> Path:
        assert self.root is not None, "a repository is downloaded before it is looked into"
        return self.root

    def require_root(self) -> Path:
        """The folder.

        Raises:
            SourceError: If it is not there; says where the data can be had.
        """
        if self._root.is_dir():
            return self._root
        what = "is not a folder" if self._root.exists() else "does not exist"
        raise SourceError(f"root {self.root} {what}. {self.remedy()}")

    def remedy(self) -> str:
        """What a user without the data can do."""
        if self.repo is not None:
            return f"It holds what {self.repo} has for this layout; correct layout or revision"
        variable = (
            f" or by the variable {self.variable} if the recipe uses it" if self.variable else ""
        )
        return f"{self.obtain}Point to it with --source NAME=PATH{variable}".lstrip()

    def inside(self, path: Path) -> Path | None:
        """``path`` if it is there, be it a link that leads nowhere; None if not.

        Raises:
            SourceError: If it is no regular file, or a link that leads out of ``root``.
        """
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return path if path.is_symlink() else None
        except OSError as err:  # a loop of links, or no permission
            raise SourceError(f"{path}: cannot be read ({err.strerror})") from err
        if not stat.S_ISREG(mode):
            raise SourceError(f"{path}: {not_a_file(path)}")
        self.require_inside(path)
        return path

    def require_inside(self, path: Path) -> None:
        """Refuse a file or folder that lies elsewhere than its path says.

        Raises:
            SourceError: If a link leads out of ``root``.
        """
        try:
            target = path.resolve()
        except (OSError, RuntimeError) as err:  # a loop of links is either, by version of Python
            raise SourceError(f"{path}: cannot be read (a loop of links)") from err
        if self.links != "follow" and not target.is_relative_to(self._root.resolve()):
            raise SourceError(
                f"{path}: leads out of {self.root}; copy it there, move the root, or allow it with "
                "'links: follow' in the source"
            )
