"""What of a scan a network gets to paint a mask, slices or boxes in 3D, and its paint put back.

A box has its slices along the last axis. It has the size that the network was trained on, or is
larger: the network then paints it in overlapping parts. It lies on the scan's own grid, or on a
resampled one along each axis whose spacing is none of the network's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from synthct.errors import MaskError
from synthct.models.patch import (
    CONTEXT_PX,
    TRACE,
    BoolArray,
    FloatArray,
    Patch,
    PatchRules,
    cut_patches,
    first_voxel,
    paste_patches,
)
from synthct.models.regrid import blur_of, cell_of, scale_into, to_grid
from synthct.volume import HU_MAX, HU_MIN, Box, Volume
from synthct.volume.views import VIEW_AXIS, plane_of

#: Boxes within a larger one overlap by at least this share of their sides.
OVERLAP = 0.25

Number = TypeVar("Number", int, float)

#: Slices of real tissue above and below a mask: the usual number, and the least that makes a box of
#: the network's own depth do.
CONTEXT_SLICES, LEAST_SLICES = 4, 2
#: Sides and depth of larger boxes are multiples of these, so that they can be halved a few times.
_SIDES, _DEPTHS = 16, 4


def cut(ct: Volume, region: Volume, label: str | None, rules: PatchRules) -> list[Patch]:
    """What a checkpoint gets to paint a mask: patches of a slice, or boxes of a scan.

    Args:
        ct: HU; one voxel thick for a network in 2D.
        region: Boolean, on the grid of ``ct``: where to paint.
        label: What to paint; None for whatever fits.
        rules: The patches that the checkpoint takes.

    Raises:
        MaskError: If the mask is empty or too large for the checkpoint.
        CheckpointError: If the checkpoint cannot paint the label.
    """
    if rules.depth == 1:
        return cut_patches(ct, region, label, rules)
    where = region.array.astype(bool)
    at = Box.around(where)
    if at is None:
        raise MaskError("the mask is empty")
    return cut_boxes(ct, where[at.slices], at, _through(ct), label, rules)


def paste(
    ct: Volume, region: Volume, patches: Sequence[Patch], painted: Sequence[FloatArray]
) -> Volume:
    """What ``cut`` was given, with the paint inside the mask and every other voxel untouched.

    Args:
        ct: As given to ``cut``.
        region: Likewise.
        patches: Its result.
        painted: One array in -1..1 per patch, of its shape.
    """
    if patches[0].mask.ndim == 2:
        return paste_patches(ct, region, patches, painted)
    where, hu = region.array.astype(bool), ct.array.copy()
    at = Box.around(where)
    assert at is not None, "a mask that was cut is not empty"
    hu[where] = paste_boxes(where[at.slices], at, _through(ct), patches, painted)
    return Volume(hu, ct.affine)


def cut_boxes(
    ct: Volume, region: BoolArray, at: Box, axis: int, label: str | None, rules: PatchRules
) -> list[Patch]:
    """The boxes that cover a mask: one for each part of it that is far enough from the others.

    Args:
        ct: HU.
        region: Boolean, of the shape of ``at``, not empty: where to paint.
        at: Its place in ``ct``.
        axis: Across the slices.
        label: What to paint; None for whatever fits.
        rules: The patches that the checkpoint takes.

    Raises:
        CheckpointError: If the checkpoint cannot paint the label.
    """
    number, codec = rules.label_index(label), rules.codec(label)
    hu, mask = np.moveaxis(ct.array, axis, -1), np.moveaxis(region, axis, -1)
    first, spacing = axis_last(at.start_ijk, axis), axis_last(ct.spacing_mm, axis)
    scale = scale_of(spacing, rules)
    patches = []
    for part, bounds in _parts(mask, scale):
        cells = [
            (_cell(start + f, s), _cell(stop - 1 + f, s) + 1)
            for (start, stop), f, s in zip(bounds, first, scale, strict=True)
        ]
        sides = needed_sides([stop - start for start, stop in cells], rules)
        origin = tuple(
            first_voxel(start, stop, n, math.ceil(length / s))
            for (start, stop), n, length, s in zip(cells, sides, hu.shape, scale, strict=True)
        )
        grid = _Grid(origin, sides, scale)
        shift = [o - f for o, f in zip(grid.start, first, strict=True)]
        hidden, own = (_window(one, shift, grid.reach) for one in (mask, part))
        patch = Patch(
            image=codec.encode(grid.resample(_continued(hu, grid.start, grid.reach))),
            mask=grid.cells(hidden) | grid.traces(hidden),
            own=grid.cells(own),
            label=number,
            codec=codec,
            spacing_mm=_triple(mm * s for mm, s in zip(spacing, scale, strict=True)),
            origin=origin,
            scale=scale,
            strength=rules.strength(label),
            guidance_scale=rules.guidance_scale(label),
        )
        patches.append(patch)
    return patches


def paste_boxes(
    region: BoolArray,
    at: Box,
    axis: int,
    patches: Sequence[Patch],
    painted: Sequence[FloatArray],
) -> npt.NDArray[np.int16]:
    """The paint of a mask: HU (N,) of its voxels in C order.

    Args:
        region: As given to ``cut_boxes``.
        at: Likewise.
        axis: Likewise.
        patches: Its result.
        painted: One array in -1..1 per patch, of its shape.
    """
    from scipy.ndimage import map_coordinates

    hu = np.full(region.shape, np.nan, dtype=np.float32)
    moved, first = np.moveaxis(hu, axis, -1), np.array(axis_last(at.start_ijk, axis))
    for patch, x in zip(patches, painted, strict=True):
        origin = np.array(patch.origin)
        if not patch.is_resampled:
            place = np.argwhere(patch.own) + origin - first
            moved[tuple(place.T)] = patch.codec.decode(x[patch.own])
            continue
        place = np.argwhere(np.moveaxis(region, axis, -1))
        scale, voxel = np.array(patch.scale), place + first
        cell = cell_of(voxel, scale) - origin
        near = np.flatnonzero(((cell >= 0) & (cell < patch.own.shape)).all(axis=1))
        near = near[patch.own[tuple(cell[near].T)]]
        points = (voxel[near] + 0.5) / scale - 0.5 - origin
        moved[tuple(place[near].T)] = map_coordinates(
            patch.codec.decode(x), points.T, order=1, mode="nearest"
        )
    inside = hu[region]
    assert not np.isnan(inside).any(), "the boxes do not cover the mask"
    return np.clip(np.rint(inside), HU_MIN, HU_MAX).astype(np.int16)


def box_within(sides: Sequence[int], sizes: Sequence[int], depth: int) -> tuple[int, int, int]:
    """The box that the network sees of one with these sides: as large, or one of many in it."""
    side = next((n for n in sizes if n >= max(sides[:2])), sizes[-1])
    return side, side, depth


def boxes_in(sides: Sequence[int], box: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """The places of evenly spread, overlapping boxes that cover a larger one."""
    starts = []
    for length, side in zip(sides, box, strict=True):
        step = side - int(OVERLAP * side)
        steps = -(-(length - side) // step)
        starts.append([round(n * (length - side) / max(steps, 1)) for n in range(steps + 1)])
    for corner in product(*starts):
        yield tuple(slice(start, start + side) for start, side in zip(corner, box, strict=True))


def parts_of(patch: Patch, rules: PatchRules) -> list[Patch]:
    """A box as the network sees it: as it is, or every part of its own size that shows the mask."""
    sides = patch.mask.shape
    box = box_within(sides, rules.patch_sizes, rules.depth)
    return [
        replace(
            patch,
            image=patch.image[at],
            mask=patch.mask[at],
            own=patch.own[at],
            origin=tuple(o + s.start for o, s in zip(patch.origin, at, strict=True)),
        )
        for at in boxes_in(sides, box)
        if patch.own[at].any()
    ]


def needed_sides(extent: Sequence[int], rules: PatchRules) -> tuple[int, int, int]:
    """The sides of the box around a mask of some extent: the network's own where it fits."""
    wide = [n + 2 * CONTEXT_PX for n in extent[:2]]
    side = next((n for n in rules.patch_sizes if n >= max(wide)), None)
    largest, depth = rules.patch_sizes[-1], rules.depth
    rows, columns = (max(largest, _up(n, _SIDES)) if side is None else side for n in wide)
    if extent[2] + 2 * LEAST_SLICES > depth:
        depth = _up(extent[2] + 2 * CONTEXT_SLICES, _DEPTHS)
    return rows, columns, max(depth, rules.depth)


