"""The lesions of a case, for the index: found once and kept with the facts of its files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from synthct.errors import MaskError
from synthct.sources.base import CaseEntry, LesionLabel
from synthct.sources.facts import FactsStore
from synthct.sources.keys import case_facts
from synthct.sources.read import read_case
from synthct.storage.keys import cache_key
from synthct.volume.anatomy import LesionFacts, lesions_of


def with_lesions(
    entry: CaseEntry,
    wanted: Sequence[LesionLabel],
    label_names: Mapping[str, int],
    store: FactsStore,
) -> CaseEntry:
    """An index entry with the lesions of the wanted labels; reads labels that are not known yet.

    Args:
        entry: The case.
        wanted: Labels, each with its organ; those that the case has nothing of are left out.
        label_names: Structure to value, dataset-wide.
        store: Keeps the lesions.

    Raises:
        SourceError: If a file is damaged or not the one that was indexed.
    """
    lesions = {}
    for label, organ in wanted:
        if label not in entry.labels:
            continue
        parts = (*entry.structures_of(label), *entry.structures_of(organ))
        names = {name: value for name, value in label_names.items() if name in parts}
        read = _only(entry, names)
        found = store.derived(
            f"{entry.case_id} {label} {organ}",
            cache_key(__name__, case=case_facts(read), label=label, organ=organ, names=names),
            partial(_find, read, label, organ, names),
        )
        lesions[label, organ] = tuple(LesionFacts.from_json(one) for one in found)
    return replace(entry, lesions=lesions)


def _only(entry: CaseEntry, structures: Collection[str]) -> CaseEntry:
    """The case with some of its structures and nothing else, whatever else a recipe needs."""
    files = {name: path for name, path in entry.label_files.items() if name in structures}
    return replace(
        entry,
        source="",
        image=None,
        image_sha256=None,
        voxel_sha256=None,
        label_files=files,
        label_sha256="",
        file_sha256={path: entry.file_sha256[path] for path in files.values()},
        labels={},
        available=(),
    )


def _find(
    entry: CaseEntry, label: str, organ: str, label_names: Mapping[str, int]
) -> list[dict[str, Any]]:
    case = read_case(entry, label_names)
    try:
        return [one.as_json() for one in lesions_of(case, label, organ)]
    except MaskError:  # where structures overlap, nothing of the label may be left
        return []
