"""Masks on slices of one scan, drawn and cut as in a build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from synthct import seeds
from synthct.errors import MaskError
from synthct.masks import MaskKind
from synthct.masks.base import PlacementError
from synthct.masks.slicing import draw_slices, on_slice, slice_of
from synthct.models.patch import Patch, PatchRules, cut_patches
from synthct.sources import read_case
from synthct.training.coarse import coarser, thicker
from synthct.training.plan import Unit, lends
from synthct.training.recipe import TrainingRecipe
from synthct.volume import HU_MAX, HU_MIN, Volume
from synthct.volume.case import Case
from synthct.volume.views import VIEW_AXIS, View

#: How often a mask is drawn anew that has no legal place or cannot be cut, before it is left out.
TRIES = 10


@dataclass(frozen=True, eq=False)
class MaskedSlice:
    """A mask on a slice, and what the model gets of it.

    Attributes:
        case_id: The scan.
        section: Name of the section of ``masks``.
        plane: HU, one voxel thick.
        region: Boolean, on the grid of ``plane``.
        label: What is painted; None for whatever fits.
        view: The slice's plane.
        patches: The patches that cover the mask.
    """

    case_id: str
    section: str
    plane: Volume
    region: Volume
    label: str | None
    view: View
    patches: tuple[Patch, ...]


@dataclass
class Tally:
    """What became of the masks that were to be drawn.

    Attributes:
        drawn: Slices by section.
        left_out: Masks by section and reason.
    """

    drawn: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def draw_unit(
    recipe: TrainingRecipe,
    rules: PatchRules,
    unit: Unit,
    names: Mapping[str, int],
    *,
    slices: int,
    tally: Tally,
) -> Iterator[tuple[MaskedSlice, np.random.Generator]]:
    """Draw the masks of a unit, each with its own random stream.

    Args:
        recipe: The recipe.
        rules: What the network takes.
        unit: One scan and what to draw in it.
        names: Structure to value, the same for all cases.
        slices: Slices of each 3D mask.
        tally: Counts are added to it.

    Yields:
        The slices, each with its stream for what is still to be drawn.

    Raises:
        SourceError: If a file is missing or damaged.
    """
    case = read_case(unit.host, names)
    donors = [(entry, read_case(entry, names)) for entry in unit.donors]
    copies = {(1, False): case}
    for visit in unit.visits:
        section = recipe.masks[visit.section]
        seen_as = (visit.factor, visit.thick)
        if seen_as not in copies:
            thick = thicker(case) if visit.thick else case
            copies[seen_as] = coarser(thick, visit.factor) if visit.factor > 1 else thick
        lenders = [donor for entry, donor in donors if lends(entry, section)]
        rng = seeds.generator(recipe.seed, "mask", unit.side, str(visit.number))
        drawn = _visit(recipe, rules, section, copies[seen_as], lenders, slices, rng)
        if isinstance(drawn, str):
            tally.left_out[f"{section.name}: {drawn}"] += 1
            continue
        tally.drawn[section.name] += len(drawn)
        for one in drawn:
            yield one, rng


def _visit(
    recipe: TrainingRecipe,
    rules: PatchRules,
    section: MaskKind,
    host: Case,
    lenders: Sequence[Case],
    slices: int,
    rng: np.random.Generator,
) -> list[MaskedSlice] | str:
    """One 3D mask on some of its slices; the commonest reason if it cannot be had."""
    reasons: Counter[str] = Counter()
    for _ in range(TRIES):
        donor = lenders[int(rng.integers(len(lenders)))] if section.needs_donor else None
        try:
            mask = section.build(host, donor, section.draw(host, donor, rng))
            view = _draw_view(recipe.data.views, host.scan(), rules, rng)
            drawn = []
            for _ in range(slices):
                shown = draw_slices(mask, view, section.slices, section.max_extent_mm, rng)
                flat = slice_of(mask, view, shown[int(rng.integers(len(shown)))])
                plane, region = on_slice(host.scan(), flat, view)
                plane = jittered(plane, recipe.data.attenuation_jitter, rng)
                patches = tuple(cut_patches(plane, region, flat.label, rules))
                drawn.append(
                    MaskedSlice(
                        host.case_id, section.name, plane, region, flat.label, view, patches
                    )
                )
        except PlacementError as err:
            reasons[err.reason] += 1
        except MaskError as err:
            reasons[str(err)] += 1
        else:
            return drawn
    return reasons.most_common(1)[0][0]


def jittered(plane: Volume, jitter: float, rng: np.random.Generator) -> Volume:
    """A slice whose attenuation (HU + 1000) is all a little higher or lower.

    Args:
        plane: HU.
        jitter: Greatest relative change, drawn evenly.
        rng: Drawn from only if there is a jitter.
    """
    if not jitter:
        return plane
    factor = np.float32(1 + rng.uniform(-jitter, jitter))
    hu = np.rint((plane.array + np.float32(1000)) * factor - np.float32(1000))
    return Volume(np.clip(hu, HU_MIN, HU_MAX).astype(np.int16), plane.affine)


def _draw_view(
    views: Mapping[View, float], ct: Volume, rules: PatchRules, rng: np.random.Generator
) -> View:
    """A view by weight; axial where the drawn one would need resampling."""
    names = list(views)
    weights = np.array([views[name] for name in names])
    view = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    low, high = rules.spacing_range_mm
    plane = (s for axis, s in enumerate(ct.spacing_mm) if axis != VIEW_AXIS[view])
    return view if all(low <= s <= high for s in plane) else "axial"
