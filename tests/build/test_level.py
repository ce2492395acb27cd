"""Paint at a level that the recipe states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_recipe import SECTIONS, tiny_recipe, write_data

from synthct.build.run import build
from synthct.dataset.png import decode_hu, decode_mask
from synthct.errors import RecipeError
from synthct.recipe.recipe import Recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("level") / "data")


def recipe(
    folder: Path,
    checkpoint: Path,
    level_hu: Any,
    sections: tuple[str, ...] = ("organ", "tumors"),
    grain: str = "surroundings",
) -> Recipe:
    inpaint = {
        "checkpoint": str(checkpoint),
        "num_inference_steps": 2,
        "grain": grain,
        "level_hu": level_hu,
    }
    masks = [{"name": name, **SECTIONS[name]} for name in sections]
    return Recipe.model_validate(
        tiny_recipe(folder, checkpoint, inpaint=inpaint, masks=masks, masks_per_case=2)
    )


def rows(folder: Path, made: Recipe, output: Path) -> list[dict[str, Any]]:
    built = build(made, output, cache_dir=folder / "cache")
    return [row for path in built.rglob("*.parquet") for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("grain", ["checkpoint", "surroundings"])
def test_each_mask_has_a_level_of_its_own_within_the_range(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path, grain: str
) -> None:
    made = recipe(folder, tiny_checkpoint, {"kidney": [100, 160]}, grain=grain)
    levels: dict[str, set[float]] = {}
    for row in rows(folder, made, tmp_path):
        generation = json.loads(row["provenance"])["generation"]
        told = {patch.get("level_hu") for patch in generation["patches"]}
        if row["label"] != "kidney":
            assert told == {None}
            continue
        (level,) = told
        levels.setdefault(row["mask_id"], set()).add(level)
        inside = decode_hu(row["image"]["bytes"])[decode_mask(row["mask"]["bytes"])]
        assert np.median(inside) == pytest.approx(level, abs=4)
    assert all(len(of_mask) == 1 for of_mask in levels.values()), "variants have the same level"
    drawn = {level for of_mask in levels.values() for level in of_mask}
    assert len(drawn) == len(levels) > 1
    assert all(100 <= level <= 160 for level in drawn)


@pytest.mark.parametrize(
    ("level_hu", "sections", "problem"),
    [
        ({"kidny": 100}, ("organ",), r"inpaint.level_hu.kidny: no mask paints 'kidny'.*kidney"),
        ({"kidney": [100, 900]}, ("organ",), r"inpaint.level_hu.kidney: .*-150 to 250 HU; 900 is"),
    ],
)
def test_levels_that_cannot_be_had_are_refused_before_anything_is_drawn(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path, level_hu: Any,
    sections: tuple[str, ...], problem: str,
) -> None:  # fmt: skip
    with pytest.raises(RecipeError, match=problem):
        build(recipe(folder, tiny_checkpoint, level_hu, sections), tmp_path)


@pytest.mark.parametrize(
    ("level_hu", "problem"),
    [
        ({"kidney": [160, 100]}, "160 exceeds 100"),
        ({}, "at least 1"),
        ({"kidney": 5000}, "3071"),
        ({"kidney": 100}, "holds more than kidney"),
    ],
)
def test_levels_that_make_no_sense_are_refused(
    folder: Path, tiny_checkpoint: Path, level_hu: Any, problem: str
) -> None:
    section = {"name": "grown", "kind": "organ", "label": "kidney", "margin_mm": 3}
    with pytest.raises(ValueError, match=problem):
        Recipe.model_validate(
            tiny_recipe(
                folder,
                tiny_checkpoint,
                masks=[section],
                inpaint={"checkpoint": str(tiny_checkpoint), "level_hu": level_hu},
            )
        )
