"""The sums: closed forms, what they must be on sets that are equal, and torchmetrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.linalg import sqrtm

from synthct.evaluate import distances
from synthct.evaluate.distances import (
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)
from synthct.evaluate.pictures import Crop
from synthct.evaluate.radiomics import Radiomics
from synthct.volume import read_ct, read_labels
from synthct.volume.intensity import SOFT_TISSUE


def gaussian(seed: int, count: int, dim: int = 12, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(dim, dim)) / np.sqrt(dim)
    return rng.normal(size=(count, dim)) @ mix + shift


def with_moments(mean: np.ndarray, covariance: np.ndarray, count: int = 200) -> np.ndarray:
    """Samples that have exactly these sample moments."""
    x = np.random.default_rng(0).normal(size=(count, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False)).T)
    return x @ np.linalg.cholesky(covariance).T + mean


# FID


def test_distance_of_two_gaussians_in_closed_form() -> None:
    # Diagonal covariances: |m1 - m2|² + Σ (s1 - s2)².
    first = with_moments(np.array([1.0, 2.0, 3.0]), np.diag([4.0, 9.0, 1.0]))
    second = with_moments(np.array([0.0, 0.0, 5.0]), np.diag([1.0, 16.0, 0.25]))
    expected = 1 + 4 + 4 + (2 - 1) ** 2 + (3 - 4) ** 2 + (1 - 0.5) ** 2
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [8, 40])  # fewer and more samples than dimensions
def test_equal_sets_have_distance_zero(count: int) -> None:
    x = gaussian(0, count)
    scale = np.square(x).sum() / count
    assert frechet_distance(x, x.copy()) <= 1e-9 * scale
    assert frechet_distance(x, x[::-1]) <= 1e-9 * scale


@pytest.mark.parametrize("counts", [(300, 200), (9, 300), (8, 7)])
def test_distance_is_the_one_with_a_matrix_root(counts: tuple[int, int]) -> None:
    x, y = gaussian(1, counts[0]), gaussian(2, counts[1], shift=0.3)
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(sqrtm(first @ second + 1e-12 * np.eye(12)))
    expected = (
        np.square(x.mean(0) - y.mean(0)).sum() + np.trace(first) + np.trace(second)
        - 2 * np.trace(root)
    )  # fmt: skip
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-4)


@pytest.mark.long
def test_distance_is_torchmetrics_on_the_same_features() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    x, y = gaussian(1, 400), gaussian(2, 300, shift=0.4)
    theirs = FrechetInceptionDistance(feature=Passed(12), normalize=True).set_dtype(torch.float64)
    theirs.update(torch.from_numpy(x), real=True)
    theirs.update(torch.from_numpy(y), real=False)
    assert frechet_distance(x, y) == pytest.approx(float(theirs.compute()), rel=1e-3)


class Passed(torch.nn.Module):
    """Stands for a network: its pictures are features already."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # torchmetrics probes the size of the features with an empty picture.
        return x.double() if x.ndim == 2 else torch.zeros(1, self.num_features)


# KID


def test_kernel_distance_is_torchmetrics_on_the_same_features() -> None:
    from torchmetrics.image.kid import poly_mmd

    x, y = gaussian(1, 130), gaussian(2, 90, shift=0.5)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / 12 + 1) ** 3

    found = kernel_distance(x, y)
    assert found.low is None
    # theirs needs sets of one size
    z = gaussian(3, 130, shift=0.5)
    theirs = float(poly_mmd(torch.from_numpy(x), torch.from_numpy(z)))
    assert kernel_distance(x, z).value == pytest.approx(theirs, rel=1e-9)
    k_xx, k_yy = kernel(x, x), kernel(y, y)
    np.fill_diagonal(k_xx, 0)
    np.fill_diagonal(k_yy, 0)
    by_hand = k_xx.sum() / (130 * 129) + k_yy.sum() / (90 * 89) - 2 * kernel(x, y).mean()
    assert found.value == pytest.approx(by_hand, rel=1e-9)


def test_random_halves_have_kernel_distance_zero_within_the_interval() -> None:
    covered, signs = 0, set()
    for seed in range(40):
        x = gaussian(seed, 120)
        patients = np.repeat(np.arange(12), 10)
        half = np.random.default_rng(seed).permutation(12) < 6
        chosen = half[patients]
        units = patients[chosen], patients[~chosen]
        found = kernel_distance(x[chosen], x[~chosen], units, interval=True)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
        signs.add(found.value > 0)
    assert covered >= 34  # of 40 intervals of 95 %
    assert signs == {True, False}


def test_the_interval_is_a_jackknife_over_patients() -> None:
    x, y = gaussian(1, 60), gaussian(2, 48, shift=0.3)
    groups = np.repeat(np.arange(6), 10), np.repeat(np.arange(6), 8)
    found = kernel_distance(x, y, groups, interval=True)
    assert found.value == pytest.approx(kernel_distance(x, y, groups).value)

    def without(g: int) -> float:
        left, right = groups[0] != g, groups[1] != g
        return kernel_distance(x[left], y[right], (groups[0][left], groups[1][right])).value

    left = np.array([without(g) for g in range(6)])
    error = np.sqrt(5 / 6 * np.square(left - np.mean(left)).sum())
    assert found.high is not None
    assert found.high - found.value == pytest.approx(2.571 * error, rel=1e-3)  # t with 5 degrees


