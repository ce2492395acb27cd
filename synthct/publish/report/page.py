"""The report as one HTML page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from synthct.build.grades import grades_in_words
from synthct.dataset.markdown import figure
from synthct.dataset.tiles import windowed
from synthct.evaluate.results import Evaluation
from synthct.evaluate.tables import Grid, compared, groups_grid, sections
from synthct.metrics.table import MEASURES
from synthct.publish.pages.template import asset, fill_template, policy_of
from synthct.publish.report import viewer
from synthct.publish.report.charts import svg
from synthct.publish.report.html import pictured
from synthct.publish.report.panels import measure_panels, tissue_panels
from synthct.publish.report.pictures import (
    DIFFERENCE_HU,
    WINDOWS,
    MaskCrop,
    difference,
    masked,
)
from synthct.publish.report.report_data import (
    ANYTHING,
    RANKED_MEASURES,
    ReportData,
    badness,
    grade_of,
)

_WINDOW_NAMES = {"soft": "soft tissue", "lung": "lung", "bone": "bone"}

#: Measures in the caption of a sample's picture.
_CAPTION = ("seam_ratio", "texture_ratio", "hu_wasserstein", "mask_adherence")


def render(data: ReportData, evaluation: Evaluation | None) -> str:
    """The page as HTML; ``evaluation`` is None if the dataset was not evaluated."""
    release = data.dataset.manifest.release
    style, script = asset("page.css", viewer.HERE), asset("page.js", viewer.HERE)
    policy = policy_of(style, script, *(viewer.scripts() if data.lesions else ()))
    orders = [
        name
        for name in RANKED_MEASURES
        if any(badness(p.columns, name) is not None for ps in data.crops for p in ps)
    ]
    return fill_template(
        {
            "title": f"{release.name} {release.version}",
            "content": release.content_id[:12],
            "style": style,
            "script": script,
            "policy": policy,
            "data": data,
            "rejected": _rejected(data),
            "reasons": Counter(one.reason for one in data.rejected),
            "windows": _WINDOW_NAMES,
            "difference_hu": DIFFERENCE_HU,
            "orders": orders,
            "has_originals": any(crop.original is not None for ps in data.crops for crop in ps),
            "masks": [_mask(crops, data) for crops in data.crops],
            "viewer": viewer.section(data.lesions),
            "measure_panels": measure_panels,
            "tissue_panels": tissue_panels,
            "svg": svg,
            "evaluation": None if evaluation is None else _results(evaluation),
        },
        viewer.HERE,
    )


def _rejected(data: ReportData) -> str:
    lost = len(data.rejected)
    grades = grades_in_words(g for row in data.rows if (g := grade_of(data, row)) is not None)
    graded = f"; {grades}" if grades else ""
    if not lost:
        return f"none rejected{graded}"
    total = lost + len(data.rows)
    return f"{lost:,} of {total:,} rejected ({100 * lost / total:.1f} %){graded}"


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


def _mask(crops: Sequence[MaskCrop], data: ReportData) -> dict[str, Any]:
    first = crops[0]
    bad: dict[str, float] = {}
    for crop in crops:
        for name in RANKED_MEASURES:
            value = badness(crop.columns, name)
            if value is not None:
                bad[name] = max(value, bad.get(name, value))
    inputs = {k: masked(first, w) for k, w in WINDOWS.items()}
    figures = [pictured("masked input", inputs, first.size_mm)]
    for number, crop in enumerate(crops):
        base = first.painted if crop.original is None else crop.original
        name = f"painted {number + 1}" if len(crops) > 1 else "painted"
        pictures = {k: windowed(crop.painted, w) for k, w in WINDOWS.items()}
        figures.append(pictured(name, pictures, crop.size_mm, _caption(crop, data), mask=crop.mask))
        if crop.original is not None or number > 0:
            to = "to the original" if crop.original is not None else "to painted 1"
            change = difference(crop.painted, base)
            figures.append(pictured(f"{name}, difference {to}", {"": change}, crop.size_mm))
    if first.original is not None:
        original = {k: windowed(first.original, w) for k, w in WINDOWS.items()}
        figures.append(pictured("original", original, first.size_mm))
    return {
        "badness": json.dumps(bad),
        "mask_id": first.columns["mask_id"],
        "label": first.columns.get("label") or ANYTHING,
        "pictures": figures,
        "details": {str(crop.columns["sample_id"]): _details(crop) for crop in crops},
    }


def _caption(crop: MaskCrop, data: ReportData) -> list[str]:
    grade = grade_of(data, crop.columns)
    return [
        *([grade] if grade else []),
        *(
            f"{name} {figure(float(value))}"
            for name in _CAPTION
            if (value := crop.columns.get(name)) is not None
        ),
    ]


def _details(crop: MaskCrop) -> str:
    """Measures and provenance as indented JSON."""
    measures = {n: crop.columns[n] for n in MEASURES if crop.columns.get(n) is not None}
    return json.dumps(
        {"measures": measures, "provenance": crop.provenance}, indent=1, ensure_ascii=False
    )
