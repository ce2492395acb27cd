"""The record of one sample, from its preparation in a build to its reading from a dataset.

Arrays are canonical voxels (I, J, K) on one grid; ``pictures`` turns them for display and files,
and ``rows`` writes and reads those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.dataset.schema import Facts
from synthct.metrics.measure import Measures
from synthct.volume import Affine, Array, Box, Index3, Volume
from synthct.volume.grid import spacing_of
from synthct.volume.intensity import SOFT_TISSUE, Window
from synthct.volume.views import Plane, View, picture_affine, plane_of, to_picture


@dataclass(frozen=True, eq=False)
class Sample:
    """One slice of a scan in which a mask was painted, or is to be; or a volume of it.

    Attributes:
        facts: What the plan says of it; of slices that were stacked, that of the first.
        affine: (4, 4), from voxel index (i, j, k, 1) to RAS+ mm.
        original: int16 HU (I, J, K) before painting; None where a dataset does not keep it.
        image: int16 HU (I, J, K) after painting, outside of the mask equal to ``original``.
        mask: Boolean (I, J, K): what is painted.
        labels: Label map (I, J, K) after painting, uint8 or uint16.
        host_labels: Label map before painting; None where it was read from a dataset.
        metrics: Its measures by name; none as long as it was not measured.
        provenance: How it came about, as JSON; complete with the facts and the window only where
            it was read from a dataset.
        window: In which it is looked at and measured.

    Raises:
        ValueError: If an array is of another shape or type, or a voxel outside of the mask
            differs from the original.
    """

    facts: Facts
    affine: Affine
    original: npt.NDArray[np.int16] | None
    image: npt.NDArray[np.int16]
    mask: npt.NDArray[np.bool_]
    labels: npt.NDArray[Any]
    host_labels: npt.NDArray[Any] | None = None
    metrics: Measures = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    window: Window = SOFT_TISSUE

    def __post_init__(self) -> None:
        for name, array in self._arrays().items():
            if array.shape != self.image.shape:
                raise ValueError(f"{name} is {array.shape}, the image {self.image.shape}")
        types = [self.image.dtype, self.mask.dtype]
        if types != [np.int16, np.bool_] or getattr(self.original, "dtype", np.int16) != np.int16:
            raise ValueError(f"image, mask and original are int16, bool and int16, not {types}")
        if self.original is not None and ((self.image != self.original) & ~self.mask).any():
            raise ValueError("voxels outside of the mask differ from the original")

    @property
    def sample_id(self) -> str:
        """Its name, unique in the dataset."""
        return self.facts.sample_id

    @property
    def view(self) -> View:
        """The plane of the slice, or ``volume``."""
        return self.facts.view

    @property
    def plane(self) -> Plane:
        """The plane of the slice, or that of the slices of a volume."""
        return plane_of(self.view, spacing_of(self.affine))

    @property
    def shape(self) -> Index3:
        """Number of voxels along i, j, k."""
        i, j, k = self.image.shape
        return i, j, k

    def volume(self, name: str) -> Volume:
        """One of the arrays with the affine, such as ``volume("image")``."""
        return Volume(getattr(self, name), self.affine)

    def crop(self, box: Box) -> Sample:
        """The part of all arrays in a box; ``facts`` and measures stay those of the whole."""
        parts: dict[str, Any] = {name: array[box.slices] for name, array in self._arrays().items()}
        return replace(self, affine=self.volume("mask").crop(box).affine, **parts)

    @cached_property
    def pictures(self) -> Mapping[str, Array]:
        """Every array that there is, as a picture (rows, columns), by its name.

        Of a volume, the arrays (I, J, K) as they are; a stack of slices has none.
        """
        return {name: to_picture(array, self.view) for name, array in self._arrays().items()}

    @property
    def picture_affine(self) -> Affine:
        """(4, 4), from (row, column, 0, 1) of the pictures to RAS+ mm; of a volume, its own."""
        return picture_affine(self.affine, self.shape, self.view)

    @property
    def pixel_mm(self) -> tuple[float, ...]:
        """Size of a pixel along rows' and along columns' index; of a voxel along i, j, k."""
        axes = 3 if self.view == "volume" else 2
        return tuple(float(x) for x in np.linalg.norm(self.picture_affine[:3, :axes], axis=0))

    def _arrays(self) -> dict[str, Array]:
        names = ("original", "image", "mask", "labels", "host_labels")
        return {n: array for n in names if (array := getattr(self, n)) is not None}
