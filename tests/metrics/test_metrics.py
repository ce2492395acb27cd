"""Measures: known answers by hand, and what each one must notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import wasserstein_distance
from skimage.metrics import structural_similarity

from synthct.metrics.adherence import Segmenter, local_features, near
from synthct.metrics.distribution import hu_quantiles, hu_wasserstein
from synthct.metrics.error import mean_absolute_error, mean_error, psnr, ssim
from synthct.metrics.hu import hu_stats, share_outside_range
from synthct.metrics.outside import outside_max_abs_diff
from synthct.metrics.seam import (
    SeamSteps,
    pooled_seam_ratio,
    seam_overshoot,
    seam_ratio,
    seam_steps,
)
from synthct.metrics.slices import z_jump_ratio
from synthct.metrics.spectrum import spectrum_distance
from synthct.metrics.texture import texture_ratio
from synthct.metrics.variants import variant_diversity
from synthct.volume import read_ct, read_labels

SIZE = 64
DISC = np.hypot(*(np.indices((SIZE, SIZE)) - 31.5)) < 18


def tissue(seed: int = 0) -> Any:
    """A slice of (64, 64) int16 HU with correlated noise of 20 HU."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(SIZE, SIZE)), 1.0)
    return np.rint(50 + 20 * noise / noise.std()).astype(np.int16)


def over(original: Any, values: Any, mask: Any = DISC) -> Any:
    return np.where(mask, values, original)


# Outside


def test_nothing_outside_has_changed_whatever_happened_inside() -> None:
    original = tissue()
    assert outside_max_abs_diff(original, over(original, 900), DISC) == 0
    assert outside_max_abs_diff(original, original, np.ones_like(DISC)) == 0


def test_one_voxel_of_one_hu_outside_is_found() -> None:
    original = tissue()
    painted = over(original, 900)
    painted[0, 63] += 1
    assert outside_max_abs_diff(original, painted, DISC) == 1


def test_differences_beyond_int16_do_not_wrap() -> None:
    original, mask = np.full((3, 3), -32768, np.int16), np.zeros((3, 3), bool)
    painted = np.full((3, 3), 32767, np.int16)
    assert outside_max_abs_diff(original, painted, mask) == 65535
    assert outside_max_abs_diff(painted, original, mask) == 65535


def test_pictures_of_floats_are_refused_because_the_promise_is_exact() -> None:
    with pytest.raises(ValueError, match="integer HU"):
        outside_max_abs_diff(tissue().astype(float), tissue(), DISC)


# HU


def test_stats_and_shares_of_known_values() -> None:
    hu = np.array([-200, -150, 0, 250, 251], dtype=np.int16)
    stats = hu_stats(hu)
    assert stats.mean_hu == pytest.approx(30.2)
    assert stats.std_hu == pytest.approx(np.std(hu))
    assert share_outside_range(hu, (-150, 250)) == pytest.approx(2 / 5)


def test_stats_of_many_voxels_do_not_lose_digits() -> None:
    hu = np.full(3_000_000, 1000, dtype=np.int16)
    assert hu_stats(hu) == (1000.0, 0.0)


def test_no_voxels_have_no_statistics() -> None:
    empty = np.array([], dtype=np.int16)
    with pytest.raises(ValueError, match="no voxels"):
        hu_stats(empty)
    with pytest.raises(ValueError, match="no voxels"):
        share_outside_range(empty, (0, 1))
    with pytest.raises(ValueError, match="no voxels"):
        mean_error(tissue(), tissue(), np.zeros_like(DISC))


# Error


def test_errors_of_known_changes() -> None:
    original = tissue()
    signs = np.where(np.indices((SIZE, SIZE)).sum(axis=0) % 2, 10, -4)
    painted = over(original, original + signs)
    inside = signs[DISC]
    assert mean_error(original, painted, DISC) == pytest.approx(inside.mean())
    assert mean_absolute_error(original, painted, DISC) == pytest.approx(abs(inside).mean())


def test_errors_see_the_mask_alone() -> None:
    original = tissue()
    assert mean_absolute_error(original, over(original, 500, ~DISC), DISC) == 0


def test_errors_beyond_the_range_do_not_count() -> None:
    original, painted = np.full((5, 5), 400, np.int16), np.full((5, 5), 900, np.int16)
    mask = np.eye(5, dtype=bool)
    assert mean_absolute_error(original, painted, mask, (-150, 250)) == 0
    assert mean_error(original, painted - 700, mask, (-150, 250)) == -50


