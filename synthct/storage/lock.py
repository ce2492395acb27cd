"""One process at a time: for a version, a cache or a training; on machines with a shared folder.

The kernel holds a lock for as long as the process lives, so a killed one leaves none behind; the
lock's file may stay and means nothing by itself.

``exclusive`` is the ``filelock`` library's lock. A version's lock is our own, of two bytes of one
file: one build holds the first alone, all of its processes share the second, so that a new build
waits for what a killed one has left running, and the last to leave removes the file. ``filelock``
has neither shared locks of that kind nor safe removal. On Windows, where builds do not have several
processes, a version has the plain lock too.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from synthct.errors import ConflictError
from synthct.storage.files import resource_error

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

#: How long a new build waits for processes that a killed one has left, which end by themselves.
PATIENCE_S = 90.0

#: For so long a process that leaves may hold the lock, to see whether it is the last.
_MOMENT_S = 0.5

#: So long the forked workers of a killed process may still hold what it held; they end with it.
_WORKERS_END_S = 5.0

#: Bytes of the file that stand for "a build is running" and for "its processes are working".
_BUILD, _WORK = 0, 1


@contextmanager
def exclusive(path: Path, what: str, *, waits: bool = False) -> Iterator[None]:
    """Keep other processes from the same work.

    Args:
        path: The lock's file, in a folder that exists; it stays there.
        what: The work, as in "another training into runs/ct is running".
        waits: Wait until the other one has ended, however long it takes.

    Raises:
        ConflictError: If another process holds it and ``waits`` is not set; names its holder.
        ResourceError: If the folder cannot be written.
    """
    lock = FileLock(path, is_singleton=False)
    try:
        try:
            lock.acquire(timeout=_WORKERS_END_S)
        except Timeout:
            message = f"another {what} is running{_read_holder(path)}"
            if not waits:
                raise ConflictError(
                    f"{message}; wait for it, or stop it and run the same command again"
                ) from None
            logger.warning("%s; waiting until it has ended", message)
            lock.acquire()
    except OSError as err:
        raise resource_error(path, err) from err
    with contextlib.suppress(OSError):
        path.write_bytes(_this_holder())  # Windows does not let it be written while it is locked
    try:
        yield
    finally:
        lock.release()


def _this_holder() -> bytes:
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": started}
    return json.dumps(holder).encode()


def _read_holder(path: Path) -> str:
    """Who holds a lock, as far as its file says."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        holder = json.loads(path.read_bytes())
        return f" (process {holder['pid']} on {holder['host']}, since {holder['since']})"
    return ""


@contextmanager
def version_lock(final: Path) -> Iterator[None]:
    """Keep other builds away from a version; for the first or only process of a build.

    Args:
        final: The version's folder; its parent exists.

    Raises:
        ConflictError: If another build holds it; names its process, machine and start.
        ResourceError: If the folder cannot be written.
    """
    path = final.with_name(f".{final.name}.lock")
    if sys.platform == "win32":
        with exclusive(path, f"build of {final}"):
            yield
        return
    lock = _claim(path)
    try:
        lock.write_holder()
        lock.wait_for_stragglers()
        yield
    finally:
        lock.end()


@contextmanager
def worker_lock(final: Path) -> Iterator[None]:
    """Say that a process works on a version, for every other process of a build.

    A build that was killed may leave such processes for a moment; the next one waits for them.
    """
    path = final.with_name(f".{final.name}.lock")
    if sys.platform == "win32" or not path.exists():  # the build is over
        yield
        return
    lock = _Lock(path)
    try:
        lock.take(_WORK, shared=True)
        yield
    finally:
        lock.end()


class _Lock:
    """The open file of a lock; closing it lets go of what it holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as err:
            raise resource_error(path, err) from err

    def take(self, byte: int, *, shared: bool = False) -> bool:
        """Lock a byte, or share it, which waits for its turn; False if another process has it."""
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB
        try:
            fcntl.lockf(self.descriptor, kind, 1, byte)
        except OSError as err:
            if err.errno in (errno.EACCES, errno.EAGAIN):
                return False
            if err.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise resource_error(self.path, err) from err
            logger.warning(
                "%s: this file system has no locks; make sure that no other build of this "
                "version runs", self.path.parent,
            )  # fmt: skip
        return True

    def is_current(self) -> bool:
        """Whether the file still has its name: the build before may have removed it."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self.descriptor), self.path.stat())
        return False

    def write_holder(self) -> None:
        try:
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, _this_holder(), 0)
        except OSError as err:
            raise resource_error(self.path, err) from err

    def wait_for_stragglers(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.take(_WORK):
            if time.monotonic() > deadline:
                raise ConflictError(
                    f"{self.path.parent}: processes of an earlier build of this version are still "
                    "running; stop them and run the same command again"
                )
            time.sleep(0.1)
        fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, _WORK)

    def end(self) -> None:
        """Release the lock; the last to leave removes the file."""
        if self.take(_BUILD) and self.take(_WORK) and self.is_current():
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        os.close(self.descriptor)


def _claim(path: Path) -> _Lock:
    deadline = time.monotonic() + _MOMENT_S
    while True:
        lock = _Lock(path)
        taken = lock.take(_BUILD)
        if taken and lock.is_current():
            return lock
        holder = _read_holder(path)
        lock.close()
        if not taken and time.monotonic() > deadline:
            raise ConflictError(
                f"{path.parent}: another build of this version is running{holder}; wait for it, "
                "or stop it and run the same command again"
            )
        time.sleep(0.01)
