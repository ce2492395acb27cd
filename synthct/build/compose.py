"""Whole samples out of a patch-only release and the user's own copy of the scans.

Every host is compared with the hash of the scan that was painted, every sample with the digest that
it had when it was painted: what comes out is the dataset that a full build would have given.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from synthct.build.documents import write_documents
from synthct.build.draw import CaseReader
from synthct.dataset.digest import array_digest
from synthct.dataset.integrity import check_bytes
from synthct.dataset.lockfile import Lock, LockedCase, read_lock, work_id
from synthct.dataset.manifest import (
    FileEntry,
    Manifest,
    read_manifest,
    release_of,
    require_manifest,
    write_manifest,
)
from synthct.dataset.patch_rows import complete
from synthct.dataset.records import RECIPE, read_rejected
from synthct.dataset.rows import Columns, encode, parsed, stored_rows
from synthct.dataset.sample import Sample
from synthct.dataset.schema import arrow_schema
from synthct.dataset.version import Staging, commit, discard, find_release, open_staging
from synthct.dataset.writer import ShardRecord, write_shard
from synthct.errors import ConflictError, RecipeError, SourceError, VerifyError
from synthct.recipe.recipe import Recipe, stored_recipe
from synthct.sources import CaseEntry, FolderSection, Index, download, index_sources
from synthct.storage.defaults import default_cache_dir
from synthct.storage.files import make_folder
from synthct.storage.lock import version_lock
from synthct.volume import Box
from synthct.volume.views import VIEW_AXIS


def compose(
    folder: Path,
    output: Path = Path("out"),
    *,
    sources: Mapping[str, Path] | None = None,
    cache_dir: Path | None = None,
    progress: bool = False,
) -> Path:
    """Put the whole samples of a patch-only release together.

    Args:
        folder: The patch-only release.
        output: Folder below which ``<name>/<version>`` is made.
        sources: Where the scans are, by name of the source in the recipe.
        cache_dir: Where indexes and phantoms are kept; by default the user's cache folder.
        progress: Show progress bars.

    Returns:
        The folder of the whole dataset.

    Raises:
        VerifyError: If the release is damaged, or something else comes out than was painted.
        SourceError: If a scan is missing, damaged or another one than was painted.
        ConflictError: If the version is there already with other content.
    """
    manifest = _patch_release(folder)
    patched, patch_lock = stored_recipe(folder / RECIPE), read_lock(folder)
    recipe = patched.model_copy(update={"release": "full"})
    lock = patch_lock.model_copy(update={"recipe_id": recipe.recipe_id})
    plan_id = work_id(
        lock.recipe_id,
        lock.plan.id,
        lock.checkpoint.id if lock.checkpoint else None,
        lock.sources,
    )
    final = output / recipe.name / manifest.release.version
    index = painted_hosts(patched, lock, sources or {}, cache_dir or default_cache_dir(), progress)
    in_order = dict(sorted(lock.labels.items(), key=lambda label: label[1]))
    scans = _Scans(index, CaseReader(in_order))
    make_folder(final.parent)
    with version_lock(final):
        if (existing := find_release(final)) is not None:
            if existing.content_id == manifest.release.content_id and existing.patch_id is None:
                discard(Staging(final))  # of a run that was killed just before it was done
                return final
            raise ConflictError(
                f"{final} is content {existing.content_id[:12]}"
                f"{' as a patch-only release' if existing.patch_id else ''}, this would be "
                f"{manifest.release.content_id[:12]}; choose another --output"
            )
        staging = open_staging(final, plan_id)
        records = list(_shards(folder, manifest, scans, staging.tree, progress))
        # A release does not say of which shard a rejected sample would have been, and nothing
        # that is written from these records depends on it: they are counted and listed together.
        records[0] = replace(records[0], rejected=tuple(read_rejected(folder)))
        release = release_of(
            staging.tree,
            name=recipe.name,
            version=manifest.release.version,
            plan_id=plan_id,
            shards=records,
        )
        if release.content_id != manifest.release.content_id:
            raise VerifyError(
                f"{folder}: the samples come to content {release.content_id[:12]}, not to "
                f"{manifest.release.content_id[:12]}; run 'synthct verify' on it"
            )
        write_documents(recipe, lock, staging.tree, release, records)
        return commit(staging, write_manifest(staging.tree, release, records))


def bytes_of(folder: Path) -> int:
    """Size of all files of a release."""
    manifest = read_manifest(folder)
    return sum(entry.bytes for entry in manifest.files) if manifest else 0


class _Scans:
    """The slices of the user's scans, each proven to be the one that was painted."""

    def __init__(self, index: Index, reader: CaseReader) -> None:
        self._index, self._reader = index, reader

    def complete(self, columns: Columns) -> Sample:
        """The whole sample of a stored row.

        Raises:
            SourceError: If the scan is not the one that was painted.
            VerifyError: If the row is damaged.
        """
        host: Mapping[str, Any] = parsed(columns)[0]["host"]
        case = self._reader.read(self._index.entry(host["source"], host["case"]))
        shown = Box.whole(case.labels.shape)
        if columns["view"] == "volume":
            start, stop = host["box"]
            shown = Box(tuple(start), tuple(stop))
        else:
            shown = shown.slab(VIEW_AXIS[columns["view"]], int(host["slice_index"]))
        sample = complete(columns, case.scan().crop(shown), case.labels.crop(shown).array)
        pictures = sample.pictures
        for what, picture, name in (
            ("voxels", pictures["original"], "slice_sha256"),
            ("label map", pictures["host_labels"].astype(np.uint16), "slice_labels_sha256"),
        ):
            if array_digest(picture) != host[name]:
                raise SourceError(
                    f"source '{host['source']}', case {host['case']}: the {what} of {sample.view} "
                    f"slice {sample.facts.slice_index} are not those that were painted; use the "
                    "scan as it was published"
                )
        return sample


