"""``report``: an HTML page of a finished dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import DatasetFolder, Debug, Quiet, reporting


def report(
    dataset: DatasetFolder,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            help="The folder of its evaluation.", show_default="DATASET.evaluation, if any"
        ),
    ] = None,
    masks: Annotated[int, typer.Option(min=1, help="Show at most this many masks.")] = 24,
    output: Annotated[
        Path | None,
        typer.Option(help="The folder for the page.", show_default="DATASET.report"),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write one HTML page of a finished dataset: samples, measures, evaluation, provenance."""
    with reporting(debug, quiet=quiet) as console:
        from synthct.publish.report.run import write_report
        from synthct.storage.files import beside

        folder = output or beside(dataset, "report")
        page = write_report(
            dataset, folder, evaluation=evaluation, masks=masks, progress=console.progress
        )
        console.result(page)
