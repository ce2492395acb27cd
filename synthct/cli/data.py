"""``check``, ``phantom``, ``schema``: before a dataset is built."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import (
    CacheDir,
    Debug,
    Limit,
    RecipeFile,
    Sources,
    Strict,
    on_terminal,
    reporting,
    roots_of,
)
from synthct.errors import printable


class PhantomLayout(StrEnum):
    """Layouts in which phantoms can be written."""

    kits19 = "kits19"
    kits21 = "kits21"
    kits23 = "kits23"
    totalsegmentator = "totalsegmentator"


class Region(StrEnum):
    """What a phantom's scan covers."""

    abdomen = "abdomen"
    chest = "chest"
    abdomen_chest = "abdomen_chest"


def check(
    recipe: RecipeFile,
    source: Sources = None,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Picture of planned masks on the scans.", show_default="NAME-masks.png"),
    ] = None,
    no_sheet: Annotated[bool, typer.Option("--no-sheet", help="Do not draw masks.")] = False,
    limit: Limit = None,
    strict: Strict = False,
    cache_dir: CacheDir = None,
    debug: Debug = False,
) -> None:
    """Check a recipe, print its plan, and draw its masks on the scans."""
    with reporting(debug):
        from synthct.recipe.recipe import load_recipe

        loaded = load_recipe(recipe, sources=roots_of(source))
        from synthct.build import check as checking
        from synthct.build.outside_range import tell_outside_range
        from synthct.build.preview import describe, masks_preview
        from synthct.storage.defaults import default_cache_dir

        cache = cache_dir or default_cache_dir()
        checked = checking.check(loaded, cache_dir=cache, limit=limit, progress=on_terminal())
        tell_outside_range(checked, strict=strict)
        typer.echo(printable(describe(checked)))
        if no_sheet:
            return
        path = sheet or Path(f"{loaded.name}-masks.png")
        drawn, refused = masks_preview(checked, path)
        failed = f", {len(refused)} refused" if refused else ""
        result = f"{path} shows {drawn}" if drawn else "none could be drawn"
        typer.echo(f"\nmasks: {result}{failed}")
        for reason in refused:
            typer.echo(f"  refused: {reason}")


def phantom(
    output: Annotated[Path, typer.Option(help="The folder to write; must be empty.")],
    layout: Annotated[PhantomLayout, typer.Option(help="Folder layout.")] = PhantomLayout.kits23,
    patients: Annotated[int, typer.Option(min=1, help="How many patients.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the patients.")] = 0,
    region: Annotated[Region, typer.Option(help="What the scans cover.")] = Region.abdomen,
    debug: Debug = False,
) -> None:
    """Write procedural CT phantoms with known truth, laid out as a real dataset."""
    with reporting(debug):
        from synthct.sources.phantom import write_phantoms
        from synthct.sources.scanner import Scanner

        scanner = Scanner(region=region.value)
        ids = write_phantoms(
            output, layout.value, patients, seed, scanner=scanner, progress=on_terminal()
        )
        typer.echo(f"{output}: {len(ids)} patients, {ids[0]} to {ids[-1]}")


def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    import json

    from synthct.recipe.recipe import recipe_json_schema

    typer.echo(json.dumps(recipe_json_schema(), indent=2))
