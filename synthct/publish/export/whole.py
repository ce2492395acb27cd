"""``--to nifti --whole``: whole painted scans, in the files' own grid, orientation and values.

A scan gets every lesion of its host that leaves the others alone; further ones, and other variants,
get scans of their own. Voxels outside of the masks are those of the host's file, bit for bit where
that is a NIfTI file in 3D, else the canonical HU that it is read as.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthct.build.compose import painted_hosts
from synthct.build.draw import CaseReader, shown_of
from synthct.dataset.lockfile import read_lock
from synthct.dataset.records import RECIPE
from synthct.dataset.rows import decode
from synthct.dataset.sample import Sample
from synthct.errors import RecipeError, SourceError
from synthct.publish.export.export_format import Columns, Item, file_columns, file_stem
from synthct.publish.export.volumes import Volumes
from synthct.recipe.recipe import stored_recipe
from synthct.sources import CaseEntry
from synthct.volume import Box, Volume, nifti_bytes, restore_orientation
from synthct.volume.case import Case
from synthct.volume.nifti_file import NiftiFile

#: Columns of a scan.
_OF_SCAN = (
    ("case_id", pa.string()),
    ("patient_id", pa.string()),
    ("variant", pa.int32()),
    ("lesions", pa.int32()),
    ("sample_ids", pa.list_(pa.string())),
    ("labels", pa.list_(pa.string())),
)


@dataclass(eq=False)
class _Scan:
    """A host with some lesions: what is painted of it, in canonical voxels.

    Attributes:
        case: The host.
        number: (I, J, K), 0 outside of the masks, n in those of the n-th lesion.
        hu: Box and HU of what each sample painted, and where it did.
        labels: Label map after painting.
        lesions: Ids of the lesions, in order.
        rows: The samples, with the number of their lesion.
    """

    case: Case
    number: npt.NDArray[np.uint8]
    labels: npt.NDArray[Any]
    hu: list[tuple[Box, npt.NDArray[np.int16], npt.NDArray[np.bool_]]] = field(default_factory=list)
    lesions: list[str] = field(default_factory=list)
    rows: list[tuple[Columns, int]] = field(default_factory=list)

    @classmethod
    def of(cls, case: Case) -> _Scan:
        """A host without any lesion."""
        return cls(case, np.zeros(case.labels.shape, np.uint8), case.labels.array.copy())

    def takes(self, parts: Iterable[tuple[Box, Sample]]) -> bool:
        """Whether a lesion leaves those alone that are there."""
        free = len(self.lesions) < np.iinfo(self.number.dtype).max
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


class WholeScans(Volumes):
    """A folder for ``niftifolder``: a row is a whole scan with one or more painted lesions.

    Args:
        folder: The folder of a version.
        sources: Source name to folder, for hosts whose place no variable tells.
        cache_dir: Folder of cached indexes and phantoms.

    Raises:
        RecipeError: If the samples are single slices of lesions.
        SourceError: If a host is missing or is not the one that was painted.
    """

    readme_text: ClassVar = """\
