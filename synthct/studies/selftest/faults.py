"""Killing a build, or failing its disk, at any point where it touches the disk.

For processes made to be killed: what is installed here stays installed.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["open", "read", "write", "fsync", "rename", "mkdir", "remove"]

#: Audit events (see the table in Python's documentation) that change a disk, beside "open".
_EVENTS: dict[str, Kind] = {
    "os.rename": "rename",
    "os.mkdir": "mkdir",
    "os.remove": "remove",
    "os.rmdir": "remove",
    "os.truncate": "write",
}

#: What cannot fail for want of space, and on a disk that can only be read.
_NEEDS_NO_SPACE = ("read", "fsync", "remove")
_CHANGES_NOTHING = ("read", "fsync")


@dataclass(frozen=True)
class Strike:
    """What happens to a build.

    Attributes:
        at: Number of the point, from 1.
        how: ``kill`` just before it; ``tear``: kill when half of a write is done; or the number of
            the error that the call fails with.
        lasting: Whether all later calls fail too that such a disk would fail.
    """

    at: int
    how: Literal["kill", "tear"] | int
    lasting: bool = False

    def __str__(self) -> str:
        name = self.how if isinstance(self.how, str) else errno.errorcode[self.how]
        return f"{name}{' from' if self.lasting else ' at'} point {self.at}"


class Faults:
    """Counts the points of this process, and strikes at one of them.

    Args:
        root: The folder whose files matter.
        strike: What happens; None only counts.

    Attributes:
        kinds: What each point was, in order.
    """

    def __init__(self, root: Path, strike: Strike | None) -> None:
        self.kinds: list[Kind] = []
        self._root, self._strike = f"{root}{os.sep}", strike
        self._write, self._pwrite, self._fsync = os.write, os.pwrite, os.fsync

    def install(self) -> None:
        """Watch this process until it ends."""
        sys.addaudithook(self._audit)
        os.write, os.pwrite = self._on_write, self._on_pwrite
        os.fsync = self._on_fsync  # type: ignore[assignment]  # of descriptors only

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not isinstance(path, int) and os.fsdecode(path).startswith(self._root):
                changes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                self._point("open" if changes else "read")
        elif event in _EVENTS:
            self._point(_EVENTS[event])

    def _on_write(self, descriptor: int, data: Any, /) -> int:
        if self._point("write"):
            self._write(descriptor, data[: len(data) // 2])
            _kill()
        return self._write(descriptor, data)

    def _on_pwrite(self, descriptor: int, data: Any, offset: int, /) -> int:
        if self._point("write"):
            self._pwrite(descriptor, data[: len(data) // 2], offset)
            _kill()
        return self._pwrite(descriptor, data, offset)

    def _on_fsync(self, descriptor: int, /) -> None:
        self._point("fsync")
        self._fsync(descriptor)

    def _point(self, kind: Kind) -> bool:
        """Count a point; True if it is a write to be torn."""
        self.kinds.append(kind)
        strike, now = self._strike, len(self.kinds)
        if strike is None or now < strike.at or (now > strike.at and not strike.lasting):
            return False
        if isinstance(strike.how, int):
            if now == strike.at or _also_fails(kind, strike.how):
                raise OSError(strike.how, os.strerror(strike.how))
            return False
        if strike.how == "kill":
            _kill()
        return True


def _also_fails(kind: Kind, error: int) -> bool:
    return kind not in (_NEEDS_NO_SPACE if error == errno.ENOSPC else _CHANGES_NOTHING)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
