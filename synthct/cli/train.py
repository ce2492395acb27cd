"""``train``: makes a checkpoint from a training recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import CacheDir, Debug, Quiet, RecipeFile, Sources, reporting, roots_of
from synthct.processes.launch import is_first


def train(
    recipe: RecipeFile,
    preset: Annotated[
        str | None, typer.Option(help="One of the recipe's presets, such as small.")
    ] = None,
    source: Sources = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for states, samples and checkpoint.", show_default="runs/NAME[-PRESET]"
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Where to train: cpu, cuda, ...", show_default="what there is"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that cut patches.", show_default="by number of cores"),
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(help="Stop after this time; the same command continues.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write curves and samples for TensorBoard.")
    ] = False,
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a checkpoint; run again to continue where it stopped."""
    with reporting(debug, quiet=quiet) as console:
        from synthct.training.recipe import load_training_recipe

        loaded = load_training_recipe(recipe, preset=preset, sources=roots_of(source))
        import torch

        from synthct.storage.defaults import default_cache_dir
        from synthct.training.loop import train as run

        if threads is not None:
            torch.set_num_threads(threads)
        folder = run(
            loaded,
            output or Path("runs") / (f"{loaded.name}-{preset}" if preset else loaded.name),
            cache_dir=cache_dir or default_cache_dir(),
            device=device,
            workers=workers,
            tensorboard=tensorboard,
            progress_bar=console.progress,
            max_seconds=None if max_minutes is None else 60 * max_minutes,
        )
        if is_first():
            console.result(folder)
