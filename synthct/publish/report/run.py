"""``synthct report``: a dataset and its evaluation in, a page and pictures out."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from synthct.dataset.manifest import read_manifest
from synthct.errors import VerifyError
from synthct.evaluate.results import RESULTS, read_results
from synthct.publish.report.figures import card_text, charts_sheet, samples_sheet
from synthct.publish.report.gather import gather
from synthct.publish.report.page import render
from synthct.storage.files import atomic_write, beside, make_folder

PAGE, CARD, SHEET, CHARTS = "report.html", "card.md", "samples.png", "charts.png"


def write_report(
    folder: Path,
    output: Path,
    *,
    evaluation: Path | None = None,
    masks: int = 24,
    progress: bool = False,
) -> Path:
    """Write ``report.html``, and ``card.md`` with its pictures.

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
    usual = beside(folder, "evaluation")
    asked = evaluation or (usual if (usual / RESULTS).is_file() else None)
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
    sheets = {SHEET: samples_sheet(found), CHARTS: charts_sheet(found)}
    pictures = {name: sheet for name, sheet in sheets.items() if sheet is not None}
    for name, sheet in pictures.items():
        atomic_write(output / name, sheet)
    atomic_write(output / CARD, card_text(found, results, list(pictures)).encode())
    atomic_write(output / PAGE, render(found, results).encode())
    return output / PAGE
