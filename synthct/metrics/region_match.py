"""How alike two pieces of tissue are: high-passed correlation under a mask, over small alignments.

Both pieces lose what is smooth, and every place is brought to the same contrast, so that neither an
edge of an organ nor gas decides. Pieces are stacks of slices (N, rows, columns); N is 1 in 2D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.metrics.crop import Region
from synthct.metrics.high_pass import cell_means, high_passed
from synthct.metrics.region_key import bounding_square

FloatArray = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.uint64]

#: Largest side of the grid on which pieces are compared, in pixels, and pixels around it in which
#: the other piece is searched.
SIDE_PX, SHIFT_PX = 48, 4

#: Sizes of the other piece that are tried.
SCALES = (0.9, 1.0, 1.1)

#: Side of blocks that are compared voxel for voxel.
BLOCK_PX = 8

#: Standard deviation of the high-pass in pixels of the grid. Wider ones find neighbouring slices no
#: better, and other patients' edges more often; narrower ones lose blurred copies, and find the
#: same interpolation in strangers.
HIGH_PASS_PX = 1.0

#: Flips and scales whose best shift is looked at with the mask in place.
_LOOKED_AT = 3

#: Median of the square of a normal variable, and the largest correlation that is told from 1.
_MEDIAN_SQUARE, _MOST_CERTAIN = 0.4549, 0.9999

_FLIPS: tuple[tuple[bool, ...], ...] = tuple(product((False, True), repeat=2))


@dataclass(frozen=True, eq=False)
class Query:
    """A masked piece of tissue that is looked for.

    Attributes:
        hu: (N, S, S), the square around the mask on the grid of the comparison.
        mask: Boolean (N, S, S).
        side_px: Side of the square before it was made coarser, in pixels.
    """

    hu: FloatArray
    mask: Region
    side_px: int

    @classmethod
    def of(cls, hu: npt.NDArray[np.generic], mask: Region, coarse: int | None = None) -> Query:
        """The masked piece of a slice (rows, columns), or of a stack (N, rows, columns).

        Args:
            hu: The tissue.
            mask: Of the same shape.
            coarse: Side of a cell of the grid in pixels; None for at most ``SIDE_PX`` cells.
        """
        stack, masks = np.atleast_3d(hu.T).T, np.atleast_3d(mask.T).T
        row, column, side = bounding_square(np.asarray(masks.any(axis=0)))
        cells = min(side, SIDE_PX)
        if coarse is not None:
            side += -side % coarse
            cells = side // coarse
        square = [_square(one, row, column, side) for one in (stack.astype(np.float32), masks)]
        onto = cell_means(side, cells)
        covered = onto @ square[1].astype(np.float32) @ onto.T
        total = onto @ (square[0] * square[1]) @ onto.T
        return cls(total / np.maximum(covered, 1e-3), covered > 0.5, side)

    @property
    def cells(self) -> int:
        """Side of the grid."""
        return int(self.hu.shape[-1])


@dataclass(frozen=True)
class Match:
    """How alike a piece and other tissue are.

    Attributes:
        ncc: The largest correlation, at most 1; -1 if nothing can be compared.
        spread: Standard deviation of the correlation over all flips and shifts, from its median
            square: what chance gives with so large a piece of such texture.
    """

    ncc: float
    spread: float


def deviations(ncc: float, spread: float) -> float:
    """A correlation, by Fisher's transform, in standard deviations of chance."""
    return math.atanh(min(ncc, _MOST_CERTAIN)) / max(spread, 1e-3)


def correlation(query: Query, other: Query) -> float:
    """High-passed correlation of two pieces under the same mask, without any alignment."""
    mine, theirs = (_even(one.hu, query.mask) for one in (query, other))
    return float(_ncc(mine, theirs))


def even_contrast(query: Query, high_pass_px: float) -> FloatArray:
    """The tissue of a piece of one slice in even contrast: (S, S), 0 outside of the mask."""
    return np.asarray(_even(query.hu, query.mask, high_pass_px)[0])


def best_correlation(query: Query, tissues: Sequence[FloatArray]) -> Match:
    """The largest correlation of a piece with other tissue, over flips and shifts.

    Args:
        query: The piece.
        tissues: (N, S + 2 * ``SHIFT_PX``, the same) each, such as one for each of ``SCALES``, on
            the grid of the piece and centred on where it may have come from.
    """
    if not len(tissues):
        return Match(-1.0, 1.0)
    mine, size = _even(query.hu, query.mask), query.cells
    turned = np.stack([_flipped(mine, flip) for flip in _FLIPS])
    masks = np.stack([_flipped(query.mask, flip) for flip in _FLIPS])
    theirs = np.stack(tissues)
    flat = _even(theirs, np.ones(theirs.shape, dtype=bool))
    products = (_sums(flat, turned), _sums(flat**2, masks.astype(np.float32)))
    likeness = products[0] / np.sqrt(np.maximum(products[1], 1e-3))
    chance = float(np.median(likeness**2)) / _MEDIAN_SQUARE
    spread = math.sqrt(chance) / max(float(np.linalg.norm(mine)), 1e-6)
    # The contrast was made even without the mask here: the best few are looked at again.
    best = np.argsort(-likeness.max(axis=(2, 3)), axis=None, kind="stable")
    windows = []
    for place in best[:_LOOKED_AT]:
        n, flip = divmod(int(place), len(_FLIPS))
        for row, column in _peak(likeness[n, flip]):
            window = _between(theirs[n], row, column, size)
            windows.append(_flipped(window, _FLIPS[flip]))
    seen = _even(np.stack(windows), np.broadcast_to(query.mask, (len(windows), *query.mask.shape)))
    return Match(max(_ncc(mine, one) for one in seen), spread)


