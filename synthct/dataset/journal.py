"""The journal of a build: which plan it follows, and which of its shards are done.

It is a folder with one small file per finished shard, each put in place in one step. So any number
of processes on any number of machines can write it at the same time, and no entry is ever half
there. A resumed build believes an entry only if the shard's bytes still have the recorded hash.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from synthct.dataset.digest import canonical_json
from synthct.dataset.writer import Rejection, ShardRecord
from synthct.errors import ConflictError
from synthct.storage.files import atomic_write, make_folder, resource_error, sha256_of

_PLAN, _ENTRY = "plan", ".shard"


def start_journal(journal: Path, plan_id: str) -> None:
    """Begin the journal of a build, or go on with the one that is there.

    Raises:
        ConflictError: If the one that is there belongs to another plan.
        ResourceError: If it cannot be written.
    """
    make_folder(journal)
    text = _read(journal / _PLAN)
    if text is None:
        atomic_write(journal / _PLAN, _sealed({"plan_id": plan_id}))
        return
    found = (_opened(text) or {}).get("plan_id")
    if found != plan_id:
        holds = f"shards of plan {found}" if found else "a journal that cannot be read"
        raise ConflictError(
            f"{journal.parent} holds {holds}, not of plan {plan_id}; "
            "delete that folder, or give the recipe another version"
        )


def record_shard(journal: Path, record: ShardRecord) -> None:
    """Note that a shard is done, durably.

    Raises:
        ResourceError: If the disk is full or the folder cannot be written.
    """
    name = f"{PurePosixPath(record.path).stem}{_ENTRY}"
    atomic_write(journal / name, _sealed(asdict(record)))


def recorded_shards(journal: Path) -> dict[str, ShardRecord]:
    """What the journal says is done, by path; damaged entries count for nothing.

    Raises:
        ResourceError: If an entry cannot be read.
    """
    recorded = {}
    for path in sorted(journal.glob(f"*{_ENTRY}")):
        content = _opened(_read(path) or b"")
        if content is not None:
            rejected = tuple(Rejection(**rejection) for rejection in content.pop("rejected"))
            recorded[content["path"]] = ShardRecord(**content, rejected=rejected)
    return recorded


def finished_shards(journal: Path, folder: Path) -> dict[str, ShardRecord]:
    """The shards that need not be made again, by path: those whose bytes are as recorded.

    Raises:
        ResourceError: If something cannot be read.
    """
    recorded = recorded_shards(journal)
    return {path: record for path, record in recorded.items() if _is_intact(folder, record)}


def _is_intact(folder: Path, record: ShardRecord) -> bool:
    path = folder / record.path
    return (
        path.is_file()
        and not path.is_symlink()
        and path.stat().st_size == record.bytes
        and sha256_of(path) == record.sha256
    )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as err:
        raise resource_error(path, err) from err


def _sealed(content: dict[str, Any]) -> bytes:
    """A line of JSON with a checksum of its own."""
    body = canonical_json(content).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _opened(line: bytes) -> dict[str, Any] | None:
    checksum, _, body = line.removesuffix(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    content: dict[str, Any] = json.loads(body)
    return content
