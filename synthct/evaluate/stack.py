"""Neighbouring slices of one painted lesion, brought together again to see whether they fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.dataset.sample import Sample
from synthct.evaluate.pictures import Hu
from synthct.evaluate.stream import crop_of
from synthct.metrics.slices import z_jump_ratio

Slice = tuple[Hu, Hu, npt.NDArray[np.bool_]]


class Stacks:
    """Remembers the last slice of each variant of a lesion, and measures the step to the next.

    Attributes:
        jumps: The label and the z-jump ratio of each pair of slices that could be measured.
    """

    def __init__(self) -> None:
        self.jumps: list[tuple[str, float]] = []
        self._lesion: Any = None
        self._last: dict[tuple[int | None, int], Slice] = {}

    def add(self, sample: Sample, original: Hu) -> None:
        """Take the next row; the slices of a lesion come one after the other."""
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
            range_hu = crop_of(sample).window.range_hu
            jump = z_jump_ratio(stacks[0], stacks[1], stacks[2].astype(bool), 0, range_hu)
            if not math.isnan(jump):
                self.jumps.append((facts.label or "whatever fits", jump))
        self._last[facts.variant, facts.slice_index] = this
