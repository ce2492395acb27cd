"""The fields of a network: the same in the recipe, in the config and in the network itself."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from training_recipes import tiny_recipe

from synthct.models.config import OF_DIFFUSERS
from synthct.models.networks import NETWORKS
from synthct.models.palette import PaletteUNet
from synthct.models.palette_config import PaletteConfig, PaletteSection
from synthct.training.denoising import build_unet
from synthct.training.objectives import OBJECTIVES

#: Another value than the default for each field.
CHANGED: dict[str, Any] = {
    "labels": ["liver"],
    "codecs": {"default": "full_range", "kidney": "soft_tissue"},
    "patch_sizes": [24, 48],
    "spacing_range_mm": [0.7, 2.0],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "dropout": 0.1,
    "norm_num_groups": 4,
    "fold": 2,
    "residual_scale": 2.0,
    "neighbours": 2,
    "strengths": {"default": 0.5},
    "guidance": {"kidney": 1.5},
    "noise_embedding": "level",
}
#: Excludes ``residual_scale``.
CLIPPED: dict[str, Any] = {**CHANGED, "residual_scale": None, "clip_denoised": True}


@pytest.mark.parametrize("fields", [CHANGED, CLIPPED], ids=["residual", "clipped"])
def test_every_field_of_a_recipe_reaches_the_network_and_its_config(
    fields: dict[str, Any], kits_root: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(kits_root, model=fields, data={"label_dropout": 0.1})
    build_unet(recipe).save_config(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored.keys() - OF_DIFFUSERS == PaletteConfig.model_fields.keys()
    given = recipe.model.model_dump(mode="json", exclude={"kind", "labels"})
    assert given.items() <= stored.items()
    assert stored["labels"] == ["liver", "kidney", "tumor"]
    assert stored["guided"]
    default = PaletteSection()
    for name in fields.keys() - {"residual_scale"}:
        assert getattr(recipe.model, name) != getattr(default, name), name


def test_recipe_config_and_network_have_the_same_fields() -> None:
    arguments = inspect.signature(PaletteUNet.__init__).parameters
    assert arguments.keys() - {"self"} == PaletteConfig.model_fields.keys()
    derived = {"guided", "trained_steps"}
    stated = PaletteSection.model_fields.keys() - {"kind"}
    assert PaletteConfig.model_fields.keys() - derived == stated
    assert stated == CLIPPED.keys()


def test_every_network_that_recipes_describe_can_be_trained_and_read() -> None:
    sections = {one.section for one in NETWORKS} - {None}
    assert sections == {one.network.section for one in OBJECTIVES}
