"""Small charts as inline SVG, coloured by the style sheet of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 360, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 10, 24

Numbers = npt.NDArray[np.float64]


class Series(NamedTuple):
    """One distribution.

    Attributes:
        name: What it is.
        css: Class that colours it.
        counts: Of each bin.
    """

    name: str
    css: str
    counts: Numbers


def lines(title: str, edges: Numbers, series: Sequence[Series]) -> str:
    """Distributions over each other, each with the same area.

    Args:
        title: What readers that see no picture are told.
        edges: (N + 1,), of the bins.
        series: Distributions of N bins.
    """
    shares = [s.counts / max(s.counts.sum(), 1) for s in series]
    top = max((float(share.max()) for share in shares), default=0) or 1
    parts = []
    for one, share in zip(series, shares, strict=True):
        points = []
        for n, value in enumerate(share):
            y = _y(float(value) / top)
            points += [
                f"{_x(edges[n], edges):.1f},{y:.1f}",
                f"{_x(edges[n + 1], edges):.1f},{y:.1f}",
            ]
        parts.append(f'<polyline class="line {one.css}" points="{" ".join(points)}"/>')
    return _frame(title, edges, parts)


def bars(title: str, edges: Numbers, series: Sequence[Series], limits: Sequence[float] = ()) -> str:
    """Counts on top of each other, and limits as upright lines.

    Args:
        title: What readers that see no picture are told.
        edges: (N + 1,), of the bins.
        series: Counts of N bins, the lowest first.
        limits: Values on the axis.
    """
    total = np.sum([s.counts for s in series], axis=0)
    top = float(total.max()) if len(total) else 0
    below = np.zeros(len(edges) - 1)
    parts = []
    for one in series:
        for n, count in enumerate(one.counts):
            if count:
                left, right = _x(edges[n], edges), _x(edges[n + 1], edges)
                high, low = _y((below[n] + count) / top), _y(below[n] / top)
                parts.append(
                    f'<rect class="bar {one.css}" x="{left:.1f}" y="{high:.1f}" '
                    f'width="{max(right - left - 0.5, 0.5):.1f}" height="{low - high:.1f}"/>'
                )
        below = below + one.counts
    for limit in limits:
        if edges[0] <= limit <= edges[-1]:
            x = _x(limit, edges)
            parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{_y(0):.1f}"/>')
    return _frame(title, edges, parts)


def legend(series: Sequence[Series]) -> str:
    """The names of series beside their colours, as HTML."""
    keys = "".join(f'<li class="{s.css}"><bdi>{escape(s.name)}</bdi></li>' for s in series)
    return f'<ul class="legend">{keys}</ul>'


def _frame(title: str, edges: Numbers, parts: Sequence[str]) -> str:
    ticks = []
    for value in _ticks(float(edges[0]), float(edges[-1])):
        x = _x(value, edges)
        anchor = "start" if x < 30 else "end" if x > WIDTH - 30 else "middle"
        ticks.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_y(0):.1f}" y2="{_y(0) + 4:.1f}"/>'
            f'<text x="{x:.1f}" y="{HEIGHT - 7}" text-anchor="{anchor}">{value:g}</text>'
        )
    base = (
        f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{_y(0):.1f}" y2="{_y(0):.1f}"/>'
    )
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{escape(title)}">'
        f"{''.join(parts)}{base}{''.join(ticks)}</svg>"
    )


def _x(value: float, edges: Numbers) -> float:
    share = (value - edges[0]) / (edges[-1] - edges[0])
    return _LEFT + float(share) * (WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round values between two."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * f for f in (1, 2, 5, 10) if power * f >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(n * step, 12) + 0.0 for n in range(first, last + 1)]
