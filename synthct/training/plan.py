"""Which masks are drawn in which scans, decided from the index without reading a voxel.

Held-out patients share no scan and no donor with those that are trained on.
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
from synthct.recipe.recipe import donor_source
from synthct.recipe.shares import Split
from synthct.recipe.splits import assign_splits
from synthct.sources import CaseEntry, Index
from synthct.training.recipe import TrainingRecipe

#: Most donors per section and scan: each of them has to be read for it.
DONORS_PER_HOST = 4

#: In-plane downsampling of coarser copies of a scan.
COARSE_FACTORS = (2, 3)

#: Only scans with slices up to this get copies with thicker slices.
THIN_SLICE_MM = 3.0


@dataclass(frozen=True, eq=False)
class CaseSet:
    """The cases that are trained on, or those held out.

    Attributes:
        hosts: Cases with an image.
        donors: Cases of the sources that shapes are taken from; may be hosts as well.
    """

    hosts: tuple[CaseEntry, ...]
    donors: tuple[CaseEntry, ...]

    @property
    def cases(self) -> tuple[CaseEntry, ...]:
        """Hosts and donors, each case once."""
        return tuple({(e.source, e.case_id): e for e in (*self.hosts, *self.donors)}.values())


@dataclass(frozen=True)
class MaskDraw:
    """One 3D mask to be drawn.

    Attributes:
        number: Names its random stream.
        section: Index into the recipe's ``masks``.
        factor: In-plane downsampling of the scan; 1 for none.
        thick: Whether pairs of slices are averaged into one.
    """

    number: int
    section: int
    factor: int
    thick: bool


@dataclass(frozen=True, eq=False)
class HostJob:
    """All masks to be drawn in one scan, so that it is read once.

    Attributes:
        host: The scan.
        donors: Cases whose shapes may be used.
        draws: The masks.
        side: ``train``, ``held-out`` or ``samples``; part of the names of random streams.
    """

    host: CaseEntry
    donors: tuple[CaseEntry, ...]
    draws: tuple[MaskDraw, ...]
    side: str


def hold_out(recipe: TrainingRecipe, index: Index) -> tuple[CaseSet, CaseSet]:
    """Split the cases by patient into those to train on and those held out.

    No patient is held out where there is only one, or if the recipe has no ``validation``.

    Raises:
        RecipeError: If no case has an image, or a patient to hold out is not there or the only one.
    """
    entries = [entry for source in recipe.sources for entry in index.entries(source)]
    scanned = {entry.patient_id for entry in entries if entry.image is not None}
    if not scanned:
        raise RecipeError(f"{recipe.name}: no case of its sources has an image to train on")
    held_out = _held_out_patients(recipe, scanned)

    def cases_of(*, is_held: bool) -> CaseSet:
        mine = [entry for entry in entries if (entry.patient_id in held_out) == is_held]
        return CaseSet(
            tuple(entry for entry in mine if entry.image is not None),
            tuple(entry for entry in mine if entry.source in recipe.donors),
        )

    return cases_of(is_held=False), cases_of(is_held=True)


def plan_jobs(recipe: TrainingRecipe, cases: CaseSet, draws: int, side: str) -> list[HostJob]:
    """Distribute masks over the sections of ``masks`` and over scans, by weight.

    Args:
        recipe: Sections, weights and seed.
        cases: Hosts and donors to choose from.
        draws: Number of 3D masks.
        side: As in ``HostJob``. A section without host or donor is an error for ``train`` and
            left out for the others.

    Raises:
        RecipeError: If a section of masks has no host, or no donor, to train on.
    """
    hosts_of = {n: _suitable_hosts(section, cases) for n, section in enumerate(recipe.masks)}
    if side == "train":
        _require_hosts(recipe, cases, hosts_of)
    sections = [n for n, hosts in hosts_of.items() if hosts]
    if not sections:
        return []
    weights = _normalised([recipe.masks[n].weight for n in sections])
    host_weights = {n: _host_shares(recipe, cases, hosts_of[n]) for n in sections}
    mine: dict[int, list[MaskDraw]] = defaultdict(list)
    for number in range(draws):
        rng = seeds.generator(recipe.seed, "visit", side, str(number))
        section = sections[int(rng.choice(len(sections), p=weights))]
        host = hosts_of[section][int(rng.choice(len(hosts_of[section]), p=host_weights[section]))]
        is_coarse = rng.random() < recipe.data.coarsen
        factor = int(rng.choice(COARSE_FACTORS)) if is_coarse else 1
        is_thin = cases.hosts[host].spacing_mm[2] <= THIN_SLICE_MM
        thick = bool(rng.random() < recipe.data.thicken) and is_thin
        mine[host].append(MaskDraw(number, section, factor, thick))
    return [
        HostJob(
            cases.hosts[n], _donors_for(recipe, cases.hosts[n], cases, side), tuple(mine[n]), side
        )
        for n in sorted(mine)
    ]


def can_donate(entry: CaseEntry, section: MaskKind) -> bool:
    """Whether a case has the shapes that a section of masks takes from donors."""
    return entry.source == donor_source(section) and all(
        label in entry.labels for label in section.donor_labels()
    )


def _held_out_patients(recipe: TrainingRecipe, scanned: set[str]) -> set[str]:
    validation = recipe.validation
    if validation is None:
        return set()
    if validation.patients is not None:
        absent = [name for name in validation.patients if name not in scanned]
        if absent:
            raise RecipeError(
                f"{recipe.name}: validation.patients: no scan of a patient '{absent[0]}' "
                f"(first of {len(scanned)}: {', '.join(sorted(scanned)[:3])})"
            )
        if len(set(validation.patients)) == len(scanned):
            raise RecipeError(
                f"{recipe.name}: validation.patients holds out every patient; name fewer"
            )
        return set(validation.patients)
    if len(scanned) < 2:
        return set()
    fractions: Mapping[Split, float] = {
        "train": 1 - validation.share,
        "validation": validation.share,
    }
    splits = assign_splits(scanned, fractions, recipe.seed)
    return {patient for patient, split in splits.items() if split == "validation"}


def _suitable_hosts(section: MaskKind, cases: CaseSet) -> list[int]:
    """Indices of the hosts in which a section of masks can be drawn."""
    donors = {entry.patient_id for entry in cases.donors if can_donate(entry, section)}
    return [
        number
        for number, host in enumerate(cases.hosts)
        if has_required_labels(host, section)
        and (not section.needs_donor or donors - {host.patient_id})
    ]


def _require_hosts(
    recipe: TrainingRecipe, cases: CaseSet, hosts_of: Mapping[int, Sequence[int]]
) -> None:
    for number, section in enumerate(recipe.masks):
        if hosts_of[number]:
            continue
        where = f"{recipe.name}: masks '{section.name}'"
        if not any(has_required_labels(host, section) for host in cases.hosts):
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
    recipe: TrainingRecipe, cases: CaseSet, hosts: Sequence[int]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Probability of each host: a source's weight is shared equally by its cases."""
    sizes: dict[str, int] = defaultdict(int)
    for host in cases.hosts:
        sizes[host.source] += 1
    sources = [cases.hosts[n].source for n in hosts]
    return _normalised([recipe.data.source_weights.get(s, 1.0) / sizes[s] for s in sources])


def _donors_for(
    recipe: TrainingRecipe, host: CaseEntry, cases: CaseSet, side: str
) -> tuple[CaseEntry, ...]:
    """A few donors of other patients for each section that needs one."""
    chosen: dict[tuple[str, str], CaseEntry] = {}
    for section in recipe.masks:
        pool = [
            e for e in cases.donors if can_donate(e, section) and e.patient_id != host.patient_id
        ]
        if not section.needs_donor or not pool:
            continue
        rng = seeds.generator(recipe.seed, "donors", side, host.source, host.case_id, section.name)
        for n in rng.permutation(len(pool))[:DONORS_PER_HOST]:
            chosen[pool[n].source, pool[n].case_id] = pool[n]
    return tuple(chosen.values())


def _normalised(weights: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    array = np.asarray(weights, dtype=np.float64)
    shares: np.ndarray[tuple[int], np.dtype[np.float64]] = array / array.sum()
    return shares
