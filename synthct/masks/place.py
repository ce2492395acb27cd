"""Where a carried lesion may lie in a host: obstacles, the search for a place, and the judgement.

The search correlates the lesion with the organ and with all obstacles on a coarse grid, so it
sees every place at once and knows why there is none. The judgement is made on the host's own
voxels, trusts nothing of the search, and is what a mask must pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator

from synthct.case import Case
from synthct.masks.base import (
    Region,
    box_around,
    largest_part,
    seen_through,
    voxel_centres,
    voxels_within,
)
from synthct.masks.lesion import Carried, grid_around
from synthct.masks.shape import Points
from synthct.volume import Affine, Array, Box, Spacing

#: Why a voxel may not belong to a lesion, by its code among the obstacles; 0 is free.
OBSTACLES = ("free", "field_of_view", "other_structure", "clearance", "outside_tissue")
FIELD_OF_VIEW, OTHER_STRUCTURE, CLEARANCE, OUTSIDE_TISSUE = range(1, 5)

#: Below this is fat or air, above it some other tissue.
FAT_HU = -30

#: A lesion of whose voxels fewer hang together has been torn on a coarse grid.
LEAST_CONNECTED = 0.95

#: The search works on cells of a tenth of the lesion, within these bounds.
STEP_RANGE_MM = (1.5, 5.0)

Codes = npt.NDArray[np.uint8]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Accept(BaseModel):
    """Limits that every accepted transplant keeps.

    Attributes:
        inside_fraction: Least share of the volume inside the organ; its centre always is.
        organ_fraction: Greatest volume, as a share of the connected organ's.
        clearance_mm: Least distance to the structures of ``avoid``.
        outside_hu: HU that voxels outside of the organ may have; keeps lesions out of air, lung
            and bone where the host has no labels for them.
        rim_mm: So near to the organ (or one voxel, where voxels are larger) the upper end of
            ``outside_hu`` is not asked for: an enhanced organ's blurred edge is bright.
        avoid: Structures to keep clear of, where the host has them.
        clipped_fraction: Greatest share that may be cut off where an obstacle is touched.
        min_volume_ml: Least volume.
        min_slices: Least number of slices, along each axis of the scan.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inside_fraction: Fraction = 0.6
    organ_fraction: Fraction = 0.25
    clearance_mm: Annotated[float, Field(ge=0, le=50)] = 3.0
    outside_hu: tuple[float, float] = (-200.0, 200.0)
    rim_mm: Annotated[float, Field(ge=0, le=5)] = 2.0
    avoid: tuple[str, ...] = ("tumor", "cyst", "lesion")
    clipped_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    min_volume_ml: Annotated[float, Field(ge=0)] = 0.2
    min_slices: Annotated[int, Field(ge=1)] = 2

    @field_validator("outside_hu")
    @classmethod
    def _range_rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError(f"the range {list(value)} must rise: [least, greatest]")
        return value


