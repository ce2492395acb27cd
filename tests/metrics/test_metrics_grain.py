"""The grain of paint against that of even tissue around it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from synthct.metrics.grain import grain_ratio

Hu = npt.NDArray[np.float64]
RANGE_HU = (-150.0, 250.0)
MASK = np.hypot(*(np.indices((160, 160)) - 80)) < 14


def grain(seed: int, shape: tuple[int, ...] = (160, 160)) -> Hu:
    """Noise of a kernel, of one HU."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    noise = ndimage.gaussian_filter(noise, [0.7, 0.7, 0][: len(shape)])
    return np.asarray(noise / noise.std())


def organs(seed: int) -> Hu:
    """Organs with vessels in fat: edges everywhere."""
    rng = np.random.default_rng(seed)
    shapes = ndimage.gaussian_filter(rng.standard_normal(MASK.shape), 9)
    vessels = ndimage.gaussian_filter(rng.standard_normal(MASK.shape), 2)
    hu = np.select([shapes > shapes.std(), shapes < -shapes.std()], [110.0, -80.0], 50.0)
    hu[vessels > 2 * vessels.std()] += 90
    return np.asarray(ndimage.gaussian_filter(hu, 0.6))


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_strength_of_the_noise_and_anatomy_counts_for_nothing(
    strength: float, seed: int
) -> None:
    paint = 20 + 12 * strength * grain(seed + 100)
    image = np.where(MASK, paint, organs(seed) + 12 * grain(seed))
    assert grain_ratio(image, MASK, RANGE_HU) == pytest.approx(strength, rel=0.15)


def test_an_edge_within_the_paint_is_no_grain() -> None:
    image = 40 + 10 * grain(0)
    plain = grain_ratio(image, MASK, RANGE_HU)
    image[:, 80:][MASK[:, 80:]] += 80
    assert grain_ratio(image, MASK, RANGE_HU) == pytest.approx(plain, rel=0.15)


def test_tissue_that_the_range_cuts_off_is_not_looked_at() -> None:
    image = 40 + 10 * grain(0)
    plain = grain_ratio(image, MASK, RANGE_HU)
    lung, far = image.copy(), np.indices(MASK.shape)[1] > 100
    lung[far] = -800 + 60 * grain(1)[far]
    assert grain_ratio(lung, MASK, RANGE_HU) == pytest.approx(plain, rel=0.05)
    assert math.isnan(grain_ratio(np.where(MASK, image, -800.0), MASK, RANGE_HU))


def test_it_looks_no_further_than_it_says_and_is_the_same_in_any_orientation() -> None:
    image, mask = 40 + 10 * grain(0), np.zeros_like(MASK)
    mask[70:90, 60:95] = True
    plain = grain_ratio(image, mask, RANGE_HU)
    far = image.copy()
    far[:25], far[:, :15] = 200, 200
    assert grain_ratio(far, mask, RANGE_HU) == plain
    assert grain_ratio(image.T[::-1], mask.T[::-1], RANGE_HU) == pytest.approx(plain, rel=1e-9)
    assert grain_ratio(image[:, None], mask[:, None], RANGE_HU) == plain


def test_of_a_volume_it_is_the_grain_in_the_planes_of_its_slices() -> None:
    """Slices that differ in level have no grain for that."""
    image = 40 + 10 * grain(3, (120, 120, 9))
    mask = np.zeros(image.shape, dtype=bool)
    mask[45:75, 45:75, 2:7] = True
    image[mask] = (40 + 20 * grain(4, image.shape) + 30 * (np.arange(9) % 2))[mask]
    assert grain_ratio(image, mask, RANGE_HU, axes=(0, 1)) == pytest.approx(2, rel=0.1)
    moved = np.moveaxis(image, 2, 0), np.moveaxis(mask, 2, 0)
    same = grain_ratio(*moved, RANGE_HU, axes=(1, 2))
    assert same == grain_ratio(image, mask, RANGE_HU, axes=(0, 1))


def test_what_cannot_be_measured_is_nan() -> None:
    image = 40 + 10 * grain(0)
    thin = np.zeros_like(MASK)
    thin[60:64, 60:90] = True
    assert math.isnan(grain_ratio(image, thin, RANGE_HU))
    assert math.isnan(grain_ratio(image, np.zeros_like(MASK), RANGE_HU))
    assert math.isnan(grain_ratio(np.full_like(image, 40), MASK, RANGE_HU))
    with pytest.raises(ValueError, match="not boolean"):
        grain_ratio(image, MASK.astype(np.uint8), RANGE_HU)
