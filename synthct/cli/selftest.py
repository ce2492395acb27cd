"""``selftest``: tests that a user can run on an own machine and disk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import Debug, on_terminal, reporting

app = typer.Typer(help="Test synthct on this machine and its disks.", no_args_is_help=True)


@app.callback()
def selftest() -> None:
    """Test synthct on this machine and its disks."""


@app.command()
def crash(
    points: Annotated[int, typer.Option(min=1, help="Builds to kill; 2000 take minutes.")] = 2000,
    output: Annotated[
        Path | None,
        typer.Option(
            help="A folder on the disk to test; a new one in it is used.",
            show_default="the temporary folder",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other points.")] = 0,
    debug: Debug = False,
) -> None:
    """Kill builds and let their disk fail everywhere, and see that each goes on to the same bytes.

    The samples are stand-ins, all that writes them is real.
    """
    with reporting(debug):
        from tqdm import tqdm

        from synthct.storage.files import make_folder
        from synthct.studies.selftest.crash import crash_test

        if output is not None:
            make_folder(output)
        folder = Path(tempfile.mkdtemp(prefix="synthct-crash-", dir=output))
        with tqdm(unit="trial", disable=not on_terminal()) as bar:
            found = crash_test(folder, kills=points, seed=seed, progress=bar.update)
        typer.echo(
            f"{found.kills} kills and {found.faults} disk errors at {found.points} points, seed "
            f"{seed}, in {found.seconds:.0f} s: every build went on to the same bytes, content "
            f"{found.content_id[:12]}; no torn version was seen, no finished shard was lost"
        )