@dataclass(frozen=True, eq=False)
class Ground:
    """The organ that a lesion is put into, and what lies around it.

    Attributes:
        host: The case.
        part: Boolean crop of one connected part of the organ, such as one kidney.
        box: Where ``part`` lies in the host, in voxels.
        organ_values: Values of the whole organ in the label map.
        avoid_values: Values of the structures to keep clear of.
        accept: The limits.
    """

    host: Case
    part: Region
    box: Box
    organ_values: tuple[int, ...]
    avoid_values: tuple[int, ...]
    accept: Accept

    @property
    def volume_ml(self) -> float:
        """Volume of the part in ml."""
        return int(np.count_nonzero(self.part)) * self.host.labels.voxel_volume_ml

    def obstacles(
        self, labels: Array, hu: Array | None, in_scan: Region, spacing_mm: Spacing
    ) -> tuple[Codes, Region]:
        """For each voxel of a grid its code of `OBSTACLES`, and whether it is soft tissue.

        Soft tissue is what is neither the organ nor fat nor air.

        Args:
            labels: Label map on that grid (I, J, K); anything outside of the scan.
            hu: HU on that grid; None for a host without image.
            in_scan: Which voxels lie within the scan.
            spacing_mm: Voxel size of that grid.
        """
        from scipy.ndimage import distance_transform_edt

        organ, near = np.isin(labels, self.organ_values), np.isin(labels, self.avoid_values)
        codes = np.zeros(labels.shape, dtype=np.uint8)
        soft = np.zeros(labels.shape, dtype=bool)
        if hu is not None:
            soft = (hu > FAT_HU) & ~organ & in_scan
            low, high = self.accept.outside_hu
            rim = self.accept.rim_mm
            bright = (hu > high) & ~organ
            if bright.any() and organ.any() and rim > 0:
                short = [min(s, rim) for s in spacing_mm]
                bright &= distance_transform_edt(~organ, short) > rim
            codes[bright | ((hu < low) & ~organ)] = OUTSIDE_TISSUE
        codes[(labels != 0) & ~organ] = OTHER_STRUCTURE
        near &= in_scan
        if near.any():
            close = distance_transform_edt(~near, spacing_mm) <= self.accept.clearance_mm
            codes[close] = CLEARANCE
        codes[~in_scan] = FIELD_OF_VIEW
        return codes, soft

    def around(self, box: Box) -> tuple[Region, Codes, Region]:
        """Part, obstacles and soft tissue on the host's voxels of ``box``, even beyond the scan."""
        labels, scan = self.host.labels, self.host.ct
        wide = box.grow(voxels_within(self.accept.clearance_mm, labels.spacing_mm))
        inside = wide.clip(labels.shape)
        pad = [
            (b - a, d - c)
            for a, b, c, d in zip(
                wide.start_ijk, inside.start_ijk, inside.stop_ijk, wide.stop_ijk, strict=True
            )
        ]
        codes, soft = self.obstacles(
            np.pad(labels.array[inside.slices], pad),
            None if scan is None else np.pad(scan.array[inside.slices], pad),
            np.pad(np.ones(inside.shape, dtype=bool), pad),
            labels.spacing_mm,
        )
        inner = tuple(
            slice(a - b, c - b)
            for a, b, c in zip(box.start_ijk, wide.start_ijk, box.stop_ijk, strict=True)
        )
        return seen_through(box, self.part, self.box), codes[inner], soft[inner]

    def sampled(
        self, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64], step_mm: float
    ) -> Sampled:
        """The part and the obstacles on a cubic grid in RAS+ mm.

        Args:
            before: Cells along x, y, z that the grid begins before the part.
            after: Cells that it goes on behind.
            step_mm: Size of a cell.
        """
        labels, scan = self.host.labels, self.host.ct
        ends = zip(self.box.start_ijk, self.box.stop_ijk, strict=True)
        corners = np.stack(np.meshgrid(*[(a, b - 1) for a, b in ends], indexing="ij"), axis=-1)
        corners = corners.reshape(-1, 3) @ labels.affine[:3, :3].T + labels.affine[:3, 3]
        grid: Affine = np.diag([step_mm, step_mm, step_mm, 1.0])
        grid[:3, 3] = corners.min(axis=0) - before * step_mm
        x, y, z = (np.ceil(np.ptp(corners, axis=0) / step_mm) + 1 + before + after).tolist()
        cells = Box((0, 0, 0), (int(x), int(y), int(z)))
        to_voxels: Affine = np.linalg.inv(labels.affine) @ grid
        voxels = np.rint(np.moveaxis(voxel_centres(cells, to_voxels), -1, 0)).astype(np.int32)
        size = np.asarray(labels.shape).reshape(3, 1, 1, 1)
        in_scan: Region = np.all((voxels >= 0) & (voxels < size), axis=0)
        i, j, k = np.clip(voxels, 0, size - 1)
        codes, soft = self.obstacles(
            labels.array[i, j, k],
            None if scan is None else scan.array[i, j, k],
            in_scan,
            (step_mm, step_mm, step_mm),
        )
        start = np.asarray(self.box.start_ijk).reshape(3, 1, 1, 1)
        stop = np.asarray(self.box.stop_ijk).reshape(3, 1, 1, 1)
        part: Region = np.all((voxels >= start) & (voxels < stop), axis=0)
        a, b, c = (voxels - start)[:, part]
        part[part] = self.part[a, b, c]
        return Sampled(part, codes, soft, grid[:3, 3])


