"""Low-dimensional keys of masked regions: a search for the training region that a painting copied.

A key is the lowest cosine coefficients of the region's high-passed tissue on a small grid of its
own, so that it does not depend on the pixel size, an HU offset or scale; flips are signs of
coefficients, which the search tries, together with shifts of up to four pixels. Keys propose
candidates; whether one is a copy, only a correlation with the scan can tell.
"""

from __future__ import annotations

import hashlib
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

from synthct.metrics.crop import Hu, Region, check_shapes
from synthct.metrics.high_pass import cell_means, high_passed

Keys = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

#: Side of the grid, coefficients along each side (without the constant one), bytes of a key with
#: four bits each, and bytes of the hash of a region.
GRID, ORDER = 32, 12
COEFFICIENTS = ORDER**2 - 1
KEY_BYTES, HASH_BYTES = (COEFFICIENTS + 1) // 2, 8

#: Standard deviation of the high-pass on the grid.
_HIGH_PASS = 3.0

#: Steps of the quantised coefficients, whose typical size is one twelfth.
_STEPS = 30.0

#: Shifts that a search tries, in pixels along rows and columns; more where the side of the square
#: is below ``_SMALL_PX``, since a pixel is more of it.
_SHIFTS_PX: tuple[tuple[int, ...], ...] = tuple(product((-4, -2, 0, 2, 4), repeat=2))
_FINE_SHIFTS_PX: tuple[tuple[int, ...], ...] = tuple(product(range(-4, 5), repeat=2))
_SMALL_PX = 24

#: Keys that are compared at a time, so that their sums stay in the processor's cache.
_BLOCK = 1000


def region_key(hu: Hu, mask: Region) -> Keys:
    """The key of a masked region.

    Args:
        hu: (rows, columns); only what is inside the mask counts.
        mask: Boolean, of the same shape, not empty.

    Returns:
        ``KEY_BYTES`` bytes.
    """
    steps = np.clip(np.rint(_coefficients(hu, mask) * _STEPS), -7, 7).astype(np.int8) + 8
    pairs = np.append(steps, 0).astype(np.uint8).reshape(-1, 2)
    return np.asarray(pairs[:, 0] << 4 | pairs[:, 1], dtype=np.uint8)


