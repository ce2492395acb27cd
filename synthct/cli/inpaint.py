"""``inpaint``: paints into one scan, without a recipe."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from synthct.cli.common import Debug, Device, Quiet, reporting
from synthct.errors import RecipeError


class ViewName(StrEnum):
    """Planes in which slices are painted, see ``volume.views``."""

    axial = "axial"
    coronal = "coronal"
    sagittal = "sagittal"


class LabelGrid(StrEnum):
    """Whose grid a mask without an affine of its own takes, as in a recipe."""

    image = "image"


def inpaint(
    ct: Annotated[Path, typer.Argument(help="The scan, .nii or .nii.gz.", show_default=False)],
    mask: Annotated[
        Path,
        typer.Argument(
            help="The mask, on the grid of the scan or a part of it.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The new file, .nii or .nii.gz.")],
    label: Annotated[
        str | None, typer.Option(help="What to paint.", show_default="whatever fits")
    ] = None,
    mask_value: Annotated[
        int | None,
        typer.Option(help="Paint where the mask has this value.", show_default="all but 0"),
    ] = None,
    view: Annotated[ViewName, typer.Option(help="The plane of the slices.")] = ViewName.axial,
    checkpoint: Annotated[
        str, typer.Option(help="package:NAME, a folder, or the id of a Hub repository.")
    ] = "package:starter-2d",
    revision: Annotated[
        str | None, typer.Option(help="Commit or tag of the Hub repository.")
    ] = None,
    scheduler: Annotated[str, typer.Option(help="As in a recipe.")] = "dpmsolver++",
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Denoising steps; by default as in a recipe."),
    ] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="As in a recipe.")] = None,
    level_hu: Annotated[
        float | None, typer.Option(help="Median HU of the paint in each slice; needs --label.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="For a checkpoint that is guided by text.")
    ] = None,
    grain: Annotated[
        bool,
        typer.Option("--grain/--no-grain", help="Complete the paint's noise to that around it."),
    ] = True,
    together: Annotated[
        bool,
        typer.Option(
            "--together/--apart",
            help="Tell the checkpoint the slices already painted, or paint each as if alone.",
        ),
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    orientation: Annotated[
        str | None, typer.Option(help="Of files that do not say how they lie, such as LAS.")
    ] = None,
    label_grid: Annotated[
        LabelGrid | None,
        typer.Option(help="Whose grid the mask takes if its affine is lost: image, the scan's."),
    ] = None,
    device: Device = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it is there.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Paint the masked voxels of a scan; all others are written exactly as they were.

    The output has the input's grid, orientation, header and type of voxels.
    """
    with reporting(debug, quiet=quiet) as console:
        from synthct.build.inpaint import paint_file, settings_of
        from synthct.processes.device import choose_device

        if level_hu is not None and label is None:
            raise RecipeError("--level-hu is that of a label; give --label as well")
        settings = settings_of(
            checkpoint=checkpoint,
            revision=revision,
            scheduler=scheduler,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            level_hu=None if level_hu is None else {label: level_hu},
            prompt=prompt,
            grain="surroundings" if grain else "checkpoint",
        )
        paint_file(
            ct,
            mask,
            output,
            settings,
            label=label,
            mask_value=mask_value,
            view=view.value,
            together=together,
            seed=seed,
            orientation=orientation,
            label_grid=None if label_grid is None else "image",
            device=lambda: choose_device(device),
            overwrite=overwrite,
            progress=console.progress,
        )
        console.result(output)
