"""``evaluate``: how good a finished dataset is, against real scans and control arms."""

from __future__ import annotations

import html
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthct.cli.common import CacheDir, Debug, Device, Sources, on_terminal, reporting, roots_of

if TYPE_CHECKING:
    from synthct.evaluate.pictures import Extractor


class ExtractorName(StrEnum):
    """What features are taken by."""

    radiomics = "radiomics"
    efficientnet_lite0 = "efficientnet-lite0"
    inception_v3 = "inception-v3"


def evaluate(
    dataset: Annotated[Path, typer.Argument(help="The folder of a version.", show_default=False)],
    real: Annotated[
        Path | None,
        typer.Option(help="Another dataset whose originals are what is real.", show_default="own"),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DATASET", help="A control arm: the same masks, other paint."),
    ] = None,
    source: Sources = None,
    extractor: Annotated[
        list[ExtractorName] | None,
        typer.Option(help="What features are taken by.", show_default="all that are at hand"),
    ] = None,
    inception_weights: Annotated[
        Path | None,
        typer.Option(help="The FID weights: a file, or OWNER/REPOSITORY/FILE in the Hub's cache."),
    ] = None,
    slices: Annotated[
        bool, typer.Option("--slices/--no-slices", help="Also compare whole slices.")
    ] = True,
    segmenter: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Your own judge of the masks, such as 'nnUNetv2_predict -i {images} -o {labels}'.",
        ),
    ] = None,
    segmenter_label: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=1,2", help="A label's values there; by default all but 0."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Where the results go.", show_default="DATASET.evaluation"),
    ] = None,
    device: Device = None,
    cache_dir: CacheDir = None,
    debug: Debug = False,
) -> None:
    """Measure a finished dataset: labels by arms, beside real against real."""
    with reporting(debug):
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
            progress=on_terminal(),
        )
        found = evaluate(
            dataset,
            _extractors(extractor, inception_weights, device),
            options,
            cache_dir=cache_dir or default_cache_dir(),
        )
        tables = results_markdown(found)
        folder = output or beside(dataset, "evaluation")
        write_results(folder, found, tables)
        typer.echo(html.unescape(tables))  # a terminal shows names as they are
        typer.echo(f"{folder}")


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


def _extractors(
    names: list[ExtractorName] | None, weights: Path | None, device: str | None
) -> list[Extractor]:
    """The named extractors, or all that are installed.

    Raises:
        CheckpointError: If a named one is not installed.
        ResourceError: If the device cannot be used.
    """
    from synthct.errors import CheckpointError
    from synthct.evaluate.efficientnet import EfficientNetLite0, is_installed
    from synthct.evaluate.inception import WEIGHTS, Inception, find_weights
    from synthct.evaluate.radiomics import Radiomics
    from synthct.processes.device import choose_device

    found = find_weights(weights)
    at_hand = [ExtractorName.radiomics]
    at_hand += [ExtractorName.efficientnet_lite0] if is_installed() else []
    at_hand += [ExtractorName.inception_v3] if found is not None else []
    made: list[Extractor] = []
    for name in dict.fromkeys(names or at_hand):
        match name:
            case ExtractorName.radiomics:
                made.append(Radiomics())
            case ExtractorName.efficientnet_lite0:
                made.append(EfficientNetLite0(device=choose_device(device)))
            case ExtractorName.inception_v3:
                if found is None:
                    raise CheckpointError(
                        f"inception-v3 needs its weights: --inception-weights FILE, the {WEIGHTS} "
                        "of the pytorch-fid project"
                    )
                made.append(Inception(found, choose_device(device)))
    return made