def scale_of(spacing_mm: Sequence[float], rules: PatchRules) -> tuple[float, float, float]:
    """Voxels of the scan per voxel of a box along rows, columns and slices; mostly 1."""
    ranges = (rules.spacing_range_mm, rules.spacing_range_mm, rules.slice_range_mm)
    return _triple(
        1.0 if allowed is None else scale_into(mm, allowed)
        for mm, allowed in zip(spacing_mm, ranges, strict=True)
    )


def reach_of(
    extent: Sequence[int], spacing_mm: Sequence[float], rules: PatchRules
) -> tuple[int, int, int]:
    """Voxels of the scan, around a mask of some extent, that its box is made of."""
    scale = scale_of(spacing_mm, rules)
    # A mask of n voxels lies in as many cells, and in one more where it begins within one.
    cells = [n if s == 1 else math.ceil(n / s) + 1 for n, s in zip(extent, scale, strict=True)]
    return _Grid((0, 0, 0), needed_sides(cells, rules), scale).reach


@dataclass(frozen=True)
class _Grid:
    """Where a box lies.

    Attributes:
        origin: Of its first voxel.
        sides: Its voxels along each axis.
        scale: Voxels of the scan per voxel.
    """

    origin: tuple[int, ...]
    sides: tuple[int, int, int]
    scale: tuple[float, float, float]

    @property
    def start(self) -> tuple[int, int, int]:
        """The first voxel of the scan that it is made of."""
        return _triple(
            o if s == 1 else math.floor(o * s) - m
            for o, s, m in zip(self.origin, self.scale, self._margins, strict=True)
        )

    @property
    def reach(self) -> tuple[int, int, int]:
        """How many voxels of the scan it is made of, wherever it lies."""
        return _triple(
            n if s == 1 else math.ceil(n * s) + 1 + 2 * m
            for n, s, m in zip(self.sides, self.scale, self._margins, strict=True)
        )

    def resample(self, voxels: FloatArray) -> FloatArray:
        """The box of these voxels of the scan, which are ``reach`` many from ``start`` on."""
        if not self._is_other:
            return voxels
        edge = [o * s - n for o, s, n in zip(self.origin, self.scale, self.start, strict=True)]
        return to_grid(voxels, self.sides, self.scale, edge)

    def cells(self, mask: BoolArray) -> BoolArray:
        """The voxels in which a voxel of a mask has its centre; given as to ``resample``."""
        if not self._is_other:
            return mask
        voxel = np.argwhere(mask) + np.array(self.start)
        cell = cell_of(voxel, np.array(self.scale)) - np.array(self.origin)
        out = np.zeros(self.sides, dtype=bool)
        out[tuple(cell[((cell >= 0) & (cell < self.sides)).all(axis=1)].T)] = True
        return out

    def traces(self, mask: BoolArray) -> BoolArray:
        """The voxels that resampling would let show something of a mask."""
        return mask if not self._is_other else self.resample(mask.astype(np.float32)) > TRACE

    @property
    def _is_other(self) -> bool:
        return self.scale != (1.0, 1.0, 1.0)

    @property
    def _margins(self) -> list[int]:
        """What the average takes in beyond a box: four sigma, and a voxel to interpolate."""
        return [math.ceil(4 * sigma) + 1 for sigma in blur_of(self.scale)]


