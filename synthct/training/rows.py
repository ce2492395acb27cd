"""Patches and held-out slices as rows of memory-mapped Arrow files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthct.models.patch import Patch, PatchRules
from synthct.models.region import cut
from synthct.sources import CaseEntry
from synthct.training.draw import MaskedSlice
from synthct.volume import Volume
from synthct.volume.views import VIEW_AXIS

#: Values in -1..1 are stored as int16: a step is less than 0.1 HU in every codec.
SCALE = 32767

#: What stands for NaN.
UNKNOWN = -32768

PATCH_SCHEMA = pa.schema(
    [
        ("size", pa.int32()),
        ("depth", pa.int32()),
        ("image", pa.binary()),
        ("mask", pa.binary()),
        ("target", pa.binary()),
        ("neighbours", pa.binary()),
        ("label", pa.int32()),
        ("spacing_mm", pa.list_(pa.float32())),
        ("flips", pa.bool_()),
        ("source", pa.string()),
        ("case_id", pa.string()),
        ("grid_mm", pa.list_(pa.float64(), 12)),
    ]
)
SLICE_SCHEMA = pa.schema(
    [
        ("case_id", pa.string()),
        ("section", pa.string()),
        ("label", pa.string()),
        ("view", pa.string()),
        ("shape", pa.list_(pa.int32(), 3)),
        ("affine", pa.list_(pa.float64(), 16)),
        ("plane", pa.binary()),
        ("region", pa.binary()),
    ]
)


@dataclass(frozen=True, eq=False)
class CachedPatch:
    """One patch of the cache.

    Attributes:
        image: float32 (S, S) or (S, S, D) in -1..1.
        mask: Boolean, likewise.
        label: The network's index of the structure.
        spacing_mm: Voxel size along each side.
        flips: Whether it may be flipped left to right.
        source: The source of its scan, and the scan.
        case_id: See ``source``.
        grid_mm: Where it lies in its scan: centre of the first voxel (RAS+ mm), steps to the next
            row, column and slice.
        target: float32, likewise, in -1..1: what is to be painted; None for ``image``.
        neighbours: float32 (2, S, S) in -1..1, the slices before and after, NaN where the network
            is told nothing; None if it is told nothing of either.
    """

    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    label: int
    spacing_mm: tuple[float, ...]
    flips: bool
    source: str
    case_id: str
    grid_mm: tuple[float, ...]
    target: npt.NDArray[np.float32] | None = None
    neighbours: npt.NDArray[np.float32] | None = None


class PatchCache:
    """Patches of a memory-mapped file.

    Args:
        rows: An Arrow file of ``PATCH_SCHEMA``, or its rows in memory.
    """

    def __init__(self, rows: Path | pa.Table) -> None:
        table = _read(rows) if isinstance(rows, Path) else rows
        self._batches = table.to_batches()
        self._ends = np.cumsum([len(batch) for batch in self._batches])
        sizes = table["size"].to_numpy()
        #: Slices of a patch.
        self.depth = int(table["depth"][0].as_py()) if len(table) else 1
        #: Rows by patch size.
        self.rows = {int(n): np.flatnonzero(sizes == n) for n in np.unique(sizes)}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def patch(self, row: int) -> CachedPatch:
        """The patch at a row."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        batch = self._batches[number]
        at = row - (int(self._ends[number]) - len(batch))
        fields = {name: batch.column(name)[at] for name in batch.schema.names}
        size = fields["size"].as_py()
        sides = (size, size) if self.depth == 1 else (size, size, self.depth)
        bits = np.frombuffer(fields["mask"].as_buffer(), np.uint8)
        target, neighbours = fields["target"].as_buffer(), fields["neighbours"].as_buffer()
        return CachedPatch(
            image=_decoded(fields["image"].as_buffer(), sides)[0],
            mask=np.unpackbits(bits, count=math.prod(sides)).reshape(sides).astype(bool),
            label=fields["label"].as_py(),
            spacing_mm=tuple(fields["spacing_mm"].as_py()),
            flips=fields["flips"].as_py(),
            source=fields["source"].as_py(),
            case_id=fields["case_id"].as_py(),
            grid_mm=tuple(fields["grid_mm"].as_py()),
            target=_decoded(target, sides)[0] if target is not None else None,
            neighbours=_decoded(neighbours, sides) if neighbours is not None else None,
        )


