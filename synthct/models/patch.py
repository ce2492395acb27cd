"""Cutting square patches around a mask for a network, and pasting them back.

A patch is on the scan's own grid if the checkpoint was trained on that spacing; resampling to a
coarser grid and back loses half of the tissue's texture, so it is the exception. Patches of several
slices are cut in ``region.py``, by the same rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.errors import CheckpointError, MaskError
from synthct.models.regrid import SPACING_TOLERANCE, cell_of, cover, covered, scale_into, to_grid
from synthct.volume import HU_MAX, HU_MIN, Volume
from synthct.volume.intensity import Knots, Window, parse_codec

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

#: Pixels of real tissue around the mask: the usual number and the least.
CONTEXT_PX, LEAST_CONTEXT_PX = 16, 6

#: A resampled pixel is hidden from the network if more than this share of it is masked.
TRACE = 0.01


@dataclass(frozen=True)
class PatchRules:
    """The patches that a checkpoint takes.

    Attributes:
        labels: Structures it can paint; whatever fits (None) is always possible.
        codecs: Codec by label; ``default`` for all the others.
        patch_sizes: Side lengths in pixels, rising.
        spacing_range_mm: Least and greatest in-plane spacing.
        strengths: Share of the noise schedule that painting runs through, by label; ``default``
            for all the others, 1 where nothing is stated.
        guidance: Scale of classifier-free guidance, likewise.
        depth: Slices of a patch; more than 1 for a network in 3D.
        slice_range_mm: Least and greatest distance of slices; None if it makes no difference.
        neighbours: Neighbouring slices that it makes use of: 0, or the 2 before and after.
    """

    labels: tuple[str, ...]
    codecs: Mapping[str, Window | Knots]
    patch_sizes: tuple[int, ...]
    spacing_range_mm: tuple[float, float]
    strengths: Mapping[str, float] = field(default_factory=dict)
    guidance: Mapping[str, float] = field(default_factory=dict)
    depth: int = 1
    slice_range_mm: tuple[float, float] | None = None
    neighbours: int = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PatchRules:
        """The rules in the config of a checkpoint's network.

        Raises:
            CheckpointError: If a field is missing or makes no sense.
        """
        try:
            codecs = {str(k): parse_codec(v) for k, v in dict(config["codecs"]).items()}
            sizes = tuple(sorted(int(n) for n in config["patch_sizes"]))
            low, high = (float(v) for v in config["spacing_range_mm"])
            labels = tuple(str(name) for name in config["labels"])
            strengths, guidance = (
                {str(k): float(v) for k, v in (config.get(field) or {}).items()}
                for field in ("strengths", "guidance")
            )
            depth, neighbours = (
                int(config.get(k, n)) for k, n in (("depth", 1), ("neighbours", 0))
            )
            apart = config.get("slice_range_mm")
            slices = None if apart is None else (float(apart[0]), float(apart[1]))
        except (AttributeError, KeyError, TypeError, ValueError) as err:
            message = f"the checkpoint's config does not say how to use it: {err!r}"
            raise CheckpointError(message) from err
        if "default" not in codecs or not sizes or sizes[0] < 8 or not 0 < low <= high:
            raise CheckpointError(
                "the checkpoint's config needs a default codec, patch_sizes and spacing_range_mm; "
                f"it has codecs {sorted(codecs)}, patch_sizes {sizes}, spacing {low}..{high}"
            )
        if any(not 0 < strength <= 1 for strength in strengths.values()):
            raise CheckpointError(f"the checkpoint's strengths {strengths} are not within 0..1")
        if any(not scale >= 1 for scale in guidance.values()):
            raise CheckpointError(f"the checkpoint's guidance {guidance} is not 1 or more")
        return cls(
            labels, codecs, sizes, (low, high), strengths, guidance, depth, slices, neighbours
        )

    def codec(self, label: str | None) -> Window | Knots:
        """The codec in which ``label`` is painted."""
        return self.codecs.get(label or "default", self.codecs["default"])

    def strength(self, label: str | None) -> float:
        """The share of the noise schedule that painting ``label`` runs through."""
        return self.strengths.get(label or "default", self.strengths.get("default", 1.0))

    def guidance_scale(self, label: str | None) -> float:
        """The scale of the guidance towards ``label``; 1 for none."""
        return self.guidance.get(label or "default", self.guidance.get("default", 1.0))

    def provides(self, label: str | None) -> bool:
        """Whether the checkpoint can paint ``label``; always true of None."""
        return label is None or label in self.labels

    def paintable(self, label: str | None) -> str | None:
        """``label`` if the checkpoint can paint it, else None for whatever fits."""
        return label if self.provides(label) else None

    def label_index(self, label: str | None) -> int:
        """The network's index of ``label``; 0 for whatever fits.

        Raises:
            CheckpointError: If the checkpoint was not trained on the label.
        """
        if not self.provides(label):
            raise CheckpointError(
                f"the checkpoint cannot paint '{label}' (it paints {', '.join(self.labels)}); "
                "leave the label out to paint whatever fits, or choose another checkpoint"
            )
        return 0 if label is None else self.labels.index(label) + 1


@dataclass(frozen=True, eq=False)
class Patch:
    """A square piece of a slice, or a box of a scan, ready for a network.

    Attributes:
        image: (S, S) or (H, W, D) in -1..1; real tissue, also inside the mask.
        mask: Boolean, likewise; true where the network paints.
        own: Boolean, likewise; the part of the mask that is pasted back from this patch.
        label: The network's index of the structure to paint.
        codec: From HU to the range of ``image``.
        spacing_mm: Voxel size along each side.
        origin: Of the patch's first voxel on its grid; may be negative.
        scale: Voxels of the scan per voxel of the patch, along each side.
        strength: Share of the noise schedule that painting runs through.
        guidance_scale: Of the guidance towards its label; 1 for none.
        neighbours: (2, S, S) in -1..1, the slices before and after on the same pixels; NaN where
            nothing is known. None if nothing is known of either.
        noise: (S, S), what painting starts from; None to draw it by the seed.
        level_hu: Median HU of the paint; None where it is left to the network.
    """

    image: FloatArray
    mask: BoolArray
    own: BoolArray
    label: int
    codec: Window | Knots
    spacing_mm: tuple[float, ...]
    origin: tuple[int, ...]
    scale: tuple[float, ...]
    strength: float = 1.0
    guidance_scale: float = 1.0
    neighbours: FloatArray | None = None
    noise: FloatArray | None = None
    level_hu: float | None = None

    @property
    def size(self) -> int:
        """Side length in pixels, of a square patch."""
        return int(self.image.shape[0])

    @property
    def is_resampled(self) -> bool:
        """Whether the patch is on another grid than the scan."""
        return set(self.scale) != {1.0}


def slice_plane(volume: Volume) -> tuple[npt.NDArray[Any], tuple[float, float]]:
    """The plane of a volume one voxel thick: a 2D view (rows, columns) and its spacing in mm.

    Raises:
        ValueError: If no axis has length 1.
    """
    axis = thin_axis(volume)
    rows, columns = (s for a, s in enumerate(volume.spacing_mm) if a != axis)
    return volume.array.squeeze(axis), (rows, columns)


def thin_axis(volume: Volume) -> int:
    """The axis along which a volume is one voxel thick (the last, if several are)."""
    thin = [axis for axis in range(3) if volume.shape[axis] == 1]
    if not thin:
        raise ValueError(f"a 2D patch needs a volume one voxel thick, not {volume.shape}")
    return thin[-1]


@dataclass(frozen=True, eq=False)
class _Slice:
    """What patches are cut from.

    Attributes:
        hu: (rows, columns).
        mask: Boolean, of the same shape.
        spacing_mm: Size of a pixel along rows and columns.
        neighbours: As for ``cut_patches``.
    """

    hu: npt.NDArray[Any]
    mask: BoolArray
    spacing_mm: tuple[float, float]
    neighbours: FloatArray | None


def cut_patches(
    ct: Volume,
    region: Volume,
    label: str | None,
    rules: PatchRules,
    neighbours: FloatArray | None = None,
) -> list[Patch]:
    """The patches that cover a mask.

    One patch if the mask and its context fit the largest patch size on the scan's own grid; else
    one per connected component; a component that still does not fit goes to a coarser grid.

    Args:
        ct: HU, one voxel thick.
        region: Boolean, on the grid of ``ct``: where to paint.
        label: What to paint; None for whatever fits.
        rules: The patches that the checkpoint takes.
        neighbours: (2, rows, columns) HU of the slices before and after along the thin axis, as
            the checkpoint is to know them: real tissue outside their masks, what was painted inside
            them, NaN where nothing is known, such as inside a mask that is not painted yet or
            beyond the end of the scan. None if nothing is known of either.

    Raises:
        MaskError: If the mask is empty or its extent is beyond the coarsest grid.
        CheckpointError: If the checkpoint cannot paint the label.
    """
    from scipy.ndimage import label as connected_components

    hu, spacing = slice_plane(ct)
    mask = slice_plane(region)[0].astype(bool)
    if mask.shape != hu.shape:
        raise ValueError(f"mask {mask.shape} and slice {hu.shape} are on different grids")
    if not mask.any():
        raise MaskError("the mask is empty on this slice")
    if neighbours is not None and neighbours.shape != (2, *hu.shape):
        raise ValueError(f"neighbours {neighbours.shape} of a slice {hu.shape}")

    one = _Slice(hu, mask, spacing, neighbours)
    base = _base_scale(spacing, rules)
    parts = [mask]
    if max(_extent(mask, base)) + 2 * LEAST_CONTEXT_PX > rules.patch_sizes[-1]:
        labelled, count = connected_components(mask, structure=np.ones((3, 3)))
        parts = [labelled == n + 1 for n in range(count)]
    return [_cut(one, part, label, rules) for part in parts]


def paste_patches(
    ct: Volume, region: Volume, patches: Sequence[Patch], painted: Sequence[FloatArray]
) -> Volume:
    """The slice with the painted pixels inside the mask and every other voxel untouched.

    Args:
        ct: HU, one voxel thick, as given to ``cut_patches``.
        region: The mask, as given to ``cut_patches``.
        patches: Its result.
        painted: One (S, S) array per patch, in -1..1.
    """
    mask = region.array.astype(bool)
    values = np.full(mask.shape, np.nan, dtype=np.float32)
    plane = values.squeeze(thin_axis(ct))  # a view
    for patch, x in zip(patches, painted, strict=True):
        _put(plane, patch.codec.decode(x), patch)
    assert not np.isnan(values[mask]).any(), "the patches do not cover the mask"
    return ct.paste(np.clip(values, HU_MIN, HU_MAX), where=mask)


def _base_scale(spacing: tuple[float, float], rules: PatchRules) -> tuple[float, float]:
    rows, columns = (scale_into(s, rules.spacing_range_mm) for s in spacing)
    return rows, columns


def _extent(mask: BoolArray, scale: tuple[float, float]) -> tuple[float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        float(rows[-1] - rows[0] + 1) / scale[0],
        float(columns[-1] - columns[0] + 1) / scale[1],
    )


def _scale_to_fit(
    part: BoolArray, spacing: tuple[float, float], rules: PatchRules
) -> tuple[float, float]:
    """The finest scale at which a component and its least context fit the largest patch."""
    base = _base_scale(spacing, rules)
    room = rules.patch_sizes[-1] - 2 * LEAST_CONTEXT_PX
    factors = [max(1.0, extent / room) for extent in _extent(part, base)]
    scale = (base[0] * factors[0], base[1] * factors[1])
    coarse = [s * k for s, k in zip(spacing, scale, strict=True)]
    if max(factors) > 1 and max(coarse) > rules.spacing_range_mm[1] * (1 + SPACING_TOLERANCE):
        extents = [e * s for e, s in zip(_extent(part, (1.0, 1.0)), spacing, strict=True)]
        limit = room * rules.spacing_range_mm[1]
        raise MaskError(
            f"the mask spans {extents[0]:.0f} x {extents[1]:.0f} mm, more than the {limit:.0f} mm "
            "that the checkpoint can paint at once; set max_extent_mm in its mask section"
        )
    return scale


def _cut(one: _Slice, part: BoolArray, label: str | None, rules: PatchRules) -> Patch:
    """The patch of a component of a slice's mask."""
    number, codec = rules.label_index(label), rules.codec(label)
    scale = _scale_to_fit(part, one.spacing_mm, rules)
    plane, grid_mask, grid_part = one.hu.astype(np.float32), one.mask, part
    if scale != (1.0, 1.0):
        shape = _coarse_shape(plane.shape, scale)
        plane = to_grid(plane, shape, scale)
        grid_part = cover(part, shape, scale)
        traces = to_grid(one.mask.astype(np.float32), shape, scale)
        grid_mask = cover(one.mask, shape, scale) | (traces > TRACE)
    rows, columns = np.flatnonzero(grid_part.any(axis=1)), np.flatnonzero(grid_part.any(axis=0))
    bounds = ((int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1))
    extent = max(stop - start for start, stop in bounds)
    sizes = rules.patch_sizes
    size = next((n for n in sizes if n >= extent + 2 * CONTEXT_PX), sizes[-1])
    origin = tuple(
        first_voxel(start, stop, size, n)
        for (start, stop), n in zip(bounds, plane.shape, strict=True)
    )
    patch = Patch(
        image=codec.encode(_window(plane, origin, size, HU_MIN)),
        mask=_window(grid_mask, origin, size, False),
        own=_window(grid_part, origin, size, False),
        label=number,
        codec=codec,
        spacing_mm=(one.spacing_mm[0] * scale[0], one.spacing_mm[1] * scale[1]),
        origin=(origin[0], origin[1]),
        scale=scale,
        strength=rules.strength(label),
        guidance_scale=rules.guidance_scale(label),
    )
    if one.neighbours is None:
        return patch
    return replace(patch, neighbours=_like(patch, one.neighbours))


