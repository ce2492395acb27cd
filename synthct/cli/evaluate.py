"""``evaluate``: compares a finished dataset with real scans and control arms."""

from __future__ import annotations

import html
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import (
    AsJson,
    CacheDir,
    DatasetFolder,
    Debug,
    Device,
    InceptionWeights,
    Quiet,
    Sources,
    reporting,
    roots_of,
)


class ExtractorName(StrEnum):
    """Names of the feature extractors, see ``evaluate.extractors``."""

    radiomics = "radiomics"
    efficientnet_lite0 = "efficientnet-lite0"
    inception_v3 = "inception-v3"


def evaluate(
    dataset: DatasetFolder,
    real: Annotated[
        Path | None,
        typer.Option(
            help="Another dataset, whose originals are the real set.", show_default="its own"
        ),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DATASET",
            help="A control dataset: the same masks, painted by another method.",
        ),
    ] = None,
    source: Sources = None,
    extractor: Annotated[
        list[ExtractorName] | None,
        typer.Option(help="Feature extractor; may be repeated.", show_default="all installed"),
    ] = None,
    inception_weights: InceptionWeights = None,
    slices: Annotated[
        bool, typer.Option("--slices/--no-slices", help="Also compare whole slices.")
    ] = True,
    segmenter: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Your segmenter, for mask adherence: 'nnUNetv2_predict -i {images} -o {labels}'.",
        ),
    ] = None,
    segmenter_label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=1,2",
            help="Values of a label in the segmenter's output; by default all but 0.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The folder for the results.", show_default="DATASET.evaluation"),
    ] = None,
    device: Device = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare a finished dataset with real scans and with control datasets."""
    with reporting(debug, quiet=quiet, as_json=as_json) as console:
        from synthct.evaluate.extractors import load_extractors
        from synthct.evaluate.results import write_results
        from synthct.evaluate.run import Options, evaluate
        from synthct.evaluate.tables import results_markdown
        from synthct.storage.defaults import default_cache_dir
        from synthct.storage.files import beside

        options = Options(
            arms=roots_of(arm, option="--arm"),
            real=real,
            roots=roots_of(source),
            scopes=("crop", "slice") if slices else ("crop",),
            segmenter=segmenter,
            segmenter_values=_values(segmenter_label),
            progress=console.progress,
        )
        results = evaluate(
            dataset,
            load_extractors(
                extractor and [name.value for name in extractor], inception_weights, device
            ),
            options,
            cache_dir=cache_dir or default_cache_dir(),
        )
        tables = results_markdown(results)
        folder = output or beside(dataset, "evaluation")
        write_results(folder, results, tables)
        console.say(html.unescape(tables))  # a terminal shows names as they are
        console.result(folder)
        console.report(folder=folder, **results.model_dump(mode="json"))


def _values(pairs: list[str] | None) -> dict[str, frozenset[int]]:
    """``LABEL=1,2`` options as a mapping.

    Raises:
        RecipeError: If one has no label or a value that is no whole number.
    """
    from synthct.errors import RecipeError

    values = {}
    for pair in pairs or ():
        label, _, numbers = pair.partition("=")
        parts = numbers.split(",")
        if not label or not all(part.isdecimal() for part in parts):
            raise RecipeError(f"--segmenter-label {pair}: write LABEL=VALUES, such as kidney=1,2")
        values[label] = frozenset(int(part) for part in parts)
    return values
