"""What a row by itself must be: what follows from its pictures and provenance is computed anew."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from synthct.dataset.digest import array_digest
from synthct.dataset.first_format import first_row_problems, is_first
from synthct.dataset.patch_rows import Generated, decode_generated
from synthct.dataset.png import decode_preview, encode_preview
from synthct.dataset.rows import SampleRow, decode
from synthct.dataset.schema import Facts
from synthct.volume.intensity import Window

#: Floats that are computed again may differ in their last bits between builds of numpy.
_TOLERANCE = 1e-9


class Examined(NamedTuple):
    """A row that was decoded.

    Attributes:
        digest: Of what it holds itself, computed anew.
        told: Its provenance.
        problems: What is wrong with it.
    """

    digest: str
    told: Mapping[str, Any]
    problems: list[str]


def examine(columns: Mapping[str, Any], split: str) -> Examined:
    """Decode a stored row and check it by itself.

    Args:
        columns: The row of a full release, or of a patch-only one.
        split: The split that its file is of.

    Raises:
        VerifyError: If a picture or the provenance is damaged.
        KeyError, TypeError, ValueError: If the provenance is not that of a sample.
    """
    if "patch_digest" in columns:
        generated, told = decode_generated(columns)
        digest, stated = generated.digest(columns["sample_digest"], told), columns["patch_digest"]
        problems = [*_generated_problems(generated, told, columns)]
    else:
        row = decode(columns)
        told = dict(row.provenance)
        digest, stated = row.digest(), columns["sample_digest"]
        problems = [*_problems(row, is_first(told))]
    if digest != stated:
        problems.insert(0, "its content is not that of its digest")
    untold = first_row_problems if is_first(told) else _untold
    return Examined(digest, told, [*problems, *untold(columns, told, split)])


def _untold(columns: Mapping[str, Any], told: Mapping[str, Any], split: str) -> Iterator[str]:
    """Columns that say something else than the provenance."""
    for fact in fields(Facts):
        if fact.name not in told or told[fact.name] != columns[fact.name]:
            yield f"column '{fact.name}' is not what the provenance says"
    if told["split"] != split:
        yield f"belongs to split '{told['split']}', not to '{split}'"
    shares = told["synthetic_voxel_fraction"], 1 - told["real_voxel_fraction"]
    if not all(_is_close(share, columns["painted_fraction"]) for share in shares):
        yield "its shares of real and synthetic voxels are not those of the mask"


def _problems(row: SampleRow, is_first: bool) -> Iterator[str]:
    """What is wrong with a whole sample; format 1.0.0 tells less of it."""
    if len({shown.shape for shown in (row.image, row.mask, row.labels)}) != 1:
        yield "its pictures differ in size"
        return
    painted = row.image[row.mask & bool(row.columns["is_painted"])]
    if not is_first:
        yield from _common_problems(row.columns, row.provenance, row.image, row.mask)
    yield from _wrong_measures(row.columns, row.affine, row.mask, painted, row.mask.size)
    if not is_first and row.provenance["mask"]["sha256"] != array_digest(row.mask.astype(np.uint8)):
        yield "column 'mask' is not the mask of the provenance"
    if row.original is None:
        if "original" in row.columns:
            yield "column 'original' holds no picture"
        return
    if not is_first and row.provenance["host"]["slice_sha256"] != array_digest(row.original):
        yield "column 'original' is not the slice of the provenance"
    if not np.array_equal(row.image[~row.mask], row.original[~row.mask]):
        yield "voxels outside of the mask differ from the original"


def _generated_problems(
    generated: Generated, told: Mapping[str, Any], columns: Mapping[str, Any]
) -> Iterator[str]:
    """What is wrong with what was generated of a sample."""
    is_painted = bool(columns["is_painted"])
    painted = generated.paint[generated.mask & is_painted]
    yield from _common_problems(columns, told, generated.paint, generated.mask)
    size = generated.size[0] * generated.size[1]
    yield from _wrong_measures(columns, generated.affine, generated.mask, painted, size)
    if told["mask"]["voxels"] != np.count_nonzero(generated.mask):
        yield "column 'mask' is not the mask of the provenance"
    if told["mask"]["label_map"] == "keep" and generated.label_change.any():
        yield "column 'label_change' changes what the provenance keeps"


def _common_problems(
    columns: Mapping[str, Any], told: Mapping[str, Any], shown: Any, mask: Any
) -> Iterator[str]:
    preview = encode_preview(shown, Window.model_validate(told["preview"]), mask)
    if not np.array_equal(decode_preview(columns["preview"]["bytes"]), decode_preview(preview)):
        yield "column 'preview' does not show the image"


def _wrong_measures(
    columns: Mapping[str, Any], affine: Any, mask: Any, painted: Any, size: int
) -> Iterator[str]:
    """Columns that follow from pictures and affine alone, and are something else."""
    painted = painted.astype(np.float64)
    rows_mm, columns_mm = (float(x) for x in np.linalg.norm(affine[:3, :2], axis=0))
    expected = {
        "outside_max_abs_diff": 0,
        "painted_mean_hu": float(painted.mean()) if painted.size else None,
        "painted_std_hu": float(painted.std()) if painted.size else None,
        "mask_area_mm2": int(mask.sum()) * rows_mm * columns_mm,
        "painted_fraction": painted.size / size,
        "spacing_mm": [rows_mm, columns_mm],
    }
    for name, value in expected.items():
        if not _is_close(columns[name], value):
            yield f"column '{name}' is {columns[name]}, the pictures give {value}"


def _is_close(found: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        pairs = zip(found, expected, strict=False)
        return len(found) == len(expected) and all(_is_close(a, b) for a, b in pairs)
    if found is None or expected is None:
        return found is expected
    return math.isclose(found, expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
