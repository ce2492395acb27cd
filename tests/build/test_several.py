"""Several masks of a sample know each other."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from scipy.ndimage import label as parts_of
from tiny_recipe import tiny_recipe, write_data
from tiny_volume import write_tiny_volume

from synthct.build.check import check
from synthct.build.draw import CaseReader, DrawnMask, draw, masks_of
from synthct.build.run import build
from synthct.build.series import RIM_MM
from synthct.build.verify.run import Originals, verify
from synthct.dataset.rows import decode, stored_rows
from synthct.masks.base import MaskSection
from synthct.recipe.recipe import Recipe
from synthct.volume.grid import spacing_of

BLOB = {"name": "blob", "kind": "blob", "radius_mm": [2, 3]}

#: One mask in each sample, large enough for a core when it is halved.
SERIES: dict[str, Any] = {
    "masks": [{**BLOB, "radius_mm": [5, 6]}], "masks_per_case": 1, "masks_per_sample": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("several") / "data", hosts=("case_00000",)).parent


def recipe(folder: Path, checkpoint: Path, **changes: Any) -> Recipe:
    fields = {"view": "volume", "margin_mm": 2, "masks": [BLOB], "masks_per_case": 3,
              "variants": 1, "masks_per_sample": [2, 4]}  # fmt: skip
    return Recipe.model_validate(tiny_recipe(folder / "data", checkpoint, **(fields | changes)))


def drawn(folder: Path, made: Recipe) -> list[DrawnMask]:
    checked = check(made, cache_dir=folder / "cache")
    reader = CaseReader(checked.label_names)
    return [draw(group, made, reader) for group in masks_of(checked.plan.specs)]


def test_masks_are_apart_counted_and_the_first_is_the_same_as_alone(
    folder: Path, tiny_checkpoint: Path
) -> None:
    several = drawn(folder, recipe(folder, tiny_checkpoint))
    alone = drawn(folder, recipe(folder, tiny_checkpoint, masks_per_sample=None))
    counts = []
    for one, single in zip(several, alone, strict=True):
        more = one.params["more"]
        counts.append(1 + len(more))
        facts = [single.mask.facts, *one.mask.facts["more"]]
        voxels = [own["voxels"] for own in facts]
        assert np.count_nonzero(one.mask.region.array) == sum(voxels)  # none overlaps
        assert one.mask.facts["voxels"] == sum(voxels)
        shape = one.host.labels.shape
        assert (one.mask.in_host(shape) | ~single.mask.in_host(shape)).all()
        assert {k: v for k, v in one.params.items() if k != "more"} == single.params
    assert all(2 <= count <= 4 for count in counts)
    assert len(set(counts)) > 1


def test_the_next_is_drawn_with_the_labels_of_those_before(
    folder: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(folder, tiny_checkpoint, masks_per_case=1)
    seen: list[int] = []
    kind = type(made.masks[0])
    real: Any = kind.drawn

    def spy(self: MaskSection, host: Any, donor: Any, rng: Any) -> Any:
        seen.append(int(np.count_nonzero(host.labels.array == 255)))
        return real(self, host, donor, rng)

    monkeypatch.setattr(kind, "drawn", spy)
    drawn(folder, made)
    assert seen[0] == 0
    assert seen[-1] > 0  # blobs leave 255 behind


def depth_mm(mask: Any, spacing_mm: Any) -> Any:
    """How deep voxels lie in a mask."""
    return distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]


def test_a_series_is_one_lesion_in_one_place(folder: Path, tiny_checkpoint: Path) -> None:
    series = {"steps": 3, "volume_factor": [0.5, 2]}
    made = recipe(folder, tiny_checkpoint, series=series, **SERIES)
    dataset = build(made, folder / "series", cache_dir=folder / "cache", workers=0)
    rows = [row for path in dataset.glob("data/*") for row in stored_rows(path)]
    samples = [decode(row) for row in rows]
    assert [s.provenance["mask"]["params"]["volume_factor"] for s in samples] == [0.5, 1, 2]
    assert len({row["lesion_id"] for row in rows}) == 1
    assert len({row["mask_id"] for row in rows}) == 3
    assert len({s.shape for s in samples}) == 1
    for small, large in pairwise(samples):
        assert (large.mask | ~small.mask).all()
    for small in samples[:-1]:  # all but its rim is what was painted of the largest
        core = depth_mm(small.mask, spacing_of(small.affine)) >= RIM_MM
        assert core.any()
        assert np.array_equal(small.image[core], samples[-1].image[core])
        assert not np.array_equal(small.image[small.mask], samples[-1].image[small.mask])
    sources = {name: folder / "data" / name for name in ("hosts", "donors")}
    given = Originals(
        sources=sources, cache_dir=folder / "cache", checkpoint=tiny_checkpoint, workers=0
    )
    assert not verify(dataset, level=2, originals=given).findings


def test_every_size_of_a_series_has_the_stated_level(folder: Path, tiny_checkpoint: Path) -> None:
    masks = [{**BLOB, "radius_mm": [5, 6], "label": "tumor"}]
    network = {"checkpoint": str(tiny_checkpoint), "num_inference_steps": 2, "scheduler": "ddim",
               "level_hu": {"tumor": 50}, "grain": "surroundings"}  # fmt: skip
    made = recipe(folder, tiny_checkpoint, series={"volume_factor": [0.5, 1, 2]}, inpaint=network,
                  **(SERIES | {"masks": masks}))  # fmt: skip
    dataset = build(made, folder / "levels", cache_dir=folder / "cache", workers=0)
    samples = [decode(row) for path in dataset.glob("data/*") for row in stored_rows(path)]
    assert len(samples) == 3
    assert all(abs(np.median(one.image[one.mask]) - 50) <= 0.5 for one in samples)


def test_a_series_of_a_network_in_3d_shows_one_lesion_too(folder: Path, tmp_path: Path) -> None:
    series = {"volume_factor": [0.5, 2]}
    made = recipe(
        folder, write_tiny_volume(tmp_path / "model"), series=series, variants=2, **SERIES
    )
    dataset = build(made, tmp_path / "out", cache_dir=folder / "cache", workers=0)
    samples = [decode(row) for path in dataset.glob("data/*") for row in stored_rows(path)]
    by_id = {one.sample_id: one for one in samples}
    first = min(by_id).rpartition(".s")[0]
    for variant in ("v0", "v1"):
        small, large = by_id[f"{first}.s0.{variant}"], by_id[f"{first}.s1.{variant}"]
        core = depth_mm(small.mask, spacing_of(small.affine)) >= RIM_MM
        assert np.array_equal(small.image[core], large.image[core])
    assert not np.array_equal(by_id[f"{first}.s1.v0"].image, by_id[f"{first}.s1.v1"].image)


def test_a_control_fills_a_lesion_that_grows(folder: Path, tiny_checkpoint: Path) -> None:
    masks = {**SERIES, "masks": [{**BLOB, "radius_mm": [5, 5]}]}
    fill = {"method": "noise_fill", "border_mm": 0.5}
    fields = {"series": {"volume_factor": [1, 4]}, "inpaint": fill, "keep_original": True}
    made = recipe(folder, tiny_checkpoint, **fields, **masks)
    dataset = build(made, folder / "filled", cache_dir=folder / "cache", workers=0)
    for sample in [decode(row) for path in dataset.glob("data/*") for row in stored_rows(path)]:
        changed = (sample.image != sample.original)[sample.mask]
        assert changed.mean() > 0.8, "what grew is filled as well"


def test_masks_that_touch_are_painted_as_one(folder: Path, tiny_checkpoint: Path) -> None:
    made = recipe(folder, tiny_checkpoint, masks_per_sample=[4, 8], masks_per_case=2)
    for one in drawn(folder, made):
        assert parts_of(one.mask.region.array, np.ones((3, 3, 3)))[1] <= 1 + len(one.params["more"])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"view": "axial", "margin_mm": None}, "masks_per_sample is for 'view: volume'"),
        ({"masks_per_sample": [3, 1]}, "must rise"),
        ({"series": {"volume_factor": [1, 2]}}, "a series is of one lesion"),
        ({"masks": [{**BLOB, "max_extent_mm": 9}]}, "would lose some"),
        ({"masks_per_sample": None, "series": {"volume_factor": [1, 2, 3], "steps": 2}},
         "less than the 3"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(
    folder: Path, tiny_checkpoint: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        recipe(folder, tiny_checkpoint, **changes)
