"""A scan's NIfTI file as it is on disk, for copies in which some voxels are others."""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.errors import SourceError
from synthct.volume.content import open_content
from synthct.volume.grid import Affine, Index3
from synthct.volume.header import read_header
from synthct.volume.nifti import CtReading
from synthct.volume.volume import Array


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """A scan's file as it is on disk, some of whose voxels are to be replaced.

    Attributes:
        raw: The uncompressed file.
        offset: Where its voxels begin.
        dtype: Of the stored voxels.
        shape: Of the stored array.
        scale: Slope and intercept from stored values to HU.
        affine: (4, 4), of the stored array.
    """

    raw: bytes
    offset: int
    dtype: np.dtype[Any]
    shape: Index3
    scale: tuple[float, float]
    affine: Affine

    @classmethod
    def open(cls, path: object, reading: CtReading) -> NiftiFile | None:
        """The file of a scan; None if it is not one whole NIfTI file in 3D that says how it lies.

        Raises:
            SourceError: If it is damaged.
        """
        if not isinstance(path, Path) or reading.frame is not None or reading.orientation:
            return None
        try:
            with open_content(path) as content:
                header = read_header(content)
        except SourceError:
            return None  # of another format
        if header.frames != 1 or not header.has_form:
            return None
        data = path.read_bytes()
        raw = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        scale = (header.slope, header.intercept) if header.is_scaled else (1.0, 0.0)
        offset = len(raw) - math.prod(header.shape) * header.dtype.itemsize
        return cls(raw, offset, header.dtype, header.shape, scale, header.affine)

    def with_values(self, hu: Array, where: npt.NDArray[np.bool_]) -> bytes:
        """The file, gzipped, with HU in some voxels; all others keep their stored value.

        Args:
            hu: Of the stored array's shape.
            where: Boolean, likewise.

        Raises:
            SourceError: If its type cannot hold the values.
        """
        from isal import igzip

        slope, intercept = self.scale
        values = (hu[where].astype(np.float64) - intercept) / slope
        if self.dtype.kind in "iu":
            values, limits = np.rint(values), np.iinfo(self.dtype)
            if values.size and not limits.min <= values.min() <= values.max() <= limits.max:
                raise SourceError(
                    f"the host's file stores {self.dtype.name}, which cannot hold HU "
                    f"{hu[where].min()}..{hu[where].max()}; convert the host to int16"
                )
        raw = bytearray(self.raw)
        stored = np.frombuffer(raw, self.dtype, math.prod(self.shape), self.offset)
        stored.reshape(self.shape, order="F")[where] = values
        return bytes(igzip.compress(raw, compresslevel=2, mtime=0))
