"""The voxels of a scan or label map, checked while they come in slab by slab, whatever the format.

They go straight into the canonical array, so that a large file needs little more memory than its
voxels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synthct.errors import ResourceError, SourceError, counted
from synthct.volume.distance import is_sheared
from synthct.volume.grid import Affine, Index3, spacing_of
from synthct.volume.hounsfield import NIFTI_SCALING, has_no_air, not_hu
from synthct.volume.volume import HU_MAX, HU_MIN, Array, Volume

#: Values above are neither HU nor metal; below there may only be one value, the padding.
_STORED_HU = (-(2**16), 2**16)
#: Programs that edit masks as floats leave values such as 1.00000006.
_LABEL_TOLERANCE = 1e-3
#: Voxels that are looked at to tell HU from other values.
_SAMPLE = 1_000_000


@dataclass(frozen=True, eq=False)
class Stored:
    """How an array lies in its file.

    Attributes:
        path: The file, or the folder of the files, for messages.
        shape: Shape (I, J, K) of the stored array.
        affine: (4, 4) from stored voxel index to RAS+ mm.
        scaling: Names of the fields that scale stored values, slope and intercept.
    """

    path: Path
    shape: Index3
    affine: Affine
    scaling: tuple[str, str] = NIFTI_SCALING

    def canonical_grid(self) -> tuple[Index3, Affine, Array]:
        """Shape and affine in canonical orientation, and nibabel's orientation (3, 2) of it."""
        from nibabel.orientations import inv_ornt_aff, io_orientation

        ornt = io_orientation(self.affine)
        shape = [0, 0, 0]
        for axis, length in zip(ornt[:, 0], self.shape, strict=True):
            shape[int(axis)] = length
        i, j, k = shape
        return (i, j, k), self.affine @ inv_ornt_aff(ornt, self.shape), ornt

    def canonical_array(self, dtype: npt.DTypeLike) -> tuple[Array, Array, Affine]:
        """Zeros in canonical orientation, a view of them in stored orientation, and their affine.

        Axes lie in memory in the order of the file, so that slabs go in in one piece.

        Raises:
            ResourceError: If there is no memory for them.
        """
        _, out_affine, ornt = self.canonical_grid()
        try:
            stored = np.zeros(self.shape, dtype, order="F")
        except MemoryError as err:
            raise ResourceError(f"{self.path}: no memory for {self.shape} voxels") from err
        out = stored.transpose(np.argsort(ornt[:, 0]))
        return out, stored[tuple(slice(None, None, int(sign)) for sign in ornt[:, 1])], out_affine


class CtVoxels:
    """HU, clipped to -1024..3071, as they come in.

    Args:
        stored: Where they lie.
    """

    def __init__(self, stored: Stored) -> None:
        self._of = stored
        self._out, self._stored, self._affine = stored.canonical_array(np.int16)
        self._low, self._high = math.inf, -math.inf
        self._broken, self._far_below = _NotFinite(stored.path), set[float]()
        # Odd, so that it meets all columns of pictures whose sides are powers of two.
        self._step, self._some = self._out.size // _SAMPLE | 1, list[Array]()

    def add(self, start: int, values: Array) -> None:
        """Take the values (I, J, k) of a slab in stored orientation, scaled; ``start`` along k."""
        if values.dtype.kind == "f":
            values = np.rint(self._broken.fill(values, start))
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))
        if self._low < _STORED_HU[0]:
            below = values[values < _STORED_HU[0]]
            self._far_below |= {float(below.min()), float(below.max())} if below.size else set()
        self._some.append(values.ravel("K")[:: self._step].copy())
        self._stored[:, :, start : start + values.shape[2]] = np.clip(values, HU_MIN, HU_MAX)

    def finish(
        self, remarks: list[str], *, fill_nan: bool, scaled: str = "", corrected: str = ""
    ) -> tuple[Volume, int]:
        """The scan, and the number of its voxels that were filled because they are not finite.

        Args:
            remarks: Gets a sentence for each choice that was made.
            fill_nan: Whether voxels that are not finite numbers are read as -1024 HU.
            scaled: How the values were scaled, for a message.
            corrected: Where scans of a tilted gantry can be had without the tilt, for a remark.

        Raises:
            SourceError: If the values are not HU, or not finite.
        """
        path, low, high = self._of.path, self._low, self._high
        if not fill_nan:
            self._broken.refuse()
        if high > _STORED_HU[1] or len(self._far_below) > 1:
            raise SourceError(
                f"{path}: values {low:g}..{high:g}{scaled} are not HU; repair the header or the "
                "scan"
            )
        steps = zip(self._out.shape, spacing_of(self._affine), strict=True)
        some, width_mm = np.concatenate(self._some), sorted(n * s for n, s in steps)[1]
        if evidence := not_hu(some, low, high, width_mm, self._of.scaling):
            raise SourceError(f"{path}: its values are not HU: {evidence}")
        if is_sheared(self._of.affine):
            tilted = "the image's slices are sheared (tilted gantry) and stay so"
            remarks.append("; ".join(text for text in (tilted, corrected) if text))
        if has_no_air(some, width_mm):
            remarks.append(
                "no part of the image has the values of air, though it is as wide as a body; see "
                "that its values are HU and not, say, a tenth of them"
            )
        if low < HU_MIN:
            remarks.append(f"values below {HU_MIN} HU (padding) are clipped to it")
        return Volume(self._out, self._affine), self._broken.count