Whole scans, with every lesion of the host that does not overlap another; what does not fit, and
every other variant, has a scan of its own. Grid, orientation, type and values are those of the
host's file, but for the voxels of the masks."""
    files: ClassVar[Mapping[str, str]] = {
        "image": "the host's file with the painted voxels in it",
        "mask": "uint8; 0 outside of the masks, n in those of the scan's n-th lesion (column "
        "`number` of `samples.csv`)",
        "label_map": "label values after painting",
    }

    def __init__(self, folder: Path, sources: Mapping[str, Path], cache_dir: Path) -> None:
        recipe, lock = stored_recipe(folder / RECIPE), read_lock(folder)
        if recipe.view != "volume":
            for section in recipe.masks:
                if section.slices != "all":
                    raise RecipeError(
                        f"masks '{section.name}' of {folder} paint some slices of a lesion, so no "
                        "whole scan shows it; build with 'slices: all' or 'view: volume'"
                    )
        self._index = painted_hosts(recipe, lock, sources, cache_dir)
        in_order = dict(sorted(lock.labels.items(), key=lambda label: label[1]))
        self._reader = CaseReader(in_order, keep=1)

    def record_schema(self, keep_original: bool, flat: pa.Schema) -> pa.Schema:
        """The columns of ``metadata.parquet``."""
        del keep_original, flat
        return pa.schema([*file_columns(self, False), *_OF_SCAN])

    def sample_schema(self, keep_original: bool, flat: pa.Schema) -> pa.Schema:
        """The columns of ``samples.csv``; ``number`` is that of the lesion in the scan."""
        del keep_original
        return pa.schema([*file_columns(self, False), ("number", pa.int32()), *flat])

    def write(
        self, rows: Iterable[Columns], folder: Path, start: int, labels: Mapping[str, int]
    ) -> Iterator[Item]:
        """Write the files of some rows; see ``ExportFormat.write``."""
        del labels  # the hosts' label maps have no names in their headers either
        number = start
        for case_id, of_host in groupby(rows, key=lambda row: row["case_id"]):
            entry = self._index.entry("hosts", case_id)
            case = self._reader.read(entry)
            for variant, scans in self._scans(of_host, entry, case).items():
                for part, scan in enumerate(scans):
                    more = f".{part}" if len(scans) > 1 else ""
                    stem = file_stem(number, f"{case_id}.v{variant}{more}")
                    yield _item(scan, _write(scan, entry, folder, stem), variant)
                    number += 1

    def _scans(
        self, rows: Iterable[Columns], entry: CaseEntry, case: Case
    ) -> dict[int, list[_Scan]]:
        """The scans of a host by variant, each with the lesions that leave each other alone."""
        scans: dict[int, list[_Scan]] = {}
        for lesion_id, of_lesion in groupby(rows, key=lambda row: row["lesion_id"]):
            variants: dict[int, list[Columns]] = {}
            for row in of_lesion:
                if row["is_painted"]:
                    variants.setdefault(row["variant"], []).append(row)
            for variant, own in sorted(variants.items()):
                parts = [(shown_of(one, entry), one) for one in map(decode, own)]
                for box, one in parts:
                    _require_same(case, box, one)
                mine = scans.setdefault(variant, [])
                free = next((scan for scan in mine if scan.takes(parts)), None)
                if free is None:
                    mine.append(free := _Scan.of(case))
                flat = [{k: v for k, v in row.items() if not isinstance(v, dict)} for row in own]
                free.add(lesion_id, parts, flat)
        return scans


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


def _write(scan: _Scan, entry: CaseEntry, folder: Path, stem: str) -> dict[str, str]:
    """Write the files of a scan; their names by column."""
    assert entry.image is not None, "a host has an image"
    file = NiftiFile.open(entry.image, entry.reading)
    affine = scan.case.labels.affine
    hu = scan.case.scan().array.copy()
    for box, painted, inside in scan.hu:
        hu[box.slices][inside] = painted[inside]
    volumes = {
        "mask": Volume(scan.number, affine),
        "label_map": Volume(scan.labels, affine),
    }
    if file is None:
        content = {"image": nifti_bytes(Volume(hu, affine), compress=True)}
    else:
        own = restore_orientation(Volume(hu, affine), file.affine).array
        where = restore_orientation(Volume(scan.number > 0, affine), file.affine).array
        content = {"image": file.with_values(own, where)}
        volumes = {
            name: Volume(restore_orientation(one, file.affine).array, file.affine)
            for name, one in volumes.items()
        }
    content |= {name: nifti_bytes(one, compress=True) for name, one in volumes.items()}
    named = {}
    for name, data in content.items():
        named[f"{name}_file_name"] = path = f"{stem}_{name}.nii.gz"
        (folder / path).write_bytes(data)
    return named


def _item(scan: _Scan, named: Mapping[str, str], variant: int) -> Item:
    first = scan.rows[0][0]
    record = {
        **named,
        "case_id": first["case_id"],
        "patient_id": first["patient_id"],
        "variant": variant,
        "lesions": len(scan.lesions),
        "sample_ids": [row["sample_id"] for row, _ in scan.rows],
        "labels": [row["label"] for row, _ in scan.rows],
    }
    samples = tuple({**row, **named, "number": number} for row, number in scan.rows)
    return Item(record, samples)
