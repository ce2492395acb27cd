"""``export``: a finished dataset as plain files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import CacheDir, DatasetFolder, Debug, Quiet, Sources, reporting, roots_of


def export(
    dataset: DatasetFolder,
    to: Annotated[
        str,
        typer.Option(
            help="nifti: volumes that open over the host's scan. dicom: these as CT series and "
            "SEG. png: pictures. nnunet: whole scans as a raw dataset of nnU-Net.",
            metavar="KIND",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="The new folder.",
            show_default="DATASET.KIND, DATASET.whole, or DATASET.nnunet/Dataset501_Name",
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help="With nifti: whole scans in the files' own grid, each with the lesions of its "
            "host: --whole --source hosts=/data/scans. Volumes of whole scans need no hosts.",
        ),
    ] = False,
    real: Annotated[
        bool,
        typer.Option("--real", help="With nnunet: also the hosts as they are."),
    ] = False,
    source: Sources = None,
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a finished dataset as a plain folder: NIfTI, DICOM, pictures, or for nnU-Net.

    Example: synthct export out/quickstart/1.0.0 --to dicom
    """
    with reporting(debug, quiet=quiet) as console:
        from synthct.errors import RecipeError
        from synthct.publish.export.run import NNUNET, Whole, default_output
        from synthct.publish.export.run import export as run
        from synthct.storage.defaults import default_cache_dir

        is_whole = whole or to == NNUNET
        if source and not is_whole:
            raise RecipeError("--source is for --whole; other exports need no scans")
        if real and to != NNUNET:
            raise RecipeError("--real is for --to nnunet; other exports hold only what was painted")
        cache = cache_dir or default_cache_dir()
        scans = Whole(roots_of(source), cache, real) if is_whole else None
        folder = output or default_output(dataset, "whole" if whole else to)
        run(dataset, to, folder, whole=scans, progress=console.progress)
        console.result(folder)
