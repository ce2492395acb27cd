"""Level 1 of ``verify``: the rows of a dataset against each other, the lock and the manifest.

No source is needed. Every picture is decoded, every digest computed anew, and all that follows
from the pictures and the provenance is compared with what the columns say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthct.dataset.added import numbers
from synthct.dataset.digest import SAMPLE_SCHEME, merkle_root
from synthct.dataset.finding import Finding
from synthct.dataset.first_format import FIRST_FORMAT
from synthct.dataset.lockfile import Lock
from synthct.dataset.manifest import MANIFEST, FileEntry, Manifest, Release
from synthct.dataset.patch_rows import patch_schema
from synthct.dataset.row_check import examine
from synthct.dataset.rows import stored_rows
from synthct.dataset.schema import arrow_schema, is_of_volumes
from synthct.errors import ResourceError, VerifyError, counted


@dataclass
class _Seen:
    """What is compared across rows, collected row by row.

    Attributes:
        release: What every row should belong to.
        lock: What every row should come from.
        samples: Id of a sample to the file and row that hold it.
        patients: Patient to the split and the sample in which they were first met.
        digests: Of what the rows hold, in the order of the plan, computed anew.
        sample_digests: Those that the rows state, of the whole samples.
    """

    release: Release
    lock: Lock
    samples: dict[str, tuple[str, int]] = field(default_factory=dict)
    patients: dict[str, tuple[str, str]] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    sample_digests: list[str] = field(default_factory=list)


def check_content(folder: Path, manifest: Manifest, lock: Lock) -> list[Finding]:
    """Check what the shards of a dataset hold."""
    seen = _Seen(manifest.release, lock)
    findings = [
        finding for shard in manifest.shards for finding in _check_shard(folder, shard, seen)
    ]
    findings += _check_sizes(manifest)
    findings += _check_roots(manifest.release, seen)
    return findings


def _check_roots(release: Release, seen: _Seen) -> Iterator[Finding]:
    """Check that the content id of the rows is that of the release.

    The digests of a patch-only release's whole samples cannot be computed without the hosts; that
    they are the stated ones is covered by the digests of what the rows hold.
    """
    roots = {"content_id": (release.content_id, merkle_root(seen.sample_digests))}
    if release.patch_id is None:
        roots = {"content_id": (release.content_id, merkle_root(seen.digests))}
    else:
        roots["patch_id"] = release.patch_id, merkle_root(seen.digests)
    for name, (stated, computed) in roots.items():
        if stated != computed:
            yield Finding(MANIFEST, f"{name} is {stated[:12]}, the rows come to {computed[:12]}")


def _check_shard(folder: Path, shard: FileEntry, seen: _Seen) -> Iterator[Finding]:
    path, first = folder / shard.path, len(seen.digests)
    try:
        yield from _check_schema(path, shard, seen.release)
        for number, columns in enumerate(stored_rows(path)):
            try:
                digest, provenance, problems = examine(columns, shard.split)
                problems += [
                    *_foreign(provenance, seen.release, seen.lock),
                    *_conflicts(columns, shard, number, seen),
                ]
                seen.digests.append(digest)
                bytes.fromhex(columns["sample_digest"])
                seen.sample_digests.append(columns["sample_digest"])
            except VerifyError as err:
                problems = [str(err)]
            except (
                KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError,
            ) as err:  # fmt: skip
                problems = [f"the provenance is not that of a sample ({err!r})"]
            yield from (Finding(shard.path, problem, (number,)) for problem in problems)
    except (VerifyError, ResourceError, pa.ArrowException, OSError, ValueError) as err:
        yield Finding(shard.path, f"cannot be read: {err}")
        return
    digests = seen.digests[first:]
    if len(digests) != shard.rows:
        yield Finding(
            shard.path, f"holds {counted(len(digests), 'row')}, the manifest says {shard.rows}"
        )
    is_first = seen.release.format_version == FIRST_FORMAT  # which has no roots
    if merkle_root(digests) != shard.root and not is_first:
        yield Finding(shard.path, "its rows are not those of the manifest, or in another order")


def _check_schema(path: Path, shard: FileEntry, release: Release) -> Iterator[Finding]:
    schema = pq.read_schema(path)
    is_patch = release.patch_id is not None
    volume = is_of_volumes(schema)
    version = release.format_version
    expected = patch_schema(volume=volume, of_format=version)
    if not is_patch:
        expected = arrow_schema("original" in schema.names, volume=volume, of_format=version)
    has_features = schema.metadata == expected.metadata or version == FIRST_FORMAT
    if schema.equals(expected) and has_features:
        return
    odd = sorted(set(schema.names) ^ set(expected.names)) or [
        name for name in expected.names if schema.field(name) != expected.field(name)
    ]
    yield Finding(shard.path, f"has other columns than the format: {', '.join(odd) or 'order'}")


def _conflicts(
    columns: Mapping[str, Any], shard: FileEntry, number: int, seen: _Seen
) -> Iterator[str]:
    """What is wrong with a row beside the others: its id, and the splits of its patients."""
    sample_id = columns["sample_id"]
    place = seen.samples.setdefault(sample_id, (shard.path, number))
    if place != (shard.path, number):
        yield f"sample '{columns['sample_id']}' is also in {place[0]} row {place[1]}"
    for role in ("patient_id", "donor_patient_id"):
        patient = columns[role]
        if patient is None:
            continue
        split, first_id = seen.patients.setdefault(patient, (shard.split, sample_id))
        if split != shard.split:
            yield (
                f"patient '{patient}' is in split '{shard.split}' here and in split '{split}' "
                f"with sample '{first_id}'"
            )


def _foreign(provenance: Mapping[str, Any], release: Release, lock: Lock) -> Iterator[str]:
    """What in a row's provenance is not that of its dataset."""
    is_first = release.format_version == FIRST_FORMAT
    sources = {provenance[role]["source"] for role in ("host", "donor") if provenance[role]}
    if not is_first and provenance["dataset"]["attribution"] != sorted(sources):
        yield "its attribution is not that of its host and donor"
    if not is_first and (licence := provenance["dataset"]["licence"]) != lock.licence:
        yield f"states the licence {licence}, the dataset has {lock.licence}"
    if provenance["numerics"] != lock.numerics:
        yield "was painted in another numerics class than the lock names"
    made_by = {
        "synthct": release.package_version,
        "format": release.format_version,
        **({} if is_first else {"scheme": SAMPLE_SCHEME}),
    }
    if (stated := provenance["versions"]) != made_by and not _is_earlier(stated, release):
        yield f"is of versions {stated}, the release of {made_by}"
    used = (provenance["generation"] or {}).get("checkpoint_id")
    if used is not None and (lock.checkpoint is None or used != lock.checkpoint.id):
        yield "was painted by another checkpoint than the lock names"
    for role in ("host", "donor"):
        if provenance[role] is not None and not _is_locked(provenance[role], lock):
            yield f"its {role} '{provenance[role]['case']}' is none of the lock's cases"


