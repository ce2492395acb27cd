"""Coarser copies of a scan, so that a network also learns scans of larger pixels."""

from __future__ import annotations

import numpy as np

from synthct.case import Case
from synthct.volume import Box, Volume


def coarser(case: Case, factor: int) -> Case:
    """A copy at 1/factor of the in-plane resolution: block means of HU, block centres of labels."""
    ct = case.scan()
    stop = [n - n % factor for n in ct.shape[:2]]
    box = Box((0, 0, 0), (stop[0], stop[1], ct.shape[2]))
    cut, labels = ct.crop(box), case.labels.crop(box)
    blocks = cut.array.reshape(stop[0] // factor, factor, stop[1] // factor, factor, -1)
    affine = ct.affine.copy()
    affine[:3, :2] *= factor
    # The first voxel's centre moves to the middle of its block.
    affine[:3, 3] += ct.affine[:3, :2].sum(axis=1) * (factor - 1) / 2
    mean = np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.int16)
    middle = labels.array[factor // 2 :: factor, factor // 2 :: factor]
    return Case(
        f"{case.case_id}/{factor}",
        case.patient_id,
        case.source,
        Volume(mean, affine),
        Volume(np.ascontiguousarray(middle), affine),
        case.label_names,
        case.unions,
    )
