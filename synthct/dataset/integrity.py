"""Level 0 of ``verify``: every byte against the manifest, and where in a damaged shard it hurts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from synthct.dataset.finding import Finding
from synthct.dataset.manifest import MANIFEST, FileEntry, Manifest
from synthct.errors import ResourceError
from synthct.storage.files import sha256_of

#: What the Hub puts into a repository, and its client into a folder that it downloads to.
_OF_THE_HUB = (".gitattributes", ".cache/huggingface/")


def check_bytes(folder: Path, manifest: Manifest) -> list[Finding]:
    """Compare every file of a dataset with its manifest.

    Files are hashed by as many threads as there are cores.

    Returns:
        What is missing, changed, or there without being listed, by path. A copy from the Hub may
        have what the Hub itself adds.
    """
    listed = {entry.path for entry in manifest.files}
    with ThreadPoolExecutor(max_workers=_cores()) as pool:
        checked = pool.map(lambda entry: _check_file(folder, entry), manifest.files)
        findings = [finding for found in checked for finding in found]
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name in listed or name == MANIFEST or (path.is_dir() and not path.is_symlink()):
            continue
        if name == _OF_THE_HUB[0] or name.startswith(_OF_THE_HUB[1]):
            continue
        findings.append(Finding(name, "is not in the manifest"))
    return findings


def _check_file(folder: Path, entry: FileEntry) -> list[Finding]:
    path = folder / entry.path
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return [Finding(entry.path, "is no plain file")]
        if found.st_size != entry.bytes:
            what = f"has {found.st_size:,} bytes, the manifest says {entry.bytes:,}"
        elif (sha256 := sha256_of(path)) != entry.sha256:
            what = f"has the SHA-256 {sha256[:12]}, the manifest says {entry.sha256[:12]}"
        else:
            return []
    except (FileNotFoundError, NotADirectoryError):
        return [Finding(entry.path, "is missing")]
    except (OSError, ResourceError) as err:
        return [Finding(entry.path, f"cannot be read ({err})")]
    where = list(_damaged_pages(path)) if entry.rows is not None else []
    return [
        Finding(entry.path, what),
        *(Finding(entry.path, f"damaged ({why})", rows) for rows, why in where),
    ]


def _damaged_pages(path: Path) -> Iterator[tuple[tuple[int, ...], str]]:
    """Rows of a damaged shard whose pages fail their checksums, with the columns.

    Damage of the footer makes all of them unreadable; that between the pages touches none.
    """
    try:
        with path.open("rb") as stream:
            shard = pq.ParquetFile(stream, page_checksum_verification=True)
            start = 0
            for group in range(shard.num_row_groups):
                stop = start + shard.metadata.row_group(group).num_rows
                bad = [name for name in shard.schema_arrow.names if not _reads(shard, group, name)]
                if bad:
                    yield tuple(range(start, stop)), f"column {', '.join(bad)}"
                start = stop
    except (pa.ArrowException, OSError, ValueError, MemoryError) as err:
        yield (), f"its footer cannot be read: {str(err).splitlines()[0]}"


def _reads(shard: pq.ParquetFile, group: int, column: str) -> bool:
    try:
        shard.read_row_group(group, columns=[column], use_threads=False)
    except (pa.ArrowException, OSError, ValueError, MemoryError):
        return False
    return True


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
