"""Regions of a label map: where structures lie, and their connected parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from synthct.errors import MaskError
from synthct.volume import Box, Index3
from synthct.volume.case import Case

Region = npt.NDArray[np.bool_]


def structure(case: Case, labels: Iterable[str]) -> tuple[Region, Box]:
    """Where any of ``labels`` (structures or unions) lies, cropped to its box; found once per case.

    Returns:
        Boolean crop (I, J, K), read-only, and its box in the case's voxels.

    Raises:
        MaskError: If the case knows a label not, or none of them has a voxel.
    """
    names = tuple(labels)
    return case.once(("structure", names), lambda: _find(case, names))


def _find(case: Case, names: Sequence[str]) -> tuple[Region, Box]:
    first_value, *values = dict.fromkeys(v for name in names for v in case.values_of(name))
    # Comparing is an order of magnitude faster than looking every voxel up in a table.
    whole: Region = case.labels.array == first_value
    for value in values:
        whole |= case.labels.array == value
    rows = np.flatnonzero(whole.any(axis=(1, 2)))
    if rows.size == 0:
        raise MaskError(
            f"case {case.case_id}: label '{' + '.join(names)}' has no voxels; "
            "choose another label or leave the case out"
        )
    # One axis first: the others are then looked for in a fraction of the scan.
    first, last = int(rows[0]), int(rows[-1]) + 1
    inner = Box.around(whole[first:last])
    assert inner is not None
    box = move(inner, (first, 0, 0))
    region = whole[box.slices].copy()
    region.flags.writeable = False
    return region, box


def components(region: Region) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Face-connected parts of ``region``, the largest first.

    Returns:
        (I, J, K), 0 outside and n for the n-th part; and the parts' voxel counts.
    """
    from scipy.ndimage import label as find_parts

    parts, _ = find_parts(region)
    counts = np.bincount(parts.ravel())
    order = np.argsort(-counts[1:], kind="stable")
    rank = np.zeros(counts.size, dtype=np.int32)
    rank[order + 1] = np.arange(1, counts.size)
    return rank[parts], counts[1:][order].astype(np.int64)


def slices_with(region: Region, axis: int) -> list[int]:
    """The slices across an axis that show some of a region, rising."""
    others = tuple(n for n in range(3) if n != axis)
    return [int(n) for n in np.flatnonzero(region.any(axis=others))]


def largest_part(region: Region) -> Region:
    """The largest face-connected part of ``region``."""
    parts, _ = components(region)
    return np.asarray(parts == 1)


def move(box: Box, offset_ijk: Index3) -> Box:
    """``box`` shifted by whole voxels."""
    return box.shift(offset_ijk)


def seen_through(window: Box, region: Region, box: Box) -> Region:
    """What of ``region``, a crop that lies at ``box``, is seen in another box; False elsewhere.

    Returns:
        Boolean of ``window``'s shape.
    """
    seen = np.zeros(window.shape, dtype=bool)
    start = np.maximum(window.start_ijk, box.start_ijk)
    stop = np.minimum(window.stop_ijk, box.stop_ijk)
    if (stop > start).all():
        here = [slice(a - o, b - o) for a, b, o in zip(start, stop, window.start_ijk, strict=True)]
        there = [slice(a - o, b - o) for a, b, o in zip(start, stop, box.start_ijk, strict=True)]
        seen[tuple(here)] = region[tuple(there)]
    return seen
