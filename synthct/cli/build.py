"""``build``: makes a dataset from a recipe, in one process or several."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthct.cli.common import (
    AsJson,
    CacheDir,
    Debug,
    Device,
    Limit,
    Quiet,
    RecipeFile,
    Sources,
    Strict,
    report_error,
    reporting,
    roots_of,
)
from synthct.errors import RecipeError
from synthct.processes.launch import (
    ending_with_this,
    is_first,
    launch,
    processes_to_start,
    world_size,
)
from synthct.storage.files import make_folder

if TYPE_CHECKING:
    from synthct.models.methods import Adapt
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
    strict: Strict = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Build the dataset of a recipe; run again to continue where it stopped."""
    with reporting(debug, quiet=quiet, as_json=as_json) as console:
        from synthct.recipe.recipe import load_recipe

        loaded = load_recipe(recipe, sources=roots_of(source))
        from synthct.build import check as checking
        from synthct.storage.defaults import default_cache_dir

        cache = cache_dir or default_cache_dir()
        if dry_run:
            from synthct.build.outside_range import tell_outside_range
            from synthct.build.preview import describe, facts_of

            checked = checking.check(
                loaded, cache_dir=cache, limit=limit, progress=console.progress
            )
            tell_outside_range(checked, strict=strict)
            facts = facts_of(checked)
            console.say(describe(checked, facts))
            console.report(**facts)
            return
        from synthct.recipe.relabel import parse_command

        command = None if relabel is None else parse_command(relabel)
        adapted = None
        if loaded.inpaint.network is not None and loaded.inpaint.network.adapt is not None:
            from synthct.build.outside_range import tell_outside_range

            # All that can be wrong is found before anything is trained.
            tell_outside_range(checking.check(loaded, cache_dir=cache, limit=limit), strict=strict)
            options = ["--device", "cpu"] if device == "cpu" else []
            options += [part for pair in source or () for part in ("--source", pair)]
            adapted = _adapted(loaded, loaded.inpaint.network.adapt, recipe, cache, options)
        if count := processes_to_start(num_processes):
            if code := launch(count, sys.argv[1:]):
                report_error(console, "Launch", "a process failed, see standard error", code)
            raise typer.Exit(code)
        from synthct.build.run import build as run
        from synthct.dataset.manifest import read_manifest

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
            strict=strict,
            progress=console.progress,
        )
        if is_first():
            console.result(folder)
            console.say("\n    from datasets import load_dataset\n")
            console.say(f'    dataset = load_dataset("{folder}")')
            manifest = read_manifest(folder)
            assert manifest is not None, "a build ends with a manifest"
            release = manifest.release
            console.report(folder=folder, rows=release.rows, **release.model_dump(mode="json"))


def _adapted(
    loaded: Recipe, settings: Adapt, recipe: Path, cache_dir: Path, options: Sequence[str]
) -> Path:
    """The checkpoint adapted to the hosts, made now if need be.

    A process of its own trains: what training sets in torch and Accelerate is not for painting.
    """
    from synthct.training.adapt import finished, folder_for

    folder = folder_for(loaded, settings, cache_dir)
    if not finished(folder, settings):
        if world_size() > 1:
            raise RecipeError(
                "inpaint.adapt: a launcher's processes do not adapt a checkpoint; build with "
                "--num-processes, or once with --limit 1 before"
            )
        make_folder(folder.parent)
        command = [sys.executable, "-m", "synthct", "adapt", str(recipe), "--output", str(folder)]
        command += ["--cache-dir", str(cache_dir), *options]
        done = subprocess.run(  # noqa: S603 - our own
            command, stdout=sys.stderr, env=ending_with_this(), check=False
        )
        if done.returncode:
            raise typer.Exit(done.returncode)
    return folder / "checkpoint"
