"""``synthct report``: a page and pictures of a dataset and its evaluation."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from synthct.dataset.manifest import require_manifest
from synthct.errors import VerifyError
from synthct.evaluate.results import RESULTS, read_results
from synthct.publish.report.figures import card_text, charts_sheet, samples_sheet
from synthct.publish.report.page import render
from synthct.publish.report.report_data import read_report_data
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
        output: The new folder.
        evaluation: The folder of the evaluation; by default the one beside the version, if any.
        masks: Most masks to show.
        progress: Show a progress bar.

    Returns:
        The page.

    Raises:
        VerifyError: If the dataset or the results are damaged, or do not belong together.
        ResourceError: If there is no such dataset, or the new folder cannot be written.
    """
    manifest = require_manifest(folder)
    usual = beside(folder, "evaluation")
    source = evaluation or (usual if (usual / RESULTS).is_file() else None)
    results = read_results(source) if source else None
    release = manifest.release
    if results is not None and results.content_id != release.content_id:
        raise VerifyError(
            f"{source} is about content {results.content_id[:12]}, {folder} is "
            f"{release.content_id[:12]}; run 'synthct evaluate' again"
        )
    with tqdm(total=release.rows, unit="sample", disable=None if progress else True) as bar:
        data = read_report_data(folder, masks=masks, advance=bar.update)
    make_folder(output)
    sheets = {SHEET: samples_sheet(data), CHARTS: charts_sheet(data)}
    pictures = {name: sheet for name, sheet in sheets.items() if sheet is not None}
    for name, sheet in pictures.items():
        atomic_write(output / name, sheet)
    atomic_write(output / CARD, card_text(data, results, list(pictures)).encode())
    atomic_write(output / PAGE, render(data, results).encode())
    return output / PAGE
