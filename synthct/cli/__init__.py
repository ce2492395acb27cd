"""The command line: one file per group of commands, no logic, heavy imports inside functions."""

from typing import Annotated

import typer

from synthct.cli import (
    build,
    data,
    evaluate,
    export,
    inpaint,
    publish,
    report,
    selftest,
    train,
    trust,
)
from synthct.version import __version__

app = typer.Typer(
    name="synthct",
    help="Build versioned datasets of CT scans in which diffusion models have painted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(is_given: bool) -> None:
    if is_given:
        typer.echo(f"synthct {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Build versioned datasets of CT scans in which diffusion models have painted."""


app.command()(data.check)
app.command()(build.build)
app.command()(trust.verify)
app.command()(trust.compose)
app.command()(trust.diff)
app.command()(data.phantom)
app.command()(data.schema)
app.command()(inpaint.inpaint)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(report.report)
app.command()(export.export)
app.command()(publish.publish)
app.add_typer(selftest.app, name="selftest")
