"""A dataset painted by a network without steps: its recipe, its documents, and made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_gan import write_gan
from tiny_recipe import SECTIONS, tiny_recipe, write_data

from synthct.build.run import build
from synthct.build.verify.run import Originals, verify
from synthct.errors import RecipeError
from synthct.recipe.recipe import Recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one-pass")
    write_data(folder / "data")
    write_gan(folder / "gan")
    return folder


def recipe_of(folder: Path, **inpaint: Any) -> Recipe:
    masks = [{"name": name, **SECTIONS[name]} for name in ("organ", "tumors")]
    settings = {"checkpoint": str(folder / "gan"), "batch_size": 2, **inpaint}
    return Recipe.model_validate(
        tiny_recipe(folder / "data", folder / "gan", masks=masks, inpaint=settings)
    )


@pytest.mark.long
def test_it_states_no_steps_and_is_made_again_bit_for_bit(folder: Path) -> None:
    made = build(recipe_of(folder), folder / "out", cache_dir=folder / "cache", workers=0)
    text = (made / "recipe.yaml").read_text()
    assert "scheduler: none" in text
    assert "num_inference_steps: 1\n" in text
    card = (made / "README.md").read_text()
    assert "a generative adversarial network (Pix2Pix) painted the region" in card
    assert "scheduler" not in card
    originals = Originals(
        sources={name: folder / "data" / name for name in ("hosts", "donors")},
        checkpoint=folder / "gan",
        cache_dir=folder / "cache",
        workers=0,
        samples=100,
    )
    report = verify(made, level=3, originals=originals)
    assert report.findings == ()
    assert "painted again, bit for bit" in report.levels[3]


def test_steps_are_refused_before_anything_is_painted(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"inpaint\.num_inference_steps.*in one pass"):
        build(
            recipe_of(folder, num_inference_steps=2),
            tmp_path / "out",
            cache_dir=folder / "cache",
            workers=0,
        )
    assert not list((tmp_path / "out").rglob("*.parquet"))
