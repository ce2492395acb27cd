"""The table of measures: names, units and directions, and that each row does what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from synthct.metrics.adherence import Segmenter, local_features
from synthct.metrics.distribution import hu_quantiles
from synthct.metrics.measure import Painting
from synthct.metrics.table import MEASURES, measure_all

SHAPE = (64, 64)
DISC = np.hypot(*(np.indices(SHAPE) - 32)) < 16

#: The stored columns: a change here changes what datasets of this format mean.
UNITS = {
    "outside_max_abs_diff": "HU",
    "painted_mean_hu": "HU",
    "painted_std_hu": "HU",
    "replaced_mean_hu": "HU",
    "replaced_std_hu": "HU",
    "seam_ratio": "",
    "seam_overshoot": "HU",
    "texture_ratio": "",
    "spectrum_distance": "dB",
    "grain_ratio": "",
    "hu_wasserstein": "HU",
    "mask_adherence": "",
    "variant_diversity": "",
    "mae_hu": "HU",
    "psnr_db": "dB",
    "ssim": "",
    "clipped_fraction": "",
    "mask_area_mm2": "mm²",
    "painted_fraction": "",
    "z_jump_ratio": "",
    "seam_ratio_left": "",
    "seam_ratio_right": "",
    "seam_ratio_posterior": "",
    "seam_ratio_anterior": "",
    "seam_ratio_inferior": "",
    "seam_ratio_superior": "",
    "texture_ratio_through": "",
    "spectrum_distance_through": "dB",
    "mask_volume_ml": "ml",
}

#: A good and a bad value of every measure that has a direction.
GOOD_AND_BAD = {
    "seam_ratio": [(1.0, 1.5), (1.0, 0.5), (1.1, 0.5)],
    "seam_overshoot": [(0.0, 5.0), (1.0, -5.0)],
    "texture_ratio": [(1.0, 0.4), (1.0, 2.5)],
    "spectrum_distance": [(0.5, 6.0)],
    "grain_ratio": [(1.1, 0.5), (1.1, 2.2)],
    "hu_wasserstein": [(2.0, 40.0)],
    "mask_adherence": [(0.9, 0.1)],
    "variant_diversity": [(0.9, 0.0)],
    "mae_hu": [(10.0, 50.0)],
    "psnr_db": [(40.0, 15.0)],
    "ssim": [(0.95, 0.2)],
    "clipped_fraction": [(0.0, 0.5)],
    "z_jump_ratio": [(1.0, 2.5), (1.0, 0.4)],
    "seam_ratio_left": [(1.0, 1.5)],
    "seam_ratio_right": [(1.0, 1.5)],
    "seam_ratio_posterior": [(1.0, 1.5)],
    "seam_ratio_anterior": [(1.0, 1.5)],
    "seam_ratio_inferior": [(1.0, 1.5)],
    "seam_ratio_superior": [(1.0, 1.5)],
    "texture_ratio_through": [(1.0, 2.0)],
    "spectrum_distance_through": [(0.5, 6.0)],
}


def tissue(seed: int, level: float = 60.0) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.0)
    return np.rint(level + 15 * noise / noise.std())


def painting(image: np.ndarray, **changes: Any) -> Painting:
    """The disc of a brighter organ, painted anew; everything that can be known of it is."""
    original = np.where(DISC, tissue(0, 120), tissue(1, 20)).astype(np.int16)
    features = local_features(original, (0.8, 0.8))
    made = Painting(
        original=original,
        image=np.where(DISC, image, original).astype(np.int16),
        mask=DISC,
        spacing_mm=(0.8, 0.8),
        range_hu=(-150, 250),
        codec_range_hu=(-150, 250),
        labelled=DISC,
        quantiles=hu_quantiles(original[DISC]),
        segmenter=Segmenter.fit(features.reshape(-1, features.shape[-1]), DISC.ravel()),
        has_truth=True,
        earlier=(tissue(7, 120)[DISC],),
    )
    return replace(made, **changes)


def test_the_columns_and_their_units_are_what_datasets_store() -> None:
    assert {name: measure.unit for name, measure in MEASURES.items()} == UNITS
    assert all(name == measure.name for name, measure in MEASURES.items())
    whole = {name for name, measure in MEASURES.items() if measure.dtype == "int32"}
    assert whole == {"outside_max_abs_diff"}


def test_every_measure_that_may_be_limited_but_statistics_has_a_direction() -> None:
    judged = {name for name, measure in MEASURES.items() if measure.worse}
    assert judged == set(GOOD_AND_BAD)
    limited = {name for name, measure in MEASURES.items() if measure.has_limits}
    assert limited == judged | {"painted_mean_hu", "painted_std_hu"}
    with pytest.raises(ValueError, match="no value of mask_area_mm2 is better"):
        MEASURES["mask_area_mm2"].badness(1)


@pytest.mark.parametrize("name", GOOD_AND_BAD)
def test_a_bad_value_is_worse_than_a_good_one(name: str) -> None:
    for good, bad in GOOD_AND_BAD[name]:
        assert MEASURES[name].badness(good) < MEASURES[name].badness(bad)


def test_every_measure_is_taken_of_a_painting_of_which_everything_is_known() -> None:
    measures = measure_all(painting(tissue(2, 120)))
    assert list(measures) == list(MEASURES)
    of_slices = [v for name, v in measures.items() if not MEASURES[name].of_volumes]
    assert all(value is not None and np.isfinite(value) for value in of_slices)
    assert measures["mask_area_mm2"] == pytest.approx(DISC.sum() * 0.64)
    assert measures["painted_fraction"] == DISC.mean()
    assert measures["outside_max_abs_diff"] == 0


@pytest.mark.parametrize(
    ("bad", "worse"),
    [
        (np.full(SHAPE, 120.0), ["seam_ratio", "texture_ratio", "spectrum_distance"]),
        (tissue(2, 20), ["hu_wasserstein", "mask_adherence", "mae_hu", "psnr_db", "ssim"]),
        (
            tissue(2, 120) + 40 * (DISC & ~ndimage.binary_erosion(DISC)),
            ["seam_ratio", "seam_overshoot"],
        ),
        (tissue(7, 130), ["variant_diversity"]),
    ],
)
def test_a_bad_painting_is_worse_by_the_measures_that_see_its_fault(
    bad: np.ndarray, worse: list[str]
) -> None:
    values, of_good = measure_all(painting(bad)), measure_all(painting(tissue(2, 120)))
    for name in worse:
        badness = MEASURES[name].badness
        assert badness(values[name] or 0.0) > badness(of_good[name] or 0.0), name


def test_what_does_not_apply_is_none_and_what_cannot_be_computed_is_nan() -> None:
    bare = painting(tissue(2, 120), codec_range_hu=None, labelled=None, has_truth=False, earlier=())
    of_slices = {name for name, measure in MEASURES.items() if not measure.of_volumes}
    missing = {name for name, value in measure_all(bare).items() if value is None} & of_slices
    assert missing == {
        "clipped_fraction", "hu_wasserstein", "mask_adherence", "mae_hu", "psnr_db", "ssim",
        "variant_diversity",
    }  # fmt: skip
    flat = painting(tissue(2, 120), original=np.full(SHAPE, -1000, np.int16))
    assert np.isnan(measured(flat)["texture_ratio"])


def test_a_slice_that_was_not_painted_has_only_measures_of_its_mask() -> None:
    real = painting(tissue(0, 120), is_painted=False)
    defined = {name: value for name, value in measure_all(real).items() if value is not None}
    assert defined == {
        "outside_max_abs_diff": 0,
        "mask_area_mm2": pytest.approx(DISC.sum() * 0.64),
        "painted_fraction": 0,
    }


#: A stack of slices whose voxels are five times as thick as wide, and a ball in it.
DEEP = (40, 40, 16)
BALL = (((np.indices(DEEP).T - (20, 20, 8)) / (12, 12, 5)) ** 2).sum(axis=-1).T < 1


def volume(image: np.ndarray, **changes: Any) -> Painting:
    """A ball of tissue whose slices fit each other, painted anew."""
    rng = np.random.default_rng(0)
    original = np.rint(60 + 30 * ndimage.gaussian_filter(rng.normal(size=DEEP), 1)).astype(np.int16)
    made = Painting(
        original=original,
        image=np.where(BALL, image, original).astype(np.int16),
        mask=BALL,
        spacing_mm=(0.8, 0.8, 4.0),
        range_hu=(-150, 250),
        axis=2,
    )
    return replace(made, **changes)


def another(seed: int = 1) -> np.ndarray:
    """Tissue of the same kind."""
    noise = np.random.default_rng(seed).normal(size=DEEP)
    return np.rint(60 + 30 * ndimage.gaussian_filter(noise, 1))


def test_a_painting_that_is_the_original_is_perfect_on_every_side() -> None:
    values = measure_all(volume(volume(another()).original))
    for name, measure in MEASURES.items():
        if measure.of_volumes and name != "mask_volume_ml":
            assert values[name] == pytest.approx(0 if name.startswith("spectrum") else 1), name
    assert values["mask_volume_ml"] == pytest.approx(BALL.sum() * 0.8 * 0.8 * 4 / 1000)
    assert values["mask_area_mm2"] is None


def test_measures_of_volumes_do_not_apply_to_slices() -> None:
    values = measure_all(painting(tissue(3)))
    assert {n for n in MEASURES if MEASURES[n].of_volumes and values[n] is not None} == set()


def measured(painting: Painting) -> dict[str, float]:
    """The measures that this painting has."""
    return {name: value for name, value in measure_all(painting).items() if value is not None}


def test_slices_that_do_not_fit_jump_and_are_rough_across_but_not_in_plane() -> None:
    shuffled = np.stack([another(seed)[..., 8] for seed in range(16)], axis=2)
    fit, jump = measured(volume(another())), measured(volume(shuffled))
    assert fit["z_jump_ratio"] == pytest.approx(1, abs=0.15)
    assert jump["z_jump_ratio"] > 1.4
    assert jump["texture_ratio_through"] > 1.4 > 1.2 > fit["texture_ratio_through"]
    assert jump["texture_ratio"] == pytest.approx(1, abs=0.15)
    assert jump["spectrum_distance_through"] > fit["spectrum_distance_through"] + 1


@pytest.mark.parametrize(
    ("side", "axis", "first"),
    [("left", 0, True), ("right", 0, False), ("posterior", 1, True), ("anterior", 1, False),
     ("inferior", 2, True), ("superior", 2, False)],
)  # fmt: skip
def test_a_step_on_one_side_is_found_there_alone(side: str, axis: int, first: bool) -> None:
    same = volume(another()).original
    along = np.moveaxis(BALL, axis, 0)
    beside = np.zeros_like(along)
    if first:
        beside[1:] = along[1:] & ~along[:-1]
    else:
        beside[:-1] = along[:-1] & ~along[1:]
    values = measured(volume(same + 60 * np.moveaxis(beside, 0, axis)))
    worst = max((n for n in values if n.startswith("seam_ratio_")), key=lambda n: values[n])
    assert worst == f"seam_ratio_{side}"
    assert values[worst] > 2
