"""Radiomics against the published values of the IBSI digital phantom."""

from __future__ import annotations

import numpy as np
import pytest

from synthct.evaluate.pictures import Crop
from synthct.evaluate.radiomics import (
    Radiomics,
    co_occurrence,
    co_occurrence_features,
    crop_features,
    feature_names,
    first_order,
    texture,
)
from synthct.volume.intensity import LUNG, SOFT_TISSUE, Window

#: The IBSI digital phantom, slice by slice; 0 is outside of the region of interest.
PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
)

#: Published values (IBSI reference manual, digital phantom; consensus very strong).
FIRST_ORDER = {
    "mean": 2.15,
    "variance": 3.05,
    "skewness": 1.08,
    "kurtosis": -0.355,
    "median": 1,
    "minimum": 1,
    "p10": 1,
    "p90": 4,
    "maximum": 6,
    "interquartile_range": 3,
    "range": 5,
    "mean_absolute_deviation": 1.55,
    "robust_mean_absolute_deviation": 1.11,
    "median_absolute_deviation": 1.15,
    "root_mean_square": 2.77,
}
#: By slice, averaged over directions and slices.
TEXTURE_2D = {
    "joint_maximum": 0.519,
    "joint_average": 2.14,
    "joint_variance": 2.69,
    "joint_entropy": 2.05,
    "difference_average": 1.42,
    "difference_variance": 2.90,
    "difference_entropy": 1.40,
    "sum_average": 4.28,
    "sum_variance": 5.47,
    "sum_entropy": 1.60,
    "angular_second_moment": 0.368,
    "contrast": 5.28,
    "dissimilarity": 1.42,
    "inverse_difference": 0.678,
    "normalised_inverse_difference": 0.851,
    "inverse_difference_moment": 0.619,
    "normalised_inverse_difference_moment": 0.899,
    "inverse_variance": 0.0567,
    "correlation": -0.0121,
    "autocorrelation": 5.09,
    "cluster_tendency": 5.47,
    "cluster_shade": 7.00,
    "cluster_prominence": 79.1,
    "information_correlation_1": -0.155,
    "information_correlation_2": 0.487,
}
#: In space, averaged over directions.
TEXTURE_3D = {
    "joint_maximum": 0.503,
    "joint_average": 2.14,
    "joint_variance": 3.10,
    "joint_entropy": 2.40,
    "difference_average": 1.43,
    "difference_variance": 3.06,
    "difference_entropy": 1.56,
    "sum_average": 4.29,
    "sum_variance": 7.07,
    "sum_entropy": 1.92,
    "angular_second_moment": 0.303,
    "contrast": 5.32,
    "dissimilarity": 1.43,
    "inverse_difference": 0.677,
    "normalised_inverse_difference": 0.851,
    "inverse_difference_moment": 0.618,
    "normalised_inverse_difference_moment": 0.898,
    "inverse_variance": 0.0604,
    "correlation": 0.157,
    "autocorrelation": 5.06,
    "cluster_tendency": 7.07,
    "cluster_shade": 16.6,
    "cluster_prominence": 145,
    "information_correlation_1": -0.157,
    "information_correlation_2": 0.520,
}


def agrees(found: float, published: float) -> bool:
    """Published values have three significant digits, and the phantom's tolerance is none."""
    return float(f"{found:.3g}") == published


def test_first_order_features_of_the_digital_phantom() -> None:
    found = first_order(PHANTOM[PHANTOM > 0])
    assert set(found) == set(FIRST_ORDER)
    assert {k: v for k, v in found.items() if not agrees(v, FIRST_ORDER[k])} == {}


def test_texture_of_the_digital_phantom_in_space() -> None:
    found = texture(PHANTOM, 6)
    assert {k: v for k, v in found.items() if not agrees(v, TEXTURE_3D[k])} == {}


def test_texture_of_the_digital_phantom_by_slice() -> None:
    offsets = [(0, 1), (1, -1), (1, 0), (1, 1)]
    matrices = np.stack([co_occurrence(one, 6, step) for one in PHANTOM for step in offsets])
    matrices /= matrices.sum(axis=(1, 2), keepdims=True)
    found = {k: float(v.mean()) for k, v in co_occurrence_features(matrices).items()}
    assert set(found) == set(TEXTURE_2D)
    assert {k: v for k, v in found.items() if not agrees(v, TEXTURE_2D[k])} == {}
    averaged = [texture(one, 6) for one in PHANTOM]  # slice by slice, the same by other means
    for name, value in found.items():
        assert np.mean([one[name] for one in averaged]) == pytest.approx(value)


def crop(hu: np.ndarray, window: Window = SOFT_TISSUE) -> Crop:
    mask = np.hypot(*(np.indices(hu.shape) - hu.shape[0] / 2)) < hu.shape[0] / 3
    return Crop(hu.astype(np.int16), mask, (1.0, 1.0), window)


def test_features_are_of_the_mask_alone_and_within_the_window() -> None:
    rng = np.random.default_rng(0)
    one = crop(rng.normal(60, 20, (40, 40)))
    outside = Crop(np.where(one.mask, one.hu, 900), one.mask, one.spacing_mm, SOFT_TISSUE)
    assert crop_features(one) == crop_features(outside)
    assert crop_features(crop(np.full((40, 40), -700)))["mean"] == -150
    assert crop_features(crop(np.full((40, 40), -700), LUNG))["mean"] == -700


def test_flat_and_tiny_masks_have_finite_features() -> None:
    flat = crop(np.full((20, 20), 30))
    single = Crop(flat.hu, np.eye(20, dtype=bool) & (np.arange(20) == 4), (1.0, 1.0), SOFT_TISSUE)
    found = Radiomics().extract([flat, single])
    assert found.probabilities is None
    assert found.features.shape == (2, Radiomics().dim)
    assert np.isfinite(found.features).all()
    assert len(feature_names()) == len(set(feature_names())) == 40


def test_blur_and_shift_show_in_their_own_features() -> None:
    rng = np.random.default_rng(1)
    grain = rng.normal(60, 20, (64, 64))
    base, shifted = crop_features(crop(grain)), crop_features(crop(grain + 30))
    smooth = crop_features(crop((grain + np.roll(grain, 1, 0) + np.roll(grain, 1, 1)) / 3))
    assert shifted["mean"] - base["mean"] == pytest.approx(30, abs=1)
    assert shifted["contrast"] == pytest.approx(base["contrast"], rel=0.1)
    assert smooth["contrast"] < 0.6 * base["contrast"]
