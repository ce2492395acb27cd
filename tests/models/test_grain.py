"""The grain of paint: known noise goes in, and comes out where there was none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from synthct.models.grain import match_grain, with_grain
from synthct.volume import Volume

RANGE = (-150.0, 250.0)
SHAPE = (160, 160)
DISC = np.hypot(*(np.indices(SHAPE) - 80)) < 24


def noise(shape: tuple[int, ...], blur: float, std: float, seed: int = 0) -> npt.NDArray[Any]:
    """Gaussian noise of a standard deviation and a kernel's width."""
    field = np.random.default_rng(seed).standard_normal(shape)
    field = ndimage.gaussian_filter(field, blur, mode="wrap") if blur else field
    return field * std / field.std()


def as_hu(values: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    return np.rint(values).astype(np.int16)


def painted_with(scan: npt.NDArray[Any], paint: Any, seed: int = 1) -> npt.NDArray[np.float64]:
    """The scan with ``paint`` in the disc, its grain matched."""
    original, painted = as_hu(scan), as_hu(np.where(DISC, paint, scan))
    rng = np.random.default_rng(seed)
    grain, _ = match_grain(original, painted, DISC, (0.8, 0.8), RANGE, rng)
    out = original.astype(float)
    out[DISC] = grain
    return out


def spread(picture: npt.NDArray[Any]) -> float:
    """Standard deviation well inside the disc."""
    return float(picture[ndimage.binary_erosion(DISC, iterations=3)].std())


def neighbours(picture: npt.NDArray[Any]) -> float:
    """Correlation of horizontal neighbours well inside the disc."""
    core = ndimage.binary_erosion(DISC, iterations=3)
    left, right = core[:, :-1] & core[:, 1:], picture - picture[core].mean()
    return float(np.corrcoef(right[:, :-1][left], right[:, 1:][left])[0, 1])


@pytest.mark.parametrize("std", [6.0, 25.0, 60.0])
@pytest.mark.parametrize("blur", [0.0, 0.6, 1.2])
def test_flat_paint_gets_strength_and_colour_of_the_surroundings(blur: float, std: float) -> None:
    scan = 50 + noise(SHAPE, blur, std)
    out = painted_with(scan, 50)
    assert spread(out) == pytest.approx(spread(scan), rel=0.2)
    assert neighbours(out) == pytest.approx(neighbours(scan), abs=0.12)


@pytest.mark.parametrize("corner", [(0, 0), (159, 80)])
def test_grain_reaches_into_paint_at_the_end_of_a_slice(corner: tuple[int, int]) -> None:
    scan = 50 + noise(SHAPE, 0.6, 20)
    disc = np.hypot(*(n - c for n, c in zip(np.indices(SHAPE), corner, strict=True))) < 24
    painted = as_hu(np.where(disc, 50, scan))
    rng = np.random.default_rng(1)
    grain, facts = match_grain(as_hu(scan), painted, disc, (0.8, 0.8), RANGE, rng)
    assert facts is not None
    assert grain.std() == pytest.approx(20, rel=0.2)


@pytest.mark.parametrize(("near_hu", "far_hu"), [(14.0, 20.0), (20.0, 14.0)])
def test_where_noise_differs_over_a_slice_the_nearest_counts_most(
    near_hu: float, far_hu: float
) -> None:
    beside = np.hypot(*(np.indices(SHAPE) - 80)) < 46
    scan = 50 + np.where(beside, noise(SHAPE, 0.6, near_hu), noise(SHAPE, 0.6, far_hu, 1))
    painted = np.mean([spread(painted_with(scan, 50, seed)) for seed in range(8)])
    assert abs(painted - near_hu) < 3.5


def test_structure_of_similar_hu_around_a_volume_is_no_grain() -> None:
    shape = (100, 100, 60)
    away = np.sqrt(
        sum((n - (s - 1) / 2) ** 2 for n, s in zip(np.indices(shape), shape, strict=True))
    )
    mask = away < 13
    bowel = 90 + noise(shape, 1.5, 60)
    scan = as_hu(np.where(away < 27, 50, bowel) + noise(shape, 0.6, 10, 1))
    paint = as_hu(np.where(mask, 50, scan))
    rng = np.random.default_rng(0)
    grain, facts = match_grain(scan, paint, mask, (1.0, 1.0, 1.0), RANGE, rng)
    assert facts is not None
    assert facts.around_hu == pytest.approx(10, rel=0.2)  # not the 50 of the bowel
    assert grain.std() == pytest.approx(10, rel=0.25)


def test_the_border_is_no_seam() -> None:
    ratios = []
    for seed in range(8):
        scan = 50 + noise(SHAPE, 1.0, 20, seed)
        # A network goes on with what is coarser than grain.
        out = painted_with(scan, ndimage.gaussian_filter(scan, 3), seed)
        across = [np.diff(DISC, axis=axis) for axis in (0, 1)]
        steps = [
            sum(np.abs(np.diff(p, axis=a))[across[a]].sum() for a in (0, 1)) for p in (out, scan)
        ]
        ratios.append(steps[0] / steps[1])
    assert np.mean(ratios) == pytest.approx(1, abs=0.12)


def rim_step(painted: npt.NDArray[Any]) -> float:
    """Mean HU of the outermost layer inside the disc, above that of the layer outside."""
    inner = DISC & ~ndimage.binary_erosion(DISC)
    outer = ndimage.binary_dilation(DISC) & ~DISC
    return float(painted[inner].mean() - painted[outer].mean())


def test_a_small_step_of_the_paint_at_the_border_is_taken_off() -> None:
    steps = []
    for seed in range(4):
        scan = 50 + noise(SHAPE, 1.2, 12, seed)
        steps.append(rim_step(painted_with(scan, 68, seed)) - rim_step(scan))
    assert abs(np.mean(steps)) < 18 / 3


def test_the_edge_of_other_tissue_stays_an_edge() -> None:
    scan = 50 + noise(SHAPE, 1.2, 12)
    assert rim_step(painted_with(scan, 170)) == pytest.approx(120, rel=0.15)


@pytest.mark.parametrize("blur", [0.8, 2.0])
def test_in_a_noisy_scan_an_organ_keeps_its_level_beside_other_tissue(blur: float) -> None:
    small = np.hypot(*(np.indices(SHAPE) - 80)) < 9
    tissue = np.indices(SHAPE)[0] > 100  # of the organ's kind, where the grain is measured
    scan = np.where(tissue, 30, -50) + noise(SHAPE, blur, 33)
    painted = as_hu(np.where(small, 30, scan))
    grains = [
        match_grain(as_hu(scan), painted, small, (3.0, 3.0), RANGE, np.random.default_rng(seed))[0]
        for seed in range(12)
    ]
    assert np.mean(grains) == pytest.approx(30, abs=6)


def test_paint_that_has_the_grain_already_gets_no_more() -> None:
    scan = 50 + noise(SHAPE, 0.8, 20)
    out = painted_with(scan, 50 + noise(SHAPE, 0.8, 20, seed=5))
    assert spread(out) == pytest.approx(spread(scan), rel=0.2)


def test_grain_that_the_scan_does_not_have_is_filtered_off() -> None:
    scan = 50 + noise(SHAPE, 1.0, 8)
    paint = 50 + noise(SHAPE, 0.0, 16, seed=5)
    assert spread(painted_with(scan, paint)) < 0.8 * spread(as_hu(paint))


def test_anatomy_in_surroundings_and_paint_is_no_grain() -> None:
    rows = np.indices(SHAPE)[0]
    stripes = np.where(rows // 24 % 2, -90, 60)  # fat and muscle
    scan = stripes + noise(SHAPE, 0.7, 10)
    out = painted_with(scan, np.where(rows < 80, 60, -90))
    inside = ndimage.binary_erosion(DISC, iterations=4)
    upper, lower = inside & (rows < 77), inside & (rows > 83)
    assert out[upper].mean() == pytest.approx(60, abs=4)
    assert out[lower].mean() == pytest.approx(-90, abs=4)
    assert out[upper].std() == pytest.approx(10, rel=0.3)


def test_grain_is_the_same_for_the_same_stream_and_another_for_another() -> None:
    scan = 50 + noise(SHAPE, 0.7, 15)
    first, again, other = (painted_with(scan, 50, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[DISC], other[DISC])


def test_without_tissue_of_the_kind_around_paint_stays_as_it_is() -> None:
    scan = np.where(DISC, 40, -1000)
    original, painted = as_hu(scan), as_hu(np.where(DISC, 60, scan))
    values, facts = match_grain(
        original, painted, DISC, (0.8, 0.8), RANGE, np.random.default_rng(0)
    )
    assert facts is None
    assert np.array_equal(values, np.full(DISC.sum(), 60))


def test_structure_too_strong_for_noise_is_no_grain() -> None:
    original = as_hu(-650 + noise(SHAPE, 0.8, 260))
    painted = np.where(DISC, -800, original).astype(np.int16)
    rng = np.random.default_rng(0)
    out, grain = match_grain(original, painted, DISC, (3, 3), (-1350, 150), rng)
    assert grain is None
    assert (out == -800).all()


def test_lung_takes_the_grain_of_lung_and_not_of_the_wall_beside_it() -> None:
    columns = np.indices(SHAPE)[1]
    is_wall = columns > 90
    scan = np.where(is_wall, 40 + noise(SHAPE, 0.7, 10), -850 + noise(SHAPE, 0.7, 40, seed=1))
    disc = DISC & ~is_wall
    original, painted = as_hu(scan), as_hu(np.where(disc, -850, scan))
    rng = np.random.default_rng(0)
    _, facts = match_grain(original, painted, disc, (0.8, 0.8), (-1350, 150), rng)
    assert facts is not None
    assert facts.around_hu == pytest.approx(40, rel=0.2)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_of_any_view_changes_inside_the_mask_only(axis: int) -> None:
    scan = np.expand_dims(as_hu(50 + noise(SHAPE, 0.7, 20)), axis)
    region = np.expand_dims(DISC, axis)
    affine = np.diag([0.8, 0.9, 2.0, 1.0])
    flat = Volume(np.where(region, 50, scan).astype(np.int16), affine)
    out, facts = with_grain(
        Volume(scan, affine), flat, Volume(region, affine), RANGE, np.random.default_rng(0)
    )
    assert facts is not None
    assert out.array.dtype == np.int16
    assert np.array_equal(out.array[~region], scan[~region])
    assert out.array[region].std() == pytest.approx(scan[region].std(), rel=0.2)


def test_grain_of_a_volume_goes_on_through_thin_slices() -> None:
    shape = (64, 64, 16)
    scan = as_hu(50 + noise(shape, 1.0, 20))
    region = np.zeros(shape, bool)
    region[20:44, 20:44, 4:12] = True
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    flat = Volume(np.where(region, 50, scan).astype(np.int16), affine)
    out, _ = with_grain(
        Volume(scan, affine), flat, Volume(region, affine), RANGE, np.random.default_rng(0)
    )
    jumps = [
        np.abs(np.diff(v.astype(float), axis=2))[:, :, 4:11][20:44, 20:44].mean()
        for v in (out.array, scan)
    ]
    assert jumps[0] / jumps[1] == pytest.approx(1, abs=0.15)


def test_rims_of_other_tissue_are_no_grain() -> None:
    rows, columns = np.indices(SHAPE)
    is_rim = (rows % 40 < 2) | (columns % 40 < 2)  # as bright as the paint, and nothing else is
    scan = np.where(is_rim, 200, 40) + noise(SHAPE, 0.7, 8)
    original, painted = as_hu(scan), as_hu(np.where(DISC, 200, scan))
    rng = np.random.default_rng(0)
    _, facts = match_grain(original, painted, DISC, (0.8, 0.8), RANGE, rng)
    assert facts is None or facts.around_hu < 20
