"""Whole scans with the painted lesions of a dataset in them, made from its rows and the hosts.

Rows that show whole scans (``extent: scan``) need no hosts.

A scan gets every lesion of its host that leaves the others alone; further ones, and other variants,
get scans of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.build.compose import painted_hosts
from synthct.build.draw import CaseReader, shown_of
from synthct.dataset.lockfile import read_lock
from synthct.dataset.manifest import Manifest, require_todays_recipe
from synthct.dataset.records import RECIPE
from synthct.dataset.rows import decode, stored_rows
from synthct.dataset.sample import Sample
from synthct.errors import RecipeError, SourceError
from synthct.publish.export.export_format import Columns
from synthct.recipe.recipe import stored_recipe
from synthct.sources import CaseEntry
from synthct.volume import Box
from synthct.volume.case import Case

#: A host has at most so many lesions in one scan: their numbers are stored as uint8.
_MOST = np.iinfo(np.uint8).max


@dataclass(eq=False)
class PaintedScan:
    """A host with some lesions: what is painted of it, in canonical voxels.

    Attributes:
        entry: The host in the index; None where its rows show all of it.
        case: The host, or what a row shows of it.
        variant: Which painting of its masks it shows.
        part: 0 for the first scan of the host and variant, 1 for what did not fit there.
        parts: How many such scans there are.
        number: (I, J, K), 0 outside of the masks, n in those of the n-th lesion.
        hu: Box and HU of what each sample painted, and where it did.
        labels: Label map after painting.
        lesions: Ids of the lesions, in order.
        rows: The samples as stored, with the number of their lesion.
    """

    entry: CaseEntry | None
    case: Case
    variant: int
    number: npt.NDArray[np.uint8]
    labels: npt.NDArray[Any]
    part: int = 0
    parts: int = 1
    hu: list[tuple[Box, npt.NDArray[np.int16], npt.NDArray[np.bool_]]] = field(default_factory=list)
    lesions: list[str] = field(default_factory=list)
    rows: list[tuple[Columns, int]] = field(default_factory=list)

    @classmethod
    def of(cls, entry: CaseEntry | None, case: Case, variant: int) -> PaintedScan:
        """A host to which no lesion has been added."""
        number = np.zeros(case.labels.shape, np.uint8)
        return cls(entry, case, variant, number, case.labels.array.copy())

    def takes(self, parts: Iterable[tuple[Box, Sample]], most: int) -> bool:
        """Whether a lesion leaves those alone that are there, fewer than ``most``."""
        free = len(self.lesions) < most
        return free and not any(self.number[box.slices][one.mask].any() for box, one in parts)

    def add(
        self, lesion_id: str, parts: Iterable[tuple[Box, Sample]], rows: Iterable[Columns]
    ) -> None:
        """Paint a lesion into it."""
        self.lesions.append(lesion_id)
        number = len(self.lesions)
        for box, one in parts:
            tight = Box.around(one.mask)
            assert tight is not None, "a mask has voxels"
            inside, at = one.mask[tight.slices], tight.shift(box.start_ijk)
            self.hu.append((at, one.image[tight.slices].copy(), inside.copy()))
            self.number[at.slices][inside] = number
            self.labels[at.slices][inside] = one.labels[tight.slices][inside]
        self.rows += [(row, number) for row in rows]

    def painted(self) -> npt.NDArray[np.int16]:
        """HU (I, J, K) of the canonical scan after painting."""
        hu = self.case.scan().array.copy()
        for box, values, inside in self.hu:
            hu[box.slices][inside] = values[inside]
        return hu


class PaintedScans:
    """The whole scans that the samples of a dataset make.

    Args:
        folder: The folder of a version.
        sources: Source name to folder, for hosts whose place no variable tells. Without any, rows
            that show whole scans are taken as they are.
        cache_dir: Folder of cached indexes and phantoms.
        lesions: Most lesions in a scan.

    Raises:
        RecipeError: If the samples are single slices of lesions.
        SourceError: If a host is missing or is not the one that was painted.
    """

    def __init__(
        self, folder: Path, sources: Mapping[str, Path], cache_dir: Path, lesions: int = _MOST
    ) -> None:
        require_todays_recipe(folder)
        recipe, self.lock = stored_recipe(folder / RECIPE), read_lock(folder)
        if recipe.view != "volume":
            for section in recipe.masks:
                if section.slices != "all":
                    raise RecipeError(
                        f"masks '{section.name}' of {folder} paint some slices of a lesion, so no "
                        "whole scan shows it; build with 'slices: all' or 'view: volume'"
                    )
        self.hosts: Sequence[CaseEntry] = ()
        if sources or recipe.extent != "scan":
            self.hosts = painted_hosts(recipe, self.lock, sources, cache_dir).entries("hosts")
        self._entries = {entry.case_id: entry for entry in self.hosts}
        in_order = dict(sorted(self.lock.labels.items(), key=lambda label: label[1]))
        self._reader = CaseReader(in_order, keep=1)
        self._most = min(lesions, _MOST)
        self._one = "mask_id" if recipe.view == "volume" else "lesion_id"

    def host(self, entry: CaseEntry) -> Case:
        """A host as it is in its source."""
        return self._reader.read(entry)

    def of(self, rows: Iterable[Columns]) -> Iterator[PaintedScan]:
        """The scans that some rows make, host after host.

        Args:
            rows: Stored rows, in the order of the dataset.

        Raises:
            SourceError: If a host is not the scan that was painted into.
            VerifyError: If a row is damaged.
        """
        for case_id, of_host in groupby(rows, key=lambda row: row["case_id"]):
            entry = self._entries[case_id] if self.hosts else None
            for scans in self._of_host(of_host, entry).values():
                for part, scan in enumerate(scans):
                    scan.part, scan.parts = part, len(scans)
                    yield scan

    def _of_host(
        self, rows: Iterable[Columns], entry: CaseEntry | None
    ) -> dict[int, list[PaintedScan]]:
        """The scans of a host by variant, each with the lesions that leave each other alone."""
        scans: dict[int, list[PaintedScan]] = {}
        host = None if entry is None else self.host(entry)
        # The sizes of a series are one lesion, of which a scan shows one.
        for _, of_lesion in groupby(rows, key=lambda row: row[self._one]):
            variants: dict[int, list[Columns]] = {}
            for row in of_lesion:
                if row["is_painted"]:
                    variants.setdefault(row["variant"], []).append(row)
            for variant, own in sorted(variants.items()):
                parts = [(_place(one, entry), one) for one in map(decode, own)]
                if host is not None:
                    for box, one in parts:
                        _require_same(host, box, one)
                mine = scans.setdefault(variant, [])
                free = next((scan for scan in mine if scan.takes(parts, self._most)), None)
                if free is None:
                    case = host or self._shown(parts[0][1])
                    mine.append(free := PaintedScan.of(entry, case, variant))
                # the pictures are in the scan
                flat = [{k: v for k, v in row.items() if not isinstance(v, dict)} for row in own]
                free.add(own[0]["lesion_id"], parts, flat)
        return scans

    def _shown(self, sample: Sample) -> Case:
        """A sample that shows all of its host, with what is painted in it."""
        image, labels = sample.volume("image"), sample.volume("labels")
        facts = sample.facts
        return Case(facts.case_id, facts.patient_id, "hosts", image, labels, self.lock.labels)


def _place(sample: Sample, entry: CaseEntry | None) -> Box:
    """Where a sample lies in its host; without an entry it shows all of it."""
    return Box.whole(sample.shape) if entry is None else shown_of(sample, entry)


def rows_of_split(folder: Path, manifest: Manifest, split: str) -> Iterator[Columns]:
    """The stored rows of a split, in the order of the dataset.

    Args:
        folder: The folder of a version.
        manifest: Its manifest.
        split: The split.
    """
    for shard in manifest.shards:
        if shard.split == split:
            yield from stored_rows(folder / shard.path)


def _require_same(case: Case, box: Box, sample: Sample) -> None:
    """See that a sample was painted into this host.

    Raises:
        SourceError: If a voxel outside of its mask is another.
    """
    outside = ~sample.mask
    if not np.array_equal(case.scan().array[box.slices][outside], sample.image[outside]):
        raise SourceError(
            f"case {case.case_id} is not the scan that {sample.sample_id} was painted into; "
            "correct --source"
        )
