"""``synthct report``: a dataset and its evaluation in, a page and a picture out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from synthct.dataset.files import atomic_write, make_folder
from synthct.dataset.manifest import read_manifest
from synthct.errors import VerifyError
from synthct.evaluate.results import RESULTS, read_results
from synthct.report.gather import ANYTHING, Gathered, gather
from synthct.report.page import render
from synthct.report.pictures import WINDOWS, Piece, masked, outlined
from synthct.tiles import TEXT, Rgb, captioned, contact_sheet, windowed

PAGE, SHEET = "report.html", "samples.png"

#: Rows of the picture, and the side of its tiles in pixels.
_SHEET_ROWS, _TILE = 8, 200


def write_report(
    folder: Path,
    output: Path,
    *,
    evaluation: Path | None = None,
    masks: int = 24,
    progress: bool = False,
) -> Path:
    """Write ``report.html`` and ``samples.png``.

    Args:
        folder: The folder of a version.
        output: Where they go.
        evaluation: The folder of its results; by default the one beside it, if there is one.
        masks: How many masks are shown at most.
        progress: Show a progress bar.

    Returns:
        The page.

    Raises:
        VerifyError: If the dataset or the results are damaged, or the results are another's.
        ResourceError: If the folder cannot be written.
    """
    folder = folder.resolve()
    beside = folder.with_name(f"{folder.name}.evaluation")
    asked = evaluation or (beside if (beside / RESULTS).is_file() else None)
    results = read_results(asked) if asked else None
    manifest = read_manifest(folder)
    release = manifest.release if manifest else None
    if results is not None and release is not None and results.content_id != release.content_id:
        raise VerifyError(
            f"{asked} is about content {results.content_id[:12]}, {folder} is "
            f"{release.content_id[:12]}; run 'synthct evaluate' again"
        )
    total = release.rows if release else 0
    with tqdm(total=total, unit="sample", disable=None if progress else True) as bar:
        found = gather(folder, masks=masks, advance=bar.update)
    make_folder(output)
    if (sheet := samples_sheet(found)) is not None:
        atomic_write(output / SHEET, sheet)
    atomic_write(output / PAGE, render(found, results).encode())
    return output / PAGE


def samples_sheet(found: Gathered) -> bytes | None:
    """Masked input, paintings and original of some masks as PNG; None if there is no sample."""
    number = len(found.pieces)
    shown = min(_SHEET_ROWS, number)
    chosen = [found.pieces[n * number // shown] for n in range(shown)]
    return contact_sheet([_strip(pieces) for pieces in chosen], columns=1)


def _strip(pieces: Sequence[Piece]) -> Rgb:
    first, soft = pieces[0], WINDOWS["soft"]
    pictures = [
        masked(first, soft),
        *(outlined(piece.painted, piece.mask, soft) for piece in pieces),
    ]
    pictures += [] if first.original is None else [windowed(first.original, soft)]
    tiles = np.hstack([_tile(picture, first.size_mm) for picture in pictures])
    label = first.columns.get("label") or ANYTHING
    return captioned(tiles, [[(f"{first.columns['mask_id']}: {label}", TEXT)]])


def _tile(picture: Rgb, size_mm: tuple[float, float]) -> Rgb:
    """A picture in a square, its pixels as tall and wide as in the body."""
    scale = _TILE / max(size_mm)
    height, width = (max(1, round(length * scale)) for length in size_mm)
    square = Image.new("RGB", (_TILE, _TILE))
    small = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
    square.paste(small, ((_TILE - width) // 2, (_TILE - height) // 2))
    return np.asarray(square)
