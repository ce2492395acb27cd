"""What a study asks of a kind of segmenter, whichever network it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from synthct.sources import CaseEntry


class Kept(Protocol):
    """A training scan, as a kind of segmenter keeps it."""

    @property
    def name(self) -> str:
        """Of the case."""

    @property
    def is_real(self) -> bool:
        """Whether nothing in it was painted."""


Scan = TypeVar("Scan", bound=Kept)


class SegmenterKind(Protocol[Scan]):
    """A network with its training; the same scans and seed give the same predictions."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of our modules whose code its predictions depend on."""

    @property
    def facts(self) -> dict[str, Any]:
        """All settings that its predictions depend on, as JSON."""

    def keep(
        self,
        folder: Path,
        name: str,
        hu: npt.NDArray[np.int16],
        classes: npt.NDArray[np.uint8],
        entry: CaseEntry,
        *,
        is_real: bool,
    ) -> Scan:
        """Write a training scan into a folder.

        Args:
            folder: Where its files go.
            name: Of the case, and of the files.
            hu: (I, J, K).
            classes: (I, J, K), 255 where nobody knows.
            entry: The host, on whose grid they are.
            is_real: Whether nothing in it was painted.
        """

    def probabilities(
        self,
        kept: Sequence[Scan],
        seed: int,
        test: Callable[[], Iterator[tuple[CaseEntry, npt.NDArray[np.int16]]]],
        folder: Path,
        on_step: Callable[[], object],
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Train, and predict the probability of each class (C, I, J, K) in each test scan.

        Args:
            kept: The training scans.
            seed: Of the training.
            test: Gives the test scans, HU (I, J, K).
            folder: Of the study; what is made in it may be removed afterwards.
            on_step: Called after each step of the training.
        """
