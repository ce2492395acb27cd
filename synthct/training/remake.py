"""Slices and boxes as other scanners would have made them, as augmentation.

Pixel size, sharpness and noise are drawn anew, so that none of them is the name of a scan. Where
the recipe says so (``GrainSection.painted``), the tissue to be painted is freed from its grain,
which is then made to the surroundings after painting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.masks.base import Mask
from synthct.models.patch import CONTEXT_PX, PatchRules
from synthct.models.region import axis_last, reach_of
from synthct.training.sections import DataSection, GrainSection
from synthct.volume import HU_MAX, HU_MIN, Box, Volume, spacing_of
from synthct.volume.views import VIEW_AXIS, View, plane_of

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

#: Side of the square in which the variance of the noise is looked at, in pixels.
_WINDOW_PX = 5

#: Tissue whose texture is mostly noise, and the least pixels of it from which noise is estimated.
_FLAT_HU, _LEAST_FLAT_PX = (-150, 250), 100

#: How often the network gets neither the slice before nor the one after; one of them; else both.
_NONE, _ONE = 0.45, 0.35

#: Errors of a network's own painting, as it will find them in a neighbouring slice: blur in pixels,
#: standard deviation of the shift of all HU, and of the noise in HU.
_OWN_BLUR_PX, _OWN_SHIFT_HU, _OWN_NOISE_HU = (0.3, 1.8), 10.0, 4.0


@dataclass(frozen=True, eq=False)
class MaskPart:
    """A mask and what is shown of it.

    Attributes:
        whole: The 3D mask.
        flat: Its part on a slice, one voxel thick; in the view ``volume`` all of it.
        view: The plane of the slice.
    """

    whole: Mask
    flat: Mask
    view: View


@dataclass(frozen=True, eq=False)
class MaskedCrop:
    """A mask in a crop of a slice or scan, with what a network learns from it.

    Attributes:
        plane: HU, of a slice one voxel thick: the surroundings of the mask.
        region: Boolean, on the grid of ``plane``.
        target: HU on the same grid: what is to be painted inside the mask; None where that is
            ``plane`` itself.
        neighbours: (2, rows, columns) HU of the slices before and after, NaN where the network is
            told nothing; None if it is told nothing at all.
    """

    plane: Volume
    region: Volume
    target: Volume | None = None
    neighbours: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class _Stack:
    """Slices around a mask: (N, rows, columns) each; NaN beyond the scan.

    They lie along ``axis``, and ``affine`` is that of the one that ``volume`` is given: of three
    slices before, at and after a mask, the middle one.
    """

    hu: FloatArray
    clean: FloatArray
    masks: BoolArray
    affine: npt.NDArray[np.float64]
    axis: int

    def volume(self, plane: npt.NDArray[np.generic]) -> Volume:
        """A plane as a volume one voxel thick."""
        return Volume(np.expand_dims(plane, self.axis), self.affine)


def remake_slice(
    scan: Volume, part: MaskPart, data: DataSection, rules: PatchRules, rng: np.random.Generator
) -> MaskedCrop:
    """The surroundings of a mask on a slice, cropped and remade at random.

    Args:
        scan: HU.
        part: What is shown of the mask.
        data: ``zoom``, ``grain`` and ``attenuation_jitter``.
        rules: Patch sizes and spacings of the network, and whether it takes neighbours.
        rng: The random stream.
    """
    stack = _remade(_crop(scan, part, rules), data, rules, rng)
    target = stack.clean[1] if _is_freed(data) else stack.hu[1]
    return MaskedCrop(
        plane=stack.volume(_as_int16(stack.hu[1])),
        region=stack.volume(stack.masks[1]),
        target=stack.volume(_as_int16(target)),
        neighbours=_adjacent(stack, rng) if rules.neighbours else None,
    )


def remake_box(
    scan: Volume, mask: Mask, data: DataSection, rules: PatchRules, rng: np.random.Generator
) -> MaskedCrop:
    """The surroundings of a mask in 3D, cropped and remade at random.

    Args:
        scan: HU.
        mask: The 3D mask.
        data: As in ``remake_slice``.
        rules: Box and spacings of the network.
        rng: The random stream.
    """
    crop, region = crop_around(scan, mask, rules, zoom=data.zoom[1])
    axis = VIEW_AXIS[plane_of("volume", scan.spacing_mm)]
    hu = np.moveaxis(crop.array, axis, 0).astype(np.float32)
    stack = _Stack(hu, hu, np.moveaxis(region.array, axis, 0), crop.affine, axis)
    stack = _remade(stack, data, rules, rng)

    def volume(planes: npt.NDArray[np.generic]) -> Volume:
        return Volume(np.ascontiguousarray(np.moveaxis(planes, 0, axis)), stack.affine)

    target = stack.clean if _is_freed(data) else stack.hu
    return MaskedCrop(volume(_as_int16(stack.hu)), volume(stack.masks), volume(_as_int16(target)))


def crop_around(
    scan: Volume, mask: Mask, rules: PatchRules, *, zoom: float = 1.0
) -> tuple[Volume, Volume]:
    """HU around a 3D mask as far as its boxes reach, and the mask there.

    Args:
        scan: HU.
        mask: The mask.
        rules: Boxes of the network.
        zoom: The crop may be seen with pixels so many times larger.
    """
    axis = VIEW_AXIS[plane_of("volume", scan.spacing_mm)]
    extent, spacing = axis_last(mask.box.shape, axis), axis_last(scan.spacing_mm, axis)
    sides = list(reach_of(extent, spacing, rules))
    sides[:2] = [math.ceil(n * max(zoom, 1.0)) for n in sides[:2]]
    sides.insert(axis, sides.pop())
    box = mask.box.grow([(n - m + 1) // 2 for n, m in zip(sides, mask.box.shape, strict=True)])
    box = box.clip(scan.shape)
    crop = scan.crop(box)
    return crop, Volume(_inside(mask, box), crop.affine)


def _is_freed(data: DataSection) -> bool:
    """Whether the network learns tissue without its grain."""
    return data.grain is not None and not data.grain.painted


def _remade(
    stack: _Stack, data: DataSection, rules: PatchRules, rng: np.random.Generator
) -> _Stack:
    """Slices with other pixels, attenuation, sharpness and noise, all at random."""
    stack, grain = _zoomed(stack, data.zoom, rules, rng), data.grain
    clean = stack.hu
    if grain is not None:
        clean = np.stack([without_grain(plane) for plane in stack.hu])
    factor = np.float32(1 + rng.uniform(-1, 1) * data.attenuation_jitter)
    hu, clean = ((one + np.float32(1000)) * factor - np.float32(1000) for one in (stack.hu, clean))
    if grain is not None:
        hu, clean = _rescanned(hu, clean, grain, rng)
    return replace(stack, hu=hu, clean=clean)


def without_grain(hu: FloatArray) -> FloatArray:
    """A slice without its noise: a Wiener filter whose noise is estimated in flat tissue.

    Lim, "Two-dimensional signal and image processing" (1990), section 9.2.3. Edges and vessels,
    whose variance is well above the noise's, stay as they are.

    Args:
        hu: (rows, columns).
    """
    from scipy.ndimage import uniform_filter

    mean = uniform_filter(hu, _WINDOW_PX, mode="nearest")
    variance = np.maximum(uniform_filter((hu - mean) ** 2, _WINDOW_PX, mode="nearest"), 1e-3)
    is_flat = (mean > _FLAT_HU[0]) & (mean < _FLAT_HU[1])
    if np.count_nonzero(is_flat) < _LEAST_FLAT_PX:
        return hu
    noise = np.median(variance[is_flat])
    kept = np.clip(1 - noise / variance, 0, 1)
    return np.asarray(mean + kept * (hu - mean), dtype=np.float32)


def draw_noise(
    shape: Sequence[int], deviation_hu: float, rng: np.random.Generator, planes: int
) -> FloatArray:
    """Noise of a random reconstruction kernel, the same process in each plane.

    Its power spectrum rises with the frequency, as filtered back projection's does, and falls where
    the kernel ends: from smooth to sharp kernels.

    Args:
        shape: Rows and columns.
        deviation_hu: Standard deviation.
        rng: The random stream.
        planes: Number of independent planes.

    Returns:
        (planes, rows, columns).
    """
    rise, end = rng.uniform(0, 1), np.exp(rng.uniform(np.log(0.12), np.log(0.6)))
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    amplitude = frequency**rise * np.exp(-((frequency / end) ** 2))
    white = rng.standard_normal((planes, *shape), dtype=np.float32)
    noise = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=tuple(shape))
    return np.asarray(noise * (deviation_hu / max(float(noise.std()), 1e-6)), dtype=np.float32)


def _crop(scan: Volume, part: MaskPart, rules: PatchRules) -> _Stack:
    """The slices around a mask, cropped to what its patches need at any zoom."""
    mask, flat = part.whole, part.flat
    axis = VIEW_AXIS[plane_of(part.view, scan.spacing_mm)]
    index = flat.box.start_ijk[axis]
    extent = max(flat.box.shape) + 2 * CONTEXT_PX
    side = next((n for n in rules.patch_sizes if n >= extent), extent)
    needed = math.ceil(1.3 * side) + 16
    around = [0 if a == axis else (needed - n + 1) // 2 for a, n in enumerate(flat.box.shape)]
    box = flat.box.grow(around).clip(scan.shape)
    middle = _inside(flat, box)
    thickness = mask.region.array.take(index - mask.box.start_ijk[axis], axis)
    is_part = np.count_nonzero(middle) < np.count_nonzero(thickness)
    hu, masks = [], []
    for number in (index - 1, index, index + 1):
        slab = box.slab(axis, number)
        if slab.clip(scan.shape) != slab:  # beyond the end of the scan
            hu.append(np.full(middle.shape, np.nan, dtype=np.float32))
            masks.append(np.zeros_like(middle))
            continue
        hu.append(scan.array[slab.slices].astype(np.float32))
        masks.append(_inside(mask, slab) & (middle if is_part else True))
    masks[1] = middle
    planes = np.stack(hu).squeeze(axis + 1)
    return _Stack(planes, planes, np.stack(masks).squeeze(axis + 1), scan.crop(box).affine, axis)


def _inside(mask: Mask, box: Box) -> BoolArray:
    """The part of a mask inside a box of its host."""
    out = np.zeros(box.shape, dtype=bool)
    place = mask.box.shift([-n for n in box.start_ijk])
    common = place.clip(box.shape)
    if 0 not in common.shape:
        out[common.slices] = mask.region.array[common.shift([-n for n in place.start_ijk]).slices]
    return out


def _zoomed(
    stack: _Stack, zoom: tuple[float, float], rules: PatchRules, rng: np.random.Generator
) -> _Stack:
    """The same tissue on pixels of another size, within the spacings that the network takes."""
    from scipy.ndimage import affine_transform

    if zoom == (1.0, 1.0):
        return stack
    middle = len(stack.masks) // 2
    spacing = [s for a, s in enumerate(spacing_of(stack.affine)) if a != stack.axis]
    low = max(zoom[0], rules.spacing_range_mm[0] / min(spacing))
    high = min(zoom[1], rules.spacing_range_mm[1] / max(spacing))
    factor = math.exp(rng.uniform(math.log(zoom[0]), math.log(zoom[1])))
    factor = min(max(factor, low), high)
    if low > high or abs(factor - 1) < 0.02:  # hardly any change but the interpolation's
        return stack
    shape = tuple(int(n / factor) for n in stack.hu.shape[1:])
    given: Any = {"offset": [0.5 * factor - 0.5] * 2, "output_shape": shape, "mode": "nearest"}
    scale = np.array([factor, factor])
    hu = [affine_transform(plane, scale, order=3, **given) for plane in stack.hu]
    masks = [affine_transform(one, scale, order=0, **given) for one in stack.masks]
    if not masks[middle].any():
        return stack
    affine = stack.affine.copy()
    axes = [a for a in range(3) if a != stack.axis]
    affine[:3, axes] *= factor
    affine[:3, 3] += stack.affine[:3, axes].sum(axis=1) * (factor - 1) / 2
    planes = np.stack(hu).astype(np.float32)
    return replace(stack, hu=planes, clean=planes, masks=np.stack(masks), affine=affine)


def _rescanned(
    hu: FloatArray, clean: FloatArray, grain: GrainSection, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Slices and their tissue without grain, blurred and with noise, both at random."""
    from scipy.ndimage import gaussian_filter

    if rng.random() < grain.blur_share:
        sigma = rng.uniform(*grain.blur_px)
        hu, clean = (gaussian_filter(one, (0, sigma, sigma), mode="nearest") for one in (hu, clean))
    if rng.random() < grain.noise_share:
        low, high = np.log(grain.noise_hu)
        hu = hu + draw_noise(hu.shape[1:], float(np.exp(rng.uniform(low, high))), rng, len(hu))
    return hu, clean


