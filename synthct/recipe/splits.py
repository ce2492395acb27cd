"""Assignment of patients to splits, and of a host's masks to the recipe's sections by weight."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise

from synthct.errors import PolicyError, counted
from synthct.recipe.recipe import Recipe
from synthct.recipe.shares import SPLITS, Split
from synthct.seeds import derive_seed
from synthct.sources import CaseEntry


def split_patients(
    recipe: Recipe, hosts: Sequence[CaseEntry], donors: Sequence[CaseEntry]
) -> tuple[dict[str, Split], list[str]]:
    """The split of every patient, and notes for the user.

    Patients who are only donors are divided separately, so that each split has donors. If a split
    would get less than half a host patient, all patients are in train.

    Raises:
        RecipeError: If splits come from the sources, and a case has none there.
        PolicyError: If a patient is in two splits there.
    """
    if recipe.splits.from_source:
        return _from_tables(recipe, [*hosts, *donors]), []
    host_patients = {host.patient_id for host in hosts}
    donor_patients = {donor.patient_id for donor in donors}
    fractions = recipe.splits.fractions
    if len(fractions) > 1 and len(host_patients) * min(fractions.values()) < 0.5:
        shares = ", ".join(f"{split} {share:g}" for split, share in fractions.items())
        are = "is" if len(host_patients) == 1 else "are"
        few = f"{counted(len(host_patients), 'host patient')} {are}"
        note = f"{few} too few for {shares}; everything is train"
        return dict.fromkeys(sorted(host_patients | donor_patients), "train"), [note]
    splits = assign_splits(host_patients, fractions, recipe.seed)
    splits.update(assign_splits(donor_patients - host_patients, fractions, recipe.seed))
    return splits, []


def _from_tables(recipe: Recipe, entries: Sequence[CaseEntry]) -> dict[str, Split]:
    """Patient to split, from the sources' tables (``meta.csv``)."""
    first_of: dict[str, CaseEntry] = {}
    for entry in entries:
        if entry.split is None:
            raise recipe.error(
                ("splits", "from_source"),
                f"source '{entry.source}' does not say in which split case '{entry.case_id}' is; "
                "give fractions instead",
            )
        first = first_of.setdefault(entry.patient_id, entry)
        if first.split != entry.split:
            raise PolicyError(
                f"patient '{entry.patient_id}' is in two splits: case '{first.case_id}' is "
                f"{first.split}, case '{entry.case_id}' is {entry.split}; leave one of them out"
            )
    by_name: dict[str, Split] = {split: split for split in SPLITS}
    return {patient: by_name[str(entry.split)] for patient, entry in sorted(first_of.items())}


def assign_splits(
    patients: Iterable[str], fractions: Mapping[Split, float], seed: int
) -> dict[str, Split]:
    """Assign patients to splits by a seeded random order and the fractions.

    With at least as many patients as splits, no split is empty.
    """
    ranked = sorted(
        set(patients), key=lambda patient: (derive_seed(seed, "split", patient), patient)
    )
    sizes = _sizes(len(ranked), fractions)
    names = [split for split in SPLITS for _ in range(sizes.get(split, 0))]
    return dict(zip(ranked, names, strict=True))


def _sizes(total: int, fractions: Mapping[Split, float]) -> dict[Split, int]:
    """Largest remainders, then one from the largest split to each that got none."""
    shares = {split: Fraction(str(share)) for split, share in fractions.items()}
    exact = {split: share * total / sum(shares.values()) for split, share in shares.items()}
    sizes = {split: math.floor(share) for split, share in exact.items()}
    by_remainder = sorted(
        exact, key=lambda split: (sizes[split] - exact[split], SPLITS.index(split))
    )
    for n in range(total - sum(sizes.values())):
        sizes[by_remainder[n % len(by_remainder)]] += 1
    if total >= len(sizes):
        for split in sizes:
            if sizes[split] == 0:
                sizes[max(sizes, key=lambda name: sizes[name])] -= 1
                sizes[split] = 1
    return sizes


def share_out(weights: Sequence[float], total: int, offset: Fraction) -> list[int]:
    """Divide ``total`` into integer counts in proportion to ``weights``.

    Each count is its exact share, rounded down or up by systematic sampling with ``offset``, so
    that over many hosts even a small weight gets its share.

    Args:
        weights: Positive, of any sum.
        total: Sum of the counts.
        offset: 0 <= offset < 1; shifts the rounding.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    whole = sum(exact)
    marks = [math.floor(sum(exact[:n]) * total / whole + offset) for n in range(len(exact) + 1)]
    return [after - before for before, after in pairwise(marks)]
