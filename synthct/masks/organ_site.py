"""The organ part that a lesion is placed in and its surroundings: which voxels are free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthct.masks.accept import AIR, BONE, CLEARANCE, FIELD_OF_VIEW, OTHER_STRUCTURE, Accept
from synthct.masks.base import voxel_centres
from synthct.masks.shape import Points
from synthct.volume import Affine, Array, Box, distances_mm, voxels_within
from synthct.volume.anatomy import OrganPart
from synthct.volume.case import Case
from synthct.volume.regions import Region, seen_through

#: Voxels below are fat or air, those above some other tissue.
FAT_HU = -30

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The organ and the obstacles on a grid.

    Attributes:
        part: Boolean (I, J, K), the connected part of the organ.
        organ: Boolean, the whole organ.
        codes: For each voxel its index in ``OBSTACLES``.
        soft: Boolean, soft tissue without a label, away from the organ's rim.
    """

    part: Region
    organ: Region
    codes: Codes
    soft: Region


@dataclass(frozen=True, eq=False)
class OrganSite:
    """A connected part of the host's organ, and the limits that hold around it.

    Attributes:
        host: The case.
        part: One connected part of the organ, such as one kidney.
        organ_values: Values of the whole organ in the label map.
        avoid_values: Values of the structures to keep clear of.
        accept: The limits.
    """

    host: Case
    part: OrganPart
    organ_values: tuple[int, ...]
    avoid_values: tuple[int, ...]
    accept: Accept

    def around(self, box: Box) -> Surroundings:
        """The surroundings on the host's voxels of ``box``, which may reach beyond the scan."""
        labels, scan = self.host.labels, self.host.ct
        reach_mm = max(self.accept.clearance_mm, self.accept.rim_mm)
        wide = box.grow(voxels_within(reach_mm, labels.affine))
        inside = wide.clip(labels.shape)
        pad = [
            (b - a, d - c)
            for a, b, c, d in zip(
                wide.start_ijk, inside.start_ijk, inside.stop_ijk, wide.stop_ijk, strict=True
            )
        ]
        voxels = np.ix_(
            *(np.arange(a, b) for a, b in zip(wide.start_ijk, wide.stop_ijk, strict=True))
        )
        organ, codes, soft = self._judge(
            np.pad(labels.array[inside.slices], pad),
            None if scan is None else np.pad(scan.array[inside.slices], pad),
            self._depth_in_scan(voxels),
            labels.affine,
        )
        inner = tuple(
            slice(a - b, c - b)
            for a, b, c in zip(box.start_ijk, wide.start_ijk, box.stop_ijk, strict=True)
        )
        part = seen_through(box, self.part.region, self.part.box)
        return Surroundings(part, organ[inner], codes[inner], soft[inner])

    def sampled(
        self, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64], step_mm: float
    ) -> tuple[Surroundings, Points]:
        """The surroundings on a cubic grid along RAS+, and the RAS+ mm of its first cell.

        Args:
            before: Cells along x, y, z between the grid's start and the part.
            after: Cells between the part and the grid's end.
            step_mm: Size of a cell.
        """
        labels, scan = self.host.labels, self.host.ct
        ends = [(0, n - 1) for n in self.part.region.shape]
        corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
        corners = corners @ self.part.affine[:3, :3].T + self.part.affine[:3, 3]
        grid: Affine = np.diag([step_mm, step_mm, step_mm, 1.0])
        grid[:3, 3] = corners.min(axis=0) - before * step_mm
        x, y, z = (np.ceil(np.ptp(corners, axis=0) / step_mm) + 1 + before + after).tolist()
        cells = Box((0, 0, 0), (int(x), int(y), int(z)))
        to_voxels: Affine = np.linalg.inv(labels.affine) @ grid
        voxels = np.rint(np.moveaxis(voxel_centres(cells, to_voxels), -1, 0)).astype(np.int32)
        size = np.asarray(labels.shape).reshape(3, 1, 1, 1)
        i, j, k = np.clip(voxels, 0, size - 1)
        organ, codes, soft = self._judge(
            labels.array[i, j, k],
            None if scan is None else scan.array[i, j, k],
            self._depth_in_scan(tuple(voxels)),
            grid,
        )
        start = np.asarray(self.part.box.start_ijk).reshape(3, 1, 1, 1)
        stop = np.asarray(self.part.box.stop_ijk).reshape(3, 1, 1, 1)
        part: Region = np.all((voxels >= start) & (voxels < stop), axis=0)
        a, b, c = (voxels - start)[:, part]
        part[part] = self.part.region[a, b, c]
        return Surroundings(part, organ, codes, soft), grid[:3, 3]

    def _depth_in_scan(self, voxels: tuple[Array, ...]) -> Array:
        """Distance in voxels from the scan's border: 0 on it, negative outside.

        Args:
            voxels: Indices along i, j and k, of shapes that broadcast to the result's.
        """
        i, j, k = (
            np.minimum(index, size - 1 - index)
            for index, size in zip(voxels, self.host.labels.shape, strict=True)
        )
        return np.asarray(np.minimum(np.minimum(i, j), k))

    def _judge(
        self, labels: Array, hu: Array | None, depth_in_scan: Array, affine: Affine
    ) -> tuple[Region, Codes, Region]:
        """The organ, the obstacles and the soft tissue on a grid.

        Args:
            labels: Label map on that grid (I, J, K); any values outside of the scan.
            hu: HU on that grid; None for a host without image.
            depth_in_scan: See ``_depth_in_scan``. The border itself is an obstacle: a lesion that
                ends there looks cut.
            affine: (4, 4) of that grid.
        """
        accept, in_scan = self.accept, depth_in_scan >= 0
        organ = np.isin(labels, self.organ_values) & in_scan
        near = np.isin(labels, self.avoid_values) & in_scan
        codes = np.zeros(labels.shape, dtype=np.uint8)
        soft = np.zeros(labels.shape, dtype=bool)
        if hu is not None:
            rim = organ
            if accept.rim_mm > 0 and organ.any():
                rim_mm = accept.rim_mm
                away_mm = distances_mm(~organ, affine, reach_mm=rim_mm, longest_step_mm=rim_mm)
                rim = away_mm <= rim_mm
            low, high = accept.outside_hu
            soft = (hu > FAT_HU) & (hu <= high) & (labels == 0) & in_scan & ~rim
            codes[(hu < low) & ~organ] = AIR
            codes[(hu > high) & ~rim] = BONE
        codes[(labels != 0) & ~organ] = OTHER_STRUCTURE
        if near.any():
            away_mm = distances_mm(~near, affine, reach_mm=accept.clearance_mm)
            codes[away_mm <= accept.clearance_mm] = CLEARANCE
        codes[depth_in_scan < 1] = FIELD_OF_VIEW
        return organ, codes, soft