def _continued(hu: npt.NDArray[np.int16], start: Sequence[int], sides: Sequence[int]) -> FloatArray:
    """A part of a scan, beyond which its last voxels go on."""
    index = [
        np.clip(np.arange(o, o + n), 0, length - 1)
        for o, n, length in zip(start, sides, hu.shape, strict=True)
    ]
    return hu[np.ix_(*index)].astype(np.float32)


def _cell(voxel: int, scale: float) -> int:
    return int(cell_of(np.array(voxel), scale))


def _triple(values: Iterable[Number]) -> tuple[Number, Number, Number]:
    rows, columns, slices = values
    return rows, columns, slices


def _through(ct: Volume) -> int:
    """The axis across the slices of a scan."""
    return VIEW_AXIS[plane_of("volume", ct.spacing_mm)]


def _parts(
    mask: BoolArray, scale: Sequence[float]
) -> list[tuple[BoolArray, list[tuple[int, int]]]]:
    """Groups of connected components whose surroundings overlap: each with its bounds."""
    from scipy.ndimage import find_objects
    from scipy.ndimage import label as connected_components

    labelled, _ = connected_components(mask, structure=np.ones((3, 3, 3)))
    around = (CONTEXT_PX, CONTEXT_PX, CONTEXT_SLICES)
    context = [math.ceil(n * s) for n, s in zip(around, scale, strict=True)]
    groups: list[tuple[Box, list[int]]] = []
    for number, slices in enumerate(find_objects(labelled), start=1):
        box, members = Box.of_slices(slices), [number]
        while True:  # a group that has grown may reach another one
            near = [n for n, (other, _) in enumerate(groups) if _overlap(box, other, context)]
            if not near:
                break
            for n in reversed(near):
                other, others = groups.pop(n)
                box, members = box.join(other), [*others, *members]
        groups.append((box, members))
    if len(groups) == 1:
        return [(mask, _bounds(groups[0][0]))]
    return [(np.isin(labelled, members), _bounds(box)) for box, members in groups]


def _overlap(one: Box, other: Box, context: Sequence[int]) -> bool:
    """Whether two boxes with their surroundings have voxels in common."""
    return all(
        a - 2 * n < d and c - 2 * n < b
        for a, b, c, d, n in zip(
            one.start_ijk, one.stop_ijk, other.start_ijk, other.stop_ijk, context, strict=True
        )
    )


def _bounds(box: Box) -> list[tuple[int, int]]:
    return list(zip(box.start_ijk, box.stop_ijk, strict=True))


def _window(mask: BoolArray, start: Sequence[int], sides: Sequence[int]) -> BoolArray:
    """A part of a mask, which may reach beyond it."""
    out = np.zeros(tuple(sides), dtype=bool)
    ends = [(max(0, s), min(m, s + n)) for s, n, m in zip(start, sides, mask.shape, strict=True)]
    source = tuple(slice(low, high) for low, high in ends)
    target = tuple(slice(lo - s, hi - s) for (lo, hi), s in zip(ends, start, strict=True))
    out[target] = mask[source]
    return out


def axis_last(values: tuple[Number, Number, Number], axis: int) -> tuple[Number, Number, Number]:
    """Values along i, j, k with that of the axis last."""
    rows, columns = (v for n, v in enumerate(values) if n != axis)
    return rows, columns, values[axis]


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
