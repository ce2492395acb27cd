"""The report as one HTML page: everything in it, nothing fetched, every name inert."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from synthct.dataset.markdown import figure
from synthct.dataset.tiles import windowed
from synthct.evaluate.results import Evaluation
from synthct.evaluate.tables import Grid, compared, groups_grid, sections
from synthct.metrics.table import MEASURES
from synthct.publish.report import viewer
from synthct.publish.report.charts import svg
from synthct.publish.report.gather import ANYTHING, JUDGED, Gathered, badness
from synthct.publish.report.html import asset, fill_template, hashed, pictured
from synthct.publish.report.panels import measure_panels, tissue_panels
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
    policy = (
        f"default-src 'none'; img-src data:; style-src {hashed(style)}; "
        f"script-src {' '.join(map(hashed, run))}; base-uri 'none'; form-action 'none'"
    )
    orders = [
        name
        for name in JUDGED
        if any(badness(p.columns, name) is not None for ps in found.pieces for p in ps)
    ]
    return fill_template(
        {
            "title": f"{release.name} {release.version}",
            "content": release.content_id[:12],
            "style": style,
            "script": script,
            "policy": policy,
            "found": found,
            "rejected": _rejected(found),
            "reasons": Counter(one.reason for one in found.rejected),
            "windows": _WINDOW_NAMES,
            "difference_hu": DIFFERENCE_HU,
            "orders": orders,
            "masks": [_mask(pieces) for pieces in found.pieces],
            "viewer": viewer.section(found.lesions),
            "measure_panels": measure_panels,
            "tissue_panels": tissue_panels,
            "svg": svg,
            "evaluation": None if evaluation is None else _results(evaluation),
        }
    )


def _rejected(found: Gathered) -> str:
    lost = len(found.rejected)
    if not lost:
        return "none rejected"
    total = lost + len(found.rows)
    return f"{lost:,} of {total:,} rejected ({100 * lost / total:.1f} %)"


def _results(evaluation: Evaluation) -> dict[str, Any]:
    head = ("label", "arm", "measure", "n", "5 %", "25 %", "50 %", "75 %", "95 %")
    spreads = tuple(
        (s.group, s.arm, s.measure, f"{s.count:,}", *(figure(q) for q in s.quantiles))
        for s in evaluation.measures
    )
    return {
        "compared": compared(evaluation),
        "groups": groups_grid(evaluation),
        "sections": [
            (section.title, [grid for grid in section.grids if any(any(r[1:]) for r in grid.rows)])
            for section in sections(evaluation)
        ],
        "floors": {arm.name for arm in evaluation.arms if arm.kind == "floor"},
        "spreads": Grid("", head, spreads),
        "notes": evaluation.notes,
    }


def _mask(pieces: Sequence[Piece]) -> dict[str, Any]:
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
    return {
        "badness": json.dumps(bad),
        "mask_id": first.columns["mask_id"],
        "label": first.columns.get("label") or ANYTHING,
        "pictures": figures,
        "details": {str(piece.columns["sample_id"]): _details(piece) for piece in pieces},
    }


def _caption(piece: Piece) -> list[str]:
    return [
        f"{name} {figure(float(value))}"
        for name in _CAPTION
        if (value := piece.columns.get(name)) is not None
    ]


def _details(piece: Piece) -> str:
    """Measures and provenance as indented JSON."""
    measures = {n: piece.columns[n] for n in MEASURES if piece.columns.get(n) is not None}
    return json.dumps(
        {"measures": measures, "provenance": piece.provenance}, indent=1, ensure_ascii=False
    )
