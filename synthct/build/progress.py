"""The progress of a build: one bar over all of its processes, and what each is working on.

The code that makes samples uses it like a bar of tqdm: it sets ``total`` and calls ``update``.
"""

from __future__ import annotations

from types import TracebackType

from synthct.processes.group import Group


class Progress:
    """A progress bar, in samples, that the first process shows for all.

    Args:
        group: The processes.
        total: Samples of the whole build.
        kept: Samples that an earlier run has finished.
        shown: Whether to show a bar, on a terminal.
    """

    def __init__(self, group: Group, total: int, kept: int, *, shown: bool) -> None:
        from tqdm import tqdm

        self._group, self._planned, self._kept = group, total, kept
        self._total = total
        # None leaves it to tqdm: a bar on a terminal, nothing in a file.
        hidden = None if shown and group.is_first else True
        self._bar = tqdm(total=total, initial=kept, unit="sample", disable=hidden)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    @property
    def is_shown(self) -> bool:
        """Whether there is a bar; logs of what it tells are then of no use."""
        return not self._bar.disable

    def at(self, place: str) -> None:
        """Record what this process is working on; named in the error if it dies there."""
        self._group.at(place)

    @property
    def total(self) -> int:
        """Samples of the whole build, as far as this process knows; mended as masks are drawn."""
        return self._total

    @total.setter
    def total(self, total: int) -> None:
        self._group.count("unplanned", total - self._total)
        self._total = total

    def update(self, samples: int = 1) -> None:
        """Count samples that this process has finished."""
        self._group.count("samples", samples)
        self.show()

    def show(self) -> None:
        """Move the bar to where all processes are together."""
        if self.is_shown:
            self._bar.total = self._planned + self._group.count("unplanned", 0)
            self._bar.update(self._kept + self._group.count("samples", 0) - self._bar.n)
