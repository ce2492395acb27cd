"""Versions on disk: built aside, then put in place in one step, and never changed again.

``<output>/<name>/1.0.0/`` is a finished version; it exists whole or not at all.
``<output>/<name>/.1.0.0.building/`` is a build on its way: ``tree/`` becomes the version,
``journal/`` says which of its shards are done, ``partial/`` has samples of the others.
"""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from synthct.dataset.journal import finished_shards, recorded_shards, start_journal
from synthct.dataset.manifest import Manifest, Release, read_manifest
from synthct.dataset.partial import PartialShard
from synthct.dataset.writer import ShardRecord
from synthct.errors import ConflictError
from synthct.storage.files import make_folder, remove_leftovers, resource_error, sync_folder


@dataclass(frozen=True)
class Staging:
    """A build on its way.

    Attributes:
        final: Where the version will stand: ``<output>/<name>/<version>``.
    """

    final: Path

    @property
    def folder(self) -> Path:
        """All that belongs to the build; gone when it is committed."""
        return self.final.with_name(f".{self.final.name}.building")

    @property
    def tree(self) -> Path:
        """The dataset's folder as it grows."""
        return self.folder / "tree"

    @property
    def journal(self) -> Path:
        """The journal of finished shards."""
        return self.folder / "journal"

    def partial(self, shard: str) -> PartialShard:
        """The samples of a shard, by its path, that is not finished yet."""
        return PartialShard(self.folder / "partial" / f"{PurePosixPath(shard).stem}.samples")

    def finished(self) -> dict[str, ShardRecord]:
        """The shards that an earlier run finished and whose bytes are intact, by path."""
        return finished_shards(self.journal, self.tree)

    def recorded(self) -> dict[str, ShardRecord]:
        """The shards that this run or an earlier one finished, by path; their bytes are not read.

        For what ``finished`` found intact, and what was recorded since.
        """
        return recorded_shards(self.journal)


def find_release(final: Path) -> Release | None:
    """The finished version in ``final``, or None if there is nothing.

    Raises:
        ConflictError: If something else is there.
        VerifyError: If its manifest is damaged.
    """
    manifest = read_manifest(final)
    if manifest is None and final.exists() and not _is_empty_folder(final):
        raise ConflictError(f"{final} exists and is no finished dataset; use another output folder")
    return manifest.release if manifest else None


def open_staging(final: Path, plan_id: str) -> Staging:
    """Begin a build of the version ``final``, or go on with the one that was interrupted.

    For the first process of a build, which holds the version's lock; the others use its folders.

    Raises:
        ConflictError: If the interrupted one followed another plan.
        VerifyError: If it is unknown which plan it followed.
        ResourceError: If the folder cannot be written.
    """
    staging = Staging(final)
    start_journal(staging.journal, plan_id)
    make_folder(staging.tree / "data")
    remove_leftovers(staging.folder)
    return staging


def commit(staging: Staging, manifest: Manifest) -> Path:
    """Put a complete build in its place in one step.

    If the version is there already with the same content, the new one is dropped.

    Raises:
        ConflictError: If it is there with other content; that one stays as it is.
        ResourceError: If the folder cannot be renamed.
    """
    final = staging.final
    if (there := find_release(final)) is None:
        try:
            sync_folder(staging.tree)
            staging.tree.rename(final)  # onto a folder that is not empty this fails
            sync_folder(final.parent)
        except OSError as err:
            if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise resource_error(final, err) from err
            there = find_release(final)
    if there is not None:
        _require_same(final, there, manifest.release)
    discard(staging)
    return final


def discard(staging: Staging) -> None:
    """Delete what a build left aside; nothing of a finished version.

    The journal goes last: while it is there, it says which plan the rest belongs to.
    """
    shutil.rmtree(staging.tree, ignore_errors=True)
    if not staging.tree.exists():
        shutil.rmtree(staging.folder, ignore_errors=True)


def _require_same(final: Path, there: Release, ours: Release) -> None:
    if there.content_id != ours.content_id:
        raise ConflictError(
            f"{final}: version {there.version} is content {there.content_id[:12]}, "
            f"yours is {ours.content_id[:12]}; versions never change, so give the recipe a "
            "higher version"
        )


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
