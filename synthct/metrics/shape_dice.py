"""How much a mask has the shape of another, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np

from synthct.metrics.crop import Region


def shape_dice(mask: Region, others: Iterable[Region]) -> float:
    """The largest Dice coefficient of a mask with other ones, in any flip and at any shift.

    Args:
        mask: Boolean (rows, columns), not empty.
        others: Masks on grids of the same pixel size.

    Returns:
        From 0 to 1; 0 if all others are empty.
    """
    from scipy.signal import fftconvolve

    mine, best = _tight(mask), 0.0
    for other in others:
        if not other.any():
            continue
        theirs = _tight(other)
        total = int(mine.sum()) + int(theirs.sum())
        if 2 * min(int(mine.sum()), int(theirs.sum())) <= best * total:
            continue  # even one inside the other would not be more alike
        for rows, columns in product((1, -1), repeat=2):  # a convolution turns one of them round
            turned = theirs[::rows, ::columns].astype(np.float32)
            overlap = float(fftconvolve(mine.astype(np.float32), turned).max())
            best = max(best, 2 * round(overlap) / total)
    return best


def _tight(mask: Region) -> Region:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
