"""Remade slices: grain, sharpness and pixel size drawn anew, and the slices before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_NETWORK, make_tiny_case
from training_recipes import TINY_MODEL, open_set, tiny_recipe

from synthct.masks.base import Mask, make_mask
from synthct.masks.slicing import slice_of
from synthct.models.patch import PatchRules
from synthct.training import remake
from synthct.training.data import PatchBatches
from synthct.training.remake import MaskedCrop, MaskPart, draw_noise, remake_slice, without_grain
from synthct.training.sections import DataSection

RULES = PatchRules.from_config(
    {
        **TINY_NETWORK,
        **TINY_MODEL,
        "labels": ["kidney"],
        "neighbours": 2,
        "spacing_range_mm": [0.5, 3],
    }
)
PLAIN = {"blur_share": 0.0, "noise_share": 0.0}


def cube() -> Mask:
    """A mask of 8 x 8 x 10 voxels in the tiny case."""
    host = make_tiny_case()
    return make_mask(host, np.ones((8, 8, 10), dtype=bool), (18, 14, 8), None, {})


def remade(seed: int = 0, index: int = 12, **data: Any) -> MaskedCrop:
    mask = cube()
    flat = slice_of(mask, "axial", {"slice_index": index, "part": None})
    rng = np.random.default_rng(seed)
    section = DataSection.model_validate(data)
    return remake_slice(make_tiny_case().scan(), MaskPart(mask, flat, "axial"), section, RULES, rng)


def test_tissue_without_grain_keeps_its_edges_and_loses_its_noise():
    rng = np.random.default_rng(0)
    truth = np.where(np.arange(80) < 40, 0, 150)[None].repeat(80, axis=0)
    noisy = (truth + rng.normal(0, 20, truth.shape)).astype(np.float32)
    clean = without_grain(noisy)
    assert (clean - truth)[:, 8:32].std() < 8
    edge = clean[:, 42].mean() - clean[:, 37].mean()
    assert edge == pytest.approx(150, abs=15)
    # Lung and air say nothing about noise in tissue.
    assert without_grain(noisy - 800) is not None
    assert np.array_equal(without_grain(noisy - 800), noisy - 800)


def test_drawn_noise_has_its_strength_and_another_colour_each_time():
    rng = np.random.default_rng(1)
    kernels = [draw_noise((64, 64), 12.0, rng, 3) for _ in range(12)]
    assert all(noise.std() == pytest.approx(12, rel=1e-3) for noise in kernels)
    neighbours = [np.corrcoef(n[:, :, 1:].ravel(), n[:, :, :-1].ravel())[0, 1] for n in kernels]
    assert max(neighbours) - min(neighbours) > 0.4
    assert abs(np.corrcoef(kernels[0][0].ravel(), kernels[0][1].ravel())[0, 1]) < 0.3


def test_only_the_surroundings_have_grain_if_none_is_painted():
    one = remade(grain={**PLAIN, "noise_hu": [30, 30], "noise_share": 1.0, "painted": False})
    inside = one.region.array
    before = make_tiny_case().scan().array[:, :, 12:13]
    noise, left = ((one.array - before)[inside].std() for one in (one.plane, one.target))
    assert noise > 25
    assert left < 0.7 * noise  # edges, of which the small mask is full, stay as they are
    both = remade(grain={**PLAIN, "noise_hu": [30, 30], "noise_share": 1.0})
    assert np.array_equal(both.plane.array, both.target.array)


def test_pixels_of_another_size_show_the_same_tissue_in_the_same_place():
    for seed in range(4):
        one, scan = remade(seed, zoom=[0.7, 1.4]), make_tiny_case().scan()
        spacing = one.plane.spacing_mm
        assert spacing[0] == pytest.approx(spacing[1])
        assert spacing[2] == pytest.approx(2.5)
        area = one.region.array.sum() * spacing[0] * spacing[1]
        assert area == pytest.approx(64 * 0.8**2, rel=0.25)
        middle = one.region.affine @ [*np.argwhere(one.region.array).mean(axis=0), 1]
        np.testing.assert_allclose(middle, scan.affine @ [21.5, 17.5, 12, 1], atol=0.6)
        hu = one.plane.array[one.region.array].mean()
        assert hu == pytest.approx(scan.array[18:26, 14:22, 12].mean(), abs=8)


def test_pixels_stay_within_the_spacing_that_the_network_takes():
    fine = [remade(seed, zoom=[0.5, 0.7]).plane.spacing_mm[0] for seed in range(12)]
    assert min(fine) == pytest.approx(0.5)
    assert max(fine) > 0.51


def test_neighbours_are_told_as_far_as_they_would_be_known(monkeypatch):
    monkeypatch.setattr(remake, "_NONE", 0.0)
    scan = make_tiny_case().scan().array
    states = set()
    for seed in range(20):
        one = remade(seed)
        assert one.neighbours is not None
        inside = one.region.array[:, :, 0]
        shape = inside.shape
        for side, index in enumerate((11, 13)):
            told, truth = one.neighbours[side], scan[: shape[0], : shape[1], index]
            if np.isnan(told).all():
                states.add("nothing")
                continue
            # Outside its mask it is the scan.
            assert np.array_equal(told[~inside], truth[~inside])
            if np.isnan(told[inside]).all():
                states.add("outside")
            else:  # a painting: not the scan, but near it
                states.add("whole")
                assert 0 < np.abs(told[inside] - truth[inside]).mean() < 60
    assert states == {"nothing", "outside", "whole"}


def test_beyond_its_end_a_mask_has_real_neighbours_and_a_scan_has_none(monkeypatch):
    monkeypatch.setattr(remake, "_NONE", 0.0)
    scan, mask = make_tiny_case().scan(), cube()
    for seed in range(8):
        one = remade(seed, index=17)  # the mask's last slice
        assert one.neighbours is not None
        after = one.neighbours[1]
        assert np.isnan(after).all() or np.array_equal(after, scan.array[:, :, 18])
    top = make_mask(make_tiny_case(), mask.region.array, (18, 14, 14), None, {})
    flat = slice_of(top, "axial", {"slice_index": 23, "part": None})
    for seed in range(8):
        rng = np.random.default_rng(seed)
        one = remake_slice(scan, MaskPart(top, flat, "axial"), DataSection(), RULES, rng)
        assert one.neighbours is None or np.isnan(one.neighbours[1]).all()


def test_batches_hold_what_was_remade(kits_root, tmp_path):
    recipe = tiny_recipe(
        kits_root,
        model={**TINY_MODEL, "neighbours": 2},
        data={
            "patches": 24, "patches_per_mask": 2, "flip": 0.5, "join_masks": 1.0,
            "grain": {**PLAIN, "noise_hu": [40, 40], "noise_share": 1.0, "painted": False},
        },
    )  # fmt: skip
    data = open_set(recipe, tmp_path)
    batches = PatchBatches(recipe, data.patches)
    told = 0
    for number in range(6):
        batch = batches[number]
        masked = batch["mask"] > 0.5
        inside, outside = (
            [
                float(torch.diff(x, dim=-1)[..., w[..., 1:] & w[..., :-1]].std())
                for x, w in zip(batch["image"], where, strict=True)
                if w.any()
            ]
            for where in (masked, ~masked)
        )
        assert np.median(inside) < 0.5 * np.median(outside)
        if "neighbours" in batch:
            known = ~batch["neighbours"].isnan().all(dim=(1, 2, 3))
            told += int(known.sum())
            assert batch["neighbours"].shape[1:] == (2, *batch["image"].shape[2:])
            assert batch["neighbours"].nan_to_num(0).abs().max() <= 1
    assert told > 3
