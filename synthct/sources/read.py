"""Reading one case: the image, and of the labels only those that are wanted, as one label map."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from synthct.sources.base import CaseEntry, check_grid, start_in_case
from synthct.sources.stored import Stored, read_image, read_label_map
from synthct.volume import Array, Box, Index3, Volume
from synthct.volume.case import Case
from synthct.volume.grid import padded


def read_case(entry: CaseEntry, label_names: Mapping[str, int]) -> Case:
    """Read the image of a case, and those of its structures that ``label_names`` names.

    Only the files of these structures are opened. Where structures overlap, the one that comes
    first in ``label_names`` keeps the voxel.

    Args:
        entry: The case, from the index.
        label_names: Structure to value, the same for the whole dataset (see ``label_table``).
            Structures that the case has no file for are left out.

    Returns:
        The case, with those of its unions of which every part was read. Its label map is uint8,
        or uint16 if a value of ``label_names`` exceeds 255.

    Raises:
        SourceError: If a file is missing, damaged or not the one that was indexed, or lies on
            another grid than the image.
    """
    wanted = {name: value for name, value in label_names.items() if name in entry.label_files}
    ct = None
    if entry.image is not None:
        sha256 = entry.file_sha256.get(entry.image)
        ct, _ = read_image(entry.image, sha256=sha256, reading=entry.reading)
    grid = ct.affine if ct is not None else entry.affine
    if ct is not None:
        check_grid(entry.case_id, entry.image, ct, entry)
    dtype = np.uint8 if max(label_names.values(), default=0) <= 255 else np.uint16
    by_file: dict[Stored, list[str]] = {}
    for name in wanted:
        by_file.setdefault(entry.label_files[name], []).append(name)
    array = np.zeros((0, 0, 0), dtype=dtype)
    for file, names in by_file.items():
        sha256 = entry.file_sha256.get(file)
        volume = read_label_map(file, sha256=sha256, reading=entry.label_reading)
        start = start_in_case(entry.case_id, file, volume, entry)
        if names[0] in entry.label_values:
            values = {entry.label_values[name]: wanted[name] for name in names}
            array = padded(_renumber(volume.array, values, dtype), start, entry.shape)
        else:
            array = array if array.size else np.zeros(entry.shape, dtype, order="F")
            _add(array, volume.array, start, wanted[names[0]])
    if not array.size:
        array = np.zeros(entry.shape, dtype, order="F")
    return Case(
        case_id=entry.case_id,
        patient_id=entry.patient_id,
        source=entry.source,
        ct=ct,
        labels=Volume(array, grid),
        label_names=wanted,
        unions={
            union: parts
            for union, parts in entry.unions.items()
            if all(part in wanted for part in parts)
        },
    )


def _renumber(array: Array, values: Mapping[int, int], dtype: npt.DTypeLike) -> Array:
    """A label map with the values of the dataset instead of its own; others become background.

    Plane by plane: to index a table by the whole array takes 8 bytes a voxel.
    """
    largest = int(array.max())
    if all(values.get(own) == own for own in range(1, largest + 1)):
        return array.astype(dtype, copy=False)
    table = np.zeros(largest + 1, dtype=dtype)
    for own, new in values.items():
        if own <= largest:
            table[own] = new
    out = array if array.dtype == table.dtype else np.empty_like(array, dtype)
    for own_plane, new_plane in zip(array.T, out.T, strict=True):
        new_plane[...] = table[own_plane]
    return out


def _add(array: Array, structure: Array, start: Index3, value: int) -> None:
    """Give ``value`` to the voxels of ``structure`` that no earlier one has; in its box only."""
    box = Box.around(structure)
    if box is not None:
        part = array[box.shift(start).slices]
        part[(structure[box.slices] != 0) & (part == 0)] = value