def bounding_square(mask: Region) -> tuple[int, int, int]:
    """First row and column of the square around a mask, and its side; it may leave the picture."""
    hit = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    side = max(int(one[-1] - one[0]) + 1 for one in hit)
    first = [(int(one[0]) + int(one[-1]) + 1 - side) // 2 for one in hit]
    return first[0], first[1], side


def region_hash(hu: Hu, mask: Region) -> bytes:
    """The first ``HASH_BYTES`` of a sha256 over the mask's box and the HU inside, rounded."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.ix_(range(rows[0], rows[-1] + 1), range(columns[0], columns[-1] + 1))
    digest = hashlib.sha256(repr(mask[box].shape).encode() + np.packbits(mask[box]).tobytes())
    digest.update(np.rint(hu[mask]).astype("<i2").tobytes())
    return digest.digest()[:HASH_BYTES]


def search_keys(
    regions: list[tuple[Hu, Region]], keys: Keys, best: int = 10
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """The keys that are most like each region, in any flip and with small shifts.

    Args:
        regions: HU and mask of each, as for ``region_key``.
        keys: (N, ``KEY_BYTES``).
        best: How many keys to name for each region.

    Returns:
        Row numbers of ``keys`` and their similarity (a cosine, at most 1), both
        (regions, min(best, N)), the most similar first.
    """
    known = _by_parity(_unpacked(keys))
    blocks = [
        [np.ascontiguousarray(part[first : first + _BLOCK].T) for part in known]
        for first in range(0, len(keys), _BLOCK)
    ]
    best = min(best, len(keys))
    rows = np.empty((len(regions), best), np.int64)
    cosines = np.empty((len(regions), best), np.float32)
    for n, (hu, mask) in enumerate(regions):
        mine = _by_parity(_shifted(hu, mask))
        likeness = np.concatenate([_best_of_flips(mine, block) for block in blocks])
        some = np.argpartition(-likeness, best - 1)[:best]
        rows[n] = some[np.argsort(-likeness[some], kind="stable")]
        cosines[n] = likeness[rows[n]]
    return rows, cosines


def _shifted(hu: Hu, mask: Region) -> FloatArray:
    """Unit coefficients of a region in every shift: (shifts, ``COEFFICIENTS``)."""
    is_small = bounding_square(mask)[2] < _SMALL_PX
    shifts = _FINE_SHIFTS_PX if is_small else _SHIFTS_PX
    return np.stack([_coefficients(hu, mask, shift) for shift in shifts])


def _by_parity(coefficients: FloatArray) -> list[FloatArray]:
    """Columns by whether their waves are odd along rows and columns: even, column, row, both."""
    row, column = (one.ravel()[1:] % 2 for one in np.mgrid[:ORDER, :ORDER])
    return [coefficients[:, (row == a) & (column == b)] for a, b in product((0, 1), repeat=2)]


def _best_of_flips(mine: list[FloatArray], known: list[FloatArray]) -> FloatArray:
    """The largest cosine of each known key with any shift in any of the four flips.

    A flip changes the sign of the sums over odd waves only. So the cosines are even + row + column
    + both, even + row - column - both, and the same with row and both turned.

    Args:
        mine: ``_by_parity`` of the shifts.
        known: ``_by_parity`` of N keys, transposed.
    """
    even, column, row, both = (a @ b for a, b in zip(mine, known, strict=True))
    straight = even + row + np.abs(column + both)
    turned = even - row + np.abs(column - both)
    return np.asarray(np.maximum(straight, turned).max(axis=0))


def _coefficients(hu: Hu, mask: Region, shift: tuple[int, ...] = (0, 0)) -> FloatArray:
    """Unit vector of the weighted cosine coefficients of the square around the mask."""
    check_shapes(hu, hu, mask)
    *corner, side = bounding_square(mask)
    cut, onto = [], []
    for start, step, length in zip(corner, shift, mask.shape, strict=True):
        first = start + step
        low, high = max(first, 0), max(min(first + side, length), 0)
        cut.append(slice(low, high))
        onto.append(cell_means(side, GRID)[:, low - first : high - first])
    window = tuple(cut)
    weight = mask[window].astype(np.float32)
    covered = onto[0] @ weight @ onto[1].T
    total = onto[0] @ (hu[window].astype(np.float32) * weight) @ onto[1].T
    tissue = np.asarray(total / np.maximum(covered, 1e-3), dtype=np.float32)
    even = high_passed(tissue, covered > 0.5, _HIGH_PASS)
    cosines = _cosines()
    weighted = (cosines @ even @ cosines.T * _weights()).ravel()[1:]
    return np.asarray(weighted / max(float(np.linalg.norm(weighted)), 1e-9), dtype=np.float32)


def _unpacked(keys: Keys) -> FloatArray:
    """Unit vectors of keys: (N, ``COEFFICIENTS``)."""
    halves = np.stack([keys >> 4, keys & 15], axis=-1).reshape(len(keys), -1)[:, :COEFFICIENTS]
    values = halves.astype(np.float32) - np.float32(8)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(lengths, 1e-6), dtype=np.float32)


@cache
def _cosines() -> FloatArray:
    """The lowest ``ORDER`` functions of the orthonormal DCT-II on the grid."""
    waves = np.cos(np.pi * np.outer(np.arange(ORDER), np.arange(GRID) + 0.5) / GRID)
    waves[0] /= np.sqrt(2)
    return np.asarray(waves * np.sqrt(2 / GRID), dtype=np.float32)


@cache
def _weights() -> FloatArray:
    """Square root of the frequency: raises what is fine, since tissue has less of it."""
    return np.asarray(np.sqrt(np.hypot(*np.mgrid[:ORDER, :ORDER])), dtype=np.float32)
