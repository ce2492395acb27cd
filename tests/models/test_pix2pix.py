"""The Pix2Pix network: its size, its chance, and what a checkpoint of it must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_gan import write_gan
from torch import nn

import synthct
from synthct.errors import CheckpointError
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.folder import write_sums
from synthct.models.methods import Diffusion
from synthct.models.networks.pix2pix import Pix2Pix
from synthct.models.painting import Inpainter
from synthct.models.patch import Patch
from synthct.models.pix2pix import Pix2PixGenerator
from synthct.recipe.checkpoint_settings import setting_problems
from synthct.volume.intensity import SOFT_TISSUE

pytestmark = pytest.mark.usefixtures("one_thread")


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gan(tmp_path_factory.mktemp("pix2pix") / "tiny")


def a_patch(number: int, label: int = 1, side: int = 32) -> Patch:
    rng = np.random.default_rng(number)
    mask = np.zeros((side, side), dtype=bool)
    mask[8:20, 10:24] = True
    image = rng.uniform(-1, 1, (side, side)).astype(np.float32)
    return Patch(image, mask, mask, label, SOFT_TISSUE, (1.0, 1.0), (0, 0), (1.0, 1.0))


def paint(folder: Path, patches: list[Patch], seeds: list[int], **settings: Any) -> Any:
    inpaint = Diffusion(checkpoint=str(folder), **{"batch_size": 4, **settings})
    return Inpainter(load_checkpoint(str(folder)), inpaint).paint(patches, seeds)


@pytest.mark.parametrize(
    ("fields", "count"),
    [({}, 54_408_833), ({"labels": ["tumor"]}, 54_409_857)],
)
def test_the_generator_has_as_many_parameters_as_the_published_one(
    fields: dict[str, Any], count: int
) -> None:
    with torch.device("meta"):
        assert size(Pix2PixGenerator(**fields)) == count


def test_for_128_pixels_it_has_a_level_less() -> None:
    with torch.device("meta"):
        generator = Pix2PixGenerator(levels=7, patch_sizes=[128])
        assert size(generator) == 54_408_833 - 3 * 512 * 512 * 16 - 2 * 2 * 512
        assert generator(torch.empty(1, 2, 128, 128)).shape == (1, 1, 128, 128)


def test_a_painting_depends_on_its_seed_alone(folder: Path) -> None:
    patches = [a_patch(n) for n in range(4)]
    together = paint(folder, patches, [1, 2, 3, 4])
    moved = paint(folder, [a_patch(9), a_patch(8), a_patch(7), patches[0]], [5, 6, 7, 1])
    assert np.array_equal(together[0], moved[3])
    other_seed = paint(folder, patches, [5, 2, 3, 4])
    assert np.array_equal(together[1], other_seed[1])
    inside = patches[0].mask
    assert (together[0] != other_seed[0])[inside].any()
    assert np.array_equal(together[0][~inside], patches[0].image[~inside])


def test_what_the_hole_shows_has_no_influence_and_the_label_has(folder: Path) -> None:
    patch = a_patch(0)
    hidden = np.where(patch.mask, np.float32(0.9), patch.image)
    other = Patch(hidden, patch.mask, patch.own, 1, SOFT_TISSUE, (1.0, 1.0), (0, 0), (1.0, 1.0))
    once, again = (paint(folder, [one], [3])[0] for one in (patch, other))
    assert np.array_equal(once, again)
    labelled = paint(folder, [a_patch(0, label=2)], [3])[0]
    assert (once != labelled)[patch.mask].any()


def test_without_dropout_the_seed_changes_nothing(folder: Path) -> None:
    generator = Pix2PixGenerator(levels=4, base_channels=4, dropout=0.0, patch_sizes=[32])
    image, mask = torch.rand(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
    condition = generator.condition(image, mask, torch.zeros(1, dtype=torch.int64))
    drawn = [generator(condition, [torch.Generator().manual_seed(seed)]) for seed in (1, 2)]
    assert torch.equal(*drawn)


@pytest.mark.parametrize("setting", ["num_inference_steps", "scheduler", "guidance_scale"])
def test_settings_of_a_schedule_are_refused(folder: Path, setting: str) -> None:
    stated = {"num_inference_steps": 20, "scheduler": "ddim", "guidance_scale": 2.0}
    files = find_checkpoint(str(folder))
    inpaint = Diffusion(checkpoint=str(folder), **{setting: stated[setting]})
    (problem,) = setting_problems(files, inpaint, ("kidney",))
    assert problem.location == ("inpaint", setting)
    assert problem.message == (
        f"checkpoint 'tiny' is a Pix2Pix checkpoint, which paints in one pass; remove {setting}"
    )
    assert not list(setting_problems(files, Diffusion(checkpoint=str(folder)), ("kidney",)))


def test_diffusers_loads_the_folder(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "Pix2PixInpaintPipeline"
    theirs = synthct.Pix2PixInpaintPipeline.from_pretrained(folder).generator.state_dict()
    ours = load_checkpoint(str(folder))["generator"].state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())
    assert find_checkpoint(str(folder)).network is Pix2Pix


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "generator/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    write_sums(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": 5}, r"patch_sizes \[48\] are not multiples of 2 \*\* levels = 32"),
        ({"levels": 3}, r"tensor .* the config expects"),
        ({"dropout": 1.0}, "dropout: Input should be less than 1"),
        ({"codecs": {"default": "lung", "liver": "lung"}}, "codecs: 'liver' is not one of its"),
        ({"attention": 1}, "attention: Extra inputs are not permitted"),
    ],
)
def test_a_config_of_another_network_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write_gan(tmp_path / "bad")
    change_config(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(folder))


@pytest.mark.parametrize("what", ["missing", "extra", "nan"])
def test_weights_must_be_exactly_those_of_the_config(tmp_path: Path, what: str) -> None:
    folder = write_gan(tmp_path / "bad")
    path = folder / "generator/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = "decoder.0.1.weight"
    if what == "missing":
        del tensors[name]
    elif what == "extra":
        tensors["decoder.9.weight"] = torch.zeros(1)
    else:
        tensors[name][0] = torch.nan
    save_file(tensors, path)
    write_sums(folder)
    with pytest.raises(CheckpointError, match=r"tensor decoder\.[09]"):
        load_checkpoint(str(folder))
