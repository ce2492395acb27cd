"""Copies of a scan with larger pixels or thicker slices, as data augmentation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from synthct.volume import Box, Volume
from synthct.volume.case import Case


def coarser(case: Case, factor: int) -> Case:
    """Downsample in plane by a factor: block means of HU, block centres of labels."""
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
    return replace(
        case,
        case_id=f"{case.case_id}/{factor}",
        ct=Volume(mean, affine),
        labels=Volume(np.ascontiguousarray(middle), affine),
    )


def thicker(case: Case) -> Case:
    """Average pairs of slices: means of HU, labels of the first slice; a single one stays."""
    ct = case.scan()
    count = ct.shape[2] // 2
    if not count:
        return case
    pairs = ct.array[:, :, : 2 * count].reshape(*ct.shape[:2], count, 2)
    affine = ct.affine.copy()
    affine[:3, 2] *= 2
    # The first voxel's centre moves to the middle between the two.
    affine[:3, 3] += ct.affine[:3, 2] / 2
    mean = np.rint(pairs.mean(axis=3, dtype=np.float32)).astype(np.int16)
    first = np.ascontiguousarray(case.labels.array[:, :, : 2 * count : 2])
    return replace(
        case,
        case_id=f"{case.case_id}/thick",
        ct=Volume(mean, affine),
        labels=Volume(first, affine),
    )
