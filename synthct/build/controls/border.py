"""The soft border of a control: the host fades into the paint from the mask's edge inwards."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from synthct.masks.base import Mask
from synthct.volume import Volume, distances_mm
from synthct.volume.case import Case

FloatArray = npt.NDArray[np.float32]


class Border:
    """How deep the voxels of a mask lie in it, and so how much of the paint they get.

    Args:
        mask: The 3D mask.
        width_mm: From this depth on a voxel is all paint; 0 for a hard edge.
    """

    def __init__(self, mask: Mask, width_mm: float) -> None:
        self._box, self._width_mm = mask.box, width_mm
        self._depth_mm = _depth(mask.region)

    def of(self, mask: Mask) -> Border:
        """As wide a border of another mask."""
        return Border(mask, self._width_mm)

    def blend(self, host: Case, flat: Mask, paint: FloatArray) -> FloatArray:
        """HU (N,) of the true voxels of ``flat``, from the host at its edge to ``paint`` (N,)."""
        if self._width_mm == 0:
            return paint
        inside = flat.region.array
        at = tuple(
            slice(a - o, b - o)
            for a, b, o in zip(
                flat.box.start_ijk, flat.box.stop_ijk, self._box.start_ijk, strict=True
            )
        )
        # Both: the end of a lesion is shallow though its slice is wide, and a part has own edges.
        depth = np.minimum(self._depth_mm[at], _depth(flat.region))
        share = np.clip(depth[inside] / self._width_mm, 0, 1).astype(np.float32)
        before = host.scan().array[flat.box.slices][inside]
        return share * paint + (1 - share) * before


def _depth(region: Volume) -> npt.NDArray[np.float64]:
    """Distance in mm from each voxel to the nearest outside; not along an axis of one voxel."""
    pads = [int(n > 1) for n in region.shape]
    padded = np.pad(region.array, [(p, p) for p in pads])
    depth = distances_mm(padded, region.affine)
    return depth[tuple(slice(p, n + p) for n, p in zip(region.shape, pads, strict=True))]
