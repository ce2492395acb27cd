"""Recipes of volumes: which settings go with ``view: volume``, and how large a sample becomes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from synthct.metrics.table import MEASURES
from synthct.recipe.yaml_errors import Problem

if TYPE_CHECKING:
    from synthct.masks import MaskKind
    from synthct.recipe.recipe import Recipe
    from synthct.sources import CaseEntry

#: Keys of a recipe that only volumes have.
OF_VOLUMES = ("extent", "margin_mm")

#: What a volume shows around its mask, unless the recipe says otherwise.
MARGIN_MM = 20.0

#: Voxels of all samples of a shard: it is made in memory, and parquet allows 2 GB per column.
SHARD_VOXELS = 200_000_000

#: Voxels of the largest sample: 512 x 512 x 1000 and a little.
MOST_VOXELS = 270_000_000


def margin_of(recipe: Recipe) -> float | None:
    """Millimetres that a volume shows around its mask; None for the whole host."""
    if recipe.extent == "scan":
        return None
    return MARGIN_MM if recipe.margin_mm is None else recipe.margin_mm


def volume_problems(recipe: Recipe) -> Iterator[Problem]:
    """Settings that do not go with the view."""
    if recipe.view != "volume":
        for name in OF_VOLUMES:
            if getattr(recipe, name) is not None:
                yield Problem((name,), f"{name} is for 'view: volume', not '{recipe.view}'")
        for name in recipe.quality.limits:
            if MEASURES[name].of_volumes:
                message = f"{name} is measured in volumes only; use 'view: volume' or remove it"
                yield Problem(("quality", name), message)
        return
    if recipe.extent == "scan" and recipe.margin_mm is not None:
        yield Problem(("margin_mm",), "with 'extent: scan' the whole host is shown; remove it")
    for number, section in enumerate(recipe.masks):
        if section.slices != "random":
            message = "a volume is painted with all of its slices; remove it"
            yield Problem(("masks", number, "slices"), message)


def host_problem(recipe: Recipe, host: CaseEntry) -> str | None:
    """Why no volume of a host can be painted; None if it can, or slices are."""
    if recipe.view != "volume":
        return None
    case = f"case {host.case_id} of source '{host.source}'"
    if min(host.shape) < 2:
        return f"{case} has the shape {host.shape}: one slice is no volume; use the view of slices"
    if recipe.extent == "scan" and math.prod(host.shape) > MOST_VOXELS:
        return (
            f"{case} has {math.prod(host.shape):,} voxels, more than the {MOST_VOXELS:,} that are "
            "held in memory as one sample; use 'extent: crop'"
        )
    return None


def expected_voxels(recipe: Recipe, section: MaskKind, host: CaseEntry, volume_ml: float) -> float:
    """About how many voxels a volume has.

    Args:
        recipe: With ``view: volume``.
        section: What draws its mask.
        host: The case that is painted into.
        volume_ml: Of the structures that give the mask its shape.
    """
    margin_mm = margin_of(recipe)
    if margin_mm is None:
        return float(math.prod(host.shape))
    extent_mm = section.likely_extent_mm(volume_ml) + 2 * margin_mm
    return math.prod(
        min(n, extent_mm / s) for n, s in zip(host.shape, host.spacing_mm, strict=True)
    )
