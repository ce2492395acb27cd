"""Sources whose files somebody has put into a folder, here or in a repository on the Hub."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from synthct.errors import SourceError
from synthct.sources.base import Found, Name, SourceSection, nearest_case
from synthct.storage.hub import HUB_ID, dataset_files
from synthct.volume import CtReading

FolderPath = Annotated[Path, AfterValidator(Path.expanduser)]


def _check_repo(name: str) -> str:
    if not HUB_ID.fullmatch(name):
        raise ValueError(f"'{name}' is no dataset repository on the Hub; write it as owner/name")
    return name


class FolderSection(SourceSection):
    """A source that is a folder of the user's, or a dataset repository on the Hub.

    Attributes:
        root: The folder. Of a repository there is one once it is ``at_hand``.
        repo: The repository, ``owner/name``; its top folder takes the place of ``root``.
        revision: Its tag, branch or commit; once it is ``at_hand``, the commit.
        patients: Case id to patient id, where one person has several cases (here or in another
            source). A case that is not named is a person of its own, called as the case.
        frame: Which 3D scan of 4D images to take, from 0; without it they are refused.
        nan: What to do about voxels that are not finite numbers: ``refuse`` the scan, or ``fill``
            them with air (-1024 HU).
    """

    #: What to download from where, under which licence; and the variable that recipes use.
    obtain: ClassVar[str] = ""
    variable: ClassVar[str] = ""

    root: FolderPath | None = None
    repo: Annotated[str, AfterValidator(_check_repo)] | None = None
    revision: Name | None = None
    patients: dict[str, str] = Field(default_factory=dict)
    frame: Annotated[int, Field(ge=0)] | None = None
    nan: Literal["refuse", "fill"] = "refuse"

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if (self.root is None) == (self.repo is None):
            said = "not both" if self.root is not None else "neither is there"
            raise ValueError(f"give root (a folder) or repo (owner/name on the Hub); {said}")
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

    def at_hand(self, cache_dir: Path) -> Self:
        """The source in a folder; see ``SourceSection.at_hand``."""
        if self.repo is None or self.revision is None:
            return self
        folder, commit = dataset_files(self.repo, self.revision, self.files(), cache_dir)
        return self.model_copy(update={"root": folder, "revision": commit})

    def in_folder(self, root: Path) -> Self:
        """The source in another folder, wherever it was to come from."""
        return self.model_copy(update={"root": root, "repo": None, "revision": None})

    def reading(self) -> CtReading:
        """``frame`` and ``nan``."""
        return CtReading(self.frame, self.nan == "fill")

    def patient_of(self, case_id: str) -> str:
        """The person whose scan the case is, by ``patients``."""
        return self.patients.get(case_id, case_id)

    def select(self, found: Found) -> Found:
        """Apply ``cases`` and ``exclude``, and tell of ``patients`` that are not there."""
        known = [case.case_id for case in found.cases]
        notes = [
            f"patients: there is no case '{case_id}'{nearest_case(case_id, known)}"
            for case_id in self.patients
            if case_id not in known
        ]
        return super().select(replace(found, notes=(*found.notes, *notes)))

    def folder(self, cache_dir: Path) -> Path:
        """``root``."""
        del cache_dir
        return self._root

    @property
    def _root(self) -> Path:
        assert self.root is not None, "a repository is at hand before it is looked into"
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
        """``path`` if it is there; None if not.

        Raises:
            SourceError: If it is no regular file, or a link that leads out of ``root``.
        """
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as err:  # a loop of links, or no permission
            raise SourceError(f"{path}: cannot be read ({err.strerror})") from err
        if not stat.S_ISREG(mode):
            raise SourceError(f"{path}: not a regular file")
        self.require_inside(path)
        return path

    def require_inside(self, path: Path) -> None:
        """Refuse a file or folder that lies elsewhere than its path says.

        Raises:
            SourceError: If a link leads out of ``root``.
        """
        try:
            there = path.resolve()
        except (OSError, RuntimeError) as err:  # a loop of links is either, by version of Python
            raise SourceError(f"{path}: cannot be read (a loop of links)") from err
        if not there.is_relative_to(self._root.resolve()):
            raise SourceError(f"{path}: leads out of {self.root}; copy it there or move the root")
