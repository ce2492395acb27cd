"""``check``, ``phantom``, ``schema``: before a dataset is built."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import (
    AsJson,
    CacheDir,
    Console,
    Debug,
    Limit,
    Quiet,
    RecipeFile,
    Sources,
    Strict,
    reporting,
    roots_of,
)
from synthct.errors import RecipeError, counted


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
    preset: Annotated[
        str | None, typer.Option(help="One of a training recipe's presets, such as small.")
    ] = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check a recipe, print its plan, and draw its masks on the scans.

    Of a training recipe it checks sources, labels and disk, and tries each section of masks once.
    """
    with reporting(debug, quiet=quiet, as_json=as_json) as console:
        from synthct.recipe.kinds import is_training_recipe
        from synthct.recipe.recipe import load_recipe
        from synthct.recipe.yaml_model import read_yaml

        if is_training_recipe(read_yaml(recipe)):
            _check_training(console, recipe, preset, roots_of(source), cache_dir)
            return
        if preset is not None:
            raise RecipeError(f"--preset {preset}: only training recipes have presets")
        loaded = load_recipe(recipe, sources=roots_of(source))
        from synthct.build import check as checking
        from synthct.build.outside_range import tell_outside_range
        from synthct.build.preview import describe, facts_of, masks_preview
        from synthct.storage.defaults import default_cache_dir

        cache = cache_dir or default_cache_dir()
        checked = checking.check(loaded, cache_dir=cache, limit=limit, progress=console.progress)
        tell_outside_range(checked, strict=strict)
        facts = facts_of(checked)
        console.say(describe(checked, facts))
        if no_sheet:
            console.report(**facts)
            return
        path = sheet or Path(f"{loaded.name}-masks.png")
        drawn, refused = masks_preview(checked, path)
        failed = f", {len(refused)} refused" if refused else ""
        result = f"{path} shows {drawn}" if drawn else "none could be drawn"
        console.say(f"\nmasks: {result}{failed}")
        for reason in refused:
            console.say(f"  refused: {reason}")
        console.report(**facts, sheet=path if drawn else None, drawn=drawn, refused=refused)


def init(
    folder: Annotated[Path, typer.Argument(help="The folder of scans.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The new recipe.", show_default="standard output"),
    ] = None,
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a commented recipe for a folder of your own scans; looks at some of them.

    It knows the layouts of KiTS, TotalSegmentator, nnU-Net and the Medical Segmentation Decathlon,
    and finds scans and label maps in any other folder of NIfTI files.
    """
    with reporting(debug, quiet=quiet) as console:
        from synthct.errors import ConflictError
        from synthct.recipe.starter import starter_recipe
        from synthct.storage.defaults import default_cache_dir
        from synthct.storage.files import atomic_write, make_folder

        if output is not None and output.exists():
            raise ConflictError(f"{output} exists; choose another name for the recipe")
        text = starter_recipe(
            folder, cache_dir=cache_dir or default_cache_dir(), progress=console.progress
        )
        if output is None:
            typer.echo(text, nl=False)
            return
        make_folder(output.parent)
        atomic_write(output, text.encode())
        console.result(output)
        console.say(f"next: synthct check {output}")


def _check_training(
    console: Console,
    recipe: Path,
    preset: str | None,
    sources: dict[str, Path],
    cache_dir: Path | None,
) -> None:
    """Check a training recipe."""
    from synthct.storage.defaults import default_cache_dir
    from synthct.training.check import check_training, describe_training
    from synthct.training.recipe import load_training_recipe

    loaded = load_training_recipe(recipe, preset=preset, sources=sources)
    facts = check_training(
        loaded, cache_dir=cache_dir or default_cache_dir(), progress=console.progress
    )
    console.say(describe_training(facts))
    options = f" --preset {preset}" if preset else ""
    console.say(f"\nrun: synthct train {recipe}{options}")
    console.report(**facts)


def phantom(
    output: Annotated[Path, typer.Option(help="The folder to write; must be empty.")],
    layout: Annotated[PhantomLayout, typer.Option(help="Folder layout.")] = PhantomLayout.kits23,
    patients: Annotated[int, typer.Option(min=1, help="How many patients.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the patients.")] = 0,
    region: Annotated[Region, typer.Option(help="What the scans cover.")] = Region.abdomen,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write procedural CT phantoms with known truth, laid out as a real dataset."""
    with reporting(debug, quiet=quiet) as console:
        from synthct.sources.phantom import write_phantoms
        from synthct.sources.scanner import Scanner

        scanner = Scanner(region=region.value)
        ids = write_phantoms(
            output, layout.value, patients, seed, scanner=scanner, progress=console.progress
        )
        console.result(f"{output}: {counted(len(ids), 'patient')}, {ids[0]} to {ids[-1]}")


def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    import json

    from synthct.recipe.recipe import recipe_json_schema

    typer.echo(json.dumps(recipe_json_schema(), indent=2))
