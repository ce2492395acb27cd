"""Volumes painted slice after slice by a network in 2D that takes the slices already there.

A network that takes none starts from noise that changes little from slice to slice, so that
what it paints does too.

Of each run of neighbouring slices the first and the last are painted first, which border on real
tissue, then those beside them, inwards from both ends until they meet. Step n of several volumes is
painted together, so that batches are full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from synthct.masks.base import Mask
from synthct.models.patch import FloatArray, Patch, PatchRules, cut_patches, paste_patches
from synthct.volume import Array, Box, Volume
from synthct.volume.regions import slices_with
from synthct.volume.views import VIEW_AXIS, Plane


class Asked(NamedTuple):
    """What is to be painted in a volume.

    Attributes:
        label: The structure; None for whatever fits.
        level_hu: Median of the paint in each slice; None where it is left to the network.
        is_lesion: Whether the mask adds a lesion, whose slices get one level.
    """

    label: str | None = None
    level_hu: float | None = None
    is_lesion: bool = False


@dataclass(frozen=True, eq=False)
class Stack:
    """The slices of a mask in whole planes of its host, with one more at each end if there is one.

    Attributes:
        hu: int16 HU of the host.
        region: Boolean, on the same grid: where to paint.
        plane: The plane of the slices.
        asked: What to paint.
        patches: Of each of ``slices``, as they are before anything is painted.
    """

    hu: Volume
    region: Volume
    plane: Plane
    asked: Asked
    patches: tuple[tuple[Patch, ...], ...] = ()

    @classmethod
    def of(cls, host: Volume, mask: Mask, plane: Plane, rules: PatchRules, asked: Asked) -> Stack:
        """The slices of a mask in a scan, cut for a checkpoint.

        Raises:
            MaskError: If the mask is too large for the checkpoint.
        """
        axis = VIEW_AXIS[plane]
        start, stop = [0, 0, 0], list(host.shape)
        start[axis] = max(0, mask.box.start_ijk[axis] - 1)
        stop[axis] = min(host.shape[axis], mask.box.stop_ijk[axis] + 1)
        hu = host.crop(Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])))
        region = np.zeros(hu.shape, dtype=bool)
        region[mask.box.shift([-n for n in start]).slices] = mask.region.array
        one = cls(hu, Volume(region, hu.affine), plane, asked)
        cut = [tuple(one.cut(n, rules, hu.array, region)) for n in one.slices]
        return replace(one, patches=tuple(cut))

    @property
    def slices(self) -> list[int]:
        """The slices that show some of the mask, rising."""
        return slices_with(self.region.array, VIEW_AXIS[self.plane])

    @property
    def largest(self) -> int:
        """The slice that shows most of the mask."""
        others = tuple(n for n in range(3) if n != VIEW_AXIS[self.plane])
        return int(self.region.array.sum(axis=others).argmax())

    def steps(self) -> list[list[int]]:
        """Which slices are painted after each other; those of a step are not neighbours."""
        runs: list[list[int]] = []
        for index in self.slices:
            if not runs or index != runs[-1][-1] + 1:
                runs.append([])
            runs[-1].append(index)
        orders = [_inwards(run) for run in runs]
        longest = max(len(order) for order in orders)
        return [[n for o in orders if step < len(o) for n in o[step]] for step in range(longest)]

    def alone(self, rules: PatchRules) -> list[Patch]:
        """What of a lesion is painted first, for its level: the largest slice, told of no other.

        Nothing where the level is given, or where slices are not told of each other.
        """
        if not self.asked.is_lesion or self.asked.level_hu is not None or not rules.neighbours:
            return []
        axis = VIEW_AXIS[self.plane]
        here = self.hu.slab(axis, self.largest), self.region.slab(axis, self.largest)
        return cut_patches(*here, self.asked.label, rules)

    def cut(
        self, index: int, rules: PatchRules, hu: Array, todo: npt.NDArray[np.bool_]
    ) -> list[Patch]:
        """The patches of a slice, which know the slices beside it as far as they are painted.

        Args:
            index: The slice.
            rules: The patches that the checkpoint takes.
            hu: HU so far, of the shape of ``self.hu``.
            todo: Boolean, likewise: what is still to be painted.

        Raises:
            MaskError: If the mask is too large for the checkpoint.
        """
        axis = VIEW_AXIS[self.plane]
        here = Volume(hu, self.hu.affine).slab(axis, index), self.region.slab(axis, index)
        beside = self._beside(index, hu, todo) if rules.neighbours else None
        patches = cut_patches(*here, self.asked.label, rules, beside)
        return [replace(patch, level_hu=self.asked.level_hu) for patch in patches]

    def _beside(self, index: int, hu: Array, todo: npt.NDArray[np.bool_]) -> FloatArray:
        """The slices before and after one, NaN where nothing is known; arguments as of ``cut``."""
        hu, todo = (np.moveaxis(one, VIEW_AXIS[self.plane], 0) for one in (hu, todo))
        beside = [
            np.where(todo[n], np.nan, hu[n]).astype(np.float32)
            if 0 <= n < len(hu)
            else np.full(hu.shape[1:], np.nan, np.float32)
            for n in (index - 1, index + 1)
        ]
        return np.stack(beside)

    def paste(
        self, hu: Array, index: int, patches: Sequence[Patch], painted: Sequence[FloatArray]
    ) -> None:
        """Put the paint of a slice into ``hu``, in place."""
        axis = VIEW_AXIS[self.plane]
        here = Volume(hu, self.hu.affine).slab(axis, index)
        done = paste_patches(here, self.region.slab(axis, index), patches, painted)
        here.array[...] = done.array

    def painted_hu(self, painted: Sequence[FloatArray]) -> npt.NDArray[np.int16]:
        """HU (N,) of the mask's voxels, in C order, with all paint in them.

        Args:
            painted: One (S, S) array in -1..1 per patch, in the order of ``patches``.
        """
        hu, rest = self.hu.array.copy(), iter(painted)
        for index, own in zip(self.slices, self.patches, strict=True):
            self.paste(hu, index, own, [next(rest) for _ in own])
        return np.asarray(hu[self.region.array], dtype=np.int16)


@dataclass(eq=False)
class _Front:
    """A volume that is being painted."""

    stack: Stack
    hu: Array
    todo: npt.NDArray[np.bool_]
    painted: dict[int, list[FloatArray]] = field(default_factory=dict)


#: Paints patches of any sizes; the second gives the seeds of their noise.
Paint = Callable[[Sequence[Patch], Sequence[int]], Sequence[FloatArray]]


@dataclass(frozen=True)
class SliceNoise:
    """The noise that the slices of a volume start from: a first-order autoregression through them.

    Attributes:
        length_mm: After which the correlation has fallen to 1/e.
        rng: Of a stack, by its number.
        least: Least number of pixels along each side; a patch that reaches beyond begins anew.
    """

    length_mm: float
    rng: Callable[[int], np.random.Generator]
    least: int

    def of(self, number: int, stack: Stack) -> dict[int, FloatArray]:
        """Of each slice of a stack the noise of its plane."""
        axis, rng = VIEW_AXIS[stack.plane], self.rng(number)
        shape = [max(n, self.least) for a, n in enumerate(stack.hu.shape) if a != axis]
        alike = np.float32(np.exp(-stack.hu.spacing_mm[axis] / self.length_mm))
        planes: dict[int, FloatArray] = {}
        for index in range(stack.hu.shape[axis]):
            own = rng.standard_normal(shape, dtype=np.float32)
            if index:
                own = alike * planes[index - 1] + np.sqrt(1 - alike**2) * own
            planes[index] = own
        return planes


def _with_noise(patch: Patch, plane: FloatArray) -> Patch:
    """A patch that starts from the noise at its place."""
    at = [
        (start + np.arange(patch.size)) % n
        for start, n in zip(patch.origin, plane.shape, strict=True)
    ]
    return replace(patch, noise=plane[np.ix_(*at)])


def paint_stacks(
    stacks: Sequence[Stack],
    rules: PatchRules,
    paint: Paint,
    seed: Callable[[int, int], int],
    noise: SliceNoise | None = None,
) -> Iterator[list[FloatArray]]:
    """Paint several volumes together.

    Args:
        stacks: The volumes.
        rules: The patches that the checkpoint takes.
        paint: The model; what it makes of a patch must not depend on the others.
        seed: The seed of a patch, by number of the stack and of the patch among all of the stack's.
        noise: What the slices start from; None for noise of its own in each.

    Yields:
        Of each stack the paint of every patch, in the order of ``Stack.slices``.
    """
    stacks = _levelled(stacks, rules, paint, seed)
    fronts = [_Front(one, one.hu.array.copy(), one.region.array.copy()) for one in stacks]
    steps = [one.steps() for one in stacks]
    planes = [noise.of(n, one) for n, one in enumerate(stacks)] if noise else []
    first = [_first_patches(one) for one in stacks]
    for step in range(max((len(one) for one in steps), default=0)):
        cut = [
            (number, index, front.stack.cut(index, rules, front.hu, front.todo))
            for number, front in enumerate(fronts)
            for index in (steps[number][step] if step < len(steps[number]) else ())
        ]
        if noise is not None:
            cut = [(n, k, [_with_noise(p, planes[n][k]) for p in own]) for n, k, own in cut]
        seeds = [
            seed(number, first[number][index] + place)
            for number, index, patches in cut
            for place in range(len(patches))
        ]
        done = iter(paint([patch for *_, patches in cut for patch in patches], seeds))
        for number, index, patches in cut:
            front, pixels = fronts[number], [next(done) for _ in patches]
            axis = VIEW_AXIS[front.stack.plane]
            front.painted[index] = pixels
            if all(np.isfinite(one).all() for one in pixels):
                front.stack.paste(front.hu, index, patches, pixels)
            Volume(front.todo, front.stack.hu.affine).slab(axis, index).array[...] = False
    for front in fronts:
        yield [pixels for index in front.stack.slices for pixels in front.painted[index]]


def _levelled(
    stacks: Sequence[Stack], rules: PatchRules, paint: Paint, seed: Callable[[int, int], int]
) -> list[Stack]:
    """The volumes, lesions among them with a level that their slices have in common.

    It is that of the largest slice, painted as if there were no others. A network that is told of
    the organ beside a lesion paints its first and last slices more like that, which shows as bands
    where slices are thick (117, 81 and 114 HU in a kidney of 230).
    """
    open_ones = {n: own for n, one in enumerate(stacks) if (own := one.alone(rules))}
    if not open_ones:
        return list(stacks)
    seeds = [
        seed(number, _first_patches(stacks[number])[stacks[number].largest] + place)
        for number, patches in open_ones.items()
        for place in range(len(patches))
    ]
    done = iter(paint([patch for own in open_ones.values() for patch in own], seeds))
    levelled = list(stacks)
    for number, patches in open_ones.items():
        one, pixels = stacks[number], [next(done) for _ in patches]
        if all(np.isfinite(piece).all() for piece in pixels):
            hu = one.hu.array.copy()
            one.paste(hu, one.largest, patches, pixels)
            axis = VIEW_AXIS[one.plane]
            inside = hu.take(one.largest, axis)[one.region.array.take(one.largest, axis)]
            asked = one.asked._replace(level_hu=float(np.median(inside)))
            levelled[number] = replace(one, asked=asked)
    return levelled


def _first_patches(stack: Stack) -> dict[int, int]:
    """Of each slice the number of its first patch among all of the stack's."""
    counts = [0, *accumulate(len(own) for own in stack.patches)]
    return dict(zip(stack.slices, counts, strict=False))


def _inwards(run: Sequence[int]) -> list[list[int]]:
    """From both ends to the middle, two slices at a time as long as they are not neighbours."""
    low, high, order = 0, len(run) - 1, list[list[int]]()
    while low <= high:
        if high - low > 1:
            order.append([run[low], run[high]])
            low, high = low + 1, high - 1
        else:
            order.append([run[low]])
            low += 1
    return order
