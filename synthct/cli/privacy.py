"""``privacy``: whether the paintings of a finished dataset are copies of training patients."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import AsJson, CacheDir, Debug, Quiet, Sources, reporting, roots_of


def privacy(
    dataset: Annotated[Path, typer.Argument(help="The folder of a version.", show_default=False)],
    checkpoint: Annotated[
        str | None,
        typer.Option(help="The checkpoint that painted it.", show_default="the dataset's own"),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option(
            metavar="RECIPE",
            help="The recipe that the checkpoint was trained with: paintings are then compared "
            "with its scans, else by key only.",
            show_default=False,
        ),
    ] = None,
    source: Sources = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The folder for the results.", show_default="DATASET.privacy"),
    ] = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Look for copies of training patients among the paintings of a finished dataset."""
    with reporting(debug, quiet=quiet, as_json=as_json) as console:
        from synthct.privacy.results import write_results
        from synthct.privacy.run import Options, check_privacy
        from synthct.privacy.words import tables_markdown
        from synthct.storage.defaults import default_cache_dir
        from synthct.storage.files import beside

        options = Options(checkpoint=checkpoint, training=training, roots=roots_of(source))
        check = check_privacy(dataset, options, cache_dir=cache_dir or default_cache_dir())
        tables = tables_markdown(check)
        folder = output or beside(dataset, "privacy")
        write_results(folder, check, tables)
        console.say(html.unescape(tables))  # a terminal shows names as they are
        console.result(check.sentence)
        console.result(folder)
        console.report(folder=folder, **check.model_dump(mode="json"))
