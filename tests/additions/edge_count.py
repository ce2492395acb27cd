"""A measure as somebody would add it."""

from __future__ import annotations

import numpy as np

from synthct.metrics.measure import Measure, Painting


def _edge_count(painting: Painting) -> float:
    return float((np.abs(np.diff(painting.image, axis=0)) > 100).sum())


EDGE_COUNT = Measure(
    "edge_count", "steps of more than 100 HU inside", unit="pixels", worse="higher", of=_edge_count
)
