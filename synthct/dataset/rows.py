"""Samples as the rows of a full release, and back: pictures as files, the rest as columns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.dataset.digest import canonical_json, sample_digest
from synthct.dataset.sample import Sample
from synthct.dataset.schema import columns as columns_of
from synthct.dataset.schema import facts_of, measures_of
from synthct.dataset.stored import (
    decode_hu,
    decode_labels,
    decode_mask,
    encode_hu,
    encode_labels,
    encode_mask,
    encode_preview,
)
from synthct.dataset.writer import read_shard
from synthct.errors import VerifyError
from synthct.volume import Affine, Array
from synthct.volume.intensity import SOFT_TISSUE, Window
from synthct.volume.views import View, from_picture, volume_affine

#: A row by column, as it is stored.
Columns = Mapping[str, Any]


def encode(sample: Sample, *, keep_original: bool = False) -> dict[str, Any]:
    """The row of a sample, with the columns of ``arrow_schema``.

    Raises:
        ValueError: If the provenance is not JSON (says where).
    """
    shown, affine = sample.pictures, sample.picture_affine
    files = {
        "preview": encode_preview(shown["image"], affine, sample.window, shown["mask"]),
        "image": encode_hu(shown["image"], affine),
        "mask": encode_mask(shown["mask"], affine),
        "label_map": encode_labels(shown["labels"], affine),
        "original": encode_hu(shown["original"], affine) if keep_original else None,
    }
    return {**common_columns(sample), **stored_files(files)}


def common_columns(sample: Sample) -> dict[str, Any]:
    """What the rows of full and of patch-only releases share: all but the pictures.

    The digest covers the provenance, to which the facts and the window of the preview are added;
    measures are null where they are not finite.
    """
    assert sample.metrics, "a sample is measured before it is stored"
    shown, affine = sample.pictures, sample.picture_affine
    provenance = {
        **asdict(sample.facts),
        **sample.provenance,
        "preview": sample.window.model_dump(),
    }
    stored = columns_of(keep_original=False, volume=sample.view == "volume")
    measures = {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in sample.metrics.items()
        if name in stored
    }
    return {
        **asdict(sample.facts),
        **measures,
        "spacing_mm": list(sample.pixel_mm),
        "affine": [float(x) for x in affine.ravel()],
        "sample_digest": sample_digest(
            shown["image"], shown["mask"], shown["labels"], affine, provenance
        ),
        # exact as text; ``datasets`` parses it with ujson, which may miss a float's last bit
        "provenance": canonical_json(provenance),
    }


def stored_files(files: Mapping[str, bytes | None]) -> dict[str, Any]:
    """Files by name as ``datasets`` stores images and volumes."""
    return {
        name: None if data is None else {"bytes": data, "path": None}
        for name, data in files.items()
    }


def decode(columns: Columns) -> Sample:
    """The sample of a row of a full release.

    Raises:
        VerifyError: If a picture or the provenance is damaged; says which.
    """
    provenance, affine = parsed(columns)
    facts, pictures = facts_of(columns), decoded_pictures(columns)
    voxels: dict[str, Any] = {"original": None}
    voxels |= {name: from_picture(picture, facts.view) for name, picture in pictures.items()}
    window = provenance.get("preview")
    try:
        return Sample(
            facts=facts,
            affine=volume_affine(affine, pictures["image"].shape, facts.view),
            **voxels,
            metrics=measures_of(columns),
            provenance=provenance,
            window=SOFT_TISSUE if window is None else Window.model_validate(window),
        )
    except ValueError as err:
        raise VerifyError(f"sample '{facts.sample_id}' is damaged: {err}") from err


def decoded_pictures(columns: Columns) -> dict[str, Array]:
    """The pictures of a row, or volumes (I, J, K), by the name that ``Sample`` has for them.

    Raises:
        VerifyError: If one is damaged or not there; says which.
    """
    _, affine = parsed(columns)
    pictures = {
        "image": picture(columns, "image", decode_hu, affine),
        "mask": picture(columns, "mask", decode_mask, affine),
        "labels": picture(columns, "label_map", decode_labels, affine),
    }
    if columns.get("original"):
        pictures["original"] = picture(columns, "original", decode_hu, affine)
    return pictures


def stored_rows(path: Path) -> Iterator[Columns]:
    """The rows of a shard as they are stored, in order.

    Raises:
        VerifyError: If the shard is damaged.
        ResourceError: If it cannot be opened.
    """
    for batch in read_shard(path).to_batches(max_chunksize=1):
        yield from batch.to_pylist()


def parsed(columns: Columns) -> tuple[dict[str, Any], Affine]:
    """Provenance of a row, and affine (4, 4) of its pictures.

    Raises:
        VerifyError: If they cannot be read.
    """
    try:
        provenance = json.loads(columns["provenance"])
        affine = np.array(columns["affine"], dtype=np.float64).reshape(4, 4)
    except (ValueError, TypeError, RecursionError) as err:
        raise VerifyError(f"column 'provenance' or 'affine' cannot be read ({err})") from err
    if not isinstance(provenance, dict):
        raise VerifyError("column 'provenance' is no object")
    return provenance, affine


def picture(
    columns: Columns,
    name: str,
    decoder: Callable[[bytes, Affine, View], npt.NDArray[Any]],
    affine: Affine,
) -> npt.NDArray[Any]:
    """A picture of a row, or a volume with its affine, decoded.

    Raises:
        VerifyError: If it is damaged or not there.
    """
    try:
        return decoder(columns[name]["bytes"], affine, columns["view"])
    except VerifyError as err:
        raise VerifyError(f"column '{name}': {err}") from err
    except (KeyError, TypeError) as err:
        raise VerifyError(f"column '{name}' holds no picture") from err
