"""Files kept between runs: each carries the digest of its content and is checked when it is read.

A kept file is one line, ``synthct-kept-1 <sha256>``, and then the content as it is. The digest also
covers the file's name, so a file that has been exchanged for another is noticed too. A damaged file
is never used: the caller computes the content anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.errors import RecipeError, ResourceError
from synthct.storage.files import atomic_write, make_folder, resource_error, sha256_of

#: Name of the kept file that holds the digests of plain files in its folder.
DIGESTS = "digests"

_HEADER = b"synthct-kept-1 "

#: The folders in the cache's folder; each is used by one room.
PARTS = ("adapted", "features", "hub", "index", "limits", "patches", "phantoms", "tissue")

logger = logging.getLogger(__name__)


class DamageError(Exception):
    """A kept file is not what was written; the caller makes it anew or refuses it."""


def write_kept(path: Path, content: bytes, *, name: str | None = None) -> None:
    """Write a file that ``read_kept`` can check, durably and in one step.

    Args:
        path: Where; missing folders are made.
        content: What to keep.
        name: What the digest calls the file; by default its file name.

    Raises:
        ResourceError: If the disk is full or the folder cannot be written.
    """
    make_folder(path.parent)
    atomic_write(path, _head(name or path.name, content) + content)


def read_kept(path: Path, *, name: str | None = None) -> bytes | None:
    """The content of a kept file; None, with a warning, if it is damaged, or if there is none."""
    try:
        return check_kept(path, name=name)
    except FileNotFoundError:
        return None
    except DamageError as err:
        warn_damaged(path, str(err))
        return None


def check_kept(path: Path, *, name: str | None = None) -> bytes:
    """The content of a kept file.

    Raises:
        DamageError: If it is damaged; says how.
        FileNotFoundError: If there is none.
    """
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as err:
        raise DamageError(str(err.strerror)) from err
    return content_of(stored, name or path.name)


def content_of(stored: bytes, name: str) -> bytes:
    """The content in the bytes of a kept file.

    Args:
        stored: All of the file.
        name: What the digest calls it.

    Raises:
        DamageError: If it is damaged.
    """
    head, _, content = stored.partition(b"\n")
    if head + b"\n" != _head(name, content):
        raise DamageError("its content does not have the digest that it was written with")
    return content


def warn_damaged(path: Path, reason: str) -> None:
    """Say that something kept is of no use any more, and what happens now."""
    logger.warning("%s is damaged and made anew (%s)", path, reason)


def write_digests(folder: Path, names: Sequence[str], *, name: str | None = None) -> None:
    """Keep the digests of plain files beside them, for ``check_files``.

    Args:
        folder: The folder of the files.
        names: The files, relative to it.
        name: What the folder will be called; by default what it is called now.

    Raises:
        ResourceError: If one cannot be read or written.
    """
    digests = {file: sha256_of(folder / file) for file in names}
    write_kept(folder / DIGESTS, json.dumps(digests).encode(), name=name or folder.name)


def check_files(folder: Path) -> None:
    """See that the files of ``write_digests`` are there with every byte.

    Raises:
        DamageError: If one is missing or damaged; names it.
    """
    try:
        kept = check_kept(folder / DIGESTS, name=folder.name)
    except (FileNotFoundError, DamageError) as err:
        raise DamageError(f"{DIGESTS}: missing or damaged") from err
    for name, digest in json.loads(kept).items():
        try:
            intact = sha256_of(folder / name) == digest
        except ResourceError:
            intact = False
        if not intact:
            raise DamageError(f"{name}: missing, or not the file that was written")


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]] | None:
    """The arrays of ``save_arrays``; None if there is no such file or it is damaged."""
    content = read_kept(path)
    if content is None:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Keep arrays by name; where the cache cannot be written, warn and go on without."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    try:
        write_kept(path, buffer.getvalue())
    except ResourceError as err:
        logger.warning("not kept, and computed again next time: %s", err)


def _head(name: str, content: bytes) -> bytes:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape") + b"\0" + content)
    return _HEADER + digest.hexdigest().encode() + b"\n"


def cache_sizes(cache_dir: Path) -> dict[str, int]:
    """Bytes of each part of the cache that is there."""
    return {
        part: sum(path.stat().st_size for path in (cache_dir / part).rglob("*") if path.is_file())
        for part in PARTS
        if (cache_dir / part).is_dir()
    }


def clear_cache(cache_dir: Path, parts: Sequence[str] | None = None) -> int:
    """Delete parts of the cache, by default all; nothing else that may lie in its folder.

    Returns:
        Number of bytes deleted.

    Raises:
        RecipeError: If there is no part of that name.
        ResourceError: If something cannot be deleted.
    """
    for part in parts or ():
        if part not in PARTS:
            raise RecipeError(
                f"--part {part}: the cache has no such part; it has {', '.join(PARTS)}"
            )
    sizes = {part: n for part, n in cache_sizes(cache_dir).items() if part in (parts or PARTS)}
    for part in sizes:
        try:
            shutil.rmtree(cache_dir / part)
        except OSError as err:
            raise resource_error(cache_dir / part, err) from err
    return sum(sizes.values())