def patch_row(
    patch: Patch,
    target: npt.NDArray[np.float32] | None,
    one: MaskedSlice,
    host: CaseEntry,
    *,
    flips: bool,
) -> dict[str, Any]:
    """A patch of a slice of a host, and what is to be painted, as a row of ``PATCH_SCHEMA``."""
    return {
        "size": patch.size,
        "depth": 1 if patch.mask.ndim == 2 else patch.mask.shape[2],
        "image": _encoded(patch.image),
        "mask": np.packbits(patch.mask).tobytes(),
        "target": None if target is None else _encoded(target),
        "neighbours": None if patch.neighbours is None else _encoded(patch.neighbours),
        "label": patch.label,
        "spacing_mm": list(patch.spacing_mm),
        "flips": flips,
        "source": host.source,
        "case_id": host.case_id,
        "grid_mm": _grid_mm(patch, one),
    }


def _grid_mm(patch: Patch, one: MaskedSlice) -> list[float]:
    """``CachedPatch.grid_mm`` of a patch, whose slices, if any, lie along the view's axis."""
    through = VIEW_AXIS[one.view]
    axes = [*(axis for axis in range(3) if axis != through), through]
    affine, first, steps = one.plane.affine, one.plane.affine[:3, 3].copy(), []
    for axis, origin, scale in zip_longest(axes, patch.origin, patch.scale):
        first += 0 if origin is None else affine[:3, axis] * ((origin + 0.5) * scale - 0.5)
        steps.append(affine[:3, axis] * (scale or 1))
    return np.concatenate([first, *steps]).tolist()


def slice_row(one: MaskedSlice) -> dict[str, Any]:
    """A slice as a row of ``SLICE_SCHEMA``, without its patches."""
    return {
        "case_id": one.case_id,
        "section": one.section,
        "label": one.label,
        "view": one.view,
        "shape": list(one.plane.shape),
        "affine": one.plane.affine.ravel().tolist(),
        "plane": one.plane.array.astype("<i2").tobytes(),
        "region": np.packbits(one.region.array).tobytes(),
    }


def read_slices(path: Path, rules: PatchRules) -> tuple[MaskedSlice, ...]:
    """The slices of an Arrow file; their patches are cut again."""
    return tuple(_slice(row, rules) for row in _read(path).to_pylist())


def _slice(row: Mapping[str, Any], rules: PatchRules) -> MaskedSlice:
    shape, affine = tuple(row["shape"]), np.array(row["affine"]).reshape(4, 4)
    plane = Volume(np.frombuffer(row["plane"], "<i2").reshape(shape).astype(np.int16), affine)
    bits = np.unpackbits(np.frombuffer(row["region"], np.uint8), count=int(np.prod(shape)))
    region = Volume(bits.reshape(shape).astype(bool), affine)
    patches = tuple(cut(plane, region, row["label"], rules))
    return MaskedSlice(
        row["case_id"], row["section"], plane, region, row["label"], row["view"], patches
    )


def _read(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _encoded(values: npt.NDArray[np.float32]) -> bytes:
    """Values in -1..1 or NaN as int16."""
    steps = np.nan_to_num(np.rint(values * SCALE), nan=UNKNOWN)
    return steps.astype("<i2").tobytes()


def _decoded(buffer: Any, sides: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The inverse of ``_encoded``: N of them, with these sides."""
    steps = np.frombuffer(buffer, "<i2").reshape(-1, *sides)
    values = steps.astype(np.float32) * np.float32(1 / SCALE)
    values[steps == UNKNOWN] = np.nan
    return values
