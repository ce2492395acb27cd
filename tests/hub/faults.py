"""What can go wrong with a request to a Hub."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

#: What may pass. A status is answered in place of an answer. ``reset`` closes the connection before
#: the request is looked at, ``lost`` when it has been done; ``hang`` does not answer for long;
#: ``cut`` answers half, ``garbage`` something else.
PASSING = ("500", "reset", "409", "lost", "429", "cut", "412", "garbage", "502", "hang")
FINAL = ("401", "403")


@dataclass(frozen=True)
class Fault:
    """What happens at a request.

    Attributes:
        at: Number of the request, from 1.
        kind: One of ``PASSING`` or ``FINAL``. ``pause`` calls before the request is looked at;
            ``kill`` too, and then forgets the request; ``kill after`` calls when it has been done.
        lasting: Whether it happens to all later requests too.
        call: What is called.
    """

    at: int
    kind: str
    lasting: bool = False
    call: Callable[[], None] = lambda: None


@dataclass
class Faults:
    """Counts requests, and says which of them go wrong.

    Attributes:
        fault: What happens; None only counts.
        seen: Method and path of each request since it was armed.
    """

    fault: Fault | None = None
    seen: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, fault: Fault | None = None) -> None:
        """Count from here."""
        with self._lock:
            self.fault, self.seen = fault, []

    def next(self, request: str) -> Fault | None:
        """What happens to this request, if anything."""
        with self._lock:
            self.seen.append(request)
            now, fault = len(self.seen), self.fault
        if fault is None or now < fault.at or (now > fault.at and not fault.lasting):
            return None
        return fault
