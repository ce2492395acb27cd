"""What ``synthct check`` expects of a build, beside what the build does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_recipe import tiny_recipe, write_data
from tiny_volume import write_tiny_volume

from synthct.build import preview
from synthct.build.check import check
from synthct.build.preview import facts_of, inputs_per_sample
from synthct.build.run import build
from synthct.models.palette import PaletteUNet
from synthct.models.volume_unet import VolumeUNet
from synthct.recipe.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

MASKS = [{"name": "blob", "kind": "blob", "radius_mm": [3, 9]}]


def recipe(folder: Path, checkpoint: Path, **changes: Any) -> Recipe:
    inpaint = {"checkpoint": str(checkpoint), "num_inference_steps": 1, "batch_size": 1}
    fields = {"view": "volume", "margin_mm": 4, "masks": MASKS, "masks_per_case": 4, "variants": 1}
    changes["inpaint"] = inpaint
    return Recipe.model_validate(tiny_recipe(folder, checkpoint, **(fields | changes)))


@pytest.mark.parametrize("network", [PaletteUNet, VolumeUNet])
def test_a_volume_is_expected_to_take_as_many_passes_as_it_does(
    network: type[Any], tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tiny_checkpoint
    if network is VolumeUNet:
        checkpoint = write_tiny_volume(tmp_path / "model")
    made = recipe(write_data(tmp_path / "data"), checkpoint)
    checked = check(made, cache_dir=tmp_path / "cache")
    painted = checked.plan.num_painted
    inputs, slices = inputs_per_sample(checked)
    assert slices > 2
    assert sum(inputs.values()) > 1

    passes: list[int] = []
    forward = network.forward

    def counted(self: Any, noisy: torch.Tensor, *others: Any, **named: Any) -> Any:
        passes.append(len(noisy))
        return forward(self, noisy, *others, **named)

    monkeypatch.setattr(network, "forward", counted)
    build(made, tmp_path / "out", cache_dir=tmp_path / "cache", workers=0)
    # half of the masks were counted, so the others may have more or fewer
    assert 0.6 < sum(inputs.values()) * painted / sum(passes) < 1.6

    monkeypatch.setattr(preview, "REST_SECONDS", 100.0)
    assert facts_of(checked)["seconds"] > 100 * slices * painted


def test_a_slice_is_expected_to_take_one_patch(tmp_path: Path, tiny_checkpoint: Path) -> None:
    made = recipe(write_data(tmp_path / "data"), tiny_checkpoint, view="axial", margin_mm=None)
    assert inputs_per_sample(check(made, cache_dir=tmp_path / "cache")) == ({64: 1.0}, 1.0)