def _is_earlier(versions: Mapping[str, Any], release: Release) -> bool:
    """Whether an earlier synthct painted a sample that today's put together with its host."""
    if versions.keys() != {"synthct", "format", "scheme"} or versions["scheme"] != SAMPLE_SCHEME:
        return False
    first, stated, latest = map(numbers, (FIRST_FORMAT, versions["format"], release.format_version))
    return first < stated < latest


def _is_locked(case: Mapping[str, Any], lock: Lock) -> bool:
    hashes = ("case", "patient", "image_sha256", "voxel_sha256", "label_sha256")
    source = lock.sources.get(case["source"])
    stated = tuple(case[name] for name in hashes)
    return source is not None and any(
        stated == tuple(getattr(one, name) for name in hashes) for one in source.cases
    )


def _check_sizes(manifest: Manifest) -> Iterator[Finding]:
    for size in manifest.release.splits:
        shards = [shard for shard in manifest.shards if shard.split == size.name]
        rows = sum(shard.rows or 0 for shard in shards)
        if (rows, len(shards)) != (size.rows, size.shards):
            there = f"{counted(rows, 'row')} in {counted(len(shards), 'file')}"
            what = f"split '{size.name}' has {there}, "
            yield Finding(MANIFEST, f"{what}the release says {size.rows} in {size.shards}")
