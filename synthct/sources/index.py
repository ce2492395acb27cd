"""The index: what every case of every source contains, computed once and kept on disk.

A second run checks sizes and times of files and reads no voxels. Planning needs only the index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import count, filterfalse
from pathlib import Path
from typing import Literal, TypeVar

from synthct.errors import SourceError, counted, printable
from synthct.sources.base import (
    CaseEntry,
    CaseFiles,
    FolderContents,
    LesionLabel,
    SourceSection,
)
from synthct.sources.entry import CaseIndexer
from synthct.sources.facts import FactsStore
from synthct.sources.people import People
from synthct.volume.views import IGNORE

Section = TypeVar("Section", bound=SourceSection)

#: So many names of cases are listed in a note.
_LISTED = 12


@dataclass(frozen=True)
class Skipped:
    """A folder or file that looks like a case but cannot be used, and why."""

    source: str
    case_id: str
    reason: str


@dataclass(frozen=True, eq=False)
class Index:
    """All cases of all sources.

    Attributes:
        sources: Name of the source in the recipe to its cases, by case id.
        skipped: What was left out, and why.
        notes: What the user should know, such as an ``exclude`` that excludes nothing.
    """

    sources: Mapping[str, tuple[CaseEntry, ...]]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()

    def entries(self, source: str) -> tuple[CaseEntry, ...]:
        """The cases of one source, by case id.

        Raises:
            SourceError: If there is no such source.
        """
        if source not in self.sources:
            close = get_close_matches(source, self.sources, n=1)
            known = f"did you mean '{close[0]}'?" if close else f"have: {', '.join(self.sources)}"
            raise SourceError(f"there is no source '{source}'; {known}")
        return self.sources[source]

    def entry(self, source: str, case_id: str) -> CaseEntry:
        """One case of one source.

        Raises:
            SourceError: If there is no such source or case.
        """
        for entry in self.entries(source):
            if entry.case_id == case_id:
                return entry
        raise SourceError(f"source '{source}' has no case '{case_id}'")


def download(sources: Mapping[str, Section], cache_dir: Path) -> dict[str, Section]:
    """All sources with their files on this machine; to be done before they are indexed.

    Args:
        sources: Name in the recipe to section.
        cache_dir: Where what comes from the Hub is kept.

    Raises:
        HubError: If the Hub does not deliver them.
        ResourceError: If there is no place for them.
    """
    return {name: section.download(cache_dir) for name, section in sources.items()}


def index_sources(
    sources: Mapping[str, SourceSection],
    labels: Sequence[str],
    *,
    cache_dir: Path,
    lesions: Mapping[str, Sequence[LesionLabel]] | None = None,
    on_bad_case: Literal["stop", "skip"] = "stop",
    progress: bool = False,
) -> Index:
    """Find the cases of all sources and what is in them.

    Args:
        sources: Name in the recipe to section, as ``download`` gives them.
        labels: The labels (structures or unions) that the recipe needs. A layout with a label map
            indexes all of its structures anyway, one with a file per structure only these.
        cache_dir: Where facts of files already read are kept, and phantoms once made.
        lesions: Source to the labels whose lesions are described, each with its organ.
        on_bad_case: Whether a case whose files are damaged or do not fit together ends it all, or
            is left out and listed in ``Index.skipped``.
        progress: Show a progress bar, in cases.

    Returns:
        The index, the cases of each source by case id.

    Raises:
        SourceError: If a root is missing or has no (good) cases, two patients have the very same
            image (or labels, where one has no image), or, unless such cases are skipped, a file
            is missing or damaged or an image and its labels lie on different grids.
        ResourceError: If the cache cannot be written.
    """
    from tqdm import tqdm

    contents = {}
    for name, section in sources.items():
        with _naming(name):
            contents[name] = _named_well(section, section.find(cache_dir), on_bad_case)
            if not contents[name].cases:
                raise SourceError("cases and exclude leave no case; widen them")
    # Only when all are there: phantoms take time to make.
    for name, section in sources.items():
        with _naming(name):
            section.prepare(contents[name].cases, progress=progress)
    entries: dict[str, tuple[CaseEntry, ...]] = {}
    label_names = label_table(sources, labels) if lesions else {}
    skipped = [
        Skipped(name, printable(case_id).replace("\n", "\\n"), reason)
        for name, one in contents.items()
        for case_id, reason in one.skipped
    ]
    notes = [f"source '{name}': {note}" for name, one in contents.items() for note in one.notes]
    people = People()
    total = sum(len(one.cases) for one in contents.values())
    with tqdm(total=total, desc="index", unit="case", leave=False, disable=not progress) as bar:
        for name, section in sources.items():
            links, described = section.follows_links(), (lesions or {}).get(name, ())
            with (
                _naming(name),
                FactsStore(section.folder(cache_dir), cache_dir, follow_links=links) as store,
            ):
                indexer = CaseIndexer(name, section, store, labels, described, label_names)
                rows: list[CaseEntry] = []
                for case in contents[name].cases:
                    bar.update()
                    try:
                        rows.append(indexer.entry(case))
                    except SourceError as err:
                        if on_bad_case == "stop":
                            raise
                        reason = _reason(section, case, err, store.root)
                        skipped.append(Skipped(name, case.case_id, reason))
                        continue
                    people.add(rows[-1])
                if not rows:
                    last = skipped[-1]
                    raise SourceError(f"no case is good; {last.case_id}: {last.reason}")
                texts = [
                    f"{n} of {counted(len(rows), 'case')}: {text}"
                    for text, n in indexer.remarks.items()
                ]
                texts += [*section.unused_options(indexer.remarks), *_not_there(section, rows)]
                if store.outside:
                    texts.append(
                        f"links lead to {counted(len(store.outside), 'file')} outside of its root"
                    )
                notes += [f"source '{name}': {text}" for text in (*indexer.notes, *texts)]
            entries[name] = tuple(rows)
    people.compare_labels()
    return Index(entries, tuple(skipped), tuple(notes))


def _named_well(
    section: SourceSection, contents: FolderContents, on_bad_case: Literal["stop", "skip"]
) -> FolderContents:
    """The selected cases, without those of a name that is no line of text.

    Raises:
        SourceError: If there is one and such cases are not left out, or a patient has such a name.
    """
    contents = section.select(contents)
    good, skipped = [], list(contents.skipped)
    for case in contents.cases:
        patient = section.patient_of(case.case_id, case.patient_id)
        if case.case_id.isprintable() and patient.isprintable():
            good.append(case)
            continue
        name = case.case_id if not case.case_id.isprintable() else patient
        problem = f"the name {name!a} is no UTF-8 or holds characters that cannot be printed"
        if on_bad_case == "stop":
            raise SourceError(f"{problem}; rename the case or its patient, or exclude it")
        skipped.append((case.case_id, problem))
    return replace(contents, cases=tuple(good), skipped=tuple(skipped))


def label_table(
    sources: Mapping[str, SourceSection],
    labels: Sequence[str],
    fixed: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Number the structures once for a whole dataset.

    The structures of label-map sources come first and in their own order, so that KiTS keeps
    kidney 1, tumor 2, cyst 3; then those that ``labels`` come to, in order. 255 means "ignore"
    and is no structure's value.

    Args:
        sources: Name in the recipe to section, as ``download`` gives them.
        labels: The labels (structures or unions) that the recipe needs.
        fixed: Values that are given, by structure; no other structure gets one of them.

    Returns:
        Structure to value, from 1.

    Raises:
        SourceError: If a root is missing or has no cases.
    """
    names: dict[str, None] = {}
    expansions = []
    for name, section in sources.items():
        native = section.native_labels()
        names.update(dict.fromkeys(sorted(native, key=native.__getitem__)))
        if not native:
            with _naming(name):
                expansions.append(section.expansions(labels))
    for label in labels:
        for expansion in expansions:
            names.update(dict.fromkeys(expansion.get(label, ())))
    given = fixed or {}
    free = filterfalse({IGNORE, *given.values()}.__contains__, count(1))
    return {name: given[name] if name in given else next(free) for name in names}


