"""Recipes of volumes: which settings go with ``view: volume``, and how large a sample becomes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from synthct.metrics.table import MEASURES
from synthct.models.methods import Listed
from synthct.recipe.yaml_errors import Problem

if TYPE_CHECKING:
    from synthct.masks import MaskKind
    from synthct.recipe.recipe import Recipe
    from synthct.sources import CaseEntry

#: Keys of a recipe that only volumes have.
OF_VOLUMES = ("extent", "margin_mm", "masks_per_sample", "series")

#: What a volume shows around its mask, unless the recipe says otherwise.
MARGIN_MM = 20.0

#: Voxels of all samples of a shard: it is made in memory, and parquet allows 2 GB per column.
SHARD_VOXELS = 200_000_000

#: How far apart several masks of a sample are expected to lie.
_APART_MM = 200.0

#: Voxels of the largest sample: 512 x 512 x 1000 and a little.
MOST_VOXELS = 270_000_000


#: A number of masks in one scan.
Count = Annotated[int, Field(ge=1, le=20)]
Factor = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]


class Series(BaseModel):
    """One lesion in one place, growing or shrinking: linked rows with the same ``lesion_id``.

    Attributes:
        volume_factor: Its volume in each step, relative to the mask as it is drawn.
        steps: Number of steps, where ``volume_factor`` gives some of them only: the others lie
            between, in equal ratios.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    volume_factor: Annotated[Listed[tuple[Factor, ...]], Field(min_length=2, max_length=20)]
    steps: Annotated[int, Field(ge=2, le=20)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.steps is not None and self.steps < len(self.volume_factor):
            given = len(self.volume_factor)
            raise ValueError(f"steps {self.steps} is less than the {given} of volume_factor")
        if len({*self.volume_factor}) < len(self.volume_factor):
            raise ValueError(f"volume_factor {[*self.volume_factor]} names a size twice")
        return self

    @property
    def factors(self) -> tuple[float, ...]:
        """The volume of every step, relative to the mask as it is drawn."""
        given = self.volume_factor
        if self.steps is None or self.steps == len(given):
            return given
        places = np.linspace(0, len(given) - 1, self.steps)
        between = np.exp(np.interp(places, np.arange(len(given)), np.log(given)))
        return tuple(round(float(factor), 4) for factor in between)


def margin_of(recipe: Recipe) -> float | None:
    """Millimetres that a volume shows around its mask; None for the whole host."""
    if recipe.extent == "scan":
        return None
    return MARGIN_MM if recipe.margin_mm is None else recipe.margin_mm


def volume_settings(recipe: Recipe) -> dict[str, Any]:
    """All that decides what a volume is, beside its mask section."""
    return {
        "margin_mm": margin_of(recipe),
        "masks_per_sample": recipe.masks_per_sample and list(recipe.masks_per_sample),
        "volume_factor": recipe.series and list(recipe.series.factors),
    }


def volume_problems(recipe: Recipe) -> Iterator[Problem]:
    """Settings that do not go with the view."""
    if recipe.view != "volume":
        for name in OF_VOLUMES:
            if getattr(recipe, name) is not None:
                yield Problem((name,), f"{name} is for 'view: volume', not '{recipe.view}'")
        for name in recipe.own_limits.limits if recipe.own_limits else ():
            if MEASURES[name].of_volumes:
                message = f"{name} is measured in volumes only; use 'view: volume' or remove it"
                yield Problem(("quality", name), message)
        return
    if recipe.extent == "scan" and recipe.margin_mm is not None:
        yield Problem(("margin_mm",), "with 'extent: scan' the whole host is shown; remove it")
    yield from _several_problems(recipe)
    for number, section in enumerate(recipe.masks):
        if section.slices != "random":
            message = "a volume is painted with all of its slices; remove it"
            yield Problem(("masks", number, "slices"), message)


def _several_problems(recipe: Recipe) -> Iterator[Problem]:
    """Settings that do not go with several masks in a sample, or several sizes of one."""
    several = recipe.masks_per_sample is not None and max(recipe.masks_per_sample) > 1
    if several and recipe.series is not None:
        yield Problem(("series",), "a series is of one lesion; remove masks_per_sample or series")
    for name in ("masks_per_sample", "series"):
        if getattr(recipe, name) is not None and recipe.inpaint.needs_donor:
            message = f"{recipe.inpaint.method} carries one lesion over as it is; remove {name}"
            yield Problem((name,), message)
    for number, section in enumerate(recipe.masks):
        if several and section.max_extent_mm is not None:
            message = "a part of several masks would lose some of them; remove one of the two"
            yield Problem(("masks", number, "max_extent_mm"), f"with masks_per_sample, {message}")


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
    if recipe.series is not None:
        extent_mm *= max(1.0, *recipe.series.factors) ** (1 / 3)
    if recipe.masks_per_sample is not None and max(recipe.masks_per_sample) > 1:
        extent_mm = max(extent_mm, _APART_MM)
    return math.prod(
        min(n, extent_mm / s) for n, s in zip(host.shape, host.spacing_mm, strict=True)
    )
