"""Training patches: sizes, labels, masks and streams of the batches, and coarser copies."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import KIDNEY_HU, make_tiny_case
from training_recipes import batches_of, read_set, tiny_recipe

from synthct.errors import MaskError, RecipeError
from synthct.training import data as training_data
from synthct.training.data import TrainingSet, coarser, collate, draw_batches

IMPOSSIBLE = {"name": "none", "kind": "organ", "label": "kidney", "margin_mm": -30}


@pytest.fixture
def tiny_set(kits_root: Path, tmp_path: Path) -> TrainingSet:
    """The two cases with an image of ``kits_root``."""
    return read_set(tiny_recipe(kits_root), tmp_path / "cache")


def take(batches, count):
    return list(islice(iter(batches), count))


def world(affine, ijk):
    return np.asarray(ijk) @ affine[:3, :3].T + affine[:3, 3]


# -- coarser copies ---------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 3])
def test_coarse_voxels_lie_in_the_middle_of_their_blocks(factor):
    fine = make_tiny_case()
    coarse = coarser(fine, factor)
    assert coarse.scan().shape == (48 // factor, 40 // factor, 24)
    for at in [(0, 0, 0), (5, 7, 3), (11, 12, 23)]:
        sides = (factor, factor, 1)
        block = np.indices(sides).reshape(3, -1).T + np.multiply(at, sides)
        middle = world(fine.scan().affine, block).mean(axis=0)
        np.testing.assert_allclose(world(coarse.scan().affine, at), middle, atol=1e-9)
    assert np.array_equal(coarse.labels.affine, coarse.scan().affine)


@pytest.mark.parametrize("factor", [2, 3])
def test_coarse_labels_stay_within_half_a_voxel_of_where_they_were(factor):
    fine = make_tiny_case()
    coarse = coarser(fine, factor)
    for value in (1, 2):
        places = world(fine.labels.affine, np.argwhere(fine.labels.array == value))
        for point in world(coarse.labels.affine, np.argwhere(coarse.labels.array == value)):
            # Half a voxel of the scan along each in-plane axis.
            assert np.linalg.norm(places - point, axis=1).min() <= 0.8 / np.sqrt(2) + 1e-9


def test_coarse_hu_are_the_means_of_their_blocks():
    fine = make_tiny_case()
    coarse = coarser(fine, 2).scan().array
    assert coarse.dtype == np.int16
    assert coarse.mean() == pytest.approx(fine.scan().array.mean(), abs=0.05)
    block = fine.scan().array[20:22, 18:20, 12]
    assert coarse[10, 9, 12] == np.rint(block.mean())
    assert coarse[13, 10, 12] == pytest.approx(KIDNEY_HU, abs=12)


def test_a_coarse_copy_is_another_scan_of_the_same_patient():
    coarse = coarser(make_tiny_case(), 3)
    assert (coarse.case_id, coarse.patient_id) == ("tiny/3", "tiny")
    assert coarse.region("tumor").any()


# -- the set ----------------------------------------------------------------------------------


def test_set_holds_the_cases_with_an_image_and_says_what_they_are(kits_root, tmp_path):
    data = read_set(tiny_recipe(kits_root), tmp_path)
    assert [case.case_id for case, _ in data.hosts] == ["case_00000", "case_00001"]
    assert len(data.facts) == 3  # the third was read, too, if only for its labels
    first = data.facts[0]
    assert set(first) == {
        "source", "layout", "case_id", "patient_id", "licence", "voxel_sha256",
    }  # fmt: skip
    assert len(first["voxel_sha256"]) == 64
    assert str(kits_root) not in str(data.facts)


def test_weight_of_a_source_is_shared_by_its_cases_and_their_coarse_copies(kits_root, tmp_path):
    recipe = tiny_recipe(
        kits_root,
        sources={"scans": {"layout": "kits23", "root": kits_root, "cases": ["case_0000[01]"]}},
        data={"source_weights": {"scans": 3}, "coarsen": 0.25},
    )
    hosts = read_set(recipe, tmp_path).hosts
    assert [case.case_id for case, _ in hosts[:3]] == [
        "case_00000", "case_00000/2", "case_00000/3",
    ]  # fmt: skip
    weights = [weight for _, weight in hosts]
    assert weights == pytest.approx([1.125, 0.1875, 0.1875] * 2)


def test_set_without_an_image_is_an_error(kits_root, tmp_path):
    bare = {"scans": {"layout": "kits23", "root": kits_root, "cases": ["case_00002"]}}
    with pytest.raises(RecipeError, match="no case of its sources has an image"):
        read_set(tiny_recipe(kits_root, sources=bare), tmp_path)


# -- batches ----------------------------------------------------------------------------------


def test_every_batch_is_of_one_size_with_a_mask_in_each_patch(kits_root, tiny_set):
    batches = batches_of(tiny_recipe(kits_root), tiny_set)
    seen = set()
    for batch in take(batches, 20):
        count, one, size, same = batch["image"].shape
        assert (one, same) == (1, size)
        assert count == batches.patches_per_batch(size)
        assert batch["mask"].shape == batch["image"].shape
        assert batch["mask"].sum(dim=(1, 2, 3)).min() > 0
        assert set(batch["mask"].unique().tolist()) <= {0.0, 1.0}
        assert batch["image"].abs().max() <= 1
        np.testing.assert_allclose(batch["spacing_mm"], [[0.8, 0.8]] * count, rtol=1e-6)
        seen.add(size)
    assert seen == {48, 64}


def test_labels_are_numbered_in_the_order_of_the_masks(kits_root, tiny_set):
    recipe = tiny_recipe(kits_root)
    assert recipe.labels == ("kidney", "tumor")
    window = batches_of(recipe, tiny_set).rules.codec("kidney")
    seen = set()
    for batch in take(batches_of(recipe, tiny_set), 20):
        for image, mask, label in zip(batch["image"], batch["mask"], batch["label"], strict=True):
            seen.add(int(label))
            hu = window.decode(image[mask > 0.5].numpy())
            if label == 1:  # painted as kidney, which is brightest
                assert np.median(hu) == pytest.approx(180, abs=15)
            elif label == 2:
                assert np.median(hu) == pytest.approx(90, abs=15)
    assert seen == {0, 1, 2}


def test_equal_streams_give_equal_batches_and_others_do_not(kits_root, tiny_set):
    recipe = tiny_recipe(kits_root, data={"join_masks": 0.5, "shuffle_buffer": 24})
    streams = [("0", "0"), ("0", "0"), ("0", "1")]
    one, same, other = (take(batches_of(recipe, tiny_set, *names), 4) for names in streams)
    for a, b in zip(one, same, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(
        a["mask"].shape != b["mask"].shape or not torch.equal(a["mask"], b["mask"])
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(("size", "count"), [(64, 20), (96, 9), (128, 5), (192, 2), (256, 1)])
def test_batches_of_all_sizes_have_about_as_many_pixels(kits_root, tiny_set, size, count):
    recipe = tiny_recipe(kits_root, optim={"batch_size": 5})
    assert batches_of(recipe, tiny_set).patches_per_batch(size) == count


def test_a_huge_patch_still_makes_a_batch(kits_root, tiny_set):
    recipe = tiny_recipe(kits_root, optim={"batch_size": 1})
    assert batches_of(recipe, tiny_set).patches_per_batch(1024) == 1


def test_only_masks_of_whatever_fits_are_joined(kits_root, tiny_set):
    pair = {"patches_per_mask": 2, "shuffle_buffer": 24}
    alone = take(batches_of(tiny_recipe(kits_root, data=pair), tiny_set), 1)[0]
    joined = take(
        batches_of(tiny_recipe(kits_root, data={**pair, "join_masks": 1.0}), tiny_set), 1
    )[0]
    # The first batch is picked by the same draws, before any joining.
    assert torch.equal(alone["image"], joined["image"])
    assert torch.equal(alone["label"], joined["label"])
    assert (joined["mask"] >= alone["mask"]).all()
    grown = (joined["mask"] - alone["mask"]).sum(dim=(1, 2, 3)) > 0
    assert not grown[alone["label"] != 0].any()
    assert grown[alone["label"] == 0].any()


def test_flipped_patches_keep_their_masks_on_the_tissue(kits_root, tiny_set):
    recipe = tiny_recipe(
        kits_root,
        masks=[{"name": "tumors", "kind": "organ", "label": "tumor"}],
        data={"flip": 1.0, "shuffle_buffer": 8},
    )
    batches = batches_of(recipe, tiny_set)
    for batch in take(batches, 3):
        hu = batches.rules.codec("tumor").decode(batch["image"][batch["mask"] > 0.5].numpy())
        assert hu.mean() == pytest.approx(90, abs=3)


def test_a_view_that_would_need_resampling_becomes_axial(kits_root, tiny_set):
    narrow = {**tiny_recipe(kits_root).model.model_dump(), "spacing_range_mm": [0.5, 1.0]}
    recipe = tiny_recipe(
        kits_root, model=narrow, data={"views": {"coronal": 1.0}, "shuffle_buffer": 8}
    )
    batch = take(batches_of(recipe, tiny_set), 1)[0]
    np.testing.assert_allclose(batch["spacing_mm"][:, 1], 0.8, rtol=1e-6)


def test_coronal_patches_have_the_spacing_of_their_plane(kits_root, tiny_set):
    recipe = tiny_recipe(kits_root, data={"views": {"coronal": 1.0}, "shuffle_buffer": 8})
    batch = take(batches_of(recipe, tiny_set), 1)[0]
    np.testing.assert_allclose(batch["spacing_mm"][:, 1], 2.5, rtol=1e-6)


def test_transplants_take_shapes_of_other_patients(kits_root, tmp_path):
    masks = [
        {
            "name": "moved",
            "kind": "transplant",
            "label": "tumor",
            "into": "kidney",
            "donors": "scans",
            "accept": {"inside_fraction": 0.5, "organ_fraction": 0.6},
        },
    ]
    recipe = tiny_recipe(kits_root, masks=masks, data={"shuffle_buffer": 4})
    data = read_set(recipe, tmp_path)
    assert len(data.donors) == 3  # one of them without an image
    batch = take(batches_of(recipe, data), 1)[0]
    assert set(batch["label"].tolist()) == {1}


def test_batches_do_not_end(kits_root, tiny_set):
    few = {"shuffle_buffer": 4, "patches_per_mask": 4}
    assert len(take(batches_of(tiny_recipe(kits_root, data=few), tiny_set), 40)) == 40


# -- what cannot be drawn ---------------------------------------------------------------------


def test_a_section_that_no_case_can_serve_is_an_error_at_once(kits_root, tmp_path):
    masks = [{"name": "cysts", "kind": "organ", "label": "cyst"}]
    recipe = tiny_recipe(kits_root, masks=masks)
    with pytest.raises(RecipeError, match="masks 'cysts': no case has cyst; drop the section"):
        batches_of(recipe, read_set(recipe, tmp_path))


def test_a_section_without_a_donor_is_an_error_at_once(kits_root, tmp_path):
    masks = [
        {
            "name": "moved",
            "kind": "transplant",
            "label": "cyst",
            "into": "kidney",
            "donors": "scans",
        }
    ]
    recipe = tiny_recipe(kits_root, masks=masks)
    with pytest.raises(RecipeError, match="'moved': no case of 'scans' has cyst"):
        batches_of(recipe, read_set(recipe, tmp_path))


def test_masks_that_always_fail_end_with_the_reason_and_no_traceback_in_it(
    kits_root, tiny_set, monkeypatch
):
    monkeypatch.setattr(training_data, "MAX_FAILURES", 3)
    batches = batches_of(tiny_recipe(kits_root, masks=[IMPOSSIBLE]), tiny_set)
    with pytest.raises(MaskError, match=r"4 masks in a row .* leaves nothing of kidney") as caught:
        next(draw_batches(batches))
    assert "Traceback" not in str(caught.value)


def test_collate_stacks_patches(kits_root, tiny_set):
    drawn = batches_of(tiny_recipe(kits_root), tiny_set)._patches(np.random.default_rng(0))
    patches = [patch for patch in islice(drawn, 12) if patch.size == 64]
    batch = collate(patches)
    assert batch["image"].dtype == batch["mask"].dtype == torch.float32
    assert batch["label"].dtype == torch.int64
    assert torch.equal(batch["image"][0, 0], torch.from_numpy(patches[0].image))