# Seam


def test_seam_of_one_pixel_by_hand() -> None:
    original = np.arange(25, dtype=np.int16).reshape(5, 5)
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True  # 12, with neighbours 7, 11, 13, 17: steps 5, 1, 1, 5
    painted = over(original, 20, mask)  # steps 13, 9, 7, 3
    assert seam_steps(original, painted, mask) == (32.0, 12.0, 4)
    assert seam_ratio(original, painted, mask) == pytest.approx(32 / 12)
    assert seam_steps(original, painted, mask, (0, 14)) == (11.0, 9.0, 4)


def test_an_unchanged_slice_has_no_seam_and_full_texture() -> None:
    original = tissue()
    assert seam_ratio(original, original, DISC) == 1
    assert texture_ratio(original, original, DISC) == 1


def test_a_planted_ring_of_ten_hu_shows_in_the_seam_and_in_nothing_else() -> None:
    original = ndimage.gaussian_filter(tissue(), 2).astype(np.int16)
    ring = DISC & ~ndimage.binary_erosion(DISC)
    painted = over(original, original + 10, ring)
    assert seam_ratio(original, painted, DISC) > 1.5
    assert texture_ratio(original, painted, DISC, erode=3) == pytest.approx(1)


def test_seam_counts_only_pairs_across_the_border() -> None:
    original = tissue()
    core = ndimage.binary_erosion(DISC)
    assert seam_ratio(original, over(original, 900, core), DISC) == 1
    edge = np.zeros((6, 6), bool)
    edge[:2] = True  # along the picture's own edge there is no neighbour, hence no pair
    assert seam_steps(np.zeros((6, 6)), np.zeros((6, 6)), edge).pairs == 6


def test_pooling_weighs_masks_by_their_steps() -> None:
    seams = [SeamSteps(10, 5, 3), SeamSteps(0, 15, 3)]
    assert pooled_seam_ratio(seams) == pytest.approx(0.5)


def test_a_ring_stands_out_whatever_lies_within() -> None:
    flat = np.zeros((SIZE, SIZE), np.int16)
    lesion = over(flat, 30)
    rim = DISC & ~ndimage.binary_erosion(DISC)
    assert seam_overshoot(flat, DISC) == 0
    assert seam_overshoot(lesion, DISC) == 0  # a step is no ring
    assert seam_overshoot(over(lesion, 15, rim), DISC) == 0  # a soft edge is none either
    for base in (flat, lesion):
        assert seam_overshoot(over(base, base + 10, rim), DISC) == 10
    assert seam_overshoot(over(flat, -7, rim), DISC) == -7
    assert np.isnan(seam_overshoot(flat, np.eye(SIZE, dtype=bool)))
    assert np.isnan(seam_overshoot(flat, np.ones_like(DISC)))


# Texture


def test_texture_of_a_scaled_picture_is_the_scale() -> None:
    original = tissue().astype(np.float64)
    assert texture_ratio(original, over(original, original * 0.6), DISC) == pytest.approx(0.6)


def test_texture_is_the_root_mean_square_of_the_nearest_neighbour_laplacian() -> None:
    original = tissue()
    painted = over(original, tissue(seed=9))
    core = ndimage.binary_erosion(DISC, iterations=2)

    def roughness(hu: Any) -> float:
        p = np.pad(hu.astype(np.float64), 1, mode="edge")
        steps = p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * p[1:-1, 1:-1]
        return float(np.sqrt((steps[core] ** 2).mean()))

    expected = roughness(painted) / roughness(original)
    assert texture_ratio(original, painted, DISC) == pytest.approx(expected)
    assert expected == pytest.approx(1, abs=0.1)


def test_blurred_paint_loses_texture_and_a_shift_in_hu_does_not() -> None:
    original = tissue()
    blurred = ndimage.gaussian_filter(original.astype(np.float64), 1.5)
    assert texture_ratio(original, over(original, blurred), DISC) < 0.4
    assert texture_ratio(original, over(original, original + 40), DISC) == pytest.approx(1)


def test_texture_does_not_see_the_border() -> None:
    original = tissue()
    painted = over(original, 3000, DISC & ~ndimage.binary_erosion(DISC))
    assert texture_ratio(original, painted, DISC, erode=2) == pytest.approx(1)


