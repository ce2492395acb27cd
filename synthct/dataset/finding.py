"""Something in a dataset that is not as it should be, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A fault of a dataset.

    Attributes:
        path: The file, relative to the dataset's folder, with forward slashes.
        what: What is wrong with it.
        rows: Rows of the file that are touched, from 0; empty where it is none or all of them.
    """

    path: str
    what: str
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = f" {spelt(self.rows)}" if self.rows else ""
        return f"{self.path}{where}: {self.what}"


def spelt(rows: Sequence[int]) -> str:
    """Rows as people write them: ``row 3``, ``rows 0-63``, ``rows 1, 4``."""
    first, last = rows[0], rows[-1]
    if len(rows) == 1:
        return f"row {first}"
    if tuple(rows) == tuple(range(first, last + 1)):
        return f"rows {first}-{last}"
    return f"rows {', '.join(map(str, rows))}"
