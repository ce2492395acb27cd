"""Measures: known answers by hand, and what each one must notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from synthct import metrics
from synthct.volume import read_ct

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
    assert metrics.outside_max_abs_diff(original, over(original, 900), DISC) == 0
    assert metrics.outside_max_abs_diff(original, original, np.ones_like(DISC)) == 0


def test_one_voxel_of_one_hu_outside_is_found() -> None:
    original = tissue()
    painted = over(original, 900)
    painted[0, 63] += 1
    assert metrics.outside_max_abs_diff(original, painted, DISC) == 1


def test_differences_beyond_int16_do_not_wrap() -> None:
    original, mask = np.full((3, 3), -32768, np.int16), np.zeros((3, 3), bool)
    painted = np.full((3, 3), 32767, np.int16)
    assert metrics.outside_max_abs_diff(original, painted, mask) == 65535
    assert metrics.outside_max_abs_diff(painted, original, mask) == 65535


def test_pictures_of_floats_are_refused_because_the_promise_is_exact() -> None:
    with pytest.raises(ValueError, match="integer HU"):
        metrics.outside_max_abs_diff(tissue().astype(float), tissue(), DISC)


# HU


def test_stats_and_shares_of_known_values() -> None:
    hu = np.array([-200, -150, 0, 250, 251], dtype=np.int16)
    stats = metrics.hu_stats(hu)
    assert stats.mean_hu == pytest.approx(30.2)
    assert stats.std_hu == pytest.approx(np.std(hu))
    assert metrics.share_outside_range(hu, (-150, 250)) == pytest.approx(2 / 5)


def test_stats_of_many_voxels_do_not_lose_digits() -> None:
    hu = np.full(3_000_000, 1000, dtype=np.int16)
    assert metrics.hu_stats(hu) == (1000.0, 0.0)


def test_no_voxels_have_no_statistics() -> None:
    empty = np.array([], dtype=np.int16)
    with pytest.raises(ValueError, match="no voxels"):
        metrics.hu_stats(empty)
    with pytest.raises(ValueError, match="no voxels"):
        metrics.share_outside_range(empty, (0, 1))
    with pytest.raises(ValueError, match="no voxels"):
        metrics.mean_error(tissue(), tissue(), np.zeros_like(DISC))


# Error


def test_errors_of_known_changes() -> None:
    original = tissue()
    signs = np.where(np.indices((SIZE, SIZE)).sum(axis=0) % 2, 10, -4)
    painted = over(original, original + signs)
    inside = signs[DISC]
    assert metrics.mean_error(original, painted, DISC) == pytest.approx(inside.mean())
    assert metrics.mean_absolute_error(original, painted, DISC) == pytest.approx(abs(inside).mean())


def test_errors_see_the_mask_alone() -> None:
    original = tissue()
    assert metrics.mean_absolute_error(original, over(original, 500, ~DISC), DISC) == 0


def test_errors_beyond_the_range_do_not_count() -> None:
    original, painted = np.full((5, 5), 400, np.int16), np.full((5, 5), 900, np.int16)
    mask = np.eye(5, dtype=bool)
    assert metrics.mean_absolute_error(original, painted, mask, (-150, 250)) == 0
    assert metrics.mean_error(original, painted - 700, mask, (-150, 250)) == -50


# Seam


def test_seam_of_one_pixel_by_hand() -> None:
    original = np.arange(25, dtype=np.int16).reshape(5, 5)
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True  # 12, with neighbours 7, 11, 13, 17: steps 5, 1, 1, 5
    painted = over(original, 20, mask)  # steps 13, 9, 7, 3
    assert metrics.seam_steps(original, painted, mask) == (32.0, 12.0, 4)
    assert metrics.seam_ratio(original, painted, mask) == pytest.approx(32 / 12)
    assert metrics.seam_steps(original, painted, mask, (0, 14)) == (11.0, 9.0, 4)


def test_an_unchanged_slice_has_no_seam_and_full_texture() -> None:
    original = tissue()
    assert metrics.seam_ratio(original, original, DISC) == 1
    assert metrics.texture_ratio(original, original, DISC) == 1


def test_a_planted_ring_of_ten_hu_shows_in_the_seam_and_in_nothing_else() -> None:
    original = ndimage.gaussian_filter(tissue(), 2).astype(np.int16)
    ring = DISC & ~ndimage.binary_erosion(DISC)
    painted = over(original, original + 10, ring)
    assert metrics.seam_ratio(original, painted, DISC) > 1.5
    assert metrics.texture_ratio(original, painted, DISC, erode=3) == pytest.approx(1)


def test_seam_counts_only_pairs_across_the_border() -> None:
    original = tissue()
    core = ndimage.binary_erosion(DISC)
    assert metrics.seam_ratio(original, over(original, 900, core), DISC) == 1
    edge = np.zeros((6, 6), bool)
    edge[:2] = True  # along the picture's own edge there is no neighbour, hence no pair
    assert metrics.seam_steps(np.zeros((6, 6)), np.zeros((6, 6)), edge).pairs == 6


def test_pooling_weighs_masks_by_their_steps() -> None:
    seams = [metrics.SeamSteps(10, 5, 3), metrics.SeamSteps(0, 15, 3)]
    assert metrics.pooled_seam_ratio(seams) == pytest.approx(0.5)


# Texture


def test_texture_of_a_scaled_picture_is_the_scale() -> None:
    original = tissue().astype(np.float64)
    assert metrics.texture_ratio(original, over(original, original * 0.6), DISC) == pytest.approx(
        0.6
    )


def test_texture_is_the_root_mean_square_of_the_nearest_neighbour_laplacian() -> None:
    original = tissue()
    painted = over(original, tissue(seed=9))
    core = ndimage.binary_erosion(DISC, iterations=2)

    def roughness(hu: Any) -> float:
        p = np.pad(hu.astype(np.float64), 1, mode="edge")
        steps = p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * p[1:-1, 1:-1]
        return float(np.sqrt((steps[core] ** 2).mean()))

    expected = roughness(painted) / roughness(original)
    assert metrics.texture_ratio(original, painted, DISC) == pytest.approx(expected)
    assert expected == pytest.approx(1, abs=0.1)


def test_blurred_paint_loses_texture_and_a_shift_in_hu_does_not() -> None:
    original = tissue()
    blurred = ndimage.gaussian_filter(original.astype(np.float64), 1.5)
    assert metrics.texture_ratio(original, over(original, blurred), DISC) < 0.4
    assert metrics.texture_ratio(original, over(original, original + 40), DISC) == pytest.approx(1)


def test_texture_does_not_see_the_border() -> None:
    original = tissue()
    painted = over(original, 3000, DISC & ~ndimage.binary_erosion(DISC))
    assert metrics.texture_ratio(original, painted, DISC, erode=2) == pytest.approx(1)


def test_what_cannot_be_compared_is_nan() -> None:
    original, flat = tissue(), np.zeros((SIZE, SIZE), np.int16)
    small = np.zeros_like(DISC)
    small[30:33, 30:33] = True
    none = np.zeros_like(DISC)
    assert np.isnan(metrics.texture_ratio(original, original, small))
    assert np.isnan(metrics.texture_ratio(flat, over(flat, original), DISC))
    assert np.isnan(metrics.seam_ratio(flat, over(flat, original), DISC))
    assert np.isnan(metrics.seam_ratio(original, original, none))
    assert np.isnan(metrics.texture_ratio(original, original, none))
    assert np.isnan(metrics.seam_ratio(original, original, ~none))
    with pytest.raises(ValueError, match="erode is 0"):
        metrics.texture_ratio(original, original, DISC, erode=0)


# Shapes


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_of_any_view_measures_like_the_plane(axis: int) -> None:
    original = tissue()
    painted = over(original, tissue(seed=4))
    thick = [np.expand_dims(a, axis) for a in (original, painted, DISC)]
    for measure in (
        metrics.seam_ratio,
        metrics.texture_ratio,
        metrics.mean_error,
        metrics.mean_absolute_error,
    ):
        assert measure(*thick, (-150, 250)) == measure(original, painted, DISC, (-150, 250))


def test_the_surroundings_beyond_the_next_voxel_do_not_matter() -> None:
    original, painted = tissue(), over(tissue(), tissue(seed=4))
    wide = [
        np.pad(a, 40, constant_values=v) for a, v in ((original, 0), (painted, 0), (DISC, False))
    ]
    assert metrics.texture_ratio(*wide) == pytest.approx(
        metrics.texture_ratio(original, painted, DISC)
    )
    assert metrics.seam_ratio(*wide) == pytest.approx(metrics.seam_ratio(original, painted, DISC))


def test_volumes_are_measured_along_all_three_axes() -> None:
    rng = np.random.default_rng(1)
    original, mask = rng.normal(size=(16, 15, 14)), np.zeros((16, 15, 14), bool)
    mask[4:12, 4:11, 4:10] = True
    painted = over(original, original * 2, mask)
    assert metrics.texture_ratio(original, painted, mask) == pytest.approx(2)
    assert metrics.seam_steps(original, painted, mask).pairs == 2 * (7 * 6 + 8 * 6 + 8 * 7)


def test_shapes_and_types_that_do_not_belong_together_are_refused() -> None:
    original = tissue()
    for measure in (
        metrics.seam_ratio,
        metrics.texture_ratio,
        metrics.mean_error,
        metrics.outside_max_abs_diff,
    ):
        with pytest.raises(ValueError, match="one shape"):
            measure(original, original[1:], DISC)
        with pytest.raises(ValueError, match="not boolean"):
            measure(original, original, DISC.astype(np.uint8))


# Real tissue


@pytest.mark.realdata
def test_real_tissue_scores_one_and_its_blur_does_not(shared_data: Path) -> None:
    ct = read_ct(shared_data / "totalsegmentator_v2" / "s0001" / "ct.nii.gz").array[:, :, 50:52]
    here, next_slice = ct[:, :, 0], ct[:, :, 1]
    mask = np.zeros(here.shape, bool)
    i, j = np.argwhere(ndimage.binary_erosion(abs(here - 50) < 200, iterations=8))[0]
    mask[i - 7 : i + 8, j - 7 : j + 8] = True
    real = metrics.texture_ratio(here, over(here, next_slice, mask), mask, (-150, 250))
    blur = ndimage.gaussian_filter(here.astype(np.float64), 1.5)
    assert 0.6 < real < 1.6
    assert metrics.texture_ratio(here, over(here, blur, mask), mask, (-150, 250)) < 0.4