def _patch_release(folder: Path) -> Manifest:
    """The manifest of an intact patch-only release."""
    manifest = require_manifest(folder)
    if manifest.release.patch_id is None:
        raise VerifyError(f"{folder} is no patch-only release: its samples are whole already")
    findings = check_bytes(folder, manifest)
    if findings:
        shown = "\n".join(f"  {finding}" for finding in findings)
        raise VerifyError(f"{folder} is damaged; take it from its source again\n{shown}")
    return manifest


def painted_hosts(
    recipe: Recipe,
    lock: Lock,
    roots: Mapping[str, Path],
    cache_dir: Path,
    progress: bool = False,
) -> Index:
    """The user's scans, each one that was painted.

    Raises:
        RecipeError: If their place is not stated.
        SourceError: If one is missing or another one than was painted.
    """
    section = recipe.sources["hosts"]
    for name in roots:
        if name not in recipe.sources:
            known = ", ".join(recipe.sources)
            raise RecipeError(f"--source {name}: the release has no such source (has: {known})")
    if isinstance(section, FolderSection) and ("hosts" in roots or section.repo is None):
        root = roots.get("hosts", Path(os.path.expandvars(str(section.root))))
        if "$" in str(root):
            raise RecipeError(
                "it is not stated where the scans are; write --source hosts=PATH, or set the "
                f"variable of {root}"
            )
        section = section.in_folder(root)
    names = tuple(case.case for case in lock.sources["hosts"].cases)
    wanted = section.model_copy(update={"cases": names, "exclude": ()})
    hosts = download({"hosts": wanted}, cache_dir)
    index = index_sources(hosts, recipe.all_labels(), cache_dir=cache_dir, progress=progress)
    entries = {entry.case_id: entry for entry in index.entries("hosts")}
    for case in lock.sources["hosts"].cases:
        _require_same(case, entries.get(case.case))
    return index


def _require_same(case: LockedCase, entry: CaseEntry | None) -> None:
    if entry is None:
        raise SourceError(f"source 'hosts' has no case '{case.case}', which was painted into")
    if entry.voxel_sha256 != case.voxel_sha256:
        raise SourceError(
            f"source 'hosts', case {case.case}: these are not the voxels that were painted into; "
            "use the scan as it was published"
        )


def _shards(
    folder: Path, manifest: Manifest, scans: _Scans, tree: Path, progress: bool
) -> Iterator[ShardRecord]:
    from tqdm import tqdm

    with tqdm(total=manifest.release.rows, unit="sample", disable=not progress) as bar:
        for shard in manifest.shards:
            rows = [_whole(shard, row, scans) for row in stored_rows(folder / shard.path)]
            yield write_shard(tree, shard.path, rows, split=shard.split, schema=_schema_of(rows))
            bar.update(len(rows))


def _schema_of(rows: Sequence[Columns]) -> pa.Schema:
    """The columns of a shard of whole samples."""
    return arrow_schema(keep_original=False, volume=any(row["view"] == "volume" for row in rows))


def _whole(shard: FileEntry, columns: Columns, scans: _Scans) -> Columns:
    """The row of a full release for one of a patch-only release.

    Raises:
        VerifyError: If it is not the sample that was painted.
        SourceError: If the host is not the one that was painted.
    """
    row = encode(scans.complete(columns))
    if row["sample_digest"] != columns["sample_digest"]:
        raise VerifyError(
            f"{shard.path}: sample '{row['sample_id']}' comes to digest "
            f"{row['sample_digest'][:12]}, not to {columns['sample_digest'][:12]}; run "
            "'synthct verify' on the release"
        )
    return row