def blocks(hu: npt.NDArray[np.int16], inside: Region, step: int = 1) -> Blocks:
    """Hashes of the ``BLOCK_PX`` squares of a slice that lie inside; without those of one value.

    Args:
        hu: (rows, columns).
        inside: Boolean, of the same shape.
        step: Pixels from one square to the next along rows and columns.
    """
    if min(hu.shape) < BLOCK_PX:
        return np.empty(0, dtype=np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view
    size = (BLOCK_PX, BLOCK_PX)
    whole = windows(inside, size)[::step, ::step].all(axis=(2, 3))
    squares = windows(hu, size)[::step, ::step][whole].reshape(-1, BLOCK_PX**2)
    varied = squares[np.ptp(squares, axis=1) > 1].astype(np.int64).astype(np.uint64)
    return np.asarray((varied * _multipliers()).sum(axis=1, dtype=np.uint64))


def _square(array: npt.NDArray[np.generic], row: int, column: int, side: int) -> FloatArray:
    """A square of every slice, 0 beyond the edge."""
    out = np.zeros((len(array), side, side), dtype=np.float32)
    rows, columns = (
        slice(max(start, 0), min(start + side, n))
        for start, n in ((row, array.shape[1]), (column, array.shape[2]))
    )
    part = array[:, rows, columns]
    top, left = rows.start - row, columns.start - column
    out[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    return out


def _even(hu: FloatArray, mask: Region, high_pass_px: float = HIGH_PASS_PX) -> FloatArray:
    """High-passed tissue of even contrast, with mean 0 under the mask and 0 outside of it."""
    inside, even = mask.astype(np.float32), high_passed(hu, mask, high_pass_px)
    axes = (-3, -2, -1)
    mean = even.sum(axis=axes, keepdims=True) / np.maximum(inside.sum(axes, keepdims=True), 1)
    return np.asarray((even - mean) * inside, dtype=np.float32)


def _ncc(mine: FloatArray, theirs: FloatArray) -> float:
    lengths = float(np.linalg.norm(mine)) * float(np.linalg.norm(theirs))
    return float((mine * theirs).sum()) / max(lengths, 1e-6)


def _sums(tissue: FloatArray, turned: FloatArray) -> FloatArray:
    """Sums of products at every shift: (tissues, flips, 2 * ``SHIFT_PX`` + 1, the same)."""
    from scipy.fft import rfft2

    shape = tissue.shape[-2:]
    theirs, mine = rfft2(tissue), np.conj(rfft2(turned, s=shape))
    product = (theirs[:, None] * mine[None]).sum(axis=2)
    rows, columns = _back(shape[0], shape[0]), _back(shape[1], product.shape[-1])
    return np.asarray((rows.T @ product @ columns).real, dtype=np.float32)


@cache
def _back(size: int, known: int) -> npt.NDArray[np.complex64]:
    """The inverse Fourier transform along one axis, at the shifts alone: (known, shifts).

    Args:
        size: Of the axis.
        known: Frequencies that are given: all, or half of them, as of what is real.
    """
    frequencies = np.arange(known)
    counted = np.where((known < size) & (frequencies > 0) & (2 * frequencies < size), 2, 1)
    waves = np.exp(2j * np.pi / size * np.outer(frequencies, np.arange(2 * SHIFT_PX + 1)))
    return np.asarray(waves * counted[:, None] / size, dtype=np.complex64)


def _peak(likeness: FloatArray) -> list[tuple[float, float]]:
    """The best shift, and the best one between pixels by a parabola through its neighbours."""
    place = divmod(int(np.argmax(likeness)), likeness.shape[-1])
    fine = []
    for axis, at in enumerate(place):
        line = likeness[:, place[1]] if axis == 0 else likeness[place[0]]
        if not 0 < at < len(line) - 1:
            fine.append(float(at))
            continue
        before, here, after = (float(line[at + step]) for step in (-1, 0, 1))
        curve = 2 * here - before - after
        fine.append(at + (0.5 * (after - before) / curve if curve > 0 else 0.0))
    return [(float(place[0]), float(place[1])), (fine[0], fine[1])]


def _between(tissue: FloatArray, row: float, column: float, size: int) -> FloatArray:
    """A square of every slice that begins between pixels, interpolated linearly."""
    last = tissue.shape[-1] - size
    (r, down), (c, right) = (divmod(min(max(at, 0.0), last), 1.0) for at in (row, column))
    out = np.zeros((len(tissue), size, size), dtype=np.float32)
    for dr, a in ((0, 1 - down), (1, down)):
        for dc, b in ((0, 1 - right), (1, right)):
            if a * b > 0:
                rows, columns = slice(int(r) + dr, int(r) + dr + size), int(c) + dc
                out += np.float32(a * b) * tissue[:, rows, columns : columns + size]
    return out


def _flipped(array: npt.NDArray[Any], flip: tuple[bool, ...]) -> npt.NDArray[Any]:
    rows, columns = (slice(None, None, -1 if one else 1) for one in flip)
    return array[..., rows, columns]


@cache
def _multipliers() -> Blocks:
    """Odd numbers of a fixed random stream, one for each pixel of a block."""
    rng = np.random.Generator(np.random.Philox(7))
    return rng.integers(0, 2**63, BLOCK_PX**2, dtype=np.uint64) | np.uint64(1)
