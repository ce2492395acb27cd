"""Sharing out: patients to splits, by fractions or as the sources' tables say; masks by weight."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise

from synthct.errors import PolicyError
from synthct.recipe.recipe import SPLITS, Recipe, Split
from synthct.seeds import derive_seed
from synthct.sources import CaseEntry


def split_patients(
    recipe: Recipe, hosts: Sequence[CaseEntry], donors: Sequence[CaseEntry]
) -> tuple[dict[str, Split], list[str]]:
    """Every patient's split, and what is to be said about it.

    By fractions, those who are only donors are shared out by themselves, so that each split has
    its donors; a split that the fractions give less than half a patient cannot be had.

    Raises:
        RecipeError: If the sources are to say it and one does not.
        PolicyError: If they put one patient into two splits.
    """
    if recipe.splits.from_source:
        return _from_tables(recipe, [*hosts, *donors]), []
    painted = {host.patient_id for host in hosts}
    lending = {donor.patient_id for donor in donors}
    fractions = recipe.splits.fractions
    if len(fractions) > 1 and len(painted) * min(fractions.values()) < 0.5:
        asked = ", ".join(f"{split} {share:g}" for split, share in fractions.items())
        note = f"{len(painted)} host patients are too few for {asked}; everything is train"
        return dict.fromkeys(sorted(painted | lending), "train"), [note]
    splits = assign_splits(painted, fractions, recipe.seed)
    splits.update(assign_splits(lending - painted, fractions, recipe.seed))
    return splits, []


def _from_tables(recipe: Recipe, entries: Sequence[CaseEntry]) -> dict[str, Split]:
    """Patients to the splits that the sources' tables (``meta.csv``) give their cases."""
    found: dict[str, CaseEntry] = {}
    for entry in entries:
        if entry.split is None:
            raise recipe.error(
                ("splits", "from_source"),
                f"source '{entry.source}' does not say in which split case '{entry.case_id}' is; "
                "give fractions instead",
            )
        first = found.setdefault(entry.patient_id, entry)
        if first.split != entry.split:
            raise PolicyError(
                f"patient '{entry.patient_id}' is in two splits: case '{first.case_id}' is "
                f"{first.split}, case '{entry.case_id}' is {entry.split}; leave one of them out"
            )
    by_name: dict[str, Split] = {split: split for split in SPLITS}
    return {patient: by_name[str(entry.split)] for patient, entry in sorted(found.items())}


def assign_splits(
    patients: Iterable[str], fractions: Mapping[Split, float], seed: int
) -> dict[str, Split]:
    """Patients to splits, in the order of a hash, as many to each as the fractions ask.

    With at least as many patients as splits no split is empty.
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
    """Whole counts that add up to ``total`` and are as their ``weights`` ask.

    Each count is its exact share, rounded down or up; systematic sampling with ``offset`` decides
    which, so that over many hosts even a small weight gets its share.

    Args:
        weights: Positive, of any sum.
        total: What the counts add up to.
        offset: 0 <= offset < 1; where the rounding falls.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    whole = sum(exact)
    marks = [math.floor(sum(exact[:n]) * total / whole + offset) for n in range(len(exact) + 1)]
    return [after - before for before, after in pairwise(marks)]
