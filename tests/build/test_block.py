"""``view: volume`` with a network in 3D: whole masks, from the recipe to the dataset and back."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_recipe import tiny_recipe, write_data
from tiny_volume import write_tiny_volume

from synthct.build.check import check
from synthct.build.inpaint import settings_of
from synthct.build.one_scan import paint_scan
from synthct.build.outside_range import outside_range
from synthct.build.run import build
from synthct.build.verify.run import Originals, verify
from synthct.dataset.rows import decode, stored_rows
from synthct.dataset.sample import Sample
from synthct.errors import RecipeError
from synthct.recipe.recipe import Recipe
from synthct.volume import Volume
from synthct.volume.case import Case

MASKS: list[dict[str, Any]] = [
    {"name": "tumors", "kind": "transplant", "label": "tumor", "into": "kidney", "pair": True,
     "accept": {"inside_fraction": 0.5}},
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_volume(tmp_path_factory.mktemp("checkpoint") / "tiny-3d")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("blocks") / "data").parent


def recipe(folder: Path, checkpoint: Path, **changes: Any) -> Recipe:
    fields = {"view": "volume", "margin_mm": 4, "masks": MASKS, "masks_per_case": 1}
    return Recipe.model_validate(
        tiny_recipe(folder / "data", checkpoint, **(fields | changes)) | {"name": "blocks"}
    )


@pytest.fixture(scope="module")
def blocks(folder: Path, checkpoint: Path) -> Path:
    return build(recipe(folder, checkpoint), folder / "out", cache_dir=folder / "cache", workers=0)


def samples(dataset: Path) -> list[Sample]:
    shards = sorted((dataset / "data").glob("*.parquet"))
    return [decode(row) for shard in shards for row in stored_rows(shard)]


@pytest.mark.long
def test_a_mask_is_painted_whole_and_the_rest_stays(blocks: Path) -> None:
    made = samples(blocks)
    assert len(made) == 2 * 3  # per host: two variants and the real one
    for one in (one for one in made if one.facts.is_painted):
        assert one.original is not None
        assert np.array_equal(one.image[~one.mask], one.original[~one.mask])
        assert (one.image != one.original)[one.mask].mean() > 0.9
        generation = one.provenance["generation"]
        (patch,) = generation["patches"]
        assert patch["size"] == [32, 32, 16] or patch["size"][2] % 4 == 0
        assert len(patch["origin"]) == len(patch["spacing_mm"]) == 3
        assert not patch["resampled"]
        assert generation["slice_noise_mm"] == 0
        assert generation["measured_grain"] is None or generation["measured_grain"]["voxels"] > 0


@pytest.mark.long
def test_all_four_levels_of_verify_pass(blocks: Path, folder: Path, checkpoint: Path) -> None:
    given = Originals(cache_dir=folder / "cache", checkpoint=checkpoint, workers=0,
                      sources={n: folder / "data" / n for n in ("hosts", "donors")})  # fmt: skip
    report = verify(blocks, level=3, originals=given)
    assert not report.findings
    assert len(report.levels) == 4


@pytest.mark.long
def test_a_shard_of_any_place_and_any_workers_give_the_same_bytes(
    blocks: Path, folder: Path, checkpoint: Path
) -> None:
    def hashes(root: Path) -> dict[str, str]:
        files = sorted(root.glob("data/*.parquet"))
        return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in files}

    made = recipe(folder, checkpoint)
    again = build(made, folder / "again", cache_dir=folder / "cache", workers=1)
    assert hashes(again) == hashes(blocks)


def test_slices_and_slice_noise_are_refused(folder: Path, checkpoint: Path) -> None:
    made = recipe(folder, checkpoint, view="axial", margin_mm=None)
    with pytest.raises(RecipeError, match=r"in 3D and paints no slices: use 'view: volume'"):
        check(made, cache_dir=folder / "cache")
    inpaint = {"checkpoint": str(checkpoint), "slice_noise_mm": 10}
    with pytest.raises(RecipeError, match="draws its own noise"):
        check(recipe(folder, checkpoint, inpaint=inpaint), cache_dir=folder / "cache")


def test_hosts_with_other_voxels_than_it_knows_are_told(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = write_tiny_volume(
        tmp_path / "fine", spacing_range_mm=(0.3, 0.6), slice_range_mm=(0.5, 1.5)
    )
    checked = check(recipe(folder, made), cache_dir=folder / "cache")
    told = list(outside_range(checked))
    assert len(told) == 2
    assert "the checkpoint paints 0.3 to 0.6 mm: they are painted on a resampled grid" in told[0]
    assert "have slices 2.50 mm apart, the checkpoint paints 0.5 to 1.5 mm" in told[1]
    assert "does not take the slices beside" not in caplog.text


def test_a_file_is_painted_whole(checkpoint: Path, tiny_case: Case) -> None:
    scan, region = tiny_case.scan(), tiny_case.region("tumor")
    settings = settings_of(checkpoint=str(checkpoint), num_inference_steps=2)
    where = Volume(region, scan.affine)
    painted = paint_scan(scan, where, settings, label="tumor")
    assert np.array_equal(painted.array[~region], scan.array[~region])
    assert (painted.array != scan.array)[region].mean() > 0.9
    again = paint_scan(scan, where, settings, label="tumor", seed=1)
    assert not np.array_equal(again.array, painted.array)
