"""Where on a whole slice a masked piece of tissue may come from: template matching by FFT.

Slice and piece are brought to even contrast, as in ``metrics.region_match``, on a grid as coarse as
the piece allows. Neither is flipped or scaled: keys propose such copies. What is found is to
be confirmed by correlation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from synthct.metrics.high_pass import CLIP, LEAST_VARIANCE
from synthct.metrics.region_match import Query, even_contrast

Spectrum = npt.NDArray[np.complex64]

#: Sides of squares in pixels up to which a piece is looked for on a grid of such pixels; larger
#: ones on the coarsest. A piece that begins between cells keeps a quarter of its correlation, which
#: stands out of a whole scan only if it has some thirty cells along a side.
_LEVELS = ((56, 1), (95, 2))
_COARSEST = 4

#: Standard deviation of the high-pass in cells: wider than that of the comparison, since a piece
#: may begin between cells.
_HIGH_PASS = 1.5


def level_of(side_px: int) -> int:
    """Pixels along a side of a cell of the grid on which a piece of this width is looked for."""
    return next((level for most, level in _LEVELS if side_px <= most), _COARSEST)


class Place(NamedTuple):
    """Where a piece may come from.

    Attributes:
        score: About the correlation there, on the grid of the search.
        row: Row of the first pixel of the square, of the slice.
        column: Its column.
    """

    score: float
    row: int
    column: int


@dataclass(frozen=True, eq=False)
class Template:
    """A piece that is looked for on slices of one size.

    Attributes:
        level: Pixels along a side of a cell of its grid.
        side: Cells along a side of its square.
        spectrum: Its Fourier transform, on the grid of the slices.
    """

    level: int
    side: int
    spectrum: Spectrum

    @classmethod
    def of(
        cls, hu: npt.NDArray[np.generic], mask: npt.NDArray[np.bool_], shape: tuple[int, ...]
    ) -> Template | None:
        """The template of a masked piece for slices of a shape; None if it does not fit."""
        from scipy.fft import rfft2

        level = level_of(Query.of(hu, mask).side_px)
        piece = even_contrast(Query.of(hu, mask, coarse=level), _HIGH_PASS)
        padded = _padded(shape, level)
        if any(side > n // level for side, n in zip(piece.shape, shape, strict=True)):
            return None
        # Both have the same contrast, so that their product over the mask is the correlation.
        spectrum = np.conj(rfft2(piece / max(float((piece**2).sum()), 1e-6), s=padded))
        return cls(level, len(piece), np.asarray(spectrum, dtype=np.complex64))

    def place(self, spectrum: Spectrum, shape: tuple[int, ...]) -> Place:
        """The likeliest place on a slice.

        Args:
            spectrum: ``spectrum_of`` the slice at the template's level.
            shape: Of the slice.
        """
        from scipy.fft import irfft2

        found = irfft2(spectrum * self.spectrum, s=_padded(shape, self.level), overwrite_x=True)
        rows, columns = (n // self.level - self.side + 1 for n in shape)
        inside = found[:rows, :columns]
        row, column = divmod(int(inside.argmax()), columns)
        score = float(inside[row, column])
        return Place(score, row * self.level, column * self.level)


def spectrum_of(hu: npt.NDArray[np.int16], level: int) -> Spectrum:
    """Fourier transform of a slice (rows, columns) of even contrast, on a grid of that level."""
    from scipy.fft import rfft2
    from scipy.ndimage import gaussian_filter

    rows, columns = (n // level for n in hu.shape)
    cells = hu[: rows * level, : columns * level].reshape(rows, level, columns, level)
    tissue = cells.mean(axis=(1, 3), dtype=np.float32)
    fine = tissue - gaussian_filter(tissue, _HIGH_PASS)
    deviation = np.sqrt(gaussian_filter(fine**2, _HIGH_PASS) + np.float32(LEAST_VARIANCE))
    even = np.clip(fine / deviation, -CLIP, CLIP)
    return np.asarray(rfft2(even, s=_padded(hu.shape, level)), dtype=np.complex64)


def _padded(shape: tuple[int, ...], level: int) -> tuple[int, ...]:
    """Sizes that transform fast. What wraps around is beyond where a piece fits."""
    from scipy.fft import next_fast_len

    return tuple(next_fast_len(n // level, real=True) for n in shape)
