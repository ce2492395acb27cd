"""Files that a report adds for a page of the user's own: pictures as PNG, and a Markdown text.

A version's card is part of the version and was written before it could be evaluated; these files
stand beside the version and name its content id.
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
from synthct.publish.report.gather import ANYTHING, Gathered
from synthct.publish.report.panels import Panel, measure_panels, tissue_panels
from synthct.publish.report.pictures import Piece, masked, outlined
from synthct.volume.intensity import window_for

#: Rows of the samples' picture, and the side of its tiles in pixels; charts beside each other.
_SHEET_ROWS, _TILE, _CHARTS = 8, 200, 3

#: Letters of a line beneath a chart.
_LINE = 56


def samples_sheet(gathered: Gathered) -> bytes | None:
    """Masked input, paintings and original of some masks as PNG; None if there is no sample."""
    number = len(gathered.pieces)
    shown = min(_SHEET_ROWS, number)
    chosen = [gathered.pieces[n * number // shown] for n in range(shown)]
    return contact_sheet([_strip(pieces) for pieces in chosen], columns=1)


def charts_sheet(gathered: Gathered) -> bytes | None:
    """HU real against synthetic, and the measures, as PNG; None if there is no chart."""
    panels = [*tissue_panels(gathered), *measure_panels(gathered)]
    return contact_sheet([_captioned(panel) for panel in panels], columns=_CHARTS)


def card_text(gathered: Gathered, evaluation: Evaluation | None, pictures: Sequence[str]) -> str:
    """The results and pictures as a text for a dataset's page, in Markdown.

    Args:
        gathered: What is shown of the dataset.
        evaluation: Its results, if it was evaluated.
        pictures: Names of the pictures that there are.
    """
    release = gathered.dataset.manifest.release
    head = (
        f"# {code(release.name)} {code(release.version)}\n\nContent {code(release.content_id)}.\n"
    )
    text = head if evaluation is None else results_markdown(evaluation)
    return "\n".join([text, *(f"![{name.partition('.')[0]}]({name})\n" for name in pictures)])


def _captioned(panel: Panel) -> Rgb:
    keys = [[(series.name, COLOURS[series.css])] for series in panel.series]
    plain = panel.note.replace("²", "2")  # which the built-in font has not
    note = [[(line, TEXT)] for line in textwrap.wrap(plain, _LINE)]
    return captioned(rasterise(panel.chart), [[(panel.name[:_LINE], TEXT)], *keys, *note])


def _strip(pieces: Sequence[Piece]) -> Rgb:
    first = pieces[0]
    label = first.columns.get("label")
    window = window_for(label, first.columns.get("replaced_mean_hu"))
    pictures = [masked(first, window), *(outlined(p.painted, p.mask, window) for p in pieces)]
    pictures += [] if first.original is None else [windowed(first.original, window)]
    tiles = np.hstack([_tile(picture, first.size_mm) for picture in pictures])
    return captioned(tiles, [[(f"{first.columns['mask_id']}: {label or ANYTHING}", TEXT)]])


def _tile(picture: Rgb, size_mm: tuple[float, float]) -> Rgb:
    """A picture in a square, its pixels as tall and wide as in the body."""
    scale = _TILE / max(size_mm)
    height, width = (max(1, round(length * scale)) for length in size_mm)
    square = Image.new("RGB", (_TILE, _TILE))
    small = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
    square.paste(small, ((_TILE - width) // 2, (_TILE - height) // 2))
    return np.asarray(square)