@dataclass(frozen=True, eq=False)
class Sampled:
    """A `Ground` on a cubic grid, which begins at ``origin_mm``.

    Attributes:
        part: The part of the organ.
        codes: Obstacles.
        soft: What is neither the organ nor fat.
        origin_mm: RAS+ mm of the first cell.
    """

    part: Region
    codes: Codes
    soft: Region
    origin_mm: Points


@dataclass(frozen=True, eq=False)
class Verdict:
    """A lesion on the host's voxels, and what was measured.

    Attributes:
        region: Boolean (I, J, K) after clipping.
        box: Where it lies in the host, in voxels.
        facts: Numbers of ``accept``.
        reason: The limit that is broken; None for an accepted lesion.
    """

    region: Region
    box: Box
    facts: dict[str, Any]
    reason: str | None


def find_place(
    ground: Ground, carried: Carried, rng: np.random.Generator
) -> tuple[Points | None, str]:
    """Draw a legal place for the lesion's origin.

    The share that shall lie inside is drawn first, then a place among those that come closest
    and whose outside lies in fat: most places of a small lesion are deep inside the organ, but
    most real lesions bulge out, and they push other organs away instead of growing into them.

    Returns:
        RAS+ mm and an empty reason; or None and the reason why there is no place.
    """
    accept = ground.accept
    step = float(np.clip(2 * carried.lesion.radius_mm * carried.scale / 10, *STEP_RANGE_MM))
    box, affine = grid_around(carried.corners_mm, step)
    solid = carried.voxels(box, affine)
    cells = np.argwhere(solid)
    centre = np.rint(cells.mean(axis=0)).astype(int)
    sampled = ground.sampled(centre, np.asarray(solid.shape) - 1 - centre, step)
    beyond = sampled.codes == FIELD_OF_VIEW
    inside, bad, soft, cut = _overlaps(
        solid, [sampled.part, sampled.codes > 0, sampled.soft, beyond]
    )
    ends = zip(centre, inside.shape, strict=True)
    centred = sampled.part[tuple(slice(c, c + n) for c, n in ends)]
    # A little above the limit, since this grid is coarse.
    fits = centred & (inside >= min(accept.inside_fraction + 0.02, 1.0) * len(cells))
    if not fits.any():
        return None, "inside_fraction"
    fits &= cut == 0
    if not fits.any():
        return None, OBSTACLES[FIELD_OF_VIEW]
    least = int(bad[fits].min())
    places = np.argwhere(fits & (bad == least))
    if least > accept.clipped_fraction * len(cells) / 2:
        i, j, k = (cells + places[0]).T
        hits = np.bincount(sampled.codes[i, j, k], minlength=len(OBSTACLES))[1:]
        return None, OBSTACLES[int(hits.argmax()) + 1]
    # Squared, so that bulging lesions are the commoner ones.
    wanted = accept.inside_fraction + (1 - accept.inside_fraction) * rng.random() ** 2
    i, j, k = places.T
    miss = np.abs(inside[i, j, k] / len(cells) - wanted) + 2 * soft[i, j, k] / len(cells)
    near = places[np.argsort(miss, kind="stable")[: max(8, int((miss < 0.03).sum()))]]
    cell = near[rng.integers(len(near))] - np.asarray(box.start_ijk) + rng.uniform(-0.5, 0.5, 3)
    return (sampled.origin_mm + cell * step).round(3), ""


