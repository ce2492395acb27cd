"""One build of a version at a time, on one machine or several with a shared folder.

The kernel holds a lock for as long as the process lives, so a killed build leaves none behind; the
lock's file may stay and means nothing by itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from synthct.errors import ConflictError
from synthct.storage.files import resource_error

logger = logging.getLogger(__name__)

#: How long a new build waits for processes that a killed one has left, which end by themselves.
PATIENCE_S = 90.0

#: For so long a process that leaves may hold the lock, to see whether it is the last.
_MOMENT_S = 0.5

#: Bytes of the file that stand for "a build goes on" and for "its processes are at work".
_BUILD, _WORK = 0, 1


@contextmanager
def version_lock(final: Path) -> Iterator[None]:
    """Keep other builds away from a version; for the first or only process of a build.

    Args:
        final: The version's folder; its parent exists.

    Raises:
        ConflictError: If another build holds it; names its process, machine and start.
        ResourceError: If the folder cannot be written.
    """
    lock = _claim(final.with_name(f".{final.name}.lock"))
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
    if not path.exists():  # the build is over
        yield
        return
    lock = _Lock(path)
    try:
        lock.take(_WORK, fcntl.LOCK_SH)
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

    def take(self, byte: int, kind: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> bool:
        """Lock a byte; False if somebody else has it."""
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
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": started}
        try:
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, json.dumps(holder).encode(), 0)
        except OSError as err:
            raise resource_error(self.path, err) from err

    def holder(self) -> str:
        """Who holds the lock, as far as its file says."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            holder = json.loads(os.pread(self.descriptor, 4096, 0))
            return f" (process {holder['pid']} on {holder['host']}, since {holder['since']})"
        return ""

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
        """Let go; whoever leaves last removes the file."""
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
        holder = lock.holder()
        lock.close()
        if not taken and time.monotonic() > deadline:
            raise ConflictError(
                f"{path.parent}: another build of this version is running{holder}; wait for it, "
                "or stop it and run the same command again"
            )
        time.sleep(0.01)
