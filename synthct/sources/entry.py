"""The index entry of one case: what its files hold, by known facts or by reading them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from synthct.errors import SourceError, counted
from synthct.sources.base import (
    CaseEntry,
    CaseFiles,
    LabelStats,
    LesionLabel,
    SourceSection,
    start_in_case,
)
from synthct.sources.facts import FactsStore, FileFacts
from synthct.sources.lesions import with_lesions
from synthct.sources.people import label_fingerprint
from synthct.sources.stored import Stored, name_of
from synthct.volume import Affine, Box
from synthct.volume.views import IGNORE


@dataclass(frozen=True, eq=False)
class CaseIndexer:
    """Makes the entries of the cases of one source.

    Attributes:
        source: Its name in the recipe.
        section: Its section.
        store: Facts of its files.
        labels: The labels (structures or unions) that the recipe needs.
        lesions: The labels whose lesions are described, each with its organ.
        label_names: Structure to value, dataset-wide.
        notes: What the user should know of single cases.
        remarks: How files were read, and for how many cases.
    """

    source: str
    section: SourceSection
    store: FactsStore
    labels: Sequence[str]
    lesions: Sequence[LesionLabel]
    label_names: Mapping[str, int]
    notes: list[str] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)

    def entry(self, case: CaseFiles) -> CaseEntry:
        """The entry of a case; reads the files whose facts are not known yet.

        Raises:
            SourceError: If a file is missing or damaged, or they lie on different grids.
        """
        image = None
        if case.image is not None:
            image = self.store.image(case.image, self.section.reading())
        entry, remarks = self._of_files(case, image)
        entry = with_lesions(entry, self.lesions, self.label_names, self.store)
        self.remarks.update(remarks)
        if image is not None and image.filled:
            are = counted(
                image.filled, "voxel that is not finite is", "voxels that are not finite are"
            )
            what = f"{are} read as air"
            self.notes.append(f"case {case.case_id}: {what}")
        return entry

    def _of_files(self, case: CaseFiles, image: FileFacts | None) -> tuple[CaseEntry, set[str]]:
        """The entry without lesions, and remarks on how its files were read."""
        wanted = [*case.label_files, *case.unions] if case.label_values else list(self.labels)
        parts = (part for name in wanted for part in case.structures_of(name))
        structures = list(dict.fromkeys(parts))
        if image is None and not structures:  # some file must tell the grid
            structures = sorted(case.label_files)[:1]
        reading = self.section.label_reading(case.image)
        facts = {
            path: self.store.labels(path, reading)
            for path in {case.label_files[name]: 0 for name in structures}
        }
        grid = image or next(iter(facts.values()))
        read = facts.values() if image is None else (image, *facts.values())
        remarks = {text for one in read for text in one.remarks}
        nameless = set[int]()
        hashes = {path: one.sha256 for path, one in facts.items()}
        if case.image is not None and image is not None:
            hashes[case.image] = image.sha256
        for path, one in facts.items():
            start = start_in_case(case.case_id, path, one, grid)
            if one.shape != grid.shape:
                facts[path] = one.moved(start)
                remarks.add(
                    "the label map covers a part of the image's grid and is padded with background"
                )
            unnamed = set(one.values) - set(case.label_values.values())
            if unnamed and self.section.closed_labels():
                raise SourceError(
                    f"case {case.case_id}: {name_of(path)} holds the value {min(unnamed)}, which "
                    f"{self.section.layout} does not have; repair it, or use layout 'nifti' with "
                    "label_names"
                )
            nameless |= unnamed if case.label_values else set()
            if case.label_values and unnamed - {IGNORE}:
                values = ", ".join(map(str, sorted(unnamed - {IGNORE})))
                remarks.add(f"label values without a name are read as background: {values}")
        entry = CaseEntry(
            source=self.source,
            layout=self.section.layout,
            case_id=case.case_id,
            patient_id=self.section.patient_of(case.case_id, case.patient_id),
            image=case.image,
            label_files=case.label_files,
            label_values=case.label_values,
            shape=grid.shape,
            affine=grid.affine,
            labels=_stats(case, structures, wanted, facts, grid.affine),
            available=(*case.label_files, *case.unions),
            unions=case.unions,
            image_sha256=image.sha256 if image is not None else None,
            voxel_sha256=image.voxel_sha256 if image is not None else None,
            label_sha256=_label_sha256(case, structures, facts),
            split=case.split,
            licence=self.section.licence,
            file_sha256=hashes,
            unnamed=frozenset(nameless),
            reading=self.section.reading(),
            label_reading=reading,
            fingerprint=image.fingerprint if image is not None else None,
            label_fingerprint=label_fingerprint(facts.values()),
        )
        return entry, remarks


def _stats(
    case: CaseFiles,
    structures: Sequence[str],
    wanted: Sequence[str],
    facts: Mapping[Stored, FileFacts],
    affine: Affine,
) -> dict[str, LabelStats]:
    """How much there is of each structure, then of each union among ``wanted``; no empty ones."""
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000

    def total(parts: Sequence[tuple[int, Box]]) -> LabelStats:
        voxels = sum(count for count, _ in parts)
        return LabelStats(voxels, voxels * voxel_ml, reduce(Box.join, (box for _, box in parts)))

    stats: dict[str, LabelStats] = {}
    for name in structures:
        own = case.label_values.get(name)
        values = facts[case.label_files[name]].values
        parts = [part for value, part in values.items() if own is None or value == own]
        if parts:
            stats[name] = total(parts)
    for union in wanted:
        inside = [stats[part] for part in case.unions.get(union, ()) if part in stats]
        if inside:
            stats[union] = total([(one.voxels, one.box) for one in inside])
    return stats


def _label_sha256(
    case: CaseFiles, structures: Sequence[str], facts: Mapping[Stored, FileFacts]
) -> str:
    """The sha256 of the label map, or of the list of structures with their files' sha256."""
    if case.label_values:
        return next(iter(facts.values())).sha256
    lines = [f"{name} {facts[case.label_files[name]].sha256}\n" for name in sorted(structures)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
