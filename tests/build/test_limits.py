"""Default limits: what real tissue keeps, and tissue made wrong breaks."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from falsified import FALSIFIERS, Falsifier, falsified
from scipy import ndimage
from tiny_recipe import SECTIONS, tiny_recipe, write_data

from synthct.build.check import check
from synthct.build.limits import (
    CLOSEST_GRAIN,
    CLOSEST_SPECTRUM_DB,
    CLOSEST_TEXTURE,
    SEAM,
    WIDEST_GRAIN,
    WIDEST_SEAM,
    WIDEST_SPECTRUM_DB,
    WIDEST_TEXTURE,
    learn_limits,
    limits_of,
)
from synthct.build.real_tissue import compare_real
from synthct.build.run import build
from synthct.build.verify.run import Originals, verify
from synthct.dataset.lockfile import LOCK, read_lock
from synthct.dataset.records import read_rejected
from synthct.errors import MaskError
from synthct.metrics.seam import seam_ratio
from synthct.metrics.spectrum import spectrum_distance
from synthct.metrics.texture import texture_ratio
from synthct.recipe.quality import Quality, Standard
from synthct.recipe.recipe import Recipe
from synthct.volume import Volume
from synthct.volume.case import Case

Array = npt.NDArray[np.int16]
Make = Callable[..., Path]

SPACING_MM = (0.8, 0.8, 3.0)
SHAPE = (160, 160, 12)
DISC = np.hypot(*(np.indices((48, 48)) - 24)) < 18


def scan(seed: int, *, kernel_px: float, noise_hu: float) -> Array:
    """Organs in fat that change slowly from slice to slice, under a scanner's noise."""
    rng = np.random.default_rng(seed)
    shapes = ndimage.gaussian_filter(rng.standard_normal(SHAPE), (14, 14, 5))
    organs = np.select([shapes > shapes.std(), shapes < -shapes.std()], [110.0, -90.0], 50.0)
    edges = ndimage.gaussian_filter(organs, (0.8, 0.8, 0.5))
    noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE), (kernel_px, kernel_px, 0))
    return np.rint(edges + noise_hu * noise / noise.std()).astype(np.int16)


def case_of(hu: Array) -> Case:
    affine = np.diag([*SPACING_MM, 1.0])
    empty = Volume(np.zeros(hu.shape, np.uint8), affine)
    return Case("case", "patient", "hosts", Volume(hu, affine), empty, {})


def standard_of(hu: Array) -> Standard:
    pairs = compare_real(case_of(hu), None, "axial", None, 64)
    limits = limits_of([pairs], with_other_places=False)
    return Standard(Quality.model_validate(limits), is_default=True)


def measures(before: Array, after: npt.NDArray[Any]) -> dict[str, float | None]:
    given = before, np.rint(np.where(DISC, after, before)).astype(np.int16), DISC, (-150, 250)
    return {
        **dict.fromkeys(Quality.model_fields),
        "seam_ratio": seam_ratio(*given),
        "texture_ratio": texture_ratio(*given),
        "spectrum_distance": spectrum_distance(*given),
    }


@pytest.fixture(scope="module", params=[(0.7, 18.0), (1.0, 10.0)], ids=["sharp", "soft"])
def places(request: pytest.FixtureRequest) -> tuple[Standard, list[tuple[Array, Array]]]:
    """The limits of a scan, and 20 of its places with the same place one slice further."""
    kernel_px, noise_hu = request.param
    hu = scan(5, kernel_px=kernel_px, noise_hu=noise_hu)
    rng = np.random.default_rng(6)
    found = []
    for _ in range(20):
        i, j, k = (int(rng.integers(n)) for n in (110, 110, 11))
        here, above = (hu[i : i + 48, j : j + 48, k + n] for n in range(2))
        found.append((here, above))
    return standard_of(hu), found


def test_real_tissue_keeps_the_default_limits(
    places: tuple[Standard, list[tuple[Array, Array]]],
) -> None:
    standard, pairs = places
    assert all(standard.grade(measures(here, here)) == "good" for here, _ in pairs)
    noise = [measures(here, above) | {"seam_ratio": None} for here, above in pairs]
    assert sum(standard.grade(one) == "poor" for one in noise) <= 1


@pytest.mark.parametrize("kind", FALSIFIERS)
def test_tissue_made_wrong_breaks_a_default_limit(
    places: tuple[Standard, list[tuple[Array, Array]]], kind: Falsifier
) -> None:
    standard, pairs = places
    rng = np.random.default_rng(7)
    wrong = [measures(here, falsified(here, kind, rng)) for here, _ in pairs]
    assert [standard.grade(one) for one in wrong].count("poor") >= 18


