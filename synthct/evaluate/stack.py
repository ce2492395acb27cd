"""Jumps between neighbouring painted slices of one lesion."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.dataset.sample import Sample
from synthct.evaluate.pictures import Hu
from synthct.evaluate.stream import painted_slice
from synthct.metrics.slices import z_jump_ratio

Slice = tuple[Hu, Hu, npt.NDArray[np.bool_]]


class SliceJumps:
    """Measures the jump between neighbouring slices of each variant of a lesion.

    Attributes:
        ratios: Label and z-jump ratio of each pair of slices for which it is defined.
    """

    def __init__(self) -> None:
        self.ratios: list[tuple[str, float]] = []
        self._lesion: Any = None
        self._last: dict[tuple[int | None, int], Slice] = {}

    def add(self, sample: Sample, original: Hu) -> None:
        """Add the next row; the slices of a lesion must be consecutive."""
        facts = sample.facts
        if facts.lesion_id != self._lesion:
            self._lesion = facts.lesion_id
            self._last.clear()
        this = original, sample.pictures["image"], sample.pictures["mask"]
        for step in (-1, 1):
            before = self._last.get((facts.variant, facts.slice_index + step))
            if before is None:
                continue
            stacks = [np.stack(pair) for pair in zip(before, this, strict=True)]
            range_hu = painted_slice(sample).window.range_hu
            jump = z_jump_ratio(stacks[0], stacks[1], stacks[2].astype(bool), 0, range_hu)
            if not math.isnan(jump):
                self.ratios.append((facts.label or "whatever fits", jump))
        self._last[facts.variant, facts.slice_index] = this
