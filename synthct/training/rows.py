"""Patches and held-out slices as rows of memory-mapped Arrow files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthct.models.patch import Patch, PatchRules, cut_patches
from synthct.training.draw import MaskedSlice
from synthct.volume import Volume

#: Values in -1..1 are stored as int16: a step is less than 0.1 HU in every codec.
SCALE = 32767

PATCH_SCHEMA = pa.schema(
    [
        ("size", pa.int32()),
        ("image", pa.binary()),
        ("mask", pa.binary()),
        ("label", pa.int32()),
        ("spacing_mm", pa.list_(pa.float32(), 2)),
        ("flips", pa.bool_()),
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
        image: float32 (S, S) in -1..1.
        mask: Boolean (S, S).
        label: The network's index of the structure.
        spacing_mm: Pixel size along rows and columns.
        flips: Whether it may be flipped left to right.
    """

    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    label: int
    spacing_mm: tuple[float, float]
    flips: bool


class PatchCache:
    """Patches of a memory-mapped file.

    Args:
        path: An Arrow file of ``PATCH_SCHEMA``.
    """

    def __init__(self, path: Path) -> None:
        table = _read(path)
        self._batches = table.to_batches()
        self._ends = np.cumsum([len(batch) for batch in self._batches])
        sizes = table["size"].to_numpy()
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
        image = np.frombuffer(fields["image"].as_buffer(), "<i2").reshape(size, size)
        bits = np.frombuffer(fields["mask"].as_buffer(), np.uint8)
        row_mm, column_mm = fields["spacing_mm"].as_py()
        return CachedPatch(
            image=image.astype(np.float32) * np.float32(1 / SCALE),
            mask=np.unpackbits(bits, count=size * size).reshape(size, size).astype(bool),
            label=fields["label"].as_py(),
            spacing_mm=(row_mm, column_mm),
            flips=fields["flips"].as_py(),
        )


def patch_row(patch: Patch, *, flips: bool) -> dict[str, Any]:
    """A patch as a row of ``PATCH_SCHEMA``."""
    return {
        "size": patch.size,
        "image": np.rint(patch.image * SCALE).astype("<i2").tobytes(),
        "mask": np.packbits(patch.mask).tobytes(),
        "label": patch.label,
        "spacing_mm": list(patch.spacing_mm),
        "flips": flips,
    }


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
    patches = tuple(cut_patches(plane, region, row["label"], rules))
    return MaskedSlice(
        row["case_id"], row["section"], plane, region, row["label"], row["view"], patches
    )


def _read(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()
