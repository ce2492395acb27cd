"""Checks of one row by itself: what follows from its pictures and provenance is computed anew."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from synthct.dataset.digest import array_digest, sample_digest
from synthct.dataset.first_format import first_row_problems, is_first
from synthct.dataset.patch_rows import box_affine, decode_patch, patch_digest
from synthct.dataset.png import decode_preview
from synthct.dataset.rows import Columns, decoded_pictures, parsed
from synthct.dataset.schema import Facts
from synthct.dataset.stored import encode_preview
from synthct.volume import Affine, Array
from synthct.volume.intensity import Window

#: Floats that are computed again may differ in their last bits between builds of numpy.
_TOLERANCE = 1e-9


def examine(columns: Columns, split: str) -> tuple[str, Mapping[str, Any], list[str]]:
    """Decode a stored row and check it by itself.

    Args:
        columns: The row of a full release, or of a patch-only one.
        split: The split that its file is of.

    Returns:
        The digest of what it holds itself, computed anew; its provenance; what is wrong with it.

    Raises:
        VerifyError: If a picture or the provenance is damaged.
        KeyError, TypeError, ValueError: If the provenance is not that of a sample.
    """
    provenance, affine = parsed(columns)
    if "patch_digest" in columns:
        shown, stated = decode_patch(columns), columns["patch_digest"]
        digest = patch_digest(shown, columns, provenance, affine)
        problems = [*_patch_problems(shown, columns, provenance, affine)]
    else:
        shown, stated = decoded_pictures(columns), columns["sample_digest"]
        digest = sample_digest(shown["image"], shown["mask"], shown["labels"], affine, provenance)
        problems = [*_problems(shown, columns, provenance, affine)]
    if digest != stated:
        problems.insert(0, "its content is not that of its digest")
    problems += [*_named_pictures(columns), *first_row_problems(columns, provenance, split)]
    if not is_first(provenance):
        problems += [*_contradictions(columns, provenance), *_wrong_facts(shown, provenance)]
    return digest, provenance, list(dict.fromkeys(problems))


def _named_pictures(columns: Columns) -> Iterator[str]:
    """Columns that name a file, which readers would take for the picture's."""
    for name, value in columns.items():
        if isinstance(value, dict) and value.get("path") is not None:
            yield f"column '{name}' names the file {value['path']!r}; a picture has no path"


def _wrong_facts(shown: Mapping[str, Array], provenance: Mapping[str, Any]) -> Iterator[str]:
    """Numbers of the provenance that follow from the mask and the host's geometry."""
    voxels = np.count_nonzero(shown["mask"])
    matrix = np.array(provenance["host"]["affine"], dtype=np.float64).reshape(4, 4)[:3, :3]
    expected = {
        "voxels": voxels,
        "volume_mm3": voxels * abs(float(np.linalg.det(matrix))),
    }
    for name, value in expected.items():
        if not _is_close(provenance["mask"][name], value):
            yield f"the provenance's mask.{name} is {provenance['mask'][name]}, not {value}"


def _contradictions(columns: Columns, provenance: Mapping[str, Any]) -> Iterator[str]:
    """Columns that say something else than the provenance."""
    for fact in fields(Facts):
        if fact.name not in provenance or provenance[fact.name] != columns[fact.name]:
            yield f"column '{fact.name}' is not what the provenance says"
    if provenance["mask"]["kind"] != columns["mask_kind"]:
        yield "column 'mask_kind' is not what the provenance says"
    if provenance["outside_max_abs_diff"] != columns["outside_max_abs_diff"]:
        yield "column 'outside_max_abs_diff' is not what the provenance says"
    shares = provenance["synthetic_voxel_fraction"], 1 - provenance["real_voxel_fraction"]
    if not all(_is_close(share, columns["painted_fraction"]) for share in shares):
        yield "its shares of real and synthetic voxels are not those of the mask"


def _problems(
    shown: Mapping[str, Array], columns: Columns, provenance: Mapping[str, Any], affine: Affine
) -> Iterator[str]:
    """What is wrong with a whole sample, given its pictures; format 1.0.0 states less of it."""
    image, mask = shown["image"], shown["mask"]
    if len({image.shape, mask.shape, shown["labels"].shape}) != 1:
        yield "its pictures differ in size"
        return
    has_hashes = not is_first(provenance)
    if has_hashes:
        yield from _wrong_preview(columns, provenance, affine, image, mask)
    yield from _wrong_measures(columns, affine, image, mask, mask.size)
    if has_hashes and provenance["mask"]["sha256"] != array_digest(mask.astype(np.uint8)):
        yield "column 'mask' is not the mask of the provenance"
    if (original := shown.get("original")) is None:
        if "original" in columns:
            yield "column 'original' holds no picture"
        return
    if has_hashes and provenance["host"]["slice_sha256"] != array_digest(original):
        yield "column 'original' is not the slice of the provenance"
    if not np.array_equal(image[~mask], original[~mask]):
        yield "voxels outside of the mask differ from the original"


def _patch_problems(
    patch: Mapping[str, Array], columns: Columns, provenance: Mapping[str, Any], affine: Affine
) -> Iterator[str]:
    """What is wrong with what was generated of a sample, given the pictures of its box."""
    mask = patch["mask"]
    own = box_affine(columns, affine)
    yield from _wrong_preview(columns, provenance, own, patch["paint"], mask)
    size = math.prod(columns["size"])
    yield from _wrong_measures(columns, affine, patch["paint"], mask, size)
    if provenance["mask"]["label_map"] == "keep" and patch["label_change"].any():
        yield "column 'label_change' changes what the provenance keeps"


def _wrong_preview(
    columns: Columns, provenance: Mapping[str, Any], affine: Affine, image: Array, mask: Array
) -> Iterator[str]:
    preview = encode_preview(image, affine, Window.model_validate(provenance["preview"]), mask)
    if not np.array_equal(decode_preview(columns["preview"]["bytes"]), decode_preview(preview)):
        yield "column 'preview' does not show the image"


def _wrong_measures(
    columns: Columns, affine: Affine, image: Array, mask: Array, size: int
) -> Iterator[str]:
    """Columns that follow from pictures and affine alone, and are something else."""
    painted = image[mask & bool(columns["is_painted"])].astype(np.float64)
    voxel_mm = [float(x) for x in np.linalg.norm(affine[:3, : mask.ndim], axis=0)]
    extent = int(mask.sum()) * math.prod(voxel_mm)
    is_flat = mask.ndim == 2
    expected = {
        "outside_max_abs_diff": 0,
        "painted_mean_hu": float(painted.mean()) if painted.size else None,
        "painted_std_hu": float(painted.std()) if painted.size else None,
        "mask_area_mm2": extent if is_flat else None,
        **({} if is_flat else {"mask_volume_ml": extent / 1000}),
        "painted_fraction": painted.size / size,
        "spacing_mm": voxel_mm,
    }
    for name, value in expected.items():
        if not _is_close(columns[name], value):
            yield f"column '{name}' is {columns[name]}, the pictures give {value}"


def _is_close(value: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        pairs = zip(value, expected, strict=False)
        return len(value) == len(expected) and all(_is_close(a, b) for a, b in pairs)
    if value is None or expected is None:
        return value is expected
    return math.isclose(value, expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
