"""Rows of a patch-only release: what was generated, and nothing of the scan it was painted into.

A row has the painted voxels, the mask, where the label map changed and to what, the geometry, and
the provenance with the hashes of the host's slice. With the host's scan the full row can be put
together, whose digest the row also has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from synthct.dataset.digest import array_digest, canonical_json, content_of
from synthct.dataset.rows import Columns, common_columns, parsed, picture, stored_files
from synthct.dataset.sample import Sample
from synthct.dataset.schema import (
    FORMAT_VERSION,
    Column,
    columns,
    facts_of,
    measures_of,
    schema_of,
)
from synthct.dataset.stored import (
    decode_hu,
    decode_labels,
    decode_mask,
    encode_hu,
    encode_labels,
    encode_mask,
    encode_preview,
)
from synthct.errors import VerifyError
from synthct.volume import HU_MIN, Affine, Array, Volume, shifted
from synthct.volume.intensity import Window
from synthct.volume.views import from_picture, to_picture

#: Pictures of a patch row; all of them are of the box around what changed.
PICTURES = ("preview", "paint", "mask", "label_change")


def encode_patch(sample: Sample) -> dict[str, Any]:
    """The row of a sample that has ``host_labels``, with the columns of ``patch_schema``.

    ``paint`` is -1024 HU where nothing was painted; ``label_change`` holds the new label value + 1
    where it changed, else 0; ``corner`` is the box's first pixel in the whole picture, whose
    ``size`` is (rows, columns); of a volume, along i, j, k.
    """
    shown = sample.pictures
    mask, labels = shown["mask"], shown["labels"]
    changed = labels != shown["host_labels"]
    touched = mask | changed
    places = np.nonzero(touched)
    corner = [int(along.min()) for along in places]
    box = tuple(slice(n, int(along.max()) + 1) for n, along in zip(corner, places, strict=True))
    painted = mask & sample.facts.is_painted
    patch = {
        "paint": np.where(painted, shown["image"], np.int16(HU_MIN))[box],
        "mask": mask[box],
        "label_change": np.where(changed, labels.astype(np.uint16) + np.uint16(1), np.uint16(0))[
            box
        ],
    }
    common = common_columns(sample)
    common |= {"corner": corner, "size": list(mask.shape)}
    provenance, affine = parsed(common)
    own = box_affine(common, affine)
    files = {
        "preview": encode_preview(patch["paint"], own, sample.window, patch["mask"]),
        "paint": encode_hu(patch["paint"], own),
        "mask": encode_mask(patch["mask"], own),
        "label_change": encode_labels(patch["label_change"], own),
    }
    digest = patch_digest(patch, common, provenance, affine)
    return {**common, **stored_files(files), "patch_digest": digest}


def box_affine(columns: Columns, affine: Affine) -> Affine:
    """(4, 4) of a row's box, from that of the whole picture."""
    return shifted(affine, [*columns["corner"], 0][:3])


def patch_digest(
    patch: Mapping[str, Array], columns: Columns, provenance: Mapping[str, Any], affine: Affine
) -> str:
    """SHA-256 in hex of a patch, of where it came from, and of the sample that it belongs to.

    Args:
        patch: Its pictures, from ``decode_patch``.
        columns: The row, with the digest of the whole sample.
        provenance: Of the row, parsed.
        affine: (4, 4) of the whole picture.
    """
    content = {
        "affine": array_digest(affine.astype(np.float64) + 0.0),
        "corner": list(columns["corner"]),
        "label_change": array_digest(patch["label_change"]),
        "mask": array_digest(patch["mask"].astype(np.uint8)),
        "paint": array_digest(patch["paint"]),
        "provenance": content_of(provenance),
        "sample_digest": columns["sample_digest"],
        "size": list(columns["size"]),
    }
    return hashlib.sha256(b"synthct/patch/v1\0" + canonical_json(content).encode()).hexdigest()


def decode_patch(columns: Columns) -> dict[str, Array]:
    """The pictures of a stored row: ``paint``, ``mask`` and ``label_change``, of one box.

    Raises:
        VerifyError: If one is damaged (says which), or they do not lie in the whole picture.
    """
    affine = box_affine(columns, parsed(columns)[1])
    change = picture(columns, "label_change", decode_labels, affine)
    patch = {
        "paint": picture(columns, "paint", decode_hu, affine),
        "mask": picture(columns, "mask", decode_mask, affine),
        "label_change": change.astype(np.uint16),
    }
    shape = patch["mask"].shape
    box = zip(columns["corner"], shape, columns["size"], strict=True)
    is_inside = all(start >= 0 and start + length <= whole for start, length, whole in box)
    if any(array.shape != shape for array in patch.values()) or not is_inside:
        raise VerifyError("its pictures differ in size, or do not lie in the whole picture")
    return patch


def complete(columns: Columns, host: Volume, host_labels: Array) -> Sample:
    """The whole sample of a stored row, put together with the host's own slice.

    Args:
        columns: The row of a patch-only release.
        host: The host's slice, int16 HU, one voxel thick, or what a volume shows of it.
        host_labels: Its label map.

    Raises:
        VerifyError: If the row is damaged, or of a picture of another size than the host's slice.
    """
    provenance, _ = parsed(columns)
    patch, facts = decode_patch(columns), facts_of(columns)
    image, labels = (to_picture(array, facts.view).copy() for array in (host.array, host_labels))
    if image.shape != tuple(columns["size"]):
        raise VerifyError("the whole picture has another size than the host's slice")
    corner, inside = columns["corner"], patch["mask"]
    box = tuple(slice(c, c + n) for c, n in zip(corner, inside.shape, strict=True))
    mask = np.zeros(image.shape, dtype=bool)
    mask[box] = inside
    if facts.is_painted:
        image[mask] = patch["paint"][inside]
    changed = patch["label_change"] > 0
    labels[box][changed] = patch["label_change"][changed] - 1
    return Sample(
        facts=facts,
        affine=host.affine,
        original=host.array,
        image=from_picture(image, facts.view),
        mask=from_picture(mask, facts.view),
        labels=from_picture(labels, facts.view),
        host_labels=host_labels,
        metrics=measures_of(columns),
        provenance=provenance,
        window=Window.model_validate(provenance["preview"]),
    )


def patch_columns(*, volume: bool = False, of_format: str = FORMAT_VERSION) -> dict[str, Column]:
    """All columns of a patch-only release by name, in the order in which they are stored."""
    full = columns(keep_original=False, volume=volume, of_format=of_format)
    length = 3 if volume else 2
    pair = Column(
        pa.list_(pa.int32(), length),
        {"feature": {"dtype": "int32", "_type": "Value"}, "length": length, "_type": "List"},
    )
    kept = {
        name: one for name, one in full.items() if name not in ("image", "label_map", *PICTURES)
    }
    first = {"sample_id": kept.pop("sample_id")}
    last = {name: kept.pop(name) for name in ("sample_digest", "provenance")}
    return {
        **first,
        **dict.fromkeys(PICTURES, full["image"]),
        "preview": full["preview"],
        **kept,
        "corner": pair,
        "size": pair,
        "patch_digest": last["sample_digest"],
        **last,
    }


def patch_schema(*, volume: bool = False, of_format: str = FORMAT_VERSION) -> pa.Schema:
    """The Arrow schema of a shard of a patch-only release."""
    return schema_of(patch_columns(volume=volume, of_format=of_format))
