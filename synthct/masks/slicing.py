"""From a 3D mask to samples: its slices, a part that is small enough, the label map."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import numpy.typing as npt

from synthct.errors import MaskError
from synthct.masks.base import (
    LabelPolicy,
    Mask,
    Params,
    PlacementError,
    SeveralSlices,
    SliceRule,
    voxel_centres,
)
from synthct.masks.shape import WavyShape, draw_waves
from synthct.volume import Array, Box, Index3, Volume, distances_mm, plane_spacing_mm
from synthct.volume.regions import Region, components, move, slices_with
from synthct.volume.views import IGNORE, VIEW_AXIS, Plane, View, plane_of

#: Random slices have at least this share of the largest slice's area.
LEAST_AREA_SHARE = 0.25

#: Height of the waves on the edge of a part, as a share of its radius.
PART_ROUGHNESS = 0.15


def draw_slices(
    mask: Mask, view: View, rule: SliceRule, max_extent_mm: float | None, rng: np.random.Generator
) -> list[Params]:
    """Choose the slices of a 3D mask that become 2D samples, or what of it becomes a volume.

    Args:
        mask: The 3D mask.
        view: Plane of the slices; of a ``volume`` there is one sample, and ``rule`` counts for
            nothing.
        rule: See ``MaskSection.slices``.
        max_extent_mm: See ``MaskSection.max_extent_mm``; several slices share one part, so that
            they fit each other.
        rng: The mask's random generator.

    Returns:
        Parameters for ``slice_of`` as JSON, one for each sample, in the order of the slices.

    Raises:
        PlacementError: If no slice has the rule's least area.
    """
    if view == "volume":
        part = None if max_extent_mm is None else draw_part(mask, max_extent_mm, rng)
        return [{"part": part and {**part, "of": "volume"}}]
    if rule == "random" or rule == "largest":
        area = _areas(mask, view)
        index = mask.box.start_ijk[VIEW_AXIS[view]] + int(np.argmax(area))
        if rule == "random":
            weight = np.where(area >= LEAST_AREA_SHARE * area.max(), area, 0)
            # Not rng.choice: one uniform number per draw keeps the random stream simple to replay.
            drawn = np.searchsorted(np.cumsum(weight), rng.random() * weight.sum(), "right")
            index = mask.box.start_ijk[VIEW_AXIS[view]] + int(drawn)
        flat = take_slice(mask, view, index)
        part = None if max_extent_mm is None else draw_part(flat, max_extent_mm, rng)
        return [{"slice_index": index, "part": part}]
    part = None if max_extent_mm is None else draw_part(mask, max_extent_mm, rng)
    if part is not None:
        mask, part = take_part(mask, part), {**part, "of": "volume"}
    several = SeveralSlices() if rule == "all" else rule
    return [{"slice_index": n, "part": part} for n in _several(mask, view, several)]


def slice_of(mask: Mask, view: View, params: Params) -> Mask:
    """What of a 3D mask ``draw_slices`` chose for one sample: a slice, a part, or all of it.

    Raises:
        MaskError: If the mask has no voxel there.
    """
    part = params["part"]
    if view == "volume":
        return take_part(mask, part)
    index = int(params["slice_index"])
    if part is not None and part.get("of") == "volume":
        return take_slice(take_part(mask, part), view, index)
    return take_part(take_slice(mask, view, index), part)


def _areas(mask: Mask, view: Plane) -> npt.NDArray[np.int64]:
    """Number of voxels of the mask, or of its core, in each slice of its box."""
    across = tuple(axis for axis in range(3) if axis != VIEW_AXIS[view])
    region = mask.region.array if mask.core is None else mask.core
    return np.asarray(np.count_nonzero(region, axis=across), dtype=np.int64)


def _several(mask: Mask, view: Plane, rule: SeveralSlices) -> list[int]:
    """Indices of the slices that a rule selects, ascending; the largest is one of them."""
    axis = VIEW_AXIS[view]
    counts, spacing_mm = _areas(mask, view), plane_spacing_mm(mask.region.affine)[axis]
    voxel_mm2 = mask.region.voxel_volume_ml * 1000 / spacing_mm
    largest = int(np.argmax(counts))
    candidates = np.arange(counts.size)
    if rule.every_mm is not None:
        step = rule.every_mm / spacing_mm
        steps = np.arange(-np.floor(largest / step), (counts.size - 1 - largest) // step + 1)
        candidates = np.rint(largest + steps * step).astype(int).clip(0, counts.size - 1)
        candidates = np.unique(candidates)
    areas = counts[candidates]
    chosen = candidates[(areas > 0) & (areas * voxel_mm2 >= rule.min_area_mm2)]
    if not chosen.size:
        raise PlacementError(
            f"the largest {view} slice of the mask shows {counts[largest] * voxel_mm2:.0f} mm2, "
            f"less than min_area_mm2 {rule.min_area_mm2:g}; lower it, or draw larger masks",
            Counter(min_area_mm2=1),
        )
    return [mask.box.start_ijk[axis] + int(n) for n in chosen]


def take_slice(mask: Mask, view: Plane, index: int) -> Mask:
    """The part of ``mask`` in one slice of the host, one voxel thick and tightly boxed.

    Raises:
        MaskError: If the mask has no voxel in that slice.
    """
    axis = VIEW_AXIS[view]
    start, stop = mask.box.start_ijk[axis], mask.box.stop_ijk[axis]
    if not start <= index < stop:
        raise MaskError(f"{view} slice {index} lies outside of the mask's {start}..{stop - 1}")
    thin = Box.whole(mask.box.shape).slab(axis, index - start).slices
    only = np.zeros_like(mask.region.array)
    only[thin] = mask.region.array[thin]
    return _narrowed(mask, only, f"{view} slice {index}")


def slices_of(mask: Mask, view: View) -> list[Mask]:
    """The slices of a whole mask, one by one; of a slice itself."""
    if view != "volume":
        return [mask]
    of = plane_of(view, mask.region.spacing_mm)
    axis = VIEW_AXIS[of]
    shown = slices_with(mask.region.array, axis)
    return [take_slice(mask, of, mask.box.start_ijk[axis] + index) for index in shown]


def shown_box(shape: Index3, flat: Mask, view: View, margin_mm: float | None) -> Box:
    """What of a host a sample shows: the whole slice that a mask lies on, or a box around it.

    Args:
        shape: Of the host, (I, J, K).
        flat: From ``slice_of``.
        view: Plane of the slice, or ``volume``.
        margin_mm: Around the mask of a volume, and at least a voxel; None for the whole host.
    """
    whole = Box.whole(shape)
    if view != "volume":
        axis = VIEW_AXIS[view]
        return whole.slab(axis, flat.box.start_ijk[axis])
    if margin_mm is None:
        return whole
    margin = [max(1, math.ceil(margin_mm / s)) for s in flat.region.spacing_mm]
    return flat.box.grow(margin).clip(shape)


def within(flat: Mask, box: Box) -> Region:
    """A mask as a boolean array of the shape of a box of its host, in which it lies."""
    region = np.zeros(box.shape, dtype=bool)
    i, j, k = box.start_ijk
    region[move(flat.box, (-i, -j, -k)).slices] = flat.region.array
    return region


def on_slice(volume: Volume, flat: Mask, view: Plane) -> tuple[Volume, Volume]:
    """The whole slice of a volume that a mask of ``take_slice`` lies on, and the mask on it."""
    box = shown_box(volume.shape, flat, view, None)
    plane = volume.crop(box)
    return plane, Volume(within(flat, box), plane.affine)


def widest_slice(mask: Mask, view: Plane) -> Mask:
    """The slice of a mask that shows most of it, or of its core."""
    index = mask.box.start_ijk[VIEW_AXIS[view]] + int(np.argmax(_areas(mask, view)))
    return take_slice(mask, view, index)


def draw_part(mask: Mask, max_extent_mm: float, rng: np.random.Generator) -> Params | None:
    """Choose a random part of a mask that is larger than ``max_extent_mm``.

    The part is a ball with a wavy edge around a place well inside the mask, so that the model
    sees no straight cut.

    Args:
        mask: One voxel thick, or 3D; an axis with a single voxel does not count.
        max_extent_mm: Greatest extent of the part along the grid's axes.
        rng: The mask's random generator.

    Returns:
        Parameters for ``take_part``; None if the whole mask fits.
    """
    region, affine, spacing = mask.region.array, mask.region.affine, mask.region.spacing_mm
    wide = [(n, s) for n, s in zip(region.shape, spacing, strict=True) if n > 1]
    if all(n * s <= max_extent_mm for n, s in wide):
        return None
    # Voxels extend half a voxel beyond their centres on either side.
    reach_mm = max(0.0, (max_extent_mm - max(s for _, s in wide)) / 2)
    waves = draw_waves(rng, reach_mm, PART_ROUGHNESS)
    radius_mm = reach_mm / waves.greatest
    depth = distances_mm(np.pad(region, [(int(n > 1),) * 2 for n in region.shape]), affine)
    depth = depth[tuple(slice(int(n > 1), int(n > 1) + n) for n in region.shape)]
    places = np.argwhere(region & (depth >= min(radius_mm, float(depth.max())) / 2))
    centre = places[rng.integers(len(places))] @ affine[:3, :3].T
    centre += affine[:3, 3]
    shape = WavyShape(tuple(centre.tolist()), (radius_mm,) * 3, (1.0, 0.0, 0.0, 0.0), waves)
    return {"shape": shape.as_json(), "max_extent_mm": max_extent_mm}


def take_part(mask: Mask, params: Params | None) -> Mask:
    """The connected part of a mask that ``draw_part`` chose; the whole mask without ``params``."""
    if params is None:
        return mask
    shape = WavyShape.from_json(params["shape"])
    inverse = np.linalg.inv(mask.region.affine)
    i, j, k = np.rint(inverse[:3, :3] @ shape.centre_mm + inverse[:3, 3]).astype(int).tolist()
    part = shape.contains(voxel_centres(Box.whole(mask.box.shape), mask.region.affine))
    part[i, j, k] = True
    part &= mask.region.array
    parts, _ = components(part)
    return _narrowed(mask, part & (parts == parts[i, j, k]), "the drawn part")


def paint_labels(labels: Volume, mask: Mask, policy: LabelPolicy, value: int | None) -> Array:
    """The label map after painting, a copy with the type of ``labels``.

    Args:
        labels: Label map on the host's grid: the whole, a slice one voxel thick, or any crop.
        mask: The painted mask; its voxels outside of ``labels`` are ignored.
        policy: ``paint`` gives the voxels ``value``, ``ignore`` 255, ``keep`` changes nothing;
            ``relabel`` gives 255, which the program's labels replace later.
        value: The painted label's value; needed for ``paint`` if the mask has no ``values``.

    Raises:
        MaskError: If there is no value to paint, or the grids differ.
    """
    out = labels.array.copy()
    if policy == "keep":
        return out
    own = mask.values if policy == "paint" else None
    if policy == "paint" and own is None and (value is None or not 0 < value < IGNORE):
        raise MaskError(
            f"label_map 'paint' needs a label with a value in 1..{IGNORE - 1}, not {value}; "
            "give the section a label, or label_map 'ignore'"
        )
    offset = _offset(mask.region, labels)
    box = move(Box.whole(mask.box.shape), offset)
    inside = box.clip(labels.shape)
    if 0 in inside.shape:
        return out
    within = move(inside, (-offset[0], -offset[1], -offset[2]))
    target = out[inside.slices]
    where = mask.region.array[within.slices]
    if own is not None:
        target[where] = own[within.slices][where]
    else:
        target[where] = value if policy == "paint" else IGNORE
    return out


def _offset(region: Volume, labels: Volume) -> Index3:
    """Voxel of ``labels`` at which ``region`` starts."""
    relative = np.linalg.inv(labels.affine) @ region.affine
    whole = np.rint(relative[:3, 3])
    turned = np.abs(relative[:3, :3] - np.eye(3)).max() > 1e-3
    if turned or np.abs(relative[:3, 3] - whole).max() > 0.05:
        raise MaskError("the label map is on another grid than the mask; cut both from one case")
    i, j, k = (int(n) for n in whole)
    return i, j, k


def _narrowed(mask: Mask, region: Array, what: str) -> Mask:
    """``mask`` cropped to ``region``; an error that names ``what`` if that is empty."""
    narrowed = mask.restricted_to(region)
    if narrowed is None:
        raise MaskError(f"the mask has no voxel in {what}; choose another slice or part")
    return narrowed
