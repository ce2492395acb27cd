"""``table``: trains, builds and compares methods on equal masks, as in the thesis's tables."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import (
    AsJson,
    CacheDir,
    Debug,
    Device,
    InceptionWeights,
    Quiet,
    RecipeFile,
    Sources,
    reporting,
    roots_of,
)


def table(
    recipe: RecipeFile,
    preset: Annotated[
        str | None, typer.Option(help="One of the recipe's presets, such as quick.")
    ] = None,
    source: Sources = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for trainings, datasets and tables.", show_default="runs/NAME[-PRESET]"
        ),
    ] = None,
    check_only: Annotated[
        bool, typer.Option("--check", help="Only check recipe, sources, masks and checkpoints.")
    ] = False,
    inception_weights: InceptionWeights = None,
    device: Device = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that prepare masks.", show_default="none beside it"),
    ] = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare methods on equal masks: train what is to be trained, build, evaluate, print tables.

    Run again to go on where it stopped.
    """
    with reporting(debug, quiet=quiet, as_json=as_json) as console:
        from synthct.evaluate.extractors import load_extractors
        from synthct.storage.defaults import default_cache_dir
        from synthct.studies.table.page import write_page
        from synthct.studies.table.recipe import load_table
        from synthct.studies.table.results import write_results
        from synthct.studies.table.run import Place, check_table, make_table

        loaded = load_table(recipe, preset=preset, sources=roots_of(source))
        name = f"{loaded.recipe.name}-{preset}" if preset else loaded.recipe.name
        place = Place(
            output or Path("runs") / name,
            cache_dir or default_cache_dir(),
            device=device,
            workers=workers,
            progress=console.progress,
        )
        if check_only:
            for note in check_table(loaded, place):
                console.say(f"note: {note}")
            console.result(f"{recipe}: nothing is wrong")
            return
        extractors = load_extractors(None, inception_weights, device)
        results, arms = make_table(loaded, extractors, place)
        console.say(html.unescape(write_results(place.output, results)))
        page = write_page(place.output, results, arms, loaded.recipe.pictures)
        console.result(page)
        console.report(folder=place.output, **results.model_dump(mode="json"))
