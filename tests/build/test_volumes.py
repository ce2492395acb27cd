"""``view: volume``: a mask painted whole, from the recipe to the dataset and back."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_recipe import tiny_recipe, write_data

from synthct.build.check import check
from synthct.build.compose import compose
from synthct.build.draw import CaseReader, masks_of
from synthct.build.outside_range import outside_range
from synthct.build.prepare import prepare
from synthct.build.run import build
from synthct.build.verify.run import Originals, verify
from synthct.dataset.rows import decode, stored_rows
from synthct.dataset.sample import Sample
from synthct.dataset.stack import unstack, widest_slice
from synthct.dataset.writer import Rejection
from synthct.errors import RecipeError, VerifyError
from synthct.evaluate.stream import Dataset
from synthct.metrics.table import MEASURES
from synthct.recipe.recipe import Recipe

MASKS: list[dict[str, Any]] = [
    {"name": "tumors", "kind": "transplant", "label": "tumor", "into": "kidney", "pair": True,
     "accept": {"inside_fraction": 0.5}},
    {"name": "blob", "kind": "blob", "radius_mm": [3, 6]},
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("volumes") / "data").parent


def recipe(folder: Path, checkpoint: Path, **changes: Any) -> Recipe:
    fields = {"view": "volume", "margin_mm": 4, "masks": MASKS, "masks_per_case": 2}
    return Recipe.model_validate(
        tiny_recipe(folder / "data", checkpoint, **(fields | changes)) | {"name": "volumes"}
    )


@pytest.fixture(scope="module")
def volumes(folder: Path, tiny_checkpoint: Path) -> Path:
    made = recipe(folder, tiny_checkpoint)
    return build(made, folder / "out", cache_dir=folder / "cache", workers=0)


def samples(dataset: Path) -> list[Sample]:
    shards = sorted((dataset / "data").glob("*.parquet"))
    return [decode(row) for shard in shards for row in stored_rows(shard)]


def test_a_row_holds_the_box_around_the_mask_and_all_measures(volumes: Path) -> None:
    made = samples(volumes)
    assert len(made) == 2 * (3 + 2)  # per host: two variants and the real one, two variants
    for one in made:
        assert one.view == one.facts.view == "volume"
        assert min(one.shape) >= 3
        assert one.mask.any(axis=(0, 1)).sum() >= 2
        assert one.original is not None
        assert np.array_equal(one.image[~one.mask], one.original[~one.mask])
        assert one.affine.shape == (4, 4)
    painted = [one for one in made if one.facts.is_painted]
    known = [n for n, m in MEASURES.items() if m.of_volumes and "spectrum" not in n]
    assert any(all(one.metrics[n] is not None for n in known) for one in painted)
    assert all((one.image != one.original)[one.mask].any() for one in painted)


def test_the_paint_does_not_depend_on_the_margin(
    volumes: Path, folder: Path, tiny_checkpoint: Path
) -> None:
    """In a box that holds little but the edge of an organ, that edge would be taken for grain."""
    wide = recipe(folder, tiny_checkpoint, margin_mm=20)
    wider = build(wide, folder / "wide", cache_dir=folder / "cache", workers=0)
    pairs = list(zip(samples(volumes), samples(wider), strict=True))
    assert any(one.image.size < other.image.size for one, other in pairs)
    assert any("around_hu" in str(one.provenance) for one, _ in pairs)
    for one, other in pairs:
        assert np.array_equal(one.image[one.mask], other.image[other.mask])


@pytest.mark.long
def test_all_four_levels_of_verify_pass(volumes: Path, folder: Path, tiny_checkpoint: Path) -> None:
    given = Originals(cache_dir=folder / "cache", checkpoint=tiny_checkpoint, workers=0,
                      sources={n: folder / "data" / n for n in ("hosts", "donors")})  # fmt: skip
    report = verify(volumes, level=3, originals=given)
    assert not report.findings
    assert len(report.levels) == 4


@pytest.mark.long
def test_any_batch_order_and_workers_give_the_same_bytes(
    volumes: Path, folder: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashes(root: Path) -> dict[str, str]:
        files = sorted(root.glob("data/*.parquet"))
        return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in files}

    # one volume at a time
    monkeypatch.setattr(import_module("synthct.build.painter"), "MOST_VOXELS", 1)
    made = recipe(folder, tiny_checkpoint)
    again = build(made, folder / "again", cache_dir=folder / "cache", workers=1)
    assert hashes(again) == hashes(volumes)


@pytest.mark.long
def test_a_patch_only_release_is_composed_into_the_whole(
    volumes: Path, folder: Path, tiny_checkpoint: Path
) -> None:
    made = recipe(folder, tiny_checkpoint, release="patch", keep_original=False)
    patches = build(made, folder / "patch", cache_dir=folder / "cache", workers=0)
    assert not verify(patches).findings
    whole = compose(patches, folder / "whole", sources={"hosts": folder / "data/hosts"},
                    cache_dir=folder / "cache")  # fmt: skip
    for one, other in zip(samples(volumes), samples(whole), strict=True):
        assert one.sample_id == other.sample_id
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.labels, other.labels)


def test_load_dataset_and_streaming_give_voxels_and_affine(volumes: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    rows = load_dataset(str(volumes), cache_dir=str(tmp_path), split="train")
    streamed = load_dataset(str(volumes), cache_dir=str(tmp_path), split="train", streaming=True)
    for one, row, other in zip(samples(volumes), rows, streamed, strict=True):
        assert np.array_equal(np.asanyarray(row["image"].dataobj), one.image)
        assert np.array_equal(np.asanyarray(other["label_map"].dataobj), one.labels)
        assert np.allclose(row["mask"].affine, one.affine, atol=1e-4)
        assert np.asarray(row["preview"]).ndim == 2
    from synthct.torch import Tensors

    tensors = rows.with_transform(Tensors())[0]
    assert np.array_equal(tensors["image"][0].numpy(), samples(volumes)[0].image)
    assert np.array_equal(tensors["mask"][0].numpy(), samples(volumes)[0].mask)
    with pytest.raises(VerifyError, match="these are volumes"):
        rows.with_transform(Tensors(size=16))[0]


def test_the_whole_scan_can_be_the_sample(folder: Path, tiny_checkpoint: Path) -> None:
    made = recipe(folder, tiny_checkpoint, extent="scan", margin_mm=None, masks=MASKS[1:])
    scans = build(made, folder / "scan", cache_dir=folder / "cache", workers=0, limit=1)
    (one,) = samples(scans)
    assert one.shape == (48, 40, 24)
    assert one.provenance["host"]["box"] == [[0, 0, 0], [48, 40, 24]]


def test_a_control_fills_volumes_slice_by_slice(folder: Path, tiny_checkpoint: Path) -> None:
    made = recipe(folder, tiny_checkpoint, inpaint={"method": "noise_fill"})
    control = build(made, folder / "control", cache_dir=folder / "cache", workers=0)
    assert not verify(control).findings
    for one in samples(control):
        changed = (one.image != one.original).any(axis=(0, 1))
        if one.facts.is_painted:
            assert (changed | ~one.mask.any(axis=(0, 1))).all()


def test_a_volume_is_evaluated_as_the_slices_that_show_its_mask(volumes: Path) -> None:
    (first, *_) = samples(volumes)
    flats = list(unstack(first))
    assert [one.view for one in flats] == ["axial"] * int(first.mask.any(axis=(0, 1)).sum())
    start = first.provenance["host"]["box"][0][2]
    for one in flats:
        k = one.facts.slice_index - start
        assert np.array_equal(one.image[..., 0], first.image[..., k])
    assert np.count_nonzero(widest_slice(first).mask) == max(
        np.count_nonzero(one.mask) for one in flats
    )
    assert sum(1 for _ in Dataset(volumes).samples()) == len(samples(volumes))
    assert sum(1 for _ in Dataset(volumes).slices()) > len(samples(volumes))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"view": "axial"}, "margin_mm is for 'view: volume'"),
        ({"extent": "scan"}, "the whole host is shown"),
        ({"masks": [{**MASKS[1], "slices": "all"}]}, "painted with all of its slices"),
        ({"view": "axial", "margin_mm": None, "quality": {"z_jump_ratio": {"max": 2}}},
         "measured in volumes only"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_with_the_view_are_refused(
    folder: Path, tiny_checkpoint: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        recipe(folder, tiny_checkpoint, **changes)


def test_slice_noise_is_for_volumes(folder: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    inpaint = {"checkpoint": str(tiny_checkpoint), "slice_noise_mm": 10}
    made = recipe(folder, tiny_checkpoint, view="axial", margin_mm=None, inpaint=inpaint)
    with pytest.raises(RecipeError, match="slice_noise_mm is for 'view: volume'"):
        build(made, tmp_path, cache_dir=folder / "cache")


def test_one_slice_is_no_volume_and_too_many_voxels_are_told_before_any_work(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synthct.recipe import volumes as limits

    made = recipe(folder, tiny_checkpoint, extent="scan", margin_mm=None)
    monkeypatch.setattr(limits, "MOST_VOXELS", 1000)
    with pytest.raises(RecipeError, match=r"46,080 voxels.*use 'extent: crop'"):
        build(made, tmp_path, cache_dir=folder / "cache")
    from planned import entry

    flat = replace(entry("a"), shape=(8, 8, 1))
    assert "one slice is no volume" in str(limits.host_problem(made, flat))


def test_masks_too_large_for_memory_or_for_a_sample_are_told(
    folder: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = check(recipe(folder, tiny_checkpoint, masks=MASKS[1:]), cache_dir=folder / "cache")
    assert not [told for told in outside_range(checked) if "memory" in told]
    monkeypatch.setattr(import_module("synthct.build.outside_range"), "BYTES_PER_VOXEL", 10**12)
    (told,) = [told for told in outside_range(checked) if "memory" in told]
    assert "lower margin_mm or masks" in told
    monkeypatch.setattr(import_module("synthct.build.prepare"), "MOST_VOXELS", 100)
    reader = CaseReader(checked.label_names)
    outcome = prepare(masks_of(checked.plan.specs)[0], checked, reader)
    assert all(isinstance(one, Rejection) for one in outcome)
    assert "more than the 100 of the largest sample" in str(outcome[0])


def test_a_spacing_outside_the_range_is_told_of_volumes(
    folder: Path, tiny_checkpoint: Path
) -> None:
    checked = check(recipe(folder, tiny_checkpoint), cache_dir=folder / "cache")
    assert checked.rules is not None
    rules = replace(checked.rules, spacing_range_mm=(1.0, 2.0))
    told = list(outside_range(replace(checked, rules=rules)))
    assert any("axial pixels of 0.80 x 0.80 mm, the checkpoint paints 1 to 2 mm" in t for t in told)


def test_a_network_without_neighbours_is_warned_of(
    folder: Path, tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checked = check(recipe(folder, tiny_checkpoint), cache_dir=folder / "cache")
    assert "does not take the slices beside" in caplog.text
    assert checked.slice_noise_mm == 20