def test_what_cannot_be_compared_is_nan() -> None:
    original, flat = tissue(), np.zeros((SIZE, SIZE), np.int16)
    small = np.zeros_like(DISC)
    small[30:33, 30:33] = True
    none = np.zeros_like(DISC)
    assert np.isnan(texture_ratio(original, original, small))
    assert np.isnan(texture_ratio(flat, over(flat, original), DISC))
    assert np.isnan(seam_ratio(flat, over(flat, original), DISC))
    assert np.isnan(seam_ratio(original, original, none))
    assert np.isnan(texture_ratio(original, original, none))
    assert np.isnan(seam_ratio(original, original, ~none))
    with pytest.raises(ValueError, match="erode is 0"):
        texture_ratio(original, original, DISC, erode=0)


# Distribution


def test_distance_to_a_reference_is_the_one_of_scipy() -> None:
    rng = np.random.default_rng(0)
    here, there = rng.normal(30, 20, 4000), rng.gamma(2, 20, 6000)
    reference = hu_quantiles(there)
    expected = wasserstein_distance(here, there)
    assert hu_wasserstein(here, reference) == pytest.approx(expected, rel=0.02)


def test_a_shift_in_hu_is_the_distance() -> None:
    hu = tissue()[DISC]
    reference = hu_quantiles(hu)
    assert hu_wasserstein(hu, reference) == 0
    assert hu_wasserstein(hu + 25, reference) == pytest.approx(25)
    assert hu_wasserstein(hu + 2000, reference, (-150, 250)) == pytest.approx(200, abs=5)
    with pytest.raises(ValueError, match="201 quantiles"):
        hu_wasserstein(hu, reference[1:])
    with pytest.raises(ValueError, match="no voxels"):
        hu_quantiles(hu[:0])


# Spectrum


def test_a_gain_of_two_is_six_decibel_at_every_frequency() -> None:
    original = tissue().astype(np.float64) * 10
    painted = over(original, original * 2)
    assert spectrum_distance(original, original, DISC) == 0
    assert spectrum_distance(original, painted, DISC) == pytest.approx(6.02, abs=0.2)


def test_grain_of_equal_strength_and_other_frequency_is_distinguished() -> None:
    original = tissue()
    other = over(original, tissue(seed=9))
    white = np.random.default_rng(1).normal(50, 1, (SIZE, SIZE))
    roughness = texture_ratio(original, over(original, white), DISC)
    white = 50 + (white - 50) / roughness  # as rough as the original to the texture ratio
    painted = over(original, white)
    assert texture_ratio(original, painted, DISC) == pytest.approx(1, abs=0.02)
    assert spectrum_distance(original, other, DISC) < 3
    assert spectrum_distance(original, painted, DISC) > 6


def test_blurred_paint_and_a_network_pattern_show_in_the_spectrum() -> None:
    original = tissue()
    blurred = ndimage.gaussian_filter(original.astype(np.float64), 1.5)
    checks = original + 15 * (np.indices((SIZE, SIZE)).sum(axis=0) % 2)
    assert spectrum_distance(original, over(original, blurred), DISC) > 8
    assert spectrum_distance(original, over(original, checks), DISC) > 3
    assert np.isnan(
        spectrum_distance(original, original, ndimage.binary_erosion(DISC, iterations=14))
    )


# Reconstruction


