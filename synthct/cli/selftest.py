"""``selftest``: tests for the user's own machine and disk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import Debug, reporting
from synthct.errors import counted

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
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the points.")] = 0,
    debug: Debug = False,
) -> None:
    """Kill builds and simulate disk errors at many points; each must continue to the same bytes.

    The samples are placeholders; everything that writes them is real.
    """
    with reporting(debug) as console:
        from tqdm import tqdm

        from synthct.studies.selftest.crash import crash_test

        folder = _new_folder("crash", output)
        with tqdm(unit="trial", disable=not console.progress) as bar:
            result = crash_test(folder, kills=points, seed=seed, progress=bar.update)
        console.result(
            f"{counted(result.kills, 'kill')} and {counted(result.faults, 'disk error')} at "
            f"{counted(result.points, 'point')}, seed {seed}, in {result.seconds:.0f} s: "
            "every build continued to the same bytes, content "
            f"{result.content_id[:12]}; no incomplete version was seen, no finished shard was lost"
        )


@app.command()
def cache(
    trials: Annotated[
        int, typer.Option(min=1, help="Files to damage of each kind; 2000 take minutes.")
    ] = 50,
    output: Output = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the damage.")] = 0,
    debug: Debug = False,
) -> None:
    """Damage cached files; each must be made again or refused.

    Bits are flipped, files cut short and exchanged; the scans are small blocks of noise.
    """
    with reporting(debug) as console:
        from tqdm import tqdm

        from synthct.studies.selftest.cache import cache_test

        folder = _new_folder("cache", output)
        with tqdm(unit="trial", disable=not console.progress) as bar:
            report = cache_test(folder, trials=trials, seed=seed, progress=bar.update)
        for name, tally in report.kinds.items():
            console.result(
                f"{name}: {tally.trials} damaged, {tally.mended} made anew or replaced by the one "
                f"before, {tally.refused} refused, {tally.silent} silent, {tally.tracebacks} "
                "tracebacks"
            )
        report.require_good(folder)
        console.result(
            f"every damage was detected and reported (seed {seed}, {report.seconds:.0f} s)"
        )


def _new_folder(test: str, output: Path | None) -> Path:
    """A new folder on the disk to test."""
    from synthct.storage.files import make_folder

    if output is not None:
        make_folder(output)
    return Path(tempfile.mkdtemp(prefix=f"synthct-{test}-", dir=output))
