"""Which masks are drawn in which scans, from the index alone: no voxel is read here.

The patients that are held out share no scan and no donor with the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synthct import seeds
from synthct.errors import RecipeError
from synthct.masks import MaskKind
from synthct.recipe.plan import has_required_labels
from synthct.recipe.recipe import Split, donor_source
from synthct.recipe.splits import assign_splits
from synthct.sources import CaseEntry, Index
from synthct.training.recipe import TrainingRecipe

#: Donors whose shapes are used in one scan: each has to be read for it.
DONORS_PER_HOST = 4

#: In-plane resolution of the coarser copies of a scan, as fractions of its own.
COARSE_FACTORS = (2, 3)

#: Scans with slices up to so thick get a copy with slices twice as thick.
THIN_SLICE_MM = 3.0


@dataclass(frozen=True, eq=False)
class Cast:
    """The cases of one side: those that are trained on, or those held out.

    Attributes:
        hosts: Cases with an image.
        donors: Cases of the sources that lend shapes; may be hosts as well.
    """

    hosts: tuple[CaseEntry, ...]
    donors: tuple[CaseEntry, ...]

    @property
    def cases(self) -> tuple[CaseEntry, ...]:
        """All of them, once each."""
        return tuple({(e.source, e.case_id): e for e in (*self.hosts, *self.donors)}.values())


@dataclass(frozen=True)
class Visit:
    """One 3D mask to be drawn.

    Attributes:
        number: Names its random stream.
        section: Number of its section of ``masks``.
        factor: 1, or how much coarser the copy of the scan is.
        thick: Whether the copy's slices are twice as thick.
    """

    number: int
    section: int
    factor: int
    thick: bool


@dataclass(frozen=True, eq=False)
class Unit:
    """The visits to one scan: what one process does in one go.

    Attributes:
        host: The scan.
        donors: The cases whose shapes may be used.
        visits: The masks to draw in it.
        side: ``train`` or ``held-out``; part of the random streams.
    """

    host: CaseEntry
    donors: tuple[CaseEntry, ...]
    visits: tuple[Visit, ...]
    side: str


def hold_out(recipe: TrainingRecipe, index: Index) -> tuple[Cast, Cast]:
    """The cases to train on, and those of the patients that are held out.

    Nobody is held out where there is one patient only, or the recipe has no ``validation``.

    Raises:
        RecipeError: If no case has an image, or a patient to hold out is not there or the only one.
    """
    entries = [entry for source in recipe.sources for entry in index.entries(source)]
    scanned = {entry.patient_id for entry in entries if entry.image is not None}
    if not scanned:
        raise RecipeError(f"{recipe.name}: no case of its sources has an image to train on")
    held = _held_patients(recipe, scanned)

    def cast(*, is_held: bool) -> Cast:
        mine = [entry for entry in entries if (entry.patient_id in held) == is_held]
        return Cast(
            tuple(entry for entry in mine if entry.image is not None),
            tuple(entry for entry in mine if entry.source in recipe.donors),
        )

    return cast(is_held=False), cast(is_held=True)


def plan_units(recipe: TrainingRecipe, cast: Cast, visits: int, side: str) -> list[Unit]:
    """Share ``visits`` out over sections and scans by weight; one unit for each scan visited.

    Args:
        recipe: The recipe.
        cast: Whom to draw from.
        visits: How many 3D masks.
        side: Names the random streams; ``train`` or ``held-out``.

    Raises:
        RecipeError: If a section of masks has no host, or no donor, to train on. A section that
            cannot be drawn in held-out scans is left out there.
    """
    able = {n: _able(recipe, section, cast) for n, section in enumerate(recipe.masks)}
    if side == "train":
        _require(recipe, cast, able)
    sections = [n for n, hosts in able.items() if hosts]
    if not sections:
        return []
    weights = _shares([recipe.masks[n].weight for n in sections])
    host_weights = {n: _host_shares(recipe, cast, able[n]) for n in sections}
    mine: dict[int, list[Visit]] = defaultdict(list)
    for number in range(visits):
        rng = seeds.generator(recipe.seed, "visit", side, str(number))
        section = sections[int(rng.choice(len(sections), p=weights))]
        host = able[section][int(rng.choice(len(able[section]), p=host_weights[section]))]
        is_coarse = rng.random() < recipe.data.coarsen
        factor = int(rng.choice(COARSE_FACTORS)) if is_coarse else 1
        is_thin = cast.hosts[host].spacing_mm[2] <= THIN_SLICE_MM
        thick = bool(rng.random() < recipe.data.thicken) and is_thin
        mine[host].append(Visit(number, section, factor, thick))
    return [
        Unit(cast.hosts[n], _donors_for(recipe, cast.hosts[n], cast, side), tuple(mine[n]), side)
        for n in sorted(mine)
    ]


def lends(entry: CaseEntry, section: MaskKind) -> bool:
    """Whether a case can be a donor of a section."""
    return entry.source == donor_source(section) and all(
        label in entry.labels for label in section.donor_labels()
    )


def _held_patients(recipe: TrainingRecipe, scanned: set[str]) -> set[str]:
    asked = recipe.validation
    if asked is None:
        return set()
    if asked.patients is not None:
        absent = [name for name in asked.patients if name not in scanned]
        if absent:
            raise RecipeError(
                f"{recipe.name}: validation.patients: no scan of a patient '{absent[0]}' "
                f"(first of {len(scanned)}: {', '.join(sorted(scanned)[:3])})"
            )
        if len(set(asked.patients)) == len(scanned):
            raise RecipeError(
                f"{recipe.name}: validation.patients holds out every patient; name fewer"
            )
        return set(asked.patients)
    if len(scanned) < 2:
        return set()
    fractions: Mapping[Split, float] = {"train": 1 - asked.share, "validation": asked.share}
    splits = assign_splits(scanned, fractions, recipe.seed)
    return {patient for patient, split in splits.items() if split == "validation"}


def _able(recipe: TrainingRecipe, section: MaskKind, cast: Cast) -> list[int]:
    """Numbers of the hosts in which a section can be drawn."""
    lenders = {entry.patient_id for entry in cast.donors if lends(entry, section)}
    return [
        number
        for number, host in enumerate(cast.hosts)
        if has_required_labels(host, section)
        and (not section.needs_donor or lenders - {host.patient_id})
    ]


def _require(recipe: TrainingRecipe, cast: Cast, able: Mapping[int, Sequence[int]]) -> None:
    for number, section in enumerate(recipe.masks):
        if able[number]:
            continue
        where = f"{recipe.name}: masks '{section.name}'"
        if not any(has_required_labels(host, section) for host in cast.hosts):
            wanted = ", ".join(section.required_labels() or section.optional_labels())
            raise RecipeError(
                f"{where}: no case to train on has {wanted}; drop the section, add a source, or "
                "hold fewer patients out"
            )
        wanted, source = ", ".join(section.donor_labels()), donor_source(section)
        raise RecipeError(
            f"{where}: no other patient of '{source}' to train on has {wanted}; drop the section "
            "or take donors from another source"
        )


def _host_shares(
    recipe: TrainingRecipe, cast: Cast, hosts: Sequence[int]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How often each host is visited: a source's weight is shared by its cases."""
    sizes: dict[str, int] = defaultdict(int)
    for host in cast.hosts:
        sizes[host.source] += 1
    sources = [cast.hosts[n].source for n in hosts]
    return _shares([recipe.data.source_weights.get(s, 1.0) / sizes[s] for s in sources])


def _donors_for(
    recipe: TrainingRecipe, host: CaseEntry, cast: Cast, side: str
) -> tuple[CaseEntry, ...]:
    """A few donors of other patients for each section that needs one."""
    chosen: dict[tuple[str, str], CaseEntry] = {}
    for section in recipe.masks:
        pool = [e for e in cast.donors if lends(e, section) and e.patient_id != host.patient_id]
        if not section.needs_donor or not pool:
            continue
        rng = seeds.generator(recipe.seed, "donors", side, host.source, host.case_id, section.name)
        for n in rng.permutation(len(pool))[:DONORS_PER_HOST]:
            chosen[pool[n].source, pool[n].case_id] = pool[n]
    return tuple(chosen.values())


def _shares(weights: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    array = np.asarray(weights, dtype=np.float64)
    shares: np.ndarray[tuple[int], np.dtype[np.float64]] = array / array.sum()
    return shares