def test_similarity_is_the_one_of_scikit_image() -> None:
    original = tissue().astype(np.float64)
    painted = over(original, tissue(seed=3).astype(np.float64))
    _, expected = structural_similarity(
        original, painted, data_range=400, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    found = ssim(original + 100, painted + 100, DISC, (-50, 350))
    # Ours counts luminance from black, theirs from 0.
    _, shifted = structural_similarity(
        original + 150, painted + 150, data_range=400, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    assert found == pytest.approx(shifted[DISC].mean(), rel=1e-6)
    assert expected[DISC].mean() != pytest.approx(found, rel=1e-6)
    assert ssim(original, original, DISC, (-150, 250)) == pytest.approx(1)


def test_peak_signal_to_noise_by_hand() -> None:
    original = np.zeros((5, 5), np.int16)
    mask = np.eye(5, dtype=bool)
    assert psnr(original, original + 40, mask, (-150, 250)) == pytest.approx(20)
    assert psnr(original, original, mask, (-150, 250)) == float("inf")


# Slices


def test_slices_that_do_not_fit_have_a_jump_along_their_axis_only() -> None:
    rng = np.random.default_rng(2)
    smooth = 10 * ndimage.gaussian_filter(rng.normal(size=(24, 22, 12)), 2)
    mask = np.zeros(smooth.shape, bool)
    mask[6:18, 6:16, 3:9] = True
    painted = over(smooth, smooth + rng.normal(0, 20, 12), mask)  # a shift of its own per slice
    assert z_jump_ratio(smooth, smooth, mask, 2) == 1
    assert z_jump_ratio(smooth, painted, mask, 2) > 10
    assert z_jump_ratio(smooth, painted, mask, 0) == pytest.approx(1)
    one = mask & (np.arange(12) == 5)
    assert np.isnan(z_jump_ratio(smooth, painted, one, 2))


# Variants


def test_copies_have_no_diversity_however_bright_they_are() -> None:
    one, two = (tissue(seed)[DISC] for seed in (0, 1))
    assert variant_diversity(one, [two]) == pytest.approx(1, abs=0.3)
    assert variant_diversity(one, [two, one]) == pytest.approx(0)
    assert variant_diversity(one, [one * 2 + 30]) == pytest.approx(0)
    assert np.isnan(variant_diversity(one, []))
    flat = np.full_like(one, 3)
    assert variant_diversity(flat, [flat + 5]) == 0
    assert variant_diversity(flat, [one]) == 1
    with pytest.raises(ValueError, match="as many voxels"):
        variant_diversity(one, [one[1:]])


# Adherence


def organ_slice(seed: int, centre: int = 32) -> tuple[Any, Any]:
    """A bright disc in darker tissue, both grainy, and where it is."""
    organ = np.hypot(*(np.indices((SIZE, SIZE)) - centre)) < 10
    return tissue(seed) + np.where(organ, np.int16(90), np.int16(0)), organ


def trained() -> Segmenter:
    seen = [organ_slice(seed, 26 + seed) for seed in range(4)]
    features = [local_features(hu, (1.5, 1.0)).reshape(-1, 7) for hu, _ in seen]
    return Segmenter.fit(
        np.concatenate(features), np.concatenate([organ.ravel() for _, organ in seen])
    )


def test_a_segmenter_knows_the_organ_again_and_not_elsewhere() -> None:
    segmenter = trained()
    hu, organ = organ_slice(20, 40)
    assert segmenter.adherence(hu, organ, (1.5, 1.0)) > 0.95
    assert segmenter.adherence(hu, np.roll(organ, -25, axis=(0, 1)), (1.5, 1.0)) < 0.2
    assert segmenter.adherence(tissue(20), organ, (1.5, 1.0)) < 0.1
    assert np.isnan(segmenter.adherence(hu, np.zeros_like(organ), (1.5, 1.0)))


def test_a_segmenter_needs_both_sides() -> None:
    features = np.zeros((4, 7), np.float32)
    with pytest.raises(ValueError, match="inside and outside"):
        Segmenter.fit(features, np.ones(4, bool))


# Shapes


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_of_any_view_measures_like_the_plane(axis: int) -> None:
    original = tissue()
    painted = over(original, tissue(seed=4))
    one, other, disc = (np.expand_dims(a, axis) for a in (original, painted, DISC))
    for measure in (seam_ratio, texture_ratio, mean_error, mean_absolute_error):
        assert measure(one, other, disc, (-150, 250)) == measure(
            original, painted, DISC, (-150, 250)
        )


def test_the_surroundings_beyond_the_next_voxel_do_not_matter() -> None:
    original, painted = tissue(), over(tissue(), tissue(seed=4))
    one, other, disc = (np.pad(a, 40) for a in (original, painted, DISC))
    assert texture_ratio(one, other, disc) == pytest.approx(texture_ratio(original, painted, DISC))
    assert seam_ratio(one, other, disc) == pytest.approx(seam_ratio(original, painted, DISC))


def test_volumes_are_measured_along_all_three_axes() -> None:
    rng = np.random.default_rng(1)
    original, mask = rng.normal(size=(16, 15, 14)), np.zeros((16, 15, 14), bool)
    mask[4:12, 4:11, 4:10] = True
    painted = over(original, original * 2, mask)
    assert texture_ratio(original, painted, mask) == pytest.approx(2)
    assert seam_steps(original, painted, mask).pairs == 2 * (7 * 6 + 8 * 6 + 8 * 7)


def test_shapes_and_types_that_do_not_belong_together_are_refused() -> None:
    original = tissue()
    for measure in (
        seam_ratio,
        texture_ratio,
        mean_error,
        outside_max_abs_diff,
    ):
        with pytest.raises(ValueError, match="one shape"):
            measure(original, original[1:], DISC)
        with pytest.raises(ValueError, match="not boolean"):
            measure(original, original, DISC.astype(np.uint8))


# Real tissue: what the measures must notice, they must notice there too.


@pytest.fixture(scope="module")
def real_slice(shared_data: Path) -> tuple[Any, Any, Any]:
    """A liver's slice, the next one, and a disc of 15 mm radius within the organ."""
    folder = shared_data / "totalsegmentator_v2" / "s0002"
    liver = read_labels(folder / "segmentations" / "liver.nii.gz").array > 0
    k = int(np.argmax(liver.sum(axis=(0, 1))))
    ct = read_ct(folder / "ct.nii.gz").array
    depth = ndimage.distance_transform_edt(liver[:, :, k] & liver[:, :, k + 1])
    centre = np.unravel_index(int(np.argmax(depth)), depth.shape)
    disc = np.hypot(*(np.indices(depth.shape) - np.reshape(centre, (2, 1, 1)))) < 21
    assert (depth[disc] > 0).all()
    return ct[:, :, k], ct[:, :, k + 1], disc


WINDOW = (-150.0, 250.0)


@pytest.mark.long
@pytest.mark.realdata
def test_falsifiers_on_real_tissue(real_slice: tuple[Any, Any, Any]) -> None:
    here, after, disc = real_slice
    real = over(here, after, disc)  # other real tissue in the same place: what good paint scores
    grain = ndimage.gaussian_filter(here.astype(np.float64), 1.5)
    blurred = np.rint(over(here, grain, disc)).astype(np.int16)
    assert 0.8 < texture_ratio(here, real, disc, WINDOW) < 1.25
    assert texture_ratio(here, blurred, disc, WINDOW) < 0.4
    assert spectrum_distance(here, real, disc, WINDOW) < 2
    assert spectrum_distance(here, blurred, disc, WINDOW) > 8

    ring = disc & ~ndimage.binary_erosion(disc, iterations=2)
    ringed = over(real, real + 10, ring)
    assert abs(seam_overshoot(real, disc, WINDOW)) < 3
    assert seam_overshoot(ringed, disc, WINDOW) > 7
    assert seam_ratio(here, ringed, disc, WINDOW) > seam_ratio(here, real, disc, WINDOW)

    reference = hu_quantiles(after[disc])
    assert hu_wasserstein(here[disc], reference, WINDOW) < 4
    assert hu_wasserstein(here[disc] + 20, reference, WINDOW) > 15
    assert variant_diversity(here[disc], [after[disc]]) > 0.3
    assert variant_diversity(here[disc] + 7, [after[disc], here[disc]]) < 0.01


@pytest.mark.long
@pytest.mark.realdata
def test_a_shuffled_mask_does_not_look_like_its_label(shared_data: Path) -> None:
    folder = shared_data / "totalsegmentator_v2"

    def slices(case: str) -> tuple[Any, Any, tuple[float, float]]:
        ct = read_ct(folder / case / "ct.nii.gz")
        liver = read_labels(folder / case / "segmentations" / "liver.nii.gz").array > 0
        k = int(np.argmax(liver.sum(axis=(0, 1))))
        return ct.array[:, :, k], liver[:, :, k], ct.spacing_mm[:2]

    hu, liver, spacing = slices("s0001")
    judged = near(liver, spacing)
    segmenter = Segmenter.fit(local_features(hu, spacing)[judged], liver[judged])
    hu, liver, spacing = slices("s0002")
    shuffled = np.roll(liver, 80, axis=1)
    assert segmenter.adherence(hu, liver, spacing) > 0.8
    assert segmenter.adherence(hu, shuffled, spacing) < 0.75


@pytest.mark.realdata
def test_real_tissue_scores_one_and_its_blur_does_not(shared_data: Path) -> None:
    ct = read_ct(shared_data / "totalsegmentator_v2" / "s0001" / "ct.nii.gz").array[:, :, 50:52]
    here, next_slice = ct[:, :, 0], ct[:, :, 1]
    mask = np.zeros(here.shape, bool)
    i, j = np.argwhere(ndimage.binary_erosion(abs(here - 50) < 200, iterations=8))[0]
    mask[i - 7 : i + 8, j - 7 : j + 8] = True
    real = texture_ratio(here, over(here, next_slice, mask), mask, (-150, 250))
    blur = ndimage.gaussian_filter(here.astype(np.float64), 1.5)
    assert 0.6 < real < 1.6
    assert texture_ratio(here, over(here, blur, mask), mask, (-150, 250)) < 0.4
