"""``downstream``: whether painted lesions help a segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import CacheDir, Debug, Device, Quiet, Sources, reporting, roots_of


def downstream(
    recipe: Annotated[
        Path, typer.Argument(help="The recipe of a study, a YAML file.", show_default=False)
    ],
    source: Sources = None,
    output: Annotated[Path, typer.Option(help="The study is written to OUTPUT/NAME.")] = Path(
        "out/downstream"
    ),
    trainer: Annotated[
        str,
        typer.Option(
            help="unet: a small network, for minutes on a CPU; 3D if the recipe's trainer has "
            "patch_slices. nnunet: nnU-Net v2, by --python.",
            metavar="unet|nnunet",
        ),
    ] = "unet",
    python: Annotated[
        Path | None,
        typer.Option(
            help="With nnunet: the Python of an environment that has nnunetv2.",
            metavar="PATH",
            show_default=False,
        ),
    ] = None,
    configuration: Annotated[
        str, typer.Option(help="With nnunet: 2d or 3d_fullres.", metavar="2d|3d_fullres")
    ] = "2d",
    suggest: Annotated[
        bool,
        typer.Option(
            "--suggest",
            help="Also print masks for a recipe that make more of what real scans alone miss.",
        ),
    ] = False,
    device: Device = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")
    ] = None,
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train segmenters with and without painted lesions, and judge them on real scans.

    Builds the painted dataset and controls with equal masks, trains a small network on each, and
    compares them on patients who are in none of it. Run again to continue.
    """
    with reporting(debug, quiet=quiet) as console:
        from synthct.errors import RecipeError
        from synthct.studies.downstream.recipe import load_study

        if trainer not in ("unet", "nnunet"):
            raise RecipeError(f"there is no trainer '{trainer}'; choose unet or nnunet")
        if (trainer == "nnunet") != (python is not None):
            raise RecipeError(
                "--trainer nnunet and --python PATH go together: nnU-Net needs an environment of "
                "its own, since its torchvision does not go with synthct's torch"
            )
        if configuration not in ("2d", "3d_fullres"):
            raise RecipeError(f"there is no configuration '{configuration}'; 2d or 3d_fullres")
        study = load_study(recipe, sources=roots_of(source))
        import torch

        from synthct.studies.downstream.run import SUGGESTION, run_study

        if threads is not None:
            torch.set_num_threads(threads)
        folder = run_study(
            study,
            output,
            nnunet=python,
            configuration=configuration,
            suggest=suggest,
            cache_dir=cache_dir,
            device=device,
            progress=console.progress,
        )
        console.say((folder / "results.md").read_text(encoding="utf-8"))
        if suggest:
            console.say((folder / SUGGESTION).read_text(encoding="utf-8"))
        console.result(folder)
