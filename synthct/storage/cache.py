"""Files kept between runs: each carries the digest of its content and is checked when it is read.

A kept file is one line, ``synthct-kept-1 <sha256>``, and then the content as it is. The digest also
covers the file's name, so a file that has been exchanged for another is noticed too. A damaged file
is never used: whoever kept it computes the content anew.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.errors import ResourceError
from synthct.storage.files import atomic_write, make_folder

_HEADER = b"synthct-kept-1 "

logger = logging.getLogger(__name__)


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
        stored = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as err:
        warn_damaged(path, str(err.strerror))
        return None
    head, _, content = stored.partition(b"\n")
    if head + b"\n" == _head(name or path.name, content):
        return content
    warn_damaged(path, "its content does not have the digest that it was written with")
    return None


def warn_damaged(path: Path, reason: str) -> None:
    """Say that something kept is of no use any more, and what happens now."""
    logger.warning("%s is damaged and made anew (%s)", path, reason)


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
