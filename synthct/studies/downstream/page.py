"""The results of a study as one page: tables, and a chart of the FROC curves."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, StrictUndefined

from synthct.studies.downstream.tables import ARM_NAMES, Results, grids, summary

_COLOURS = ("#444444", "#1f6fb4", "#d1741b", "#7a9a3a", "#8a5aa8", "#b03a48", "#3a9a9a", "#999900")
#: Of the chart, in pixels.
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 460, 300, 46, 40, 10
#: The axis ends here; more false positives per scan help nobody.
_MOST = 8.0

_TEMPLATE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ name }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
td, th { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #ddd }
tr.worse td:last-child { color: #b03a48 } tr.better td:last-child { color: #2a7a3a }
svg text { font: 12px system-ui, sans-serif }
</style>
<h1>{{ name }}</h1>
<p>{{ summary }}</p>
{% for grid in grids %}
<h2>{{ grid.title }}</h2>
<table><tr>{% for cell in grid.head %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in grid.rows %}<tr class="{{ row[-1] }}">
{%- for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% if loop.first %}
<h2>FROC</h2>
<svg viewBox="0 0 {{ width + 260 }} {{ height }}" width="{{ width + 260 }}" role="img"
 aria-label="FROC curves">
{% for x, text in below %}<text x="{{ x }}" y="{{ height - 24 }}" text-anchor="middle">{{ text }}
</text>{% endfor %}
{% for y, text in beside %}<text x="{{ left - 6 }}" y="{{ y + 4 }}" text-anchor="end">{{ text }}
</text><path d="M{{ left }},{{ y }}H{{ width - 10 }}" stroke="#ddd"/>{% endfor %}
{% for line in lines %}<polyline points="{{ line.points }}" fill="none" stroke="{{ line.colour }}"
 stroke-width="2"/><text x="{{ width + 8 }}" y="{{ line.y }}" fill="{{ line.colour }}">
{{- line.name }}</text>
{% endfor %}
<text x="{{ width / 2 }}" y="{{ height - 6 }}" text-anchor="middle">false positives per scan</text>
<text transform="translate(12 {{ height / 2 }}) rotate(-90)" text-anchor="middle">lesions found
</text></svg>
{% endif %}
{% endfor %}
</html>
"""


def page(results: Results) -> str:
    """The page, which needs no other file."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(_TEMPLATE).render(
        name=results["study"],
        summary=summary(results),
        grids=list(grids(results)),
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        below=[(_at(2.0 * n, 0)[0], 2 * n) for n in range(5)],
        beside=[(_at(0, n / 4)[1], n / 4) for n in range(5)],
        lines=[_line(number, row) for number, row in enumerate(results["arms"])],
    )


def _line(number: int, row: Results) -> dict[str, Any]:
    """The curve of an arm, and its line in the legend."""
    amount = f", {row['amount']:g} per real" if row["amount"] else ""
    curve = sorted(pair for pair in row["curve"] if pair[0] <= _MOST)
    return {
        "points": " ".join(f"{x},{y}" for x, y in (_at(*pair) for pair in curve)),
        "colour": _COLOURS[number % len(_COLOURS)],
        "y": 24 + 18 * number,
        "name": f"{ARM_NAMES[row['arm']]}{amount}, share {row['share']:g}",
    }


def _at(alarms: float, found: float) -> tuple[float, float]:
    """Where in the chart a point lies."""
    across, up = _WIDTH - _LEFT - 10, _HEIGHT - _BOTTOM - _TOP
    return round(_LEFT + across * alarms / _MOST, 1), round(_TOP + up * (1 - found), 1)
