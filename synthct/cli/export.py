"""``export``: a finished dataset as plain files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import Debug, Quiet, reporting


def export(
    dataset: Annotated[Path, typer.Argument(help="The folder of a version.", show_default=False)],
    to: Annotated[
        str,
        typer.Option(
            help="nifti: volumes that open over the host's scan. dicom: these as CT series and "
            "SEG. png: pictures.",
            metavar="KIND",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="The new folder.", show_default="DATASET.KIND"),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a finished dataset as a plain folder: NIfTI, DICOM or pictures."""
    with reporting(debug, quiet=quiet) as console:
        from synthct.publish.export.run import export as run
        from synthct.storage.files import beside

        folder = output or beside(dataset, to)
        run(dataset, to, folder, progress=console.progress)
        console.result(folder)