def _not_there(section: SourceSection, entries: Sequence[CaseEntry]) -> Iterator[str]:
    """Notes on labels that the source names and no case has, and on cases without an image."""
    bare = [entry.case_id for entry in entries if entry.image is None]
    if 0 < len(bare) < len(entries):  # a source without any image is there for its shapes
        more = f" and {len(bare) - _LISTED} more" if len(bare) > _LISTED else ""
        have = "has" if len(bare) == 1 else "have"
        yield (
            f"{len(bare)} of {len(entries)} cases {have} no image and can lend shapes, but not be "
            f"hosts: {', '.join(bare[:_LISTED])}{more}"
        )
    present = {name for entry in entries for name in entry.labels}
    for label, value in section.named_labels().items():
        if label not in present:
            yield f"no label map holds '{label}' (value {value})"


def _reason(section: SourceSection, case: CaseFiles, err: SourceError, root: Path) -> str:
    """What is wrong with a case, in one printable line and without the place of its folder."""
    text = section.shown(case, str(err)).replace(f"{root}/", "")
    return printable(" ".join(text.split()))


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Say in an error which source it is about."""
    try:
        yield
    except SourceError as err:
        raise SourceError(f"source '{source}': {err}") from err
    except OSError as err:
        raise SourceError(f"source '{source}': {err.filename}: {err.strerror}") from err
