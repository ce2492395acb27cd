"""The 48 ways in which a scanner may store one and the same volume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations, product

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff

from synthct.volume import Volume, canonical
from synthct.volume.case import Case


def stored_in_all_ways(volume: Volume) -> Iterator[Volume]:
    """The volume with its axes permuted and flipped: other arrays and affines, the same patient."""
    for order, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        ornt = np.column_stack([order, flips])
        affine = volume.affine @ inv_ornt_aff(ornt, volume.shape)
        yield Volume(np.ascontiguousarray(apply_orientation(volume.array, ornt)), affine)


def read_in_all_ways(case: Case) -> Iterator[Case]:
    """The case as it is read from each of the 48 ways of storing it."""
    assert case.ct is not None
    pairs = zip(stored_in_all_ways(case.ct), stored_in_all_ways(case.labels), strict=True)
    for ct, labels in pairs:
        yield replace(case, ct=canonical(ct), labels=canonical(labels))