def _like(patch: Patch, planes: FloatArray) -> FloatArray:
    """Other planes (N, rows, columns) of HU on the pixels of a patch: (N, S, S) in -1..1."""
    if patch.is_resampled:
        shape = _coarse_shape(planes.shape[1:], patch.scale)
        planes = np.stack([to_grid(plane, shape, patch.scale) for plane in planes])
    cut = [patch.codec.encode(_window(p, patch.origin, patch.size, HU_MIN)) for p in planes]
    return np.stack(cut)


def _coarse_shape(shape: Sequence[int], scale: Sequence[float]) -> tuple[int, ...]:
    """Shape of a slice on pixels ``scale`` times as large."""
    return tuple(math.ceil(n / s) for n, s in zip(shape, scale, strict=True))


def first_voxel(start: int, stop: int, size: int, length: int) -> int:
    """First of ``size`` voxels, centred on start..stop and kept inside the scan where they fit."""
    centred = (start + stop - size) // 2
    return (length - size) // 2 if size >= length else int(np.clip(centred, 0, length - size))


def _window(array: npt.NDArray[Any], origin: Sequence[int], size: int, fill: Any) -> Any:
    out = np.full((size, size), fill, dtype=array.dtype)
    source, target = [], []
    for start, n in zip(origin, array.shape, strict=True):
        low, high = max(0, start), min(n, start + size)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    out[tuple(target)] = array[tuple(source)]
    return out


def _put(values: FloatArray, hu: FloatArray, patch: Patch) -> None:
    """Write a painted patch into the plane of its slice, inside the patch's own mask only."""
    from scipy.ndimage import map_coordinates

    if not patch.is_resampled:
        rows, columns = np.nonzero(patch.own)
        values[rows + patch.origin[0], columns + patch.origin[1]] = hu[rows, columns]
        return
    rows, columns = (
        covered(n, start, patch.size, scale)
        for n, start, scale in zip(values.shape, patch.origin, patch.scale, strict=True)
    )
    (r0, c0), (sr, sc) = patch.origin, patch.scale
    own = patch.own[np.ix_(cell_of(rows, sr) - r0, cell_of(columns, sc) - c0)]
    r, c = own.nonzero()
    rows, columns = rows[r], columns[c]
    at = np.stack([(rows + 0.5) / sr - 0.5 - r0, (columns + 0.5) / sc - 0.5 - c0])
    values[rows, columns] = map_coordinates(hu, at, order=1, mode="nearest")
