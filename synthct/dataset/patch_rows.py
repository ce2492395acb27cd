"""Rows of a patch-only release: what was generated, and nothing of the scan it was painted into.

A row has the painted voxels, the mask, where the label map changed and to what, the geometry, and
the provenance with the hashes of the host's slice. Whoever has the host can put the full row
together, whose digest the row also has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthct.dataset.digest import array_digest, canonical_json, content_of
from synthct.dataset.png import (
    decode_hu,
    decode_labels,
    decode_mask,
    encode_hu,
    encode_labels,
    encode_mask,
    encode_preview,
)
from synthct.dataset.rows import parsed, picture
from synthct.dataset.schema import Column, Facts, Row, Slices, columns, schema_of
from synthct.errors import VerifyError
from synthct.metrics import Measures
from synthct.volume import HU_MIN, Affine, Volume
from synthct.volume.intensity import Window
from synthct.volume.views import View, from_picture, to_picture

#: Pictures of a patch row; all of them are of the box around what changed.
PICTURES = ("preview", "paint", "mask", "label_change")


@dataclass(frozen=True, eq=False)
class Generated:
    """What was generated of a sample.

    Attributes:
        paint: int16 HU (rows, columns) of the box; -1024 where nothing was painted.
        mask: Boolean (rows, columns) of the box.
        label_change: uint16 (rows, columns) of the box: the new label value + 1 where it changed,
            0 where the host's holds.
        corner: Row and column of the box's first pixel in the whole picture.
        size: Rows and columns of the whole picture.
        affine: (4, 4) of the whole picture.
    """

    paint: npt.NDArray[np.int16]
    mask: npt.NDArray[np.bool_]
    label_change: npt.NDArray[np.uint16]
    corner: tuple[int, int]
    size: tuple[int, int]
    affine: Affine

    def digest(self, sample_digest: str, provenance: Mapping[str, Any]) -> str:
        """SHA-256 in hex of the patch, of where it came from, and of what it belongs to."""
        content = {
            "affine": array_digest(self.affine.astype(np.float64) + 0.0),
            "corner": list(self.corner),
            "label_change": array_digest(self.label_change),
            "mask": array_digest(self.mask.astype(np.uint8)),
            "paint": array_digest(self.paint),
            "provenance": content_of(provenance),
            "sample_digest": sample_digest,
            "size": list(self.size),
        }
        return hashlib.sha256(b"synthct/patch/v1\0" + canonical_json(content).encode()).hexdigest()

    def into(
        self, host: Volume, labels: npt.NDArray[Any], view: View, *, is_painted: bool
    ) -> Slices:
        """The whole slice with what was generated in it.

        Args:
            host: The host's slice, int16 HU, one voxel thick.
            labels: Its label map.
            view: The plane of the slice.
            is_painted: Whether there is paint at all.
        """
        box = tuple(slice(c, c + n) for c, n in zip(self.corner, self.mask.shape, strict=True))
        image, after = to_picture(host.array, view).copy(), to_picture(labels, view).copy()
        whole = np.zeros(self.size, dtype=bool)
        whole[box] = self.mask
        if is_painted:
            image[whole] = self.paint[self.mask]
        changed = self.label_change > 0
        after[box][changed] = self.label_change[changed] - 1
        return Slices(
            painted=Volume(from_picture(image, view), host.affine),
            original=host.array,
            mask=from_picture(whole, view),
            labels=from_picture(after, view),
        )


@dataclass(frozen=True, eq=False)
class PatchRow:
    """One row of a patch-only release as it is stored.

    Attributes:
        row: The full row, of which no picture is stored.
        generated: What is stored instead.
        window: Of the preview.
    """

    row: Row
    generated: Generated
    window: Window

    @property
    def facts(self) -> Facts:
        """Names and numbers of the plan."""
        return self.row.facts

    @property
    def metrics(self) -> Measures:
        """Measures of the full sample."""
        return self.row.metrics

    def values(self) -> dict[str, Any]:
        """The row by column, as ``patch_schema`` names them."""
        mine, full = self.generated, self.row.values()
        pictures = {
            "preview": encode_preview(mine.paint, self.window, mine.mask),
            "paint": encode_hu(mine.paint),
            "mask": encode_mask(mine.mask),
            "label_change": encode_labels(mine.label_change),
        }
        digest = mine.digest(self.row.sample_digest, json.loads(self.row.provenance))
        return {
            **{name: full[name] for name in full if name not in ("image", "original", "label_map")},
            **{name: {"bytes": png, "path": None} for name, png in pictures.items()},
            "corner": list(mine.corner),
            "size": list(mine.size),
            "patch_digest": digest,
        }


def patch_of(row: Row, slices: Slices, host_labels: npt.NDArray[Any], window: Window) -> PatchRow:
    """What a full row has that its host has not.

    Args:
        row: The full row.
        slices: Its voxels.
        host_labels: The label map before painting, on their grid.
        window: Of the preview.
    """
    view = row.facts.view
    mask, labels = to_picture(slices.mask, view), to_picture(slices.labels, view)
    changed = labels != to_picture(host_labels, view)
    touched = mask | changed
    rows, cols = np.flatnonzero(touched.any(axis=1)), np.flatnonzero(touched.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    image = to_picture(slices.painted.array, view)
    painted = mask & row.facts.is_painted
    generated = Generated(
        paint=np.where(painted, image, np.int16(HU_MIN))[box],
        mask=mask[box],
        label_change=np.where(changed, labels.astype(np.uint16) + np.uint16(1), np.uint16(0))[box],
        corner=(int(rows[0]), int(cols[0])),
        size=(mask.shape[0], mask.shape[1]),
        affine=np.array(row.affine).reshape(4, 4),
    )
    return PatchRow(row, generated, window)


def decode_generated(stored: Mapping[str, Any]) -> tuple[Generated, dict[str, Any]]:
    """The patch and the provenance of a stored row.

    Raises:
        VerifyError: If a picture or the provenance is damaged; says which.
    """
    provenance, affine = parsed(stored)
    corner, size = stored["corner"], stored["size"]
    generated = Generated(
        paint=picture(stored, "paint", decode_hu),
        mask=picture(stored, "mask", decode_mask),
        label_change=picture(stored, "label_change", decode_labels).astype(np.uint16),
        corner=(int(corner[0]), int(corner[1])),
        size=(int(size[0]), int(size[1])),
        affine=affine,
    )
    shapes = {one.shape for one in (generated.paint, generated.mask, generated.label_change)}
    height, width = generated.mask.shape
    inside = all(
        start >= 0 and start + length <= whole
        for start, length, whole in zip(corner, (height, width), size, strict=True)
    )
    if len(shapes) != 1 or not inside:
        raise VerifyError("its pictures differ in size, or do not lie in the whole picture")
    return generated, provenance


def patch_columns() -> dict[str, Column]:
    """All columns of a patch-only release by name, in the order in which they are stored."""
    full = columns(keep_original=False)
    image = full["image"]
    pair = Column(
        pa.list_(pa.int32(), 2),
        {"feature": {"dtype": "int32", "_type": "Value"}, "length": 2, "_type": "List"},
    )
    kept = {
        name: one for name, one in full.items() if name not in ("image", "label_map", *PICTURES)
    }
    first = {"sample_id": kept.pop("sample_id")}
    last = {name: kept.pop(name) for name in ("sample_digest", "provenance")}
    return {
        **first,
        **dict.fromkeys(PICTURES, image),
        **kept,
        "corner": pair,
        "size": pair,
        "patch_digest": last["sample_digest"],
        **last,
    }


def patch_schema() -> pa.Schema:
    """The Arrow schema of a shard of a patch-only release."""
    return schema_of(patch_columns())
