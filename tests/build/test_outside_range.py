"""Warnings of what lies outside a checkpoint's range."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_recipe import SECTIONS, tiny_recipe, write_data

from synthct.build.check import Checked, check
from synthct.build.outside_range import outside_range, tell_outside_range
from synthct.errors import CheckpointError
from synthct.recipe.recipe import Recipe


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Checked:
    folder = tmp_path_factory.mktemp("range")
    fields = tiny_recipe(write_data(folder / "data"), tiny_checkpoint)
    return check(Recipe.model_validate(fields), cache_dir=folder / "cache")


def with_rules(checked: Checked, **changes: Any) -> Checked:
    assert checked.rules is not None
    return replace(checked, rules=replace(checked.rules, **changes))


def with_views(checked: Checked, views: dict[str, float]) -> Checked:
    assert checked.checkpoint is not None
    training = {**checked.checkpoint.training, "views": views}
    return replace(checked, checkpoint=replace(checked.checkpoint, training=training))


def test_within_the_range_nothing_is_said(checked: Checked) -> None:
    assert list(outside_range(checked)) == []


def test_pixels_outside_the_range_are_told(checked: Checked) -> None:
    (warning,) = outside_range(with_rules(checked, spacing_range_mm=(1.0, 3.0)))
    assert warning.startswith("2 of 2 hosts, such as case_00000, have axial pixels of 0.80 x 0.80")
    assert "the checkpoint paints 1 to 3 mm" in warning


def test_a_view_of_which_the_training_had_little_is_told(checked: Checked) -> None:
    assert list(outside_range(with_views(checked, {"axial": 1.0}))) == []
    (warning,) = outside_range(with_views(checked, {"axial": 0.04, "coronal": 0.96}))
    assert warning.startswith("view axial: 4% of the patches")


def test_masks_larger_than_a_patch_are_told(checked: Checked) -> None:
    masks = [{"name": "blobs", **SECTIONS["blob"], "radius_mm": [3, 60]}]
    recipe = Recipe.model_validate({**checked.recipe.model_dump(), "masks": masks})
    (warning,) = outside_range(replace(checked, recipe=recipe))
    assert warning.startswith("masks 'blobs' may be 120 mm large")


def test_a_control_has_no_range(checked: Checked) -> None:
    assert list(outside_range(replace(checked, rules=None))) == []


def test_warnings_are_logged_or_refused(checked: Checked, caplog: pytest.LogCaptureFixture) -> None:
    outside = with_rules(checked, spacing_range_mm=(1.0, 3.0))
    tell_outside_range(outside)
    assert "resampled grid" in caplog.text
    with pytest.raises(CheckpointError, match=r"resampled grid.*leave out --strict") as refused:
        tell_outside_range(outside, strict=True)
    assert refused.value.exit_code == 4
    tell_outside_range(checked, strict=True)
