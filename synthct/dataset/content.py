"""Level 1 of ``verify``: what the rows of a dataset say, against each other and the manifest.

No source is needed. Every picture is decoded, every digest computed anew, and all that follows
from the pictures and the provenance is compared with what the columns say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from synthct.dataset.digest import SAMPLE_SCHEME, array_digest, merkle_root
from synthct.dataset.finding import Finding
from synthct.dataset.lockfile import Lock
from synthct.dataset.manifest import MANIFEST, FileEntry, Manifest, Release
from synthct.dataset.png import decode_preview, encode_preview
from synthct.dataset.records import REJECTED
from synthct.dataset.rows import SampleRow, decode, stored_rows
from synthct.dataset.schema import Facts, arrow_schema
from synthct.dataset.writer import read_shard
from synthct.errors import ResourceError, VerifyError
from synthct.intensity import Window

#: Floats that are computed again may differ in their last bits between builds of numpy.
_TOLERANCE = 1e-9


@dataclass
class _Seen:
    """What is to be compared over all rows.

    Attributes:
        release: What every row should belong to.
        lock: What every row should come from.
        samples: Id of a sample to the file and row that hold it.
        patients: Patient to the split and the sample in which they were first met.
        digests: Of all rows, in the order of the plan.
    """

    release: Release
    lock: Lock
    samples: dict[str, tuple[str, int]] = field(default_factory=dict)
    patients: dict[str, tuple[str, str]] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)


def check_content(folder: Path, manifest: Manifest, lock: Lock) -> list[Finding]:
    """Check what the shards of a dataset hold.

    Args:
        folder: The dataset's folder.
        manifest: Its manifest.
        lock: Its lock.
    """
    seen = _Seen(manifest.release, lock)
    findings = [
        finding for shard in manifest.shards for finding in _check_shard(folder, shard, seen)
    ]
    findings += _check_sizes(manifest)
    findings += _check_rejected(folder, seen)
    root = merkle_root(seen.digests)
    if root != manifest.release.content_id:
        what = f"content_id is {manifest.release.content_id[:12]}, the rows come to {root[:12]}"
        findings.append(Finding(MANIFEST, what))
    return findings


def _check_shard(folder: Path, shard: FileEntry, seen: _Seen) -> Iterator[Finding]:
    path, first = folder / shard.path, len(seen.digests)
    try:
        yield from _check_schema(path, shard)
        for number, columns in enumerate(stored_rows(path)):
            try:
                row = decode(columns)
                problems = [
                    *_problems(row, shard.split),
                    *_strange(row.provenance, seen.release, seen.lock),
                    *_conflicts(row, shard, number, seen),
                ]
                seen.digests.append(row.digest())
            except VerifyError as err:
                problems = [str(err)]
            except (KeyError, TypeError, ValueError) as err:
                problems = [f"the provenance is not that of a sample ({err!r})"]
            yield from (Finding(shard.path, problem, (number,)) for problem in problems)
    except (VerifyError, ResourceError) as err:
        yield Finding(shard.path, str(err))
        return
    digests = seen.digests[first:]
    if len(digests) != shard.rows:
        yield Finding(shard.path, f"holds {len(digests)} rows, the manifest says {shard.rows}")
    if merkle_root(digests) != shard.root:
        yield Finding(shard.path, "its rows are not those of the manifest, or in another order")


def _check_schema(path: Path, shard: FileEntry) -> Iterator[Finding]:
    found = pq.read_schema(path)
    expected = arrow_schema("original" in found.names)
    if found.equals(expected) and found.metadata == expected.metadata:
        return
    odd = sorted(set(found.names) ^ set(expected.names)) or [
        name for name in expected.names if found.field(name) != expected.field(name)
    ]
    yield Finding(shard.path, f"has other columns than the format: {', '.join(odd) or 'order'}")


def _problems(row: SampleRow, split: str) -> Iterator[str]:
    """What is wrong with one row by itself."""
    columns, told = row.columns, row.provenance
    if row.digest() != columns["sample_digest"]:
        yield "its content is not that of its sample_digest"
    for fact in fields(Facts):
        if fact.name not in told or told[fact.name] != columns[fact.name]:
            yield f"column '{fact.name}' is not what the provenance says"
    if told["split"] != split:
        yield f"belongs to split '{told['split']}', not to '{split}'"
    shapes = {picture.shape for picture in (row.image, row.mask, row.labels)}
    if len(shapes) != 1:
        yield "its pictures differ in size"
        return
    if told["mask"]["sha256"] != array_digest(row.mask.astype(np.uint8)):
        yield "column 'mask' is not the mask of the provenance"
    preview = encode_preview(row.image, Window.model_validate(told["preview"]), row.mask)
    if not np.array_equal(decode_preview(columns["preview"]["bytes"]), decode_preview(preview)):
        yield "column 'preview' does not show the image"
    synthetic = told["synthetic_voxel_fraction"], 1 - told["real_voxel_fraction"]
    if not all(_is_close(share, columns["painted_fraction"]) for share in synthetic):
        yield "its shares of real and synthetic voxels are not those of the mask"
    for name, value in _measures(row).items():
        if not _is_close(columns[name], value):
            yield f"column '{name}' is {columns[name]}, the pictures give {value}"
    yield from _original_problems(row)


def _original_problems(row: SampleRow) -> Iterator[str]:
    """Where the host's slice is kept, whether it is that one, and the image its painted copy."""
    if row.original is None:
        return
    if row.provenance["host"]["slice_sha256"] != array_digest(row.original):
        yield "column 'original' is not the slice of the provenance"
    if not np.array_equal(row.image[~row.mask], row.original[~row.mask]):
        yield "voxels outside of the mask differ from the original"


