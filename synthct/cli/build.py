"""``build``: makes a dataset from a recipe, in one process or several."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthct.cli.common import (
    CacheDir,
    Debug,
    Device,
    Limit,
    RecipeFile,
    Sources,
    on_terminal,
    reporting,
    roots_of,
)
from synthct.errors import RecipeError, printable
from synthct.processes.launch import is_first, launch, processes_to_start, world_size
from synthct.storage.files import make_folder

if TYPE_CHECKING:
    from synthct.recipe.recipe import Recipe

Output = Annotated[Path, typer.Option(help="Datasets are written to OUTPUT/name/version.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Worker processes that prepare patches, for each process that paints.",
        show_default="by number of cores",
    ),
]
NumProcesses = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes that paint; the dataset does not depend on it.",
        show_default="1, or the launcher's",
    ),
]


def build(
    recipe: RecipeFile,
    output: Output = Path("out"),
    source: Sources = None,
    limit: Limit = None,
    num_processes: NumProcesses = None,
    workers: Workers = None,
    device: Device = None,
    relabel: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Your program for masks with label_map: relabel; contains {image} and {labels}.",
        ),
    ] = None,
    locked: Annotated[
        bool,
        typer.Option(
            "--locked", help="Stop if an input differs from the synthct.lock beside the recipe."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    cache_dir: CacheDir = None,
    debug: Debug = False,
) -> None:
    """Build the dataset of a recipe; run again to continue where it stopped."""
    with reporting(debug):
        from synthct.recipe.recipe import load_recipe

        loaded = load_recipe(recipe, sources=roots_of(source))
        from synthct.build import check as checking
        from synthct.storage.defaults import default_cache_dir

        cache = cache_dir or default_cache_dir()
        if dry_run:
            from synthct.build.preview import describe

            checked = checking.check(loaded, cache_dir=cache, limit=limit, progress=on_terminal())
            typer.echo(printable(describe(checked)))
            return
        from synthct.recipe.relabel import parse_command

        command = None if relabel is None else parse_command(relabel)
        adapted = _adapted(loaded, recipe, source, cache)
        if count := processes_to_start(num_processes):
            raise typer.Exit(launch(count, sys.argv[1:]))
        from synthct.build.run import build as run

        folder = run(
            loaded,
            output,
            cache_dir=cache,
            limit=limit,
            lock=recipe.with_name("synthct.lock") if locked else None,
            workers=workers,
            device=device,
            relabel=command,
            checkpoint=adapted,
            progress=on_terminal(),
        )
        if is_first():
            typer.echo(f"{folder}\n\n    from datasets import load_dataset\n")
            typer.echo(f'    dataset = load_dataset("{folder}")')


def _adapted(
    loaded: Recipe, recipe: Path, sources: Sequence[str] | None, cache_dir: Path
) -> Path | None:
    """The checkpoint adapted to the hosts, made now if need be; None if the recipe wants none.

    A process of its own trains: what training sets in torch and Accelerate is not for painting.
    """
    network = loaded.inpaint.network
    if network is None or network.adapt is None:
        return None
    from synthct.training.adapt import finished, folder_for

    folder = folder_for(loaded, network.adapt, cache_dir)
    if not finished(folder, network.adapt):
        if world_size() > 1:
            raise RecipeError(
                "inpaint.adapt: a launcher's processes do not adapt a checkpoint; build with "
                "--num-processes, or once with --limit 1 before"
            )
        make_folder(folder.parent)
        command = [sys.executable, "-m", "synthct", "adapt", str(recipe), "--output", str(folder)]
        command += ["--cache-dir", str(cache_dir)]
        command += [part for pair in sources or () for part in ("--source", pair)]
        if code := subprocess.run(command, check=False).returncode:  # noqa: S603 - our own command
            raise typer.Exit(code)
    return folder / "checkpoint"
