"""Volumes painted whole by a network in 3D."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from synthct.build.fronts import Asked
from synthct.masks.base import Mask
from synthct.models.patch import FloatArray, Patch, PatchRules
from synthct.models.region import cut_boxes, paste_boxes
from synthct.volume import Volume
from synthct.volume.views import VIEW_AXIS, Plane


@dataclass(frozen=True, eq=False)
class Block:
    """A mask in its host, cut for a network in 3D.

    Attributes:
        mask: Where to paint.
        plane: The plane of the slices.
        boxes: What the network gets.
    """

    mask: Mask
    plane: Plane
    boxes: tuple[Patch, ...]

    @classmethod
    def of(cls, host: Volume, mask: Mask, plane: Plane, rules: PatchRules, asked: Asked) -> Block:
        """A mask in a scan, cut for a checkpoint."""
        cut = cut_boxes(host, mask.region.array, mask.box, VIEW_AXIS[plane], asked.label, rules)
        return cls(mask, plane, tuple(replace(box, level_hu=asked.level_hu) for box in cut))

    @property
    def patches(self) -> tuple[tuple[Patch, ...], ...]:
        """As of a ``Stack``: all at once."""
        return (self.boxes,)

    def painted_hu(self, painted: Sequence[FloatArray]) -> npt.NDArray[np.int16]:
        """HU (N,) of the mask's voxels, in C order.

        Args:
            painted: One array in -1..1 per box, of its shape.
        """
        mask, axis = self.mask, VIEW_AXIS[self.plane]
        return paste_boxes(mask.region.array, mask.box, axis, self.boxes, painted)
