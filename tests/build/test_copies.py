"""Paintings that are too like what their checkpoint was trained on are kept out of a dataset."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from tiny_recipe import tiny_recipe, write_data, write_recipe

from synthct.build.run import build
from synthct.dataset.records import read_rejected
from synthct.dataset.rows import decode, stored_rows
from synthct.errors import RecipeError
from synthct.metrics.region_key import region_hash, region_key
from synthct.models.folder import write_sums
from synthct.models.training_index import make_index, write_index
from synthct.recipe.privacy import MOST_ALIKE
from synthct.recipe.recipe import load_recipe
from synthct.volume.views import VIEW_AXIS

FEW: dict[str, Any] = {"masks_per_case": 1, "variants": 2}


def made(folder: Path, data: Path, checkpoint: Path, **changes: Any) -> Path:
    """A build of few samples, by its recipe's changes."""
    path = write_recipe(folder / "recipe.yaml", data, checkpoint, **FEW, **changes)
    recipe = load_recipe(path)
    return build(recipe, folder / "out", device="cpu", cache_dir=folder.parent / "cache")


def rows(version: Path) -> list[dict[str, Any]]:
    return [
        dict(row) for path in sorted(version.glob("data/*.parquet")) for row in stored_rows(path)
    ]


def test_what_is_too_like_a_training_region_is_rejected(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    data = write_data(tmp_path / "data", hosts=("case_00000",))
    checkpoint = copytree(tiny_checkpoint, tmp_path / "tiny")
    before = rows(made(tmp_path / "before", data, checkpoint))
    known = decode(before[0])
    axis = VIEW_AXIS[known.plane]
    region = known.image.squeeze(axis), known.mask.squeeze(axis)
    trained = {
        "key": region_key(*region).tobytes(), "sha256": region_hash(*region), "label": None,
        "source": "scans", "case_id": "c", "patient_id": "trained", "fingerprint": None,
        "side_px": None, "grid_mm": None,
    }  # fmt: skip
    write_index(make_index([trained], None, seed=0), checkpoint)
    write_sums(checkpoint)
    version = made(tmp_path / "after", data, checkpoint, privacy={"max_training_key": 0.99})
    after, rejected = rows(version), read_rejected(version)
    assert [one.sample_id for one in rejected] == [known.sample_id]
    assert rejected[0].reason == "privacy: like a training region of trained"
    assert rejected[0].measure == "train_key"
    assert rejected[0].value == pytest.approx(1, abs=0.03)
    kept = {row["sample_id"]: row["image"]["bytes"] for row in before[1:]}
    assert {row["sample_id"]: row["image"]["bytes"] for row in after} == kept
    assert "by key only" in (version / "README.md").read_text()


def test_a_checkpoint_without_an_index_cannot_be_compared_with(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    data = write_data(tmp_path / "data", hosts=("case_00000",))
    with pytest.raises(RecipeError, match="privacy: checkpoint 'tiny' has no privacy index"):
        made(tmp_path / "some", data, tiny_checkpoint, privacy={})


def test_recipes_without_the_section_stay_what_they_were(tmp_path: Path) -> None:
    fields = tiny_recipe(tmp_path, tmp_path)
    path = write_recipe(tmp_path / "recipe.yaml", tmp_path, tmp_path)
    assert "privacy" not in fields
    assert "privacy" not in load_recipe(path).resolved()
    stated = load_recipe(write_recipe(path, tmp_path, tmp_path, privacy={}))
    assert stated.resolved()["privacy"] == {"max_training_key": MOST_ALIKE}
