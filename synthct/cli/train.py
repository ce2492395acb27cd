"""``train`` and ``adapt``: make checkpoints, from a training recipe or for a dataset's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import CacheDir, Debug, Quiet, RecipeFile, Sources, reporting, roots_of
from synthct.processes.launch import is_first

Where = Annotated[
    str | None,
    typer.Option("--device", help="Where to train: cpu, cuda, ...", show_default="what there is"),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that cut patches.", show_default="by number of cores"),
]


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
    device: Where = None,
    threads: Threads = None,
    workers: Workers = None,
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


def adapt(
    recipe: RecipeFile,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for states and checkpoint.", show_default="runs/NAME-adapted"),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Optimiser steps.", show_default="the recipe's, else 400"),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Stop training after this time; the same command continues."),
    ] = None,
    include_test: Annotated[
        bool, typer.Option("--include-test", help="Also train on scans of test patients.")
    ] = False,
    source: Sources = None,
    device: Where = None,
    threads: Threads = None,
    workers: Workers = None,
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Adapt the checkpoint of a dataset's recipe to its hosts, and measure what that changes."""
    with reporting(debug, quiet=quiet) as console:
        from synthct.recipe.recipe import load_recipe

        loaded = load_recipe(recipe, sources=roots_of(source))
        import torch

        from synthct.models.methods import Adapt
        from synthct.storage.defaults import default_cache_dir
        from synthct.training.adapt import adapt as run
        from synthct.training.adapt import report

        if threads is not None:
            torch.set_num_threads(threads)
        network = loaded.inpaint.network
        asked = (network.adapt if network is not None else None) or Adapt()
        changes = {
            **({"steps": steps} if steps is not None else {}),
            **({"include_test": True} if include_test else {}),
        }
        adapted = run(
            loaded,
            output or Path("runs") / f"{loaded.name}-adapted",
            settings=asked.model_copy(update=changes),
            cache_dir=cache_dir or default_cache_dir(),
            device=device,
            workers=workers,
            max_seconds=None if minutes is None else 60 * minutes,
            progress_bar=console.progress,
        )
        if is_first():
            console.say(report(adapted))
            console.result(adapted.folder)