def _measures(row: SampleRow) -> dict[str, Any]:
    """The columns that follow from pictures and affine alone."""
    painted = row.image[row.mask & bool(row.columns["is_painted"])].astype(np.float64)
    rows_mm, columns_mm = (float(x) for x in np.linalg.norm(row.affine[:3, :2], axis=0))
    return {
        "outside_max_abs_diff": 0,
        "painted_mean_hu": float(painted.mean()) if painted.size else None,
        "painted_std_hu": float(painted.std()) if painted.size else None,
        "mask_area_mm2": int(row.mask.sum()) * rows_mm * columns_mm,
        "painted_fraction": painted.size / row.mask.size,
        "spacing_mm": [rows_mm, columns_mm],
    }


def _conflicts(row: SampleRow, shard: FileEntry, number: int, seen: _Seen) -> Iterator[str]:
    """What is wrong with a row beside the others: its id, and the splits of its patients."""
    place = seen.samples.setdefault(row.sample_id, (shard.path, number))
    if place != (shard.path, number):
        yield f"sample '{row.sample_id}' is also in {place[0]} row {place[1]}"
    for role in ("patient_id", "donor_patient_id"):
        patient = row.columns[role]
        if patient is None:
            continue
        split, sample_id = seen.patients.setdefault(patient, (shard.split, row.sample_id))
        if split != shard.split:
            yield (
                f"patient '{patient}' is in split '{shard.split}' here and in split '{split}' "
                f"with sample '{sample_id}'"
            )


def _strange(told: Mapping[str, Any], release: Release, lock: Lock) -> Iterator[str]:
    """What in a row's provenance is not that of its dataset."""
    if (licence := told["dataset"]["licence"]) != lock.licence:
        yield f"states the licence {licence}, the dataset has {lock.licence}"
    if told["numerics"] != lock.numerics:
        yield "was painted in another numerics class than the lock names"
    made_by = {
        "synthct": release.package_version,
        "format": release.format_version,
        "scheme": SAMPLE_SCHEME,
    }
    if told["versions"] != made_by:
        yield f"is of versions {told['versions']}, the release of {made_by}"
    used = (told["generation"] or {}).get("checkpoint_id")
    if used is not None and (lock.checkpoint is None or used != lock.checkpoint.id):
        yield "was painted by another checkpoint than the lock names"
    for role in ("host", "donor"):
        if told[role] is not None and not _is_locked(told[role], lock):
            yield f"its {role} '{told[role]['case']}' is none of the lock's cases"


def _is_locked(case: Mapping[str, Any], lock: Lock) -> bool:
    hashes = ("case", "patient", "image_sha256", "voxel_sha256", "label_sha256")
    source = lock.sources.get(case["source"])
    told = tuple(case[name] for name in hashes)
    return source is not None and any(
        told == tuple(getattr(one, name) for name in hashes) for one in source.cases
    )


def _check_sizes(manifest: Manifest) -> Iterator[Finding]:
    for size in manifest.release.splits:
        shards = [shard for shard in manifest.shards if shard.split == size.name]
        rows = sum(shard.rows or 0 for shard in shards)
        if (rows, len(shards)) != (size.rows, size.shards):
            what = f"split '{size.name}' has {rows} rows in {len(shards)} files, "
            yield Finding(MANIFEST, f"{what}the release says {size.rows} in {size.shards}")


def _check_rejected(folder: Path, seen: _Seen) -> Iterator[Finding]:
    try:
        rejected: Sequence[str] = read_shard(folder / REJECTED, ["sample_id"])[0].to_pylist()
    except (VerifyError, ResourceError) as err:
        yield Finding(REJECTED, str(err))
        return
    for number, sample_id in enumerate(rejected):
        if sample_id in seen.samples:
            yield Finding(REJECTED, f"sample '{sample_id}' is also a row", (number,))


def _is_close(found: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        pairs = zip(found, expected, strict=False)
        return len(found) == len(expected) and all(_is_close(a, b) for a, b in pairs)
    if found is None or expected is None:
        return found is expected
    return math.isclose(found, expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
