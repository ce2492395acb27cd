"""Med-DDPM: the published network, and both ways to keep what is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_volume import TINY_MED_DDPM, tiny_med_ddpm
from training_recipes import tiny_recipe

pytest.importorskip("monai")
pytest.importorskip("einops")

from synthct.errors import CheckpointError
from synthct.models import med_ddpm_config
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.med_ddpm import MedDDPMInpaintPipeline, MedDDPMUNet
from synthct.models.med_ddpm_config import MedDDPMSection
from synthct.models.methods import Diffusion
from synthct.training.denoising import build_unet
from synthct.training.loss import make_schedule, masked_loss
from synthct.training.objectives import make_objective
from synthct.training.objectives.med_ddpm import MedDDPMObjective
from synthct.training.sections import NoiseSection

pytestmark = pytest.mark.usefixtures("one_thread")

NOISE = NoiseSection(prediction_type="epsilon", loss="l1", num_train_timesteps=50)
SIDES = (1, 1, 16, 16, 8)


def test_the_published_network_has_its_number_of_parameters() -> None:
    with torch.device("meta"):
        unet = MedDDPMUNet()
    assert sum(p.numel() for p in unet.parameters()) == 40_226_433


def inputs() -> dict[str, torch.Tensor]:
    """A smooth box whose middle is masked."""
    a, b = torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 8)
    image = torch.sin(3 * a)[:, None, None] * torch.cos(2 * a)[None, :, None] * b
    mask = torch.zeros(SIDES)
    mask[:, :, 4:12, 4:12, 2:6] = 1
    return {
        "image": image.expand(SIDES).contiguous(),
        "mask": mask,
        "label": torch.zeros(1, dtype=torch.long),
        "spacing_mm": torch.ones(1, 3),
    }


def paint(unet: MedDDPMUNet, steps: int) -> torch.Tensor:
    given, pipeline = inputs(), MedDDPMInpaintPipeline(unet, make_schedule(NOISE, "epsilon"))
    painted = pipeline(
        given["image"], given["mask"], given["label"], given["spacing_mm"],
        [torch.Generator().manual_seed(1)], num_inference_steps=steps,
    )  # fmt: skip
    assert isinstance(painted, torch.Tensor)
    return painted


@pytest.mark.parametrize("known_region", ["clean", "blended"])
def test_the_known_region_is_seen_clean_or_with_its_noise(known_region: Any) -> None:
    unet, seen = tiny_med_ddpm(known_region=known_region), list[torch.Tensor]()
    unet.register_forward_hook(lambda _, given, out: seen.append(given[0]))
    painted, given = paint(unet, 3), inputs()
    known = given["mask"] == 0
    assert torch.equal(painted[known], given["image"][known])
    assert not torch.equal(painted[~known], given["image"][~known])
    apart = [float((one - given["image"])[known].abs().mean()) for one in seen]
    if known_region == "clean":
        assert apart == [0, 0, 0]
    else:  # less noise at each step
        assert apart[0] > apart[1] > apart[2] > 0.02
    unet.train()
    seen.clear()
    masked_loss(unet, NOISE, given, torch.Generator().manual_seed(0))
    assert bool((seen[0] == given["image"])[known].all()) == (known_region == "clean")


def test_a_recipe_trains_one_and_its_checkpoint_is_read_strictly(
    kits_template: Path, tmp_path: Path
) -> None:
    masks = [{"name": "kidneys", "kind": "organ", "label": "kidney"}]
    model = {"kind": "med_ddpm", **TINY_MED_DDPM, "codecs": {"default": "soft_tissue"}}
    noise = {"prediction_type": "epsilon", "loss": "l1", "num_train_timesteps": 250}
    recipe = tiny_recipe(kits_template, masks=masks, model=model, noise=noise)
    assert isinstance(recipe.model, MedDDPMSection)
    objective = make_objective(recipe)
    assert isinstance(objective, MedDDPMObjective)
    assert objective.rules.depth == 8
    objective.pipeline().save_pretrained(tmp_path / "made")
    files = find_checkpoint(str(tmp_path / "made"))
    assert files.scheduler_config["num_train_timesteps"] == 250
    loaded = load_checkpoint(files)["unet"]
    state = objective.unet.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    more = tiny_recipe(kits_template, masks=masks, model=model,
                       from_checkpoint=str(tmp_path / "made"))  # fmt: skip
    again = make_objective(more)
    assert all(torch.equal(v, state[n]) for n, v in again.networks["unet"].state_dict().items())
    assert build_unet(recipe).config.known_region == "clean"


def test_it_is_told_the_label_if_it_paints_several(kits_template: Path) -> None:
    unet, given, seen = tiny_med_ddpm(labels=("kidney", "liver")), inputs(), list[torch.Tensor]()
    unet.unet.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    for label in range(3):
        asked = torch.full((1,), label)
        unet(given["image"], torch.zeros(1), given["image"], given["mask"], asked,
             given["spacing_mm"])  # fmt: skip
    nothing = torch.zeros_like(given["mask"])
    for planes, want in zip(seen, ((0, 0), (1, 0), (0, 1)), strict=True):
        told = torch.cat([given["mask"] if n else nothing for n in want], dim=1)
        assert torch.equal(planes[:, 3:], told)
    assert tiny_med_ddpm(labels=("kidney",)).unet.conv_in.in_channels == 3


def test_a_label_that_it_is_not_told_is_refused(kits_template: Path) -> None:
    model = {"kind": "med_ddpm", **TINY_MED_DDPM}
    masks = [{"name": "kidneys", "kind": "organ", "label": "kidney"},
             {"name": "blobs", "kind": "blob", "radius_mm": [6, 9]}]  # fmt: skip
    with pytest.raises(ValueError, match="told what to paint from 2 labels on; give all masks"):
        tiny_recipe(kits_template, model=model, masks=masks)
    with pytest.raises(ValueError, match="multiples of 4"):
        tiny_recipe(kits_template, model={**model, "depth": 6})


def test_without_monai_it_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = MedDDPMInpaintPipeline(tiny_med_ddpm(), make_schedule(NOISE, "epsilon"))
    pipeline.save_pretrained(tmp_path)
    files = find_checkpoint(str(tmp_path))
    monkeypatch.setattr(med_ddpm_config, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"monai and einops; run: pip install"):
        files.network.rules(files, Diffusion(checkpoint=str(tmp_path)), [None])


@pytest.mark.slow
def test_it_overfits_one_box() -> None:
    unet = tiny_med_ddpm(block_out_channels=(8, 16, 16), clip_denoised=True)
    given = {name: value.expand(4, *value.shape[1:]) for name, value in inputs().items()}
    single = inputs()
    inside = single["mask"] > 0

    def error() -> float:
        unet.eval()
        return float((paint(unet, 50) - single["image"])[inside].abs().mean())

    first = error()
    unet.train().requires_grad_(True)
    adam, generator = torch.optim.Adam(unet.parameters(), lr=3e-3), torch.Generator()
    generator.manual_seed(0)
    for step in range(500):
        for group in adam.param_groups:
            group["lr"] = 3e-3 * min(1, (500 - step) / 250)
        adam.zero_grad()
        masked_loss(unet, NOISE, given, generator).backward()
        adam.step()
    assert error() < first / 10
