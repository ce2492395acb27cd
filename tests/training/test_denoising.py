"""A network in 3D in training: its boxes, its loss, going on exactly, and what is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from conftest import make_tiny_case
from safetensors.torch import load_file
from tiny_volume import TINY_VOLUME
from training_recipes import open_set, take, tiny_recipe

from synthct.masks.base import make_mask
from synthct.models.checkpoint import load_checkpoint
from synthct.models.methods import Diffusion
from synthct.models.painting import Inpainter
from synthct.models.patch import PatchRules
from synthct.training.checkpoint import latest_state
from synthct.training.denoising import build_unet
from synthct.training.loop import train
from synthct.training.loss import masked_loss
from synthct.training.objectives import make_objective
from synthct.training.objectives.volume import VolumeObjective
from synthct.training.recipe import TrainingRecipe
from synthct.training.remake import MaskedCrop, crop_around, remake_box
from synthct.training.sections import DataSection
from synthct.training.validate import Validation

pytestmark = pytest.mark.usefixtures("one_thread")

MODEL = {"kind": "volume", **TINY_VOLUME, "codecs": {"default": "soft_tissue"}}
RULES = PatchRules.from_config({**MODEL, "labels": ["kidney"]})


@pytest.fixture(autouse=True)
def nothing_remembered():
    """Accelerate remembers the first run in a process."""
    yield
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()


def recipe(root: Path, **changes: Any) -> TrainingRecipe:
    fields = {
        "model": MODEL,
        "data": {"patches": 12, "patches_per_mask": 2, "join_masks": 0.5},
        "masks": [
            {"name": "blobs", "kind": "blob", "radius_mm": [3, 6]},
            {"name": "kidneys", "kind": "organ", "label": "kidney"},
        ],
    }
    return tiny_recipe(root, **{**fields, **changes})


def test_boxes_of_one_size_are_cut_once_and_larger_masks_in_parts(
    kits_template: Path, patch_cache: Path
) -> None:
    small = recipe(kits_template)
    data = open_set(small, patch_cache)
    assert data.patches.depth == 8
    boxes = [data.patches.patch(n) for n in range(len(data.patches))]
    assert {one.image.shape for one in boxes} == {(32, 32, 8)}
    assert all(one.mask.any() and len(one.spacing_mm) == 3 for one in boxes)
    assert len({one.image.tobytes() for one in boxes}) > 3
    whole = [one.patches[0].mask.shape for one in data.slices]
    assert max(shape[2] for shape in whole) > 8, "what is painted is not cut up"
    (batch,) = take(small, data, 1)
    assert batch["image"].shape == batch["mask"].shape
    assert batch["image"].shape[1:] == (1, 32, 32, 8)
    assert batch["spacing_mm"].shape[1:] == (3,)


def test_boxes_have_the_voxels_that_the_network_is_for(
    kits_template: Path, patch_cache: Path
) -> None:
    """Scans of finer voxels are resampled; else the mask would fill every box to its border."""
    coarse = {**MODEL, "spacing_range_mm": (2.0, 3.0), "slice_range_mm": (4.0, 6.0)}
    data = open_set(recipe(kits_template, model=coarse), patch_cache)
    learned = [data.patches.patch(n) for n in range(len(data.patches))]
    painted = [patch for one in data.slices for patch in one.patches]
    for spacing in [one.spacing_mm for one in learned] + [one.spacing_mm for one in painted]:
        assert spacing == pytest.approx((2.0, 2.0, 4.0))
    for mask in [one.mask for one in learned] + [one.mask for one in painted]:
        assert not mask[0].any()
        assert not mask[:, -1].any()


def test_a_box_is_remade_with_other_pixels_and_a_target_without_grain() -> None:
    scan = make_tiny_case().scan()
    mask = make_mask(make_tiny_case(), np.ones((8, 8, 5), dtype=bool), (18, 14, 8), None, {})
    plain, region = crop_around(scan, mask, RULES)
    assert region.array.sum() == 8 * 8 * 5
    assert plain.has_grid_of(region)

    def remade(**data: Any) -> MaskedCrop:
        section = DataSection.model_validate(data)
        return remake_box(scan, mask, section, RULES, np.random.default_rng(0))

    same = remade()
    assert np.array_equal(same.plane.array, plain.array)
    assert np.array_equal(same.target.array, plain.array)
    zoomed = remade(zoom=[1.2, 1.3])
    assert zoomed.plane.spacing_mm[2] == pytest.approx(2.5)
    assert 1.2 * 0.8 <= zoomed.plane.spacing_mm[0] <= 1.3 * 0.8
    assert zoomed.plane.has_grid_of(zoomed.region)
    grain = {"blur_share": 0.0, "noise_share": 1.0, "noise_hu": [30, 40], "painted": False}
    noisy = remade(grain=grain)
    kidney = noisy.region.array
    assert noisy.target.array[kidney].std() < noisy.plane.array[kidney].std() - 10


def test_the_loss_of_one_box_falls(kits_template: Path, patch_cache: Path) -> None:
    small = recipe(kits_template)
    (batch,) = take(small, open_set(small, patch_cache), 1)
    batch = {name: value[:1] for name, value in batch.items()}
    objective = make_objective(small)
    assert isinstance(objective, VolumeObjective)
    adam = torch.optim.AdamW(objective.unet.parameters(), lr=1e-2)

    def loss() -> torch.Tensor:
        return masked_loss(objective.unet, small.noise, batch, torch.Generator().manual_seed(0))

    first = float(loss().detach())
    for _ in range(25):
        adam.zero_grad()
        loss().backward()
        adam.step()
    assert float(loss().detach()) < 0.5 * first


@pytest.mark.long
def test_a_run_goes_on_exactly_and_its_checkpoint_paints(
    kits_template: Path, patch_cache: Path, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {
        "validation": {"every": 4, "masks": 2, "num_inference_steps": 1},
        "optim": {"max_steps": 4, "batch_size": 1, "warmup_steps": 0, "decay_steps": 0},
        "save_every": 2,
    }
    whole = train(recipe(kits_template, **fields), tmp_path / "whole", cache_dir=patch_cache,
                  workers=0)  # fmt: skip
    given: dict[str, Any] = {"cache_dir": patch_cache, "workers": 0}
    train(recipe(kits_template, **fields), tmp_path / "parts", max_seconds=0, **given)
    assert latest_state(tmp_path / "parts").name == "step-00000001"
    parts = train(recipe(kits_template, **fields), tmp_path / "parts", **given)
    name = "unet/diffusion_pytorch_model.safetensors"
    one, other = load_file(whole / name), load_file(parts / name)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert (tmp_path / "whole/samples.png").is_file()
    card = (whole / "README.md").read_text()
    assert "in 3D" in card
    assert "8 slices" in card
    checkpoint = load_checkpoint(str(whole))
    settings = Diffusion(checkpoint=str(whole), num_inference_steps=2)
    rules = checkpoint.files.network.rules(checkpoint.files, settings, [None])
    assert (rules.depth, rules.slice_range_mm) == (8, (0.5, 4.0))
    data = open_set(recipe(kits_template), patch_cache)
    patches = data.slices[0].patches
    painted = Inpainter(checkpoint, settings, rules.labels).paint(patches, [1])
    assert painted[0].shape == patches[0].image.shape


@pytest.mark.long
def test_validation_measures_what_is_painted_in_3d(kits_template: Path, patch_cache: Path) -> None:
    small = recipe(kits_template)
    data = open_set(small, patch_cache)
    objective = make_objective(small)
    objective.networks["unet"].eval()
    measures = Validation(small, data.slices[:2]).measure(objective)
    assert measures.mae_hu > 0
    assert np.isfinite(measures.loss)
    assert measures.seam_ratio > 0


def test_labels_are_matched_by_name_when_training_goes_on_from_a_checkpoint(
    kits_template: Path, patch_cache: Path, tmp_path: Path
) -> None:
    fields = {"optim": {"max_steps": 1, "batch_size": 1}, "sample_every": 99}
    first = train(
        recipe(kits_template, **fields), tmp_path / "first", cache_dir=patch_cache, workers=0
    )
    more = recipe(kits_template, from_checkpoint=str(first),
                  masks=[{"name": "tumors", "kind": "organ", "label": "tumor"},
                         {"name": "kidneys", "kind": "organ", "label": "kidney"}])  # fmt: skip
    objective = make_objective(more)
    assert isinstance(objective, VolumeObjective)
    before, after = load_checkpoint(str(first))["unet"], objective.unet
    rows = before.label_embedding.weight
    assert tuple(after.config.labels) == ("tumor", "kidney")
    assert torch.equal(after.label_embedding.weight, rows[[0, 0, 1]])
    assert torch.equal(after.first.weight, before.first.weight)
    assert build_unet(more).config.depth == 8