def test_limits_are_never_closer_nor_wider_than_they_may_be() -> None:
    same = np.ones((40, 2, 4)) * [1.0, 0.1, 1.0, 1.0]
    wide = np.geomspace(0.1, 10, 40)
    columns = wide, np.full(40, 20.0), np.full(40, 50.0), wide
    apart = np.stack(columns, axis=1)[:, None].repeat(2, 1)
    for pairs, texture, spectrum in (
        (same, CLOSEST_TEXTURE, CLOSEST_SPECTRUM_DB),
        (apart, WIDEST_TEXTURE, WIDEST_SPECTRUM_DB),
        (np.empty((0, 2, 4)), CLOSEST_TEXTURE, CLOSEST_SPECTRUM_DB),
    ):
        limits = limits_of([pairs], with_other_places=False)
        assert tuple(limits["texture_ratio"].values()) == texture
        assert limits["spectrum_distance"] == {"max": spectrum}
        assert tuple(limits["seam_ratio"].values()) == SEAM
        assert "grain_ratio" not in limits  # what is painted again is compared with what was there
    for pairs, seam, grain in (
        (same, SEAM[1], CLOSEST_GRAIN),
        (apart, WIDEST_SEAM, WIDEST_GRAIN),
        (np.empty((0, 2, 4)), SEAM[1], CLOSEST_GRAIN),
    ):
        over_other = limits_of([pairs], with_other_places=True)
        assert over_other["seam_ratio"] == {"min": SEAM[0], "max": seam}
        assert tuple(over_other["grain_ratio"].values()) == grain


def test_other_places_count_for_labels_over_other_tissue() -> None:
    pairs = np.ones((40, 2, 4)) * [1.0, 0.1, 1.0, 1.0]
    pairs[:, 1, 1:] = 4.0
    same, other = (limits_of([pairs], with_other_places=way) for way in (False, True))
    assert same["spectrum_distance"]["max"] < other["spectrum_distance"]["max"]
    assert (same["seam_ratio"]["max"], other["seam_ratio"]["max"]) == (SEAM[1], 4.0)


def test_a_lesion_with_an_edge_like_that_of_real_tissue_is_not_poor() -> None:
    """A mass that stands out from the noise, as one in fat does."""
    hu = scan(5, kernel_px=0.7, noise_hu=18.0)
    pairs = compare_real(case_of(hu), None, "axial", None, 64)
    here = hu[40:88, 40:88, 5]
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.standard_normal(here.shape), 0.7)
    mass = float(here[DISC].mean()) + 45 + 18 * noise / noise.std()
    grades = []
    for is_new in (False, True):
        limits = Quality.model_validate(limits_of([pairs], with_other_places=is_new))
        only_seam = {**measures(here, mass), "texture_ratio": None, "spectrum_distance": None}
        grades.append(Standard(limits, is_default=True).grade(only_seam))
    assert grades[0] == "poor" != grades[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("limits")
    write_data(folder / "data")
    return folder


@pytest.fixture(scope="module")
def recipe_of(folder: Path, tiny_checkpoint: Path) -> Callable[..., Recipe]:
    """The tiny recipe without limits, with changes."""

    def make(**changes: Any) -> Recipe:
        fields = tiny_recipe(folder / "data", tiny_checkpoint, **({"quality": {}} | changes))
        return Recipe.model_validate(fields)

    return make


@pytest.mark.long
def test_paint_of_an_untrained_network_is_rejected(
    folder: Path, recipe_of: Callable[..., Recipe]
) -> None:
    with pytest.raises(MaskError, match=r"all 16 samples were rejected .*texture_ratio"):
        build(recipe_of(), folder / "all", cache_dir=folder / "cache", workers=0)


@pytest.mark.long
def test_pairs_are_kept_and_what_was_rejected_is_verified(
    folder: Path, recipe_of: Callable[..., Recipe]
) -> None:
    masks = [
        {"name": "tumors", "pair": True, **SECTIONS["tumors"]},
        {"name": "boxes", **SECTIONS["box"]},
    ]
    recipe = recipe_of(masks=masks, masks_per_case=2)
    made = build(recipe, folder / "some", cache_dir=folder / "cache", workers=0)
    rejected = read_rejected(made)
    assert {one.columns["mask_name"] for one in rejected} == {"boxes"}
    assert {one.measure for one in rejected} <= {"seam_ratio", "texture_ratio", "spectrum_distance"}
    assert read_lock(made / LOCK).limits.keys() == {"tumors", "boxes"}
    roots = {name: folder / "data" / name for name in ("hosts", "donors")}
    originals = Originals(
        sources=roots,
        checkpoint=Path(recipe.inpaint.checkpoint),
        cache_dir=folder / "cache",
        workers=0,
    )
    assert verify(made, level=3, originals=originals).findings == ()


@pytest.mark.parametrize(
    "changes",
    [{"quality": "none"}, {"inpaint": {"method": "noise_fill"}, "variants": 1}],
    ids=["none", "control"],
)
def test_no_limits_and_controls_reject_nothing(
    folder: Path, recipe_of: Callable[..., Recipe], changes: dict[str, Any], tmp_path: Path
) -> None:
    made = build(recipe_of(**changes), tmp_path, cache_dir=folder / "cache", workers=0)
    assert read_rejected(made) == []
    assert bool(read_lock(made / LOCK).limits) == ("quality" not in changes)


def test_limits_are_read_from_the_cache(
    folder: Path, recipe_of: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = check(recipe_of(), cache_dir=folder / "cache")
    first = learn_limits(checked, cache_dir=folder / "cache")
    assert first.keys() == SECTIONS.keys()
    module = import_module("synthct.build.limits")
    monkeypatch.setattr(module, "read_case", lambda *_: pytest.fail("a scan was read again"))
    assert learn_limits(checked, cache_dir=folder / "cache") == first
