"""``verify``, ``diff``, ``compose``: what can be known of a dataset, and put together from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import Debug, reporting

DatasetFolder = Annotated[
    Path, typer.Argument(help="The folder of a version: OUTPUT/name/1.0.0.", show_default=False)
]


def verify(
    folder: DatasetFolder,
    level: Annotated[
        int,
        typer.Option(min=0, max=1, help="0: bytes. 1: rows, digests, splits, licence."),
    ] = 1,
    debug: Debug = False,
) -> None:
    """Check whether a dataset is what it says it is; exit code 8 and a list if it is not."""
    with reporting(debug):
        from synthct.errors import VerifyError
        from synthct.verify import verify as run

        report = run(folder, level=level)
        release = report.release
        typer.echo(f"{release.name} {release.label}" if release else f"{folder}")
        for number, line in enumerate(report.levels, start=1):
            failed = report.findings and number == len(report.levels)
            typer.echo(f"  {line}: {'FAILED' if failed else 'ok'}")
        if report.findings:
            shown = "\n".join(f"  {finding}" for finding in report.findings)
            raise VerifyError(f"{folder} is not what it says it is\n{shown}")
