"""Slices of a volume are painted from both ends inwards, each told what is there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from conftest import oblique_affine

from synthct import seeds
from synthct.build.fronts import Asked, SliceNoise, Stack, paint_stacks
from synthct.masks.base import Mask
from synthct.models.patch import FloatArray, Patch, PatchRules
from synthct.volume import Box, Volume
from synthct.volume.intensity import SOFT_TISSUE

RULES = PatchRules(
    labels=(), codecs={"default": SOFT_TISSUE}, patch_sizes=(32,), spacing_range_mm=(0.5, 1.0),
    neighbours=2,
)  # fmt: skip
SHAPE = (40, 36, 14)


def host(seed: int = 0) -> Volume:
    hu = np.random.default_rng(seed).normal(40, 20, SHAPE).round().astype(np.int16)
    return Volume(hu, oblique_affine())


def mask_of(scan: Volume, *runs: tuple[int, int]) -> Mask:
    """A block of 8 x 8 voxels over some runs of slices."""
    box = Box((16, 14, runs[0][0]), (24, 22, runs[-1][1]))
    region = np.zeros(box.shape, dtype=bool)
    for start, stop in runs:
        region[:, :, start - runs[0][0] : stop - runs[0][0]] = True
    return Mask(Volume(region, scan.crop(box).affine), box, None)


def stack(*runs: tuple[int, int], seed: int = 0) -> Stack:
    return Stack.of(host(seed), mask_of(host(seed), *runs), "axial", RULES, Asked())


class Painter:
    """Notes what it is given, and paints the number of its calls as HU."""

    def __init__(self) -> None:
        self.calls: list[list[Patch]] = []
        self.seeds: list[list[int]] = []

    def __call__(self, patches: Sequence[Patch], seeds: Sequence[int]) -> list[FloatArray]:
        self.calls.append(list(patches))
        self.seeds.append(list(seeds))
        hu = np.full((32, 32), len(self.calls), np.int16)
        return [SOFT_TISSUE.encode(hu) for _ in patches]


def run(
    stacks: Sequence[Stack], noise: SliceNoise | None = None
) -> tuple[list[list[FloatArray]], Painter]:
    painter = Painter()
    done = paint_stacks(stacks, RULES, painter, lambda n, patch: 100 * n + patch, noise)
    return list(done), painter


@pytest.mark.parametrize(
    ("runs", "steps"),
    [
        (((4, 5),), [[1]]),
        (((4, 6),), [[1], [2]]),
        (((4, 7),), [[1, 3], [2]]),
        (((4, 8),), [[1, 4], [2], [3]]),
        (((4, 9),), [[1, 5], [2, 4], [3]]),
        (((3, 5), (8, 11)), [[1, 6, 8], [2, 7]]),
        (((0, 3),), [[0, 2], [1]]),
    ],
)
def test_both_ends_first_and_never_two_neighbours_at_once(
    runs: tuple[tuple[int, int], ...], steps: list[list[int]]
) -> None:
    assert stack(*runs).steps() == steps


def beside(patch: Patch) -> np.ndarray:
    """The neighbouring slices that a patch has."""
    assert patch.neighbours is not None
    return patch.neighbours


def test_each_slice_is_told_what_is_real_or_painted_beside_it() -> None:
    one = stack((4, 9))
    _, painter = run([one])
    first, last = painter.calls[0]
    centre = np.s_[12:20, 12:20]  # inside of the mask: patches are centred on it
    for patch, known, unknown in ((first, 0, 1), (last, 1, 0)):
        assert np.isnan(beside(patch)[unknown][patch.own]).all()
        assert not np.isnan(beside(patch)[unknown][~patch.own]).any()
        assert not np.isnan(beside(patch)[known]).any()
    real = SOFT_TISSUE.encode(host().array[:, :, 3])
    assert np.allclose(beside(first)[0][centre], real[16:24, 14:22], atol=1e-6)
    middle = painter.calls[2][0]  # both sides were painted in the second call
    assert np.allclose(SOFT_TISSUE.decode(beside(middle)[:, *centre]), 2, atol=0.01)


def test_beyond_the_end_of_the_scan_nothing_is_known() -> None:
    _, painter = run([stack((0, 2))])
    assert np.isnan(beside(painter.calls[0][0])[0]).all()


class Drawn(Painter):
    """Paints 10 HU more at each call, but where a level is asked for."""

    def __call__(self, patches: Sequence[Patch], seeds: Sequence[int]) -> list[FloatArray]:
        super().__call__(patches, seeds)
        levels = [10.0 * len(self.calls) if p.level_hu is None else p.level_hu for p in patches]
        return [SOFT_TISSUE.encode(np.full((32, 32), level)) for level in levels]


def levels_of(painter: Painter) -> list[list[float | None]]:
    return [[patch.level_hu for patch in call] for call in painter.calls]


def test_the_slices_of_a_lesion_have_the_level_of_the_largest_alone() -> None:
    scan, box = host(), Box((16, 14, 4), (24, 22, 7))
    region = np.zeros(box.shape, dtype=bool)
    region[2:6, 2:6, :2], region[:, :, 2] = True, True  # the last slice is the largest
    mask = Mask(Volume(region, scan.crop(box).affine), box, None)
    lesion = Stack.of(scan, mask, "axial", RULES, Asked(is_lesion=True))
    other, painter = stack((4, 7), seed=1), Drawn()
    done = list(paint_stacks([other, lesion], RULES, painter, lambda n, patch: 100 * n + patch))
    (alone,), *_ = painter.calls
    assert painter.seeds[0] == [102]
    assert alone.neighbours is None
    assert levels_of(painter) == [[None], [None, None, 10, 10], [None, 10]]
    assert set(lesion.painted_hu(done[1])) == {10}
    assert set(other.painted_hu(done[0])) == {20, 30}


@pytest.mark.parametrize("neighbours", [0, 2])
def test_a_stated_level_is_kept_and_without_neighbours_slices_have_their_own(
    neighbours: int,
) -> None:
    rules = replace(RULES, neighbours=neighbours)
    asked = Asked(None, 70, is_lesion=True)
    stated = Stack.of(host(), mask_of(host(), (4, 6)), "axial", rules, asked)
    painter = Drawn()
    list(paint_stacks([stated], rules, painter, lambda n, patch: 0))
    assert levels_of(painter) == [[70], [70]]
    if not neighbours:
        painter = Drawn()
        free = replace(stated, asked=Asked(is_lesion=True))
        list(paint_stacks([free], rules, painter, lambda n, patch: 0))
        assert levels_of(painter) == [[None], [None]]


def test_a_level_that_is_not_finite_is_none() -> None:
    lesion = Stack.of(host(), mask_of(host(), (4, 6)), "axial", RULES, Asked(is_lesion=True))
    calls: list[list[float | None]] = []

    def broken(patches: Sequence[Patch], seeds: Sequence[int]) -> list[FloatArray]:
        calls.append([patch.level_hu for patch in patches])
        return [np.full((32, 32), np.nan, np.float32) for _ in patches]

    list(paint_stacks([lesion], RULES, broken, lambda n, patch: 0))
    assert calls == [[None], [None], [None]]


def test_a_checkpoint_that_takes_no_neighbours_is_given_none() -> None:
    rules = replace(RULES, neighbours=0)
    one = Stack.of(host(), mask_of(host(), (4, 6)), "axial", rules, Asked())
    painter = Painter()
    list(paint_stacks([one], rules, painter, lambda n, patch: 0))
    assert all(patch.neighbours is None for call in painter.calls for patch in call)


def test_companions_change_neither_patches_nor_seeds() -> None:
    alone = run([stack((4, 9))])
    together = run([stack((2, 12), seed=1), stack((4, 9)), stack((5, 6), seed=2)])
    assert np.array_equal(alone[0][0], together[0][1])
    mine = [
        [(s, p) for s, p in zip(seeds, call, strict=True) if 100 <= s < 200]
        for seeds, call in zip(together[1].seeds, together[1].calls, strict=True)
    ]
    for own, call in zip(mine, alone[1].calls, strict=False):
        for (_, one), other in zip(own, call, strict=True):
            assert np.array_equal(beside(one), beside(other), equal_nan=True)


def test_all_of_the_mask_is_painted_and_in_the_order_of_its_voxels() -> None:
    one = stack((3, 5), (8, 11))
    (painted,), painter = run([one])
    hu = one.painted_hu(painted)
    region = one.region.array
    assert hu.shape == (np.count_nonzero(region),)
    whole = np.zeros(region.shape, np.int16)
    whole[region] = hu
    assert [int(whole[20, 18, k]) for k in (1, 2, 3, 6, 7, 8)] == [1, 2, 0, 1, 2, 1]
    assert sum(len(call) for call in painter.calls) == 5
    assert sorted(s for call in painter.seeds for s in call) == [0, 1, 2, 3, 4]


def test_what_is_not_finite_is_handed_on_and_the_rest_goes_on() -> None:
    def broken(patches: Sequence[Patch], seeds: Sequence[int]) -> list[FloatArray]:
        del seeds
        return [np.full((32, 32), np.nan, np.float32) for _ in patches]

    (painted,) = paint_stacks([stack((4, 7))], RULES, broken, lambda n, patch: 0)
    assert all(np.isnan(one).all() for one in painted)


@pytest.mark.parametrize(("length_mm", "correlation"), [(2.5, np.exp(-1)), (50.0, np.exp(-0.05))])
def test_noise_stays_alike_through_slices_over_its_length(
    length_mm: float, correlation: float
) -> None:
    noise = SliceNoise(length_mm, lambda n: seeds.generator(1, str(n)), 32)
    _, painter = run([stack((3, 5))], noise)
    one, two = (call[0].noise for call in painter.calls)
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] == pytest.approx(correlation, abs=0.08)
    assert one.std() == pytest.approx(1, abs=0.1)
    again = run([stack((3, 5))], noise)[1].calls[0][0].noise
    assert one is not None
    assert again is not None
    assert np.array_equal(one, again)
    assert run([stack((3, 5))])[1].calls[0][0].noise is None


def test_a_mask_in_coronal_slices_is_painted_along_them() -> None:
    scan = Volume(host().array.transpose(0, 2, 1), np.diag([0.8, 2.5, 0.8, 1]))
    box = Box((16, 4, 14), (24, 9, 22))
    mask = Mask(Volume(np.ones(box.shape, bool), scan.crop(box).affine), box, None)
    one = Stack.of(scan, mask, "coronal", RULES, Asked())
    (painted,), _ = run([one])
    assert one.hu.shape == (40, 7, 36)
    assert set(one.painted_hu(painted)) == {1, 2, 3}
