"""Files that are there whole or not at all, whenever the process dies or the disk fills.

A file is written beside its place under a temporary name, flushed to the disk, renamed, and the
rename itself is flushed. What a killed process leaves behind are temporary files, which
``remove_leftovers`` deletes; they never carry the name of a finished file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import sys
from pathlib import Path

from synthct.errors import RecipeError, ResourceError

_TEMPORARY = ".part"


def atomic_write(path: Path, data: bytes | memoryview) -> None:
    """Write ``data`` to ``path``, durably, replacing a file of that name in one step.

    Raises:
        ResourceError: If the disk is full or the folder cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}{_TEMPORARY}")
    try:
        try:
            _write_new(temporary, data)
            temporary.replace(path)
            sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as err:
        raise resource_error(path, err, needed=len(data)) from err


def check_utf8(name: str | Path) -> None:
    """See that a path is UTF-8: Parquet files and ``load_dataset`` know no other names.

    Raises:
        RecipeError: If it is not.
    """
    try:
        str(name).encode()
    except UnicodeEncodeError as err:
        encoding = sys.getfilesystemencoding()
        if encoding != "utf-8":
            raise RecipeError(
                f"{name!a}: Python takes names for {encoding} here; set PYTHONUTF8=1, or LC_ALL to "
                "a locale of UTF-8"
            ) from err
        raise RecipeError(f"{name}: the name is no UTF-8; rename it or use another one") from err


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents, durably; one that exists is fine.

    Raises:
        RecipeError: If its name is no UTF-8.
        ResourceError: If it cannot be created, or its name is taken by a file.
    """
    check_utf8(folder)
    try:
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            sync_folder(made.parent)
    except OSError as err:
        raise resource_error(folder, err) from err


def sync_file(path: Path) -> None:
    """Flush a file that another program has written, so that its content survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush the entries of ``folder``, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> int:
    """Delete the temporary files of killed processes below ``folder``; how many there were.

    Raises:
        ResourceError: If one cannot be deleted.
    """
    leftovers = [path for path in folder.rglob(f".*{_TEMPORARY}") if path.is_file()]
    for path in leftovers:
        try:
            path.unlink(missing_ok=True)
        except OSError as err:
            raise resource_error(path, err) from err
    return len(leftovers)


def require_writable(folder: Path) -> None:
    """Make a folder and write into it, before any work is put into what goes there.

    Raises:
        RecipeError: If its name is no UTF-8.
        ResourceError: If it cannot be written.
    """
    make_folder(folder)
    probe = folder / ".writable"
    atomic_write(probe, b"")
    probe.unlink(missing_ok=True)


def require_space(folder: Path, needed: int) -> None:
    """Make sure that a disk has room, before any work is put into what goes there.

    Raises:
        ResourceError: If less than ``needed`` bytes are free.
    """
    free = _free_bytes(folder / "new")
    if free is not None and free < needed:
        raise ResourceError(
            f"{folder}: needs about {needed:,} bytes, {free:,} are free; free some space or choose "
            "another output folder, and run the same command again"
        )


def beside(version: Path, what: str) -> Path:
    """Where goes what is made of a version: ``1.0.0.report`` next to ``1.0.0``."""
    here = version if version.name not in ("", "..") else version.resolve()
    return here.with_name(f"{here.name}.{what}")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes in hex.

    Raises:
        ResourceError: If it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as err:
        raise resource_error(path, err) from err


def resource_error(path: Path, err: OSError, *, needed: int | None = None) -> ResourceError:
    """The error to show for a failing disk: what failed, where, and what there is to do.

    Args:
        path: What was being written, or read; its disk is the one that is looked at.
        err: What the system said of it.
        needed: How many bytes were to be written.
    """
    what = f"{path}: {err.strerror or err}"
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        free = _free_bytes(path) if err.errno == errno.ENOSPC else None  # a quota has its own
        sizes = [f"needs {needed:,} bytes"] if needed is not None else []
        sizes += [f"{free:,} are free"] if free is not None else []
        return ResourceError(
            f"{what} ({', '.join(sizes)}); free some space and run the same command again"
        )
    if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ResourceError(f"{what}; allow it, or choose another folder")
    return ResourceError(f"{what}; mend it and run the same command again")


def _write_new(path: Path, data: bytes | memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _free_bytes(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(path.parent).free
    return None
