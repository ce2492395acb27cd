"""The report as one HTML page: everything in it, nothing fetched, every name inert."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from synthct.dataset.markdown import figure
from synthct.dataset.tiles import windowed
from synthct.evaluate.results import Evaluation
from synthct.evaluate.tables import Grid, compared, groups_grid, sections
from synthct.metrics import MEASURES
from synthct.publish.report import viewer
from synthct.publish.report.charts import svg
from synthct.publish.report.gather import ANYTHING, JUDGED, Gathered, badness
from synthct.publish.report.html import asset, hashed, pictured, text
from synthct.publish.report.panels import Panel, measure_panels, tissue_panels
from synthct.publish.report.pictures import (
    DIFFERENCE_HU,
    WINDOWS,
    Piece,
    difference,
    masked,
    outlined,
)

_WINDOW_NAMES = {"soft": "soft tissue", "lung": "lung", "bone": "bone"}

#: Of a sample, told beneath its picture.
_CAPTION = ("seam_ratio", "texture_ratio", "hu_wasserstein", "mask_adherence")


def render(found: Gathered, evaluation: Evaluation | None) -> str:
    """The page.

    Args:
        found: What is shown of the dataset.
        evaluation: Its results, if it was evaluated.
    """
    release = found.dataset.manifest.release
    style, script = asset("page.css"), asset("page.js")
    run = [script, *(viewer.scripts() if found.lesions else ())]
    title = f"{release.name} {release.version}"
    policy = (
        f"default-src 'none'; img-src data:; style-src {hashed(style)}; "
        f"script-src {' '.join(map(hashed, run))}; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "samples": ("Samples", _samples(found)),
        "volumes": ("In 3D", viewer.section(found.lesions)),
        "tissues": ("HU, real against synthetic", _tissues(found)),
        "measures": ("Measures of each sample", _measures(found)),
        "whole": ("The dataset as a whole", _evaluation(evaluation)),
    }
    there = {key: part for key, part in parts.items() if part[1]}
    links = "".join(f'<a href="#{key}">{name}</a>' for key, (name, _) in there.items())
    body = "\n".join(
        [
            f"<h1>{text(title)}</h1>",
            f"<p>{len(found.rows):,} painted samples of {found.masks:,} masks, "
            f"{text(_rejected(found))}; content {text(release.content_id[:12])}</p>",
            f"<nav>{links}</nav>",
            *(
                f'<section id="{key}"><h2>{name}</h2>\n{content}</section>'
                for key, (name, content) in there.items()
            ),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n{body}\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _rejected(found: Gathered) -> str:
    lost = len(found.rejected)
    if not lost:
        return "none rejected"
    total = lost + len(found.rows)
    return f"{lost:,} of {total:,} rejected ({100 * lost / total:.1f} %)"


def _measures(found: Gathered) -> str:
    reasons: dict[str, int] = {}
    for one in found.rejected:
        reasons[one.reason] = reasons.get(one.reason, 0) + 1
    why = "".join(f"<li>{text(reason)}: {count:,}</li>" for reason, count in reasons.items())
    return (
        "<p>Dashed: limits of the recipe. The outer 0.5 % at either end are in the outer bars.</p>"
        + (f'<ul class="notes">{why}</ul>' if why else "")
        + f'<div class="charts">{"".join(map(_panel, measure_panels(found)))}</div>'
    )


def _tissues(found: Gathered) -> str:
    return (
        f"<p>Of {found.counted:,} of {len(found.rows):,} samples; each curve has the same area.</p>"
        f'<div class="charts">{"".join(map(_panel, tissue_panels(found)))}</div>'
    )


def _panel(panel: Panel) -> str:
    keys = "".join(f'<li class="{s.css}"><bdi>{escape(s.name)}</bdi></li>' for s in panel.series)
    note = f"<p>{text(panel.note)}</p>" if panel.note else ""
    return (
        f'<section class="chart"><h3>{text(panel.name)}</h3>{svg(panel.chart)}'
        f'<ul class="legend">{keys}</ul>{note}</section>'
    )


def _evaluation(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "<p>Not evaluated: run 'synthct evaluate', then 'synthct report' again.</p>"
    parts = [f"<p>{text(compared(evaluation))}</p>"]
    parts.append(_table(groups_grid(evaluation)))
    for section in sections(evaluation):
        parts.append(f"<h3>{text(section.title)}</h3>")
        for grid in section.grids:
            if any(any(row[1:]) for row in grid.rows):
                parts.append(f"<p>{text(grid.title)}</p>{_table(grid, _floors(evaluation))}")
    spreads = [
        (s.group, s.arm, s.measure, f"{s.count:,}", *(figure(q) for q in s.quantiles))
        for s in evaluation.measures
    ]
    if spreads:
        head = ("label", "arm", "measure", "n", "5 %", "25 %", "50 %", "75 %", "95 %")
        table = _table(Grid("", head, tuple(spreads)))
        parts.append(f"<details><summary>Measures by arm and label</summary>{table}</details>")
    parts += [f'<p class="notes">{text(note)}</p>' for note in evaluation.notes]
    return "\n".join(parts)


def _floors(evaluation: Evaluation) -> set[str]:
    return {arm.name for arm in evaluation.arms if arm.kind == "floor"}


def _table(grid: Grid, marked: set[str] | None = None) -> str:
    """A table; the columns that are marked are a floor."""
    css = [' class="floor"' if name in (marked or ()) else "" for name in grid.head]
    head = "".join(f"<th{c}>{text(n)}</th>" for c, n in zip(css, grid.head, strict=True))
    rows = [
        "".join(f"<td{c}>{text(cell)}</td>" for c, cell in zip(css, row, strict=True))
        for row in grid.rows
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _samples(found: Gathered) -> str:
    measured = [
        name
        for name in JUDGED
        if any(badness(p.columns, name) is not None for ps in found.pieces for p in ps)
    ]
    options = "".join(
        f'<option value="{escape(name)}">worst {escape(name)} first</option>' for name in measured
    )
    windows = "".join(
        f'<label><input type="radio" name="window" id="w-{key}"{" checked" * (key == "soft")}> '
        f"{_WINDOW_NAMES[key]}</label>"
        for key in WINDOWS
    )
    shown = len(found.pieces)
    said = f"{shown:,} of {found.masks:,} masks"
    if shown < found.masks:
        said += ": some from all of the dataset, and the worst by each measure"
    return (
        f"<p>{said}. In maps of differences red is brighter, blue darker, full "
        f'colour {DIFFERENCE_HU} HU.</p>\n<div class="controls"><span>{windows}</span>'
        f'<label>order <select id="order"><option value="">as in the dataset</option>{options}'
        f'</select></label></div>\n<div class="masks" id="masks">'
        f"{''.join(map(_mask, found.pieces))}</div>"
    )


def _mask(pieces: Sequence[Piece]) -> str:
    first = pieces[0]
    bad: dict[str, float] = {}
    for piece in pieces:
        for name in JUDGED:
            value = badness(piece.columns, name)
            if value is not None:
                bad[name] = max(value, bad.get(name, value))
    inputs = {k: masked(first, w) for k, w in WINDOWS.items()}
    figures = [pictured("masked input", inputs, first.size_mm)]
    for number, piece in enumerate(pieces):
        base = first.painted if piece.original is None else piece.original
        name = f"painted {number + 1}" if len(pieces) > 1 else "painted"
        pictures = {k: outlined(piece.painted, piece.mask, w) for k, w in WINDOWS.items()}
        figures.append(pictured(name, pictures, piece.size_mm, _caption(piece)))
        if piece.original is not None or number > 0:
            to = "to the original" if piece.original is not None else "to painted 1"
            change = difference(piece.painted, base)
            figures.append(pictured(f"{name}, difference {to}", {"": change}, piece.size_mm))
    if first.original is not None:
        original = {k: windowed(first.original, w) for k, w in WINDOWS.items()}
        figures.append(pictured("original", original, first.size_mm))
    label = str(first.columns.get("label") or ANYTHING)
    return (
        f'<article class="mask" data-bad="{escape(json.dumps(bad))}">'
        f"<h3>{text(str(first.columns['mask_id']))}: {text(label)}</h3>"
        f'<div class="row">{"".join(figures)}</div>{"".join(map(_provenance, pieces))}</article>'
    )


def _caption(piece: Piece) -> str:
    told = [
        f"{name} {figure(float(value))}"
        for name in _CAPTION
        if (value := piece.columns.get(name)) is not None
    ]
    return "<br>".join(map(escape, told))


def _provenance(piece: Piece) -> str:
    measures = {n: piece.columns[n] for n in MEASURES if piece.columns.get(n) is not None}
    told = json.dumps(
        {"measures": measures, "provenance": piece.provenance}, indent=1, ensure_ascii=False
    )
    return (
        f"<details><summary>{text(str(piece.columns['sample_id']))}</summary>"
        f"<pre>{escape(told)}</pre></details>"
    )
