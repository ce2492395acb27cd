"""The lesions of a case, for the index: found once, and kept with the facts of its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from synthct.errors import MaskError
from synthct.sources.base import CaseEntry, LesionLabel
from synthct.sources.facts import FactsStore
from synthct.sources.read import read_case
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
        store: Keeps what was found.

    Raises:
        SourceError: If a file is damaged or not the one that was indexed.
    """
    found = {}
    for label, organ in wanted:
        if label not in entry.labels:
            continue
        parts = (*entry.structures_of(label), *entry.structures_of(organ))
        names = {name: value for name, value in label_names.items() if name in parts}
        files = sorted({entry.file_sha256[entry.label_files[name]] for name in names})
        values = [[name, entry.label_values.get(name)] for name in names]
        found[label, organ] = store.lesions(
            f"{entry.case_id} {label} {organ}",
            [files, values],
            partial(_find, entry, label, organ, names),
        )
    return replace(entry, lesions=found)


def _find(
    entry: CaseEntry, label: str, organ: str, label_names: Mapping[str, int]
) -> tuple[LesionFacts, ...]:
    case = read_case(replace(entry, image=None), label_names)
    try:
        return lesions_of(case, label, organ)
    except MaskError:  # where structures overlap, nothing of the label may be left
        return ()
