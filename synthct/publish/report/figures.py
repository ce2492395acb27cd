"""Further files of a report: PNG pictures, and a Markdown text for a web page of the user's.

A version's card is written before its evaluation and never changes; these files are separate and
contain the content id.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image

from synthct.dataset.markdown import code
from synthct.dataset.tiles import TEXT, Rgb, captioned, contact_sheet, windowed
from synthct.evaluate.results import Evaluation
from synthct.evaluate.tables import results_markdown
from synthct.publish.report.charts import COLOURS, rasterise
from synthct.publish.report.panels import Panel, measure_panels, tissue_panels
from synthct.publish.report.pictures import MaskCrop, masked, outlined
from synthct.publish.report.report_data import ANYTHING, ReportData
from synthct.volume.intensity import window_for

#: Rows of the samples' picture, the side of its tiles in pixels, and charts per row.
_SHEET_ROWS, _TILE, _CHARTS = 8, 200, 3

#: Characters of a line below a chart.
_LINE = 56


def samples_sheet(data: ReportData) -> bytes | None:
    """Masked input, paintings and original of some masks as PNG; None without samples."""
    number = len(data.crops)
    rows = min(_SHEET_ROWS, number)
    chosen = [data.crops[n * number // rows] for n in range(rows)]
    return contact_sheet([_strip(crops) for crops in chosen], columns=1)


def charts_sheet(data: ReportData) -> bytes | None:
    """HU of real and synthetic tissue, and the measures, as PNG; None without charts."""
    panels = [*tissue_panels(data), *measure_panels(data)]
    return contact_sheet([_captioned(panel) for panel in panels], columns=_CHARTS)


def card_text(data: ReportData, evaluation: Evaluation | None, pictures: Sequence[str]) -> str:
    """The results (if there are any) and pictures as Markdown."""
    release = data.dataset.manifest.release
    head = (
        f"# {code(release.name)} {code(release.version)}\n\nContent {code(release.content_id)}.\n"
    )
    text = head if evaluation is None else results_markdown(evaluation)
    return "\n".join([text, *(f"![{name.partition('.')[0]}]({name})\n" for name in pictures)])


def _captioned(panel: Panel) -> Rgb:
    keys = [[(series.name, COLOURS[series.css])] for series in panel.series]
    plain = panel.note.replace("²", "2")  # missing in the built-in font
    note = [[(line, TEXT)] for line in textwrap.wrap(plain, _LINE)]
    return captioned(rasterise(panel.chart), [[(panel.name[:_LINE], TEXT)], *keys, *note])


def _strip(crops: Sequence[MaskCrop]) -> Rgb:
    first = crops[0]
    label = first.columns.get("label")
    window = window_for(label, first.columns.get("replaced_mean_hu"))
    pictures = [masked(first, window), *(outlined(p.painted, p.mask, window) for p in crops)]
    pictures += [] if first.original is None else [windowed(first.original, window)]
    tiles = np.hstack([_tile(picture, first.size_mm) for picture in pictures])
    return captioned(tiles, [[(f"{first.columns['mask_id']}: {label or ANYTHING}", TEXT)]])


def _tile(picture: Rgb, size_mm: tuple[float, float]) -> Rgb:
    """A picture in a square, with the correct aspect ratio in mm."""
    scale = _TILE / max(size_mm)
    height, width = (max(1, round(length * scale)) for length in size_mm)
    square = Image.new("RGB", (_TILE, _TILE))
    small = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
    square.paste(small, ((_TILE - width) // 2, (_TILE - height) // 2))
    return np.asarray(square)
