"""Pairs: a host's own slice beside its paintings, with and without the lesion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from planned import TUMOR, cases, plan, recipe
from pydantic import ValidationError
from tiny_recipe import SECTIONS as TINY
from tiny_recipe import tiny_recipe, write_data

from synthct.build.check import Checked, check
from synthct.build.draw import CaseReader
from synthct.build.preview import describe
from synthct.build.run import build
from synthct.dataset.png import decode_hu, decode_labels, decode_mask
from synthct.dataset.writer import read_shard
from synthct.recipe.recipe import Recipe
from synthct.volume.views import from_picture

SECTIONS: list[dict[str, Any]] = [
    {"name": "healthy", "kind": "removal", "lesion": "tumor", "pair": True},
    {"name": "tumors", "pair": True, **TINY["tumors"]},
    {"name": "boxes", "kind": "box", "around": "kidney", "margin_mm": [1, 3], "max_extent_mm": 16},
]  # fmt: skip


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Checked:
    folder = tmp_path_factory.mktemp("pairs")
    data = write_data(folder / "data")
    fields = tiny_recipe(data, tiny_checkpoint, masks=SECTIONS, masks_per_case=3)
    return check(Recipe.model_validate(fields), cache_dir=folder / "cache")


@pytest.fixture(scope="module")
def dataset(checked: Checked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    return build(checked.recipe, folder, cache_dir=folder / "cache", workers=0)


@pytest.fixture(scope="module")
def rows(dataset: Path) -> list[dict[str, Any]]:
    return [r for path in sorted(dataset.glob("data/*")) for r in read_shard(path).to_pylist()]


def paired(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    pairs: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["pair_id"] is not None:
            pairs.setdefault(row["pair_id"], []).append(row)
    return pairs


def test_every_pair_has_one_real_slice_and_all_of_its_paintings(
    rows: list[dict[str, Any]],
) -> None:
    pairs = paired(rows)
    assert len(pairs) == 4
    for pair_id, members in pairs.items():
        assert [row["is_painted"] for row in members] == [True, True, False]
        assert [row["variant"] for row in members] == [0, 1, None]
        assert members[-1]["sample_id"] == f"{pair_id}.real"
        assert len({row["patient_id"] for row in members}) == 1
    alone = [row for row in rows if row["pair_id"] is None]
    assert {row["mask_name"] for row in alone} == {"boxes"}
    assert all(row["is_painted"] and row["has_lesion"] is None for row in alone)


def test_the_real_half_is_the_hosts_own_slice_and_label_map(
    checked: Checked, rows: list[dict[str, Any]]
) -> None:
    reader = CaseReader(checked.label_names)
    for members in paired(rows).values():
        real = members[-1]
        host = reader.read(checked.index.entry("hosts", real["case_id"]))
        k = real["slice_index"]
        image = from_picture(decode_hu(real["image"]["bytes"]), "axial")[..., 0]
        labels = from_picture(decode_labels(real["label_map"]["bytes"]), "axial")[..., 0]
        assert np.array_equal(image, host.scan().array[..., k])
        assert np.array_equal(labels, host.labels.array[..., k])
        assert real["image"] == real["original"]
        for painted in members[:-1]:
            assert painted["original"] == real["image"]
            assert painted["mask"] == real["mask"]
            assert painted["image"] != real["image"]


@pytest.mark.parametrize(("section", "real"), [("healthy", True), ("tumors", False)])
def test_the_lesion_is_on_one_side_of_the_pair_only(
    rows: list[dict[str, Any]], section: str, real: bool
) -> None:
    found = [m for m in paired(rows).values() if m[0]["mask_name"] == section]
    assert len(found) == 2
    for *painted, own in found:
        assert own["has_lesion"] is real
        before = decode_labels(own["label_map"]["bytes"])
        mask = decode_mask(own["mask"]["bytes"])
        for row in painted:
            assert row["has_lesion"] is not real
            after = decode_labels(row["label_map"]["bytes"])
            with_lesion, without = (before, after) if real else (after, before)
            assert (with_lesion[mask] == 2).any()
            assert not (without[mask] == 2).any()
            assert np.array_equal(before[~mask], after[~mask])


def test_a_real_half_has_no_measures_of_paint_and_says_so(rows: list[dict[str, Any]]) -> None:
    for *painted, real in paired(rows).values():
        stored = json.loads(real["provenance"])
        assert stored["generation"] is None
        assert stored["is_painted"] is False
        assert stored["pair_id"] == real["pair_id"]
        assert stored["mask"]["label_map"] == "keep"
        assert stored["mask"]["params"] == json.loads(painted[0]["provenance"])["mask"]["params"]
        assert real["painted_mean_hu"] is None
        assert real["seam_ratio"] is None
        assert real["painted_fraction"] == 0
        assert real["outside_max_abs_diff"] == 0
        assert real["mask_area_mm2"] == painted[0]["mask_area_mm2"]
        assert painted[0]["seam_ratio"] is not None


def test_rows_of_a_pair_have_digests_of_their_own(rows: list[dict[str, Any]]) -> None:
    assert len({row["sample_digest"] for row in rows}) == len(rows)


def test_a_pair_is_never_torn_between_files(dataset: Path, checked: Checked) -> None:
    homes: dict[str, str] = {}
    for path in sorted(dataset.glob("data/*")):
        for row in read_shard(path, ["pair_id"]).to_pylist():
            if row["pair_id"] is not None:
                assert homes.setdefault(row["pair_id"], path.name) == path.name
    assert len(set(homes.values())) > 1
    assert max(len(shard.specs) for shard in checked.plan.shards) <= 4


def test_the_card_tells_the_real_slices_from_the_painted(dataset: Path) -> None:
    card = (dataset / "README.md").read_text()
    assert "12 axial CT slices of 2 patients, in each of which a diffusion model" in card
    assert "It also has 4 unpainted slices" in card


def test_the_plan_counts_what_is_painted_and_what_is_not(checked: Checked) -> None:
    assert checked.plan.num_samples == 16
    assert checked.plan.num_painted == 12
    text = describe(checked)
    assert "16 samples" in text
    assert "the organ around it 4, tumor 4, whatever fits 4" in text
    assert "4 slices as it is, beside its paintings" in text


def test_hosts_and_donors_of_pairs_share_a_split_too() -> None:
    made = plan(
        [{**TUMOR, "pair": True}],
        cases(12),
        cases(12, "donor", labels=("tumor", "kidney"), source="donors"),
        variants=3,
        samples_per_shard=5,
    )
    splits: dict[str, set[str]] = {}
    for shard in made.shards:
        for spec in shard.specs:
            splits.setdefault(spec.mask_id, set()).add(f"{shard.split} {shard.index}")
    assert all(len(places) == 1 for places in splits.values())
    assert sum(not spec.is_painted for spec in made.specs) == 12


def test_a_limit_tears_no_pair(checked: Checked) -> None:
    for samples in range(1, 17):
        limited = checked.plan.limit(samples)
        assert samples <= limited.num_samples <= samples + 2
        kept = {spec.sample_id for spec in limited.specs}
        assert [s.sample_id for shard in limited.shards for s in shard.specs] == [
            spec.sample_id for spec in limited.specs
        ]
        for spec in limited.specs:
            whole = [s for s in checked.plan.specs if s.mask_id == spec.mask_id]
            if not all(s.is_painted for s in whole):
                assert {s.sample_id for s in whole} <= kept


def test_only_kinds_that_change_a_lesion_have_pairs() -> None:
    with pytest.raises(ValidationError, match="pair is for kinds that add or remove a lesion"):
        recipe([{"name": "b", "kind": "blob", "pair": True}])


def test_a_pair_without_an_accepted_painting_is_rejected_as_a_whole(
    checked: Checked, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    least = {
        pair_id: min(row["seam_ratio"] for row in members if row["is_painted"])
        for pair_id, members in paired(rows).items()
    }
    lost = max(least, key=least.__getitem__)
    limits = {"seam_ratio": {"max": least[lost] - 1e-6}}
    recipe = Recipe.model_validate(checked.recipe.model_dump() | {"quality": limits})
    made = build(recipe, tmp_path, cache_dir=tmp_path / "cache", workers=0)
    kept = {r["sample_id"] for path in made.glob("data/*") for r in read_shard(path).to_pylist()}
    assert not any(sample_id.startswith(f"{lost}.") for sample_id in kept)
    reasons = {
        row["sample_id"]: row["reason"]
        for row in pq.read_table(made / "rejected.parquet").to_pylist()
    }
    assert reasons[f"{lost}.real"] == "pair: no painting of it was accepted"
    assert f"{lost}.v0" in reasons
