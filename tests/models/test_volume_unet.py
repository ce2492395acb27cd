"""The network in 3D: what it looks at, and regions that are larger than its boxes."""

from __future__ import annotations

import inspect
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from tiny_volume import TINY_VOLUME, tiny_unet, write_tiny_volume

from synthct.errors import CheckpointError
from synthct.models.blend import box_weight
from synthct.models.checkpoint import load_checkpoint
from synthct.models.denoiser import smooth_fill
from synthct.models.region import boxes_in
from synthct.models.volume_config import VolumeConfig
from synthct.models.volume_unet import (
    VolumeInpaintPipeline,
    VolumeUNet,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def make_inputs(sides: tuple[int, int, int] = (32, 32, 8)) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    noisy, masked = torch.randn((2, 2, 1, *sides), generator=g)
    mask = (torch.rand((2, 1, *sides), generator=g) > 0.5).float()
    return noisy, torch.tensor([10, 500]), masked, mask, torch.tensor([0, 2]), torch.ones(2, 3)


def test_its_arguments_are_the_fields_of_its_config() -> None:
    known = inspect.signature(VolumeUNet.__init__).parameters
    assert set(known) - {"self"} == set(VolumeConfig.model_fields)
    with torch.device("meta"):
        whole = VolumeUNet()
    assert sum(p.numel() for p in whole.parameters()) < 1.5e6


def test_network_looks_at_every_input_and_at_all_slices() -> None:
    unet, inputs = tiny_unet(), make_inputs()
    before = unet(*inputs)
    assert before.shape == (2, 1, 32, 32, 8)
    changed = [inputs[0] * 0.9, inputs[1] + 100, inputs[2] * 0.9, 1 - inputs[3]]
    changed += [torch.tensor([1, 3]), inputs[5] * 2]
    for n, value in enumerate(changed):
        after = unet(*inputs[:n], value, *inputs[n + 1 :])
        assert (after - before).abs().amax(dim=(1, 2, 3, 4)).min() > 1e-5, n
    noisy = inputs[0].clone()
    noisy[..., 0] += 1
    apart = (unet(noisy, *inputs[1:]) - before).abs().amax(dim=(0, 1, 2, 3))
    assert (apart > 1e-6).all(), "the first slice matters to all others"


def test_the_bits_of_a_sample_do_not_depend_on_the_memory_layout_of_its_companions() -> None:
    unet, inputs = tiny_unet(), make_inputs()
    alone = [unet(*(one[n : n + 1] for one in inputs)) for n in (0, 1)]
    assert torch.allclose(unet(*inputs), torch.cat(alone), atol=1e-4)


@pytest.mark.parametrize(
    ("sides", "box", "count"),
    [((32, 32, 8), (32, 32, 8), 1), ((33, 32, 8), (32, 32, 8), 2), ((80, 56, 14), (32, 32, 8), 12)],
)
def test_boxes_overlap_and_cover_all(
    sides: tuple[int, ...], box: tuple[int, ...], count: int
) -> None:
    covered = torch.zeros(sides)
    places = list(boxes_in(sides, box))
    for place in places:
        covered[place] += box_weight(box)
    assert len(places) == count
    assert covered.min() > 0
    for axis, side in enumerate(box):
        starts = sorted({place[axis].start for place in places})
        assert starts[-1] + side == sides[axis]
        assert all(b - a <= side - int(0.25 * side) for a, b in pairwise(starts))


def paint(unet: VolumeUNet, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    noise = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    made = VolumeInpaintPipeline(unet, noise)(
        image, mask, torch.zeros(len(image), dtype=torch.long), torch.ones(len(image), 3),
        [torch.Generator().manual_seed(n) for n in range(len(image))], num_inference_steps=2,
    )  # fmt: skip
    assert isinstance(made, torch.Tensor)
    return made


def test_a_large_region_is_blended_from_its_boxes_at_every_step() -> None:
    unet, calls = tiny_unet(), []
    unet.register_forward_hook(lambda _, given, out: calls.append(given[0].shape))
    image, mask = torch.full((1, 1, 64, 48, 12), 0.2), torch.zeros(1, 1, 64, 48, 12)
    mask[:, :, 8:56, 8:40, 2:10] = 1
    painted = paint(unet, image, mask)
    assert calls == [(1, 1, 32, 32, 8)] * 2 * (3 * 2 * 2)  # twice all boxes
    assert torch.equal(painted[mask == 0], image[mask == 0])
    mask[:, :, 30:] = 0
    calls.clear()
    paint(unet, image, mask)
    assert len(calls) == 2 * (2 * 2 * 2), "boxes without any of the mask are left out"


def test_too_small_a_region_is_refused() -> None:
    image = torch.zeros(1, 1, 32, 32, 4)
    with pytest.raises(ValueError, match="smaller than"):
        paint(tiny_unet(), image, image)
    with pytest.raises(ValueError, match=r"\(B, 1, H, W, D\)"):
        paint(tiny_unet(), image[..., 0], image[..., 0])


def test_smooth_fill_goes_through_the_slices() -> None:
    ramp = torch.linspace(-1, 1, 16).expand(1, 1, 32, 32, 16)
    known = torch.ones(1, 1, 32, 32, 16)
    known[:, :, 8:24, 8:24, 4:12] = 0
    filled = smooth_fill(ramp, known)
    assert torch.equal(filled[known == 1], ramp[known == 1])
    assert (filled - ramp).abs().max() < 0.12


def test_weights_must_be_those_of_the_config(tmp_path: Path) -> None:
    folder = write_tiny_volume(tmp_path / "tiny")
    unet = load_checkpoint(str(folder))["unet"]
    assert torch.equal(unet(*make_inputs()), tiny_unet()(*make_inputs()))
    path = folder / "unet/config.json"
    path.write_text(path.read_text().replace('"layers_per_block": 1', '"layers_per_block": 2'))
    with pytest.raises(CheckpointError, match="the config expects"):
        load_checkpoint(str(folder))
    path.write_text(path.read_text().replace('"depth": 8', '"depth": 1'))
    with pytest.raises(CheckpointError, match="depth"):
        load_checkpoint(str(folder))
    assert TINY_VOLUME["depth"] == 8


def test_plain_diffusers_loads_the_checkpoint(tmp_path: Path) -> None:
    pipeline = VolumeInpaintPipeline.from_pretrained(write_tiny_volume(tmp_path / "tiny"))
    assert torch.equal(pipeline.unet(*make_inputs()), tiny_unet()(*make_inputs()))
