"""Small charts, as inline SVG coloured by the page and as raster pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from synthct.dataset.tiles import FONT, TEXT, Colour, Rgb

WIDTH, HEIGHT = 360, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 10, 24

Numbers = npt.NDArray[np.float64]
Point = tuple[float, float]

#: Colours of a rasterised chart by CSS class, as in page.css.
COLOURS: dict[str, Colour] = {
    "painted": (251, 146, 60),
    "before": (148, 163, 184),
    "real": (56, 189, 248),
    "accepted": (56, 189, 248),
    "rejected": (251, 146, 60),
    "limit": (248, 113, 113),
    "axis": (145, 152, 161),
}

#: Length of a dash and of the gap after it.
_DASH, _GAP = 4, 3


class Series(NamedTuple):
    """One distribution, as counts per bin, with the CSS class of its colour."""

    name: str
    css: str
    counts: Numbers


class Mark(NamedTuple):
    """A shape on a chart.

    Attributes:
        kind: A line through all points, a bar between two corners, or a dashed line.
        css: CSS class of its colour.
        points: Positions on the chart.
    """

    kind: Literal["line", "bar", "dashes"]
    css: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Chart:
    """A chart of ``WIDTH`` by ``HEIGHT``.

    Attributes:
        title: Read aloud by screen readers.
        marks: Shapes from bottom to top, without the axis.
        ticks: Position along the axis and number.
    """

    title: str
    marks: tuple[Mark, ...]
    ticks: tuple[tuple[float, str], ...]


def lines(title: str, edges: Numbers, series: Sequence[Series]) -> Chart:
    """Overlaid distributions, each with the same area.

    Args:
        title: Read aloud by screen readers.
        edges: (N + 1,), of the bins.
        series: Distributions of N bins.
    """
    shares = [s.counts / max(s.counts.sum(), 1) for s in series]
    top = max((float(share.max()) for share in shares), default=0) or 1
    marks = []
    for one, share in zip(series, shares, strict=True):
        points = []
        for n, value in enumerate(share):
            y = _y(float(value) / top)
            points += [(_x(edges[n], edges), y), (_x(edges[n + 1], edges), y)]
        marks.append(Mark("line", one.css, tuple(points)))
    return _chart(title, edges, marks)


def bars(
    title: str, edges: Numbers, series: Sequence[Series], limits: Sequence[float] = ()
) -> Chart:
    """Stacked counts, with limits as vertical lines.

    Args:
        title: Read aloud by screen readers.
        edges: (N + 1,), of the bins.
        series: Counts of N bins, from bottom to top.
        limits: Values on the axis.
    """
    total = np.sum([s.counts for s in series], axis=0)
    top = float(total.max()) if len(total) else 0
    below = np.zeros(len(edges) - 1)
    marks = []
    for one in series:
        for n, count in enumerate(one.counts):
            if count:
                left, right = _x(edges[n], edges), _x(edges[n + 1], edges)
                high, low = _y((below[n] + count) / top), _y(below[n] / top)
                corner = max(right - 0.5, left + 0.5), low
                marks.append(Mark("bar", one.css, ((left, high), corner)))
        below = below + one.counts
    for limit in limits:
        if edges[0] <= limit <= edges[-1]:
            x = _x(limit, edges)
            marks.append(Mark("dashes", "limit", ((x, 2), (x, _y(0)))))
    return _chart(title, edges, marks)


def svg(chart: Chart) -> str:
    """A chart as an SVG element."""
    text = "".join(
        f'<text x="{x:.1f}" y="{HEIGHT - 7}" text-anchor="{_anchor(x)}">{number}</text>'
        for x, number in chart.ticks
    )
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{escape(chart.title)}">'
        f"{''.join(map(_element, [*chart.marks, *_axis(chart)]))}{text}</svg>"
    )


def rasterise(chart: Chart) -> Rgb:
    """A chart as a picture (HEIGHT, WIDTH, 3), on black."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(image)
    for mark in [*chart.marks, *_axis(chart)]:
        colour = COLOURS[mark.css]
        if mark.kind == "bar":
            draw.rectangle(mark.points, fill=colour)
        elif mark.kind == "line":
            draw.line(mark.points, fill=colour, width=1)
        else:
            (x, top), (_, bottom) = mark.points
            for y in np.arange(top, bottom, _DASH + _GAP):
                draw.line([(x, y), (x, min(y + _DASH, bottom))], fill=colour)
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}
    for x, number in chart.ticks:
        place, anchor = (x, HEIGHT - 7), anchors[_anchor(x)]
        draw.text(place, number, fill=TEXT, font_size=FONT, anchor=anchor)
    return np.asarray(image)


def _element(mark: Mark) -> str:
    if mark.kind == "bar":
        (left, top), (right, bottom) = mark.points
        return (
            f'<rect class="bar {mark.css}" x="{left:.1f}" y="{top:.1f}" '
            f'width="{right - left:.1f}" height="{bottom - top:.1f}"/>'
        )
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
    return f'<polyline class="{mark.kind} {mark.css}" points="{points}"/>'


def _chart(title: str, edges: Numbers, marks: Sequence[Mark]) -> Chart:
    values = _ticks(float(edges[0]), float(edges[-1]))
    ticks = tuple((_x(value, edges), f"{value:g}") for value in values)
    return Chart(title, tuple(marks), ticks)


def _axis(chart: Chart) -> Iterator[Mark]:
    base = _y(0)
    yield Mark("line", "axis", ((_LEFT, base), (WIDTH - _RIGHT, base)))
    for x, _ in chart.ticks:
        yield Mark("line", "axis", ((x, base), (x, base + 4)))


def _anchor(x: float) -> str:
    """Alignment of a number at its tick, so that it stays within the chart."""
    return "start" if x < 30 else "end" if x > WIDTH - 30 else "middle"


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
