"""The Palette network: what it looks at, and the guess it starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synthct.models.checkpoint import load_checkpoint
from synthct.models.denoiser import smooth_fill
from synthct.models.palette import PaletteUNet


def make_inputs(size: int = 16) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    noisy, masked = torch.randn((2, 2, 1, size, size), generator=g)
    mask = (torch.rand((2, 1, size, size), generator=g) > 0.5).float()
    return noisy, torch.tensor([10, 500]), masked, mask, torch.tensor([0, 2]), torch.ones(2, 2)


@pytest.mark.parametrize("fold", [1, 2, 4])
def test_output_has_the_shape_of_the_patch(fold: int) -> None:
    torch.manual_seed(0)
    unet = PaletteUNet(
        ("kidney", "tumor"),
        block_out_channels=(8, 8),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=4,
        fold=fold,
    ).eval()
    assert unet.size_multiple == 2 * fold
    assert unet(*make_inputs()).shape == (2, 1, 16, 16)


def test_network_looks_at_every_input(tiny_checkpoint: Path) -> None:
    unet = load_checkpoint(str(tiny_checkpoint))["unet"]
    inputs = make_inputs()
    before = unet(*inputs)
    changed = [inputs[0] * 0.9, inputs[1] + 100, inputs[2] * 0.9, 1 - inputs[3]]
    changed += [torch.tensor([1, 3]), inputs[5] * 2]
    for n, value in enumerate(changed):
        after = unet(*inputs[:n], value, *inputs[n + 1 :])
        assert (after - before).abs().amax(dim=(1, 2, 3)).min() > 1e-4, n


def test_defaults_are_the_palette_preset() -> None:
    with torch.device("meta"):
        unet = PaletteUNet()
    config = unet.unet.config
    assert config.block_out_channels == (64, 128, 256, 512)
    assert (config.layers_per_block, config.dropout, config.attention_head_dim) == (2, 0.2, 32)
    assert set(config.down_block_types) == {"DownBlock2D"}
    assert 50e6 < sum(p.numel() for p in unet.parameters()) < 70e6


def test_smooth_fill_fills_from_outside_only() -> None:
    image, mask = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    image[..., :16], image[..., 16:] = -0.5, 0.75
    mask[..., 8:20, 5:28] = 1
    filled = smooth_fill(image, 1 - mask)
    assert torch.equal(filled[mask == 0], image[mask == 0])
    assert filled.min() >= -0.5 - 1e-6
    assert filled.max() <= 0.75 + 1e-6
    assert filled[0, 0, 14, 6] < 0 < filled[0, 0, 14, 26]
    poisoned = torch.where(mask > 0, 1e3, image)
    assert torch.equal(smooth_fill(poisoned, 1 - mask), filled)


@pytest.mark.parametrize("size", [24, 32, 6, 7])
def test_smooth_fill_keeps_a_constant_and_takes_any_size(size: int) -> None:
    image, mask = torch.full((2, 1, size, size), 0.3), torch.zeros(2, 1, size, size)
    mask[:, :, 1:-1, 2:-1] = 1
    assert smooth_fill(image, 1 - mask) == pytest.approx(0.3, abs=1e-5)
    assert torch.isfinite(smooth_fill(image, torch.zeros_like(mask))).all()


def make_unet(neighbours: int, residual_scale: float | None = 2.0) -> PaletteUNet:
    torch.manual_seed(0)
    return PaletteUNet(
        ("kidney", "tumor"),
        block_out_channels=(8, 8),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=4,
        fold=2,
        residual_scale=residual_scale,
        neighbours=neighbours,
    ).eval()


def test_neighbours_that_are_not_known_say_nothing() -> None:
    unet, inputs = make_unet(2), make_inputs()
    image, mask = inputs[2], inputs[3]
    around = unet.surroundings(image, mask)
    unknown = torch.full((2, 2, 16, 16), torch.nan)
    told = unet.neighbour_channels(unknown, around)
    assert told is not None
    assert torch.equal(told, torch.zeros_like(unknown))
    assert torch.equal(unet(*inputs, told), unet(*inputs))
    known = unknown.clone()
    known[:, 1, 4:9, 4:9] = 0.4
    told = unet.neighbour_channels(known, around)
    assert told is not None
    expected = 2 * (0.4 - around[:, 0, 4:9, 4:9])
    assert torch.allclose(told[:, 1, 4:9, 4:9], expected)
    assert torch.count_nonzero(told) == 2 * 25
    assert not torch.allclose(unet(*inputs, told), unet(*inputs))


def test_a_network_without_neighbours_is_told_nothing() -> None:
    unet, inputs = make_unet(0), make_inputs()
    around = unet.surroundings(inputs[2], inputs[3])
    assert unet.neighbour_channels(torch.zeros(2, 2, 16, 16), around) is None
