"""Arrays kept in the cache folder: what is damaged or missing is computed anew, never trusted."""

from __future__ import annotations

import io
import logging
import secrets
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_log = logging.getLogger(__name__)


def load_arrays(path: Path, names: Collection[str]) -> dict[str, npt.NDArray[Any]] | None:
    """The arrays kept in a file; None if it is missing, damaged, or lacks one of ``names``."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            return {name: kept[name] for name in names}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as err:
        _log.warning("%s is unreadable and made anew (%s)", path.name, err)
        return None


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Keep arrays, replacing the file in one step; a cache that cannot be written costs time."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(path)
    except OSError as err:
        temporary.unlink(missing_ok=True)
        _log.warning("%s cannot be written (%s)", path.parent, err.strerror)