class LabelVoxels:
    """Label values as they come in: uint8, or uint16 once a value exceeds 255.

    Args:
        stored: Where they lie.
    """

    def __init__(self, stored: Stored) -> None:
        self._of = stored
        self._out, self._stored, self._affine = stored.canonical_array(np.uint8)

    def add(self, start: int, values: Array) -> None:
        """Take the values (I, J, k) of a slab in stored orientation; ``start`` along k.

        Raises:
            SourceError: If a value is negative, too large or fractional.
        """
        path = self._of.path
        if values.dtype.kind == "f":
            whole = np.rint(values)
            with np.errstate(invalid="ignore"):  # infinity less infinity
                fractional = ~(np.abs(values - whole) <= _LABEL_TOLERANCE)
            if fractional.any():
                first = values[fractional][0]
                if not np.isfinite(first):
                    raise SourceError(
                        f"{path}: label value {first} is not a number; save the label map again "
                        "with 0 where there is no structure"
                    )
                raise SourceError(
                    f"{path}: label value {first} is not a whole number (within "
                    f"{_LABEL_TOLERANCE:g}), so this is no label map, or one that was resampled "
                    "or averaged; save it again with nearest neighbours"
                )
            values = whole
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > np.iinfo(np.uint16).max:
            remedy = (
                "this is no label map, or one with another background than 0: mend the pattern or "
                "the file"
                if low < 0
                else "save the label map again with lower values"
            )
            raise SourceError(
                f"{path}: label values {low}..{high} are not within 0..65535; {remedy}"
            )
        if high > np.iinfo(self._out.dtype).max:
            wide, self._stored, _ = self._of.canonical_array(np.uint16)
            wide[...] = self._out
            self._out = wide
        self._stored[:, :, start : start + values.shape[2]] = values

    def finish(self) -> Volume:
        """The label map."""
        return Volume(self._out, self._affine)


class _NotFinite:
    """Counts voxels that are not finite numbers, and remembers where the first is."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self.first: tuple[int, ...] = ()

    def fill(self, values: Array, start: int) -> Array:
        """The values of a slab that begins at slice ``start``, with air where there are none."""
        good = np.isfinite(values)
        if good.all():
            return values
        if not self.count:
            i, j, k = (int(n) for n in np.argwhere(~good)[0])
            self.first = i, j, k + start
        self.count += int(np.count_nonzero(~good))
        return np.where(good, values, HU_MIN)

    def refuse(self) -> None:
        """Raise a SourceError if there were any."""
        if self.count:
            are = counted(
                self.count, "voxel is not a finite number", "voxels are not finite numbers"
            )
            raise SourceError(
                f"{self.path}: {are}, the first is voxel {self.first}; repair the scan, or read "
                "such voxels as air with 'nan: fill' in a recipe's source"
            )
