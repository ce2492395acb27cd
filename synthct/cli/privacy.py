"""``privacy``: whether the paintings of a finished dataset are copies of training patients."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthct.cli.common import AsJson, CacheDir, Console, Debug, Quiet, Sources, reporting, roots_of

if TYPE_CHECKING:
    from synthct.privacy.membership import AttackOptions


def privacy(
    path: Annotated[
        str,
        typer.Argument(
            help="The folder of a dataset's version or of a checkpoint, or package:NAME.",
            show_default=False,
        ),
    ],
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
    masks: Annotated[
        int, typer.Option(min=1, help="Of a membership test: masks drawn on each side.")
    ] = 64,
    output: Annotated[
        Path | None,
        typer.Option(help="The folder for the results.", show_default="PATH.privacy"),
    ] = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Look for copies of training patients in a dataset; test a checkpoint for its members.

    A membership test asks whether the loss of a checkpoint tells whom it was trained on. It needs
    --training with sources that have scans of other patients, too.
    """
    with reporting(debug, quiet=quiet, as_json=as_json) as console:
        from synthct.dataset.privacy.results import write_results
        from synthct.dataset.privacy.words import tables_markdown
        from synthct.errors import RecipeError
        from synthct.models.checkpoint import PACKAGE_PREFIX
        from synthct.models.layout import INDEX
        from synthct.privacy.run import Options, check_privacy
        from synthct.storage.defaults import default_cache_dir
        from synthct.storage.files import beside

        if path.startswith(PACKAGE_PREFIX) or (Path(path) / INDEX).exists():
            if training is None:
                raise RecipeError("--training is needed to test a checkpoint for its members")
            from synthct.privacy.membership import AttackOptions

            attacked = AttackOptions(training, roots_of(source), masks)
            _test(console, path, attacked, output, cache_dir)
            return
        dataset = Path(path)
        options = Options(checkpoint=checkpoint, training=training, roots=roots_of(source))
        check = check_privacy(dataset, options, cache_dir=cache_dir or default_cache_dir())
        tables = tables_markdown(check)
        folder = output or beside(dataset, "privacy")
        write_results(folder, check, tables)
        console.say(html.unescape(tables))  # a terminal shows names as they are
        console.result(check.sentence)
        console.result(folder)
        console.report(folder=folder, **check.model_dump(mode="json"))


def _test(
    console: Console,
    checkpoint: str,
    options: AttackOptions,
    output: Path | None,
    cache_dir: Path | None,
) -> None:
    """Test a checkpoint for its members."""
    from synthct.dataset.privacy.results import write_membership
    from synthct.dataset.privacy.words import membership_sentence
    from synthct.privacy.membership import attack
    from synthct.storage.defaults import default_cache_dir
    from synthct.storage.files import beside

    result = attack(checkpoint, options, cache_dir=cache_dir or default_cache_dir())
    folder = output or beside(Path(checkpoint.rpartition(":")[2]), "privacy")
    write_membership(folder, result)
    console.result(membership_sentence(result))
    console.result(folder)
    console.report(folder=folder, **result.model_dump(mode="json"))