def _adjacent(stack: _Stack, rng: np.random.Generator) -> FloatArray | None:
    """The slices before and after, as far as the network gets them.

    Of each either nothing, or what lies outside its mask (it is painted later), or all of it, with
    the network's own painting inside its mask.
    """
    from scipy.ndimage import gaussian_filter

    adjacent = np.stack([stack.hu[0], stack.hu[2]])
    chance, other = rng.random(2)
    first = int(rng.integers(2))
    states = ["whole", "whole"]
    if chance < _NONE:
        return None
    if chance < _NONE + _ONE:
        states[1 - first] = "outside" if other < 0.7 else "nothing"
        states[first] = "outside" if other < 0.15 else "whole"
    for side, state in enumerate(states):
        inside = stack.masks[2 * side]
        sigma = rng.uniform(*_OWN_BLUR_PX)
        shift = rng.normal(0, _OWN_SHIFT_HU)
        if state == "nothing":
            adjacent[side] = np.nan
        elif state == "outside":
            adjacent[side][inside] = np.nan
        else:
            painted = gaussian_filter(stack.clean[2 * side], sigma, mode="nearest")
            painted += rng.normal(shift, _OWN_NOISE_HU, painted.shape)
            adjacent[side][inside] = painted[inside]
    return None if np.isnan(adjacent).all() else adjacent


def _as_int16(hu: FloatArray) -> npt.NDArray[np.int16]:
    return np.clip(np.rint(hu), HU_MIN, HU_MAX).astype(np.int16)
