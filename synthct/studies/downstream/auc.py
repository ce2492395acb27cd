"""Area under the ROC curve with intervals of patients drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthct.studies.downstream.statistics import Difference, over_patients

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Separation:
    """How well scores of crops tell two groups apart, by patient; means over classifiers.

    Attributes:
        patients: All patients (P).
        wins: (P, P): sum over the crops of one patient that should score higher and those of
            another of 1 where they do, of a half where both are equal.
        pairs: Number of such pairs (P, P).
    """

    patients: tuple[str, ...]
    wins: Vector
    pairs: Vector

    @classmethod
    def of(
        cls,
        patients: Sequence[str],
        high: tuple[Sequence[str], Sequence[Sequence[float]]],
        low: tuple[Sequence[str], Sequence[Sequence[float]]],
    ) -> Separation:
        """Compare scores.

        Args:
            patients: All patients.
            high: Patient of each crop that should score higher, and for each classifier its scores.
            low: The same for the others.
        """
        row = {patient: n for n, patient in enumerate(patients)}
        above, below = (np.array([row[who] for who in some[0]], int) for some in (high, low))
        size = len(patients)
        wins, pairs = np.zeros((size, size)), np.zeros((size, size))
        higher = np.mean(
            [
                np.greater.outer(a, b) + 0.5 * np.equal.outer(a, b)
                for a, b in zip(map(np.array, high[1]), map(np.array, low[1]), strict=True)
            ],
            axis=0,
        )
        np.add.at(wins, (above[:, None], below[None]), higher)
        np.add.at(pairs, (above[:, None], below[None]), 1.0)
        return cls(tuple(patients), wins, pairs)

    def auc(self, weights: Vector) -> Vector:
        """The area for each resample (B, P) of the patients; NaN where a group is empty."""
        wins = np.einsum("bi,ij,bj->b", weights, self.wins, weights)
        pairs = np.einsum("bi,ij,bj->b", weights, self.pairs, weights)
        made = np.full(len(weights), np.nan)
        np.divide(wins, pairs, out=made, where=pairs > 0)
        return made


def area(one: Separation, other: Separation | None = None) -> Difference | None:
    """An area, or by how much two differ, with its 95 % interval; None where there is none.

    Args:
        one: What is asked for.
        other: Of the same patients; what is subtracted.
    """
    return over_patients(
        len(one.patients),
        lambda weights: one.auc(weights) - (0.0 if other is None else other.auc(weights)),
    )
