"""``selftest``: tests that a user can run on an own machine and disk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import Debug, on_terminal, reporting

Output = Annotated[
    Path | None,
    typer.Option(
        help="A folder on the disk to test; a new one in it is used.",
        show_default="the temporary folder",
    ),
]

app = typer.Typer(help="Test synthct on this machine and its disks.", no_args_is_help=True)


@app.callback()
def selftest() -> None:
    """Test synthct on this machine and its disks."""


@app.command()
def crash(
    points: Annotated[int, typer.Option(min=1, help="Builds to kill; 2000 take minutes.")] = 2000,
    output: Output = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other points.")] = 0,
    debug: Debug = False,
) -> None:
    """Kill builds and let their disk fail everywhere, and see that each goes on to the same bytes.

    The samples are stand-ins, all that writes them is real.
    """
    with reporting(debug):
        from tqdm import tqdm

        from synthct.studies.selftest.crash import crash_test

        folder = _new_folder("crash", output)
        with tqdm(unit="trial", disable=not on_terminal()) as bar:
            found = crash_test(folder, kills=points, seed=seed, progress=bar.update)
        typer.echo(
            f"{found.kills} kills and {found.faults} disk errors at {found.points} points, seed "
            f"{seed}, in {found.seconds:.0f} s: every build went on to the same bytes, content "
            f"{found.content_id[:12]}; no torn version was seen, no finished shard was lost"
        )


@app.command()
def cache(
    trials: Annotated[
        int, typer.Option(min=1, help="Files to damage of each kind; 2000 take minutes.")
    ] = 50,
    output: Output = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other damage.")] = 0,
    debug: Debug = False,
) -> None:
    """Damage the files that are kept between runs, and see that each is made anew or refused.

    Bits are flipped, files cut short and exchanged; the scans are small blocks of noise.
    """
    with reporting(debug):
        from tqdm import tqdm

        from synthct.studies.selftest.cache import cache_test

        folder = _new_folder("cache", output)
        with tqdm(unit="trial", disable=not on_terminal()) as bar:
            report = cache_test(folder, trials=trials, seed=seed, progress=bar.update)
        for name, tally in report.kinds.items():
            typer.echo(
                f"{name}: {tally.trials} damaged, {tally.mended} made anew or replaced by the one "
                f"before, {tally.refused} refused, {tally.silent} silent, {tally.tracebacks} "
                "tracebacks"
            )
        report.require_good(folder)
        typer.echo(f"every damage was noticed and told (seed {seed}, {report.seconds:.0f} s)")


def _new_folder(test: str, output: Path | None) -> Path:
    """A new folder on the disk to test."""
    from synthct.storage.files import make_folder

    if output is not None:
        make_folder(output)
    return Path(tempfile.mkdtemp(prefix=f"synthct-{test}-", dir=output))