def settle(ground: Ground, carried: Carried, origin_mm: Points) -> Verdict:
    """Put the lesion on the host's voxels, clip it where it touches an obstacle, and judge it.

    Args:
        ground: The organ and its surroundings.
        carried: The lesion.
        origin_mm: Where its origin comes to lie, RAS+ mm.
    """
    from scipy.ndimage import binary_erosion

    host, accept = ground.host, ground.accept
    low, high = carried.corners_mm
    ends = np.stack(np.meshgrid(*np.stack([low, high]).T, indexing="ij"), axis=-1)
    box = box_around(ends.reshape(-1, 3) + origin_mm, host.labels).grow((1, 1, 1))
    affine = host.labels.affine.copy()
    affine[:3, 3] -= origin_mm
    region = largest_part(carried.voxels(box, affine))
    part, codes, soft = ground.around(box)
    voxel_ml = host.labels.voxel_volume_ml
    whole = int(np.count_nonzero(region))
    hits = np.bincount(codes[region], minlength=len(OBSTACLES))[1:]
    if hits.any():
        region = _clipped(region, codes > 0, int(np.argmax(host.labels.spacing_mm)))
    count = int(np.count_nonzero(region))
    inside = int(np.count_nonzero(region & part))
    edge = region & ~binary_erosion(region)
    tight = Box.around(region) or Box((0, 0, 0), (1, 1, 1))
    middle = np.argwhere(region).mean(axis=0).round().astype(int) if count else np.zeros(3, int)
    facts = {
        "inside_fraction": round(inside / max(count, 1), 4),
        "organ_fraction": round(count * voxel_ml / ground.volume_ml, 4),
        "clipped_fraction": round(1 - count / whole, 4),
        "soft_tissue_fraction": round(int((soft & region).sum()) / max(count, 1), 4),
        "surface_outside_fraction": round(1 - float((part & edge).sum()) / max(edge.sum(), 1), 4),
        "slices": list(tight.shape),
    }
    limits = {
        "torn": whole < LEAST_CONNECTED * round(carried.volume_ml / voxel_ml),
        OBSTACLES[FIELD_OF_VIEW]: bool(hits[FIELD_OF_VIEW - 1]),
        OBSTACLES[int(hits[1:].argmax()) + 2]: count < (1 - accept.clipped_fraction) * whole,
        "organ_fraction": count * voxel_ml > accept.organ_fraction * ground.volume_ml,
        "too_small": count * voxel_ml < accept.min_volume_ml
        or min(tight.shape) < accept.min_slices,
        "inside_fraction": inside < accept.inside_fraction * count,
        "centre_outside": not part[tuple(middle)],
    }
    reason = next((name for name, broken in limits.items() if broken), None)
    return Verdict(region, box, facts, reason)


def _clipped(region: Region, obstacle: Region, coarse_axis: int) -> Region:
    """``region`` without what touches an obstacle: one part with a smooth edge and no holes."""
    from scipy.ndimage import (
        binary_closing,
        binary_fill_holes,
        binary_opening,
        generate_binary_structure,
    )

    # Within slices only: across thick ones an opening would eat lesions two slices high.
    cross = generate_binary_structure(3, 1)
    cross[tuple(slice(None) if a != coarse_axis else slice(0, 3, 2) for a in range(3))] = False
    # Closed first: specks of noise become one piece, whose edge is then cut off as a whole.
    wall = binary_closing(np.pad(obstacle, 1), cross)[1:-1, 1:-1, 1:-1] | obstacle
    kept = largest_part(binary_opening(region & ~wall, cross))
    return largest_part(binary_fill_holes(kept) & ~obstacle)


def _overlaps(solid: Region, maps: list[Region]) -> list[npt.NDArray[np.int64]]:
    """For every place of ``solid`` within each map: how many of its cells the map holds.

    Args:
        solid: Boolean (A, B, C).
        maps: Booleans (X, Y, Z), all of one shape.

    Returns:
        Counts (X - A + 1, Y - B + 1, Z - C + 1) for each map.
    """
    from scipy.fft import irfftn, next_fast_len, rfftn

    size = [next_fast_len(n, real=True) for n in maps[0].shape]
    valid = tuple(slice(0, n - m + 1) for n, m in zip(maps[0].shape, solid.shape, strict=True))
    kernel = np.conj(rfftn(solid.astype(np.float32), size))
    counts = []
    for one in maps:
        product = rfftn(one.astype(np.float32), size) * kernel
        counts.append(np.rint(irfftn(product, size)[valid]).astype(np.int64))
    return counts