def test_what_was_painted_over_is_no_independent_sample() -> None:
    values = []
    for seed in range(60):
        x = gaussian(seed, 40)
        # Of the same distribution, and each much like what it replaced.
        y = 0.8 * x + 0.6 * gaussian(seed + 1000, 40)
        places = np.arange(40)
        values.append([kernel_distance(x, y, (places, places)).value, kernel_distance(x, y).value])
    blind, naive = np.mean(values, axis=0), np.std(values, axis=0) / np.sqrt(60)
    assert abs(blind[0]) < 3 * naive[0]
    assert blind[1] < -5 * naive[1]  # pairs of one place count as if they were strangers
    alone = np.zeros(40, np.int64)
    assert np.isnan(kernel_distance(x, y, (alone, alone)).value)


def test_chunks_do_not_change_the_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = gaussian(1, 50), gaussian(2, 40, shift=0.3)
    whole = kernel_distance(x, y).value, precision_recall(x, y)
    monkeypatch.setattr(distances, "_CHUNK", 7)
    assert kernel_distance(x, y).value == pytest.approx(whole[0])
    assert precision_recall(x, y) == whole[1]


# Precision, recall


def test_precision_and_recall_of_known_sets() -> None:
    x = gaussian(0, 60)
    assert precision_recall(x, x.copy()) == (1, 1)
    assert precision_recall(x, x + 1000) == (0, 0)
    near = x[:1] + 1e-6 * gaussian(1, 60)  # all made samples are one real sample
    precision, recall = precision_recall(x, near)
    assert precision == 1
    assert recall < 0.1
    assert all(np.isnan(precision_recall(x[:3], x)))


def test_precision_by_hand() -> None:
    real = np.array([[0.0], [1.0], [3.0]])  # distances to the nearest other: 1, 1, 2
    made = np.array([[-1.5], [1.9], [4.9], [5.1]])  # to the nearest other: 3.4, 3.0, 0.2, 0.2
    precision, recall = precision_recall(real, made, k=1)
    assert precision == 2 / 4  # 1.9 is near 1 and 3, 4.9 is near 3
    assert recall == 1  # all are within 3.4 of -1.5 or 3 of 1.9


# Inception score


def test_inception_score_of_known_probabilities() -> None:
    same = np.full((50, 4), 0.25)
    assert inception_score(same) == pytest.approx((1, None))
    distinct = np.tile(np.eye(4), (50, 1))
    assert inception_score(distinct) == pytest.approx((4, 0))


@pytest.mark.filterwarnings("ignore:.*InceptionScore.*:UserWarning", "ignore:std:UserWarning")
def test_inception_score_is_torchmetrics_on_the_same_logits() -> None:
    from torchmetrics.image.inception import InceptionScore

    logits = 3 * gaussian(0, 90)
    theirs = InceptionScore(feature=Passed(12), splits=1)
    theirs.update(torch.from_numpy(logits))
    probabilities = torch.softmax(torch.from_numpy(logits), 1).numpy()
    assert inception_score(probabilities)[0] == pytest.approx(float(theirs.compute()[0]), rel=1e-6)


def test_sets_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        frechet_distance(np.zeros((4, 3)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="needs two of each"):
        kernel_distance(np.zeros((1, 3)), np.zeros((4, 3)))


# Real tissue


@pytest.mark.long
@pytest.mark.realdata
def test_falsifiers_on_crops_of_a_real_liver(shared_data: Path) -> None:
    folder = shared_data / "totalsegmentator_v2" / "s0002"
    liver = read_labels(folder / "segmentations" / "liver.nii.gz").array > 0
    ct = read_ct(folder / "ct.nii.gz").array
    deep = ndimage.binary_erosion(liver, iterations=2)
    squares = [
        (i, j, k)
        for k in range(0, deep.shape[2], 8)
        for i in range(0, deep.shape[0] - 24, 24)
        for j in range(0, deep.shape[1] - 24, 24)
        if deep[i : i + 24, j : j + 24, k].all()
    ]
    assert len(squares) > 40
    mask = np.ones((24, 24), bool)
    hu = [ct[i : i + 24, j : j + 24, k] for i, j, k in squares]
    blurred = [ndimage.gaussian_filter(one.astype(float), 1).astype(np.int16) for one in hu]

    def features(pictures: list[np.ndarray]) -> np.ndarray:
        crops = [Crop(one, mask, (0.7, 0.7), SOFT_TISSUE) for one in pictures]
        return Radiomics().extract(crops).features.astype(np.float64)

    real, smooth = features(hu), features(blurred)
    varies = real.std(axis=0) > 1e-6
    centre, scale = real[:, varies].mean(axis=0), real[:, varies].std(axis=0)
    real, smooth = ((x[:, varies] - centre) / scale for x in (real, smooth))
    assert frechet_distance(real, real.copy()) < 1e-6
    assert precision_recall(real, real.copy()) == (1, 1)
    slices = np.array([k for *_, k in squares])
    _, groups = np.unique(slices, return_inverse=True)
    half = np.random.default_rng(0).permutation(groups.max() + 1)[groups] % 2 == 0
    halves = kernel_distance(real[half], real[~half], (groups[half], groups[~half]), interval=True)
    assert halves.low is not None
    assert halves.high is not None
    assert halves.low < 0 < halves.high
    blur = kernel_distance(real, smooth, (groups, groups), interval=True)
    assert blur.low is not None
    assert blur.low > halves.high
    assert frechet_distance(real, smooth) > 3 * frechet_distance(real[half], real[~half])
