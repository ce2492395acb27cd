"""The journal of a build: which plan it follows, and which of its shards are done.

It is a folder with one small file per finished shard, each put in place in one step. So any number
of processes on any number of machines can write it at the same time, and no entry is ever half
there. A resumed build believes an entry only if the shard's bytes still have the recorded hash.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from synthct.dataset.digest import canonical_json
from synthct.dataset.writer import Rejection, ShardRecord
from synthct.errors import ConflictError, VerifyError
from synthct.storage.cache import DamageError, content_of, warn_damaged, write_kept
from synthct.storage.files import resource_error, sha256_of

_PLAN, _ENTRY = "plan", ".shard"


def start_journal(journal: Path, plan_id: str) -> None:
    """Begin the journal of a build, or go on with the one that is there.

    Raises:
        ConflictError: If the one that is there belongs to another plan.
        VerifyError: If it is damaged.
        ResourceError: If it cannot be written.
    """
    try:
        found = _read(journal / _PLAN).decode()
    except FileNotFoundError:
        write_kept(journal / _PLAN, plan_id.encode())
        return
    except DamageError as err:
        raise VerifyError(
            f"{journal / _PLAN} is damaged ({err}), so it is unknown which recipe the unfinished "
            f"build is of; delete {journal.parent} and run the same command again"
        ) from err
    if found != plan_id:
        raise ConflictError(
            f"{journal.parent} holds shards of plan {found}, not of plan {plan_id}; "
            "delete that folder, or give the recipe another version"
        )


def record_shard(journal: Path, record: ShardRecord) -> None:
    """Note that a shard is done, durably.

    Raises:
        ResourceError: If the disk is full or the folder cannot be written.
    """
    name = f"{PurePosixPath(record.path).stem}{_ENTRY}"
    write_kept(journal / name, canonical_json(asdict(record)).encode())


def recorded_shards(journal: Path) -> dict[str, ShardRecord]:
    """What the journal says is done, by path; damaged entries are ignored, with a warning.

    Raises:
        ResourceError: If an entry cannot be read.
    """
    recorded = {}
    for path in sorted(journal.glob(f"*{_ENTRY}")):
        try:
            content: dict[str, Any] = json.loads(_read(path))
        except DamageError as err:
            warn_damaged(path, str(err))
            continue
        rejected = tuple(Rejection(**rejection) for rejection in content.pop("rejected"))
        recorded[content["path"]] = ShardRecord(**content, rejected=rejected)
    return recorded


def finished_shards(journal: Path, folder: Path) -> dict[str, ShardRecord]:
    """The shards that need not be made again, by path; a warning names those that have changed.

    Raises:
        ResourceError: If something cannot be read.
    """
    finished = {}
    for path, record in recorded_shards(journal).items():
        if _is_intact(folder, record):
            finished[path] = record
        else:
            warn_damaged(folder / path, "missing, or not the file that was written")
    return finished


def _is_intact(folder: Path, record: ShardRecord) -> bool:
    path = folder / record.path
    return (
        path.is_file()
        and not path.is_symlink()
        and path.stat().st_size == record.bytes
        and sha256_of(path) == record.sha256
    )


def _read(path: Path) -> bytes:
    """The content of an entry.

    Raises:
        DamageError: If it is damaged.
        FileNotFoundError: If there is none.
        ResourceError: If the disk fails.
    """
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as err:
        raise resource_error(path, err) from err
    return content_of(stored, path.name)
