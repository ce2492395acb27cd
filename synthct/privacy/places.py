"""Searches the slices around the training regions for tissue that keys did not propose."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from synthct.metrics.region_key import bounding_square
from synthct.metrics.slice_search import Spectrum, Template, spectrum_of
from synthct.privacy.tissue import Points
from synthct.sources import CaseEntry, read_case

#: Places that are named for each piece at most, and their least likeness: of noisy tissue on a
#: grid that lies half a cell beside that of the search, a quarter is left.
PLACES, _LEAST = 4, 0.15

#: Slices on either side of a training region that are searched, and pieces that are looked for at
#: a time: templates, and the transformed slices of a scan, are about 1 MB each.
_REACH, _BLOCK = 2, 500

#: HU up to which what surrounds a body is not searched.
_AIR_HU = -500

#: Pixels that are searched beyond the body, or that a slice is continued beyond its edges: the
#: square around a mask near one leaves it.
_EDGE_PX = 24


class LikelyPlace(NamedTuple):
    """Where in a training scan a piece may come from.

    Attributes:
        case: Key of the scan.
        grid_mm: (3, 3), as in the privacy index: centre of the first pixel of the square around the
            mask, steps to the next row and column.
    """

    case: str
    grid_mm: Points


#: Score, key of the scan, slice, and first pixel of the square along its first two axes.
_Found = tuple[float, str, int, int, int]


def likely_places(
    regions: Sequence[tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_]]],
    entries: Mapping[str, CaseEntry],
    grids: Mapping[str, Sequence[Points | None]],
) -> list[list[LikelyPlace]]:
    """The likeliest places of masked pieces of axial slices, at any shift, pixel for pixel.

    Args:
        regions: HU and mask (rows, columns) of each.
        entries: The scans that are searched, by key.
        grids: First pixel and steps (3, 3) of their training regions, by key; where one is not
            known, all slices of the scan are searched.

    Returns:
        At most ``PLACES`` for each, the likeliest first.
    """
    best: dict[int, list[_Found]] = defaultdict(list)
    widest = max((bounding_square(mask)[2] for _, mask in regions), default=0)
    affines = {}
    for case in sorted(set(entries) & set(grids)):
        scan = read_case(entries[case], {}).scan()
        affines[case] = scan.affine
        slices = _slices(grids[case], scan.affine, scan.shape[2])
        body = _body(scan.array[:, :, slices], widest)
        first_px = [cut.start - _EDGE_PX for cut in body]
        box = tuple(slice(cut.start, cut.stop + 2 * _EDGE_PX) for cut in body)
        shape = tuple(cut.stop - cut.start for cut in box)

        @cache
        def spectrum(
            k: int,
            level: int,
            hu: npt.NDArray[np.int16] = scan.array,
            box: tuple[slice, ...] = box,
        ) -> Spectrum:
            return spectrum_of(np.pad(hu[:, :, k], _EDGE_PX, mode="edge")[box], level)

        for first in range(0, len(regions), _BLOCK):
            block = regions[first : first + _BLOCK]
            templates = [Template.of(hu, mask, shape) for hu, mask in block]
            for k in slices:
                for n, template in enumerate(templates, first):
                    if template is not None:
                        place = template.place(spectrum(k, template.level), shape)
                        if place.score > _LEAST:
                            row, column = place.row + first_px[0], place.column + first_px[1]
                            _keep(best[n], (place.score, case, k, row, column))
    return [
        [_placed(one, affines[one[1]]) for one in sorted(best[n], reverse=True)]
        for n in range(len(regions))
    ]


def _placed(found: _Found, affine: Points) -> LikelyPlace:
    _, case, k, row, column = found
    first = (affine @ [row, column, k, 1])[:3]
    return LikelyPlace(case, np.stack([first, affine[:3, 0], affine[:3, 1]]))


def _body(hu: npt.NDArray[np.int16], least: int) -> tuple[slice, slice]:
    """Rows and columns of slices (rows, columns, N) that hold more than air.

    Args:
        hu: The slices.
        least: So many at least, if there are so many.
    """
    dense = np.asarray((hu > _AIR_HU).any(axis=2))
    cuts = []
    for axis, length in ((1, hu.shape[0]), (0, hu.shape[1])):
        hit = np.flatnonzero(dense.any(axis=axis))
        first, stop = (int(hit[0]), int(hit[-1]) + 1) if len(hit) else (0, length)
        stop = max(stop, min(first + least, length))
        cuts.append(slice(min(first, max(stop - least, 0)), stop))
    return cuts[0], cuts[1]


def _slices(grids: Sequence[Points | None], affine: Points, count: int) -> list[int]:
    """The axial slices of a scan near its axial training regions."""
    known = np.array([grid for grid in grids if grid is not None])
    if len(known) < len(grids):
        return list(range(count))
    to_voxel = np.linalg.inv(affine)[2]
    through = np.abs(known[:, 1:] @ to_voxel[:3]).max(axis=1)
    middle = np.rint(known[through < 0.01, 0] @ to_voxel[:3] + to_voxel[3]).astype(int)
    near = middle[:, None] + np.arange(-_REACH, _REACH + 1)
    return sorted({int(k) for k in near.ravel() if 0 <= k < count})


def _keep(best: list[_Found], place: _Found) -> None:
    if len(best) < PLACES:
        heapq.heappush(best, place)
    else:
        heapq.heappushpop(best, place)
