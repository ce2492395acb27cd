"""Training patches: who is held out, what is drawn, the cache on disk, and the batches from it."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import KIDNEY_HU, make_tiny_case, write_kits
from training_recipes import index_of, open_set, take, tiny_recipe

from synthct.errors import MaskError, RecipeError, ResourceError
from synthct.models.patch import PatchRules
from synthct.training import cache as training_cache
from synthct.training.coarse import coarser, thicker
from synthct.training.data import PatchBatches, batches_from
from synthct.training.denoising import build_unet
from synthct.training.draw import jitter_attenuation
from synthct.training.plan import hold_out, plan_jobs

KIDNEYS = {"name": "kidneys", "kind": "organ", "label": "kidney"}
IMPOSSIBLE = {"name": "none", "kind": "organ", "label": "kidney", "margin_mm": -30}
MOVED = {
    "name": "moved",
    "kind": "transplant",
    "label": "tumor",
    "into": "kidney",
    "donors": "scans",
    "accept": {"inside_fraction": 0.5, "organ_fraction": 0.6},
}


@pytest.fixture
def many_root(tmp_path: Path) -> Path:
    """A KiTS folder of six patients."""
    root = tmp_path / "many"
    for n in range(6):
        write_kits(root, make_tiny_case(f"case_{n:05d}", noise_seed=n))
    return root


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


def test_thick_slices_are_the_means_of_two_and_lie_between_them():
    thin = make_tiny_case()
    thick = thicker(thin)
    assert thick.scan().shape == (48, 40, 12)
    assert thick.scan().spacing_mm == pytest.approx((0.8, 0.8, 5.0))
    pair = thin.scan().array[:, :, 10:12].mean(axis=2)
    np.testing.assert_array_equal(thick.scan().array[:, :, 5], np.rint(pair))
    np.testing.assert_array_equal(thick.labels.array[:, :, 5], thin.labels.array[:, :, 10])
    both = world(thin.scan().affine, [(3, 4, 10), (3, 4, 11)])
    np.testing.assert_allclose(world(thick.scan().affine, (3, 4, 5)), both.mean(axis=0))


def test_attenuation_jitter_scales_what_lies_above_vacuum():
    plane = make_tiny_case().scan()
    moved = jitter_attenuation(plane, 0.05, np.random.default_rng(2)).array
    inside = plane.array > -500
    factor = np.median((moved[inside] + 1000.0) / (plane.array[inside] + 1000.0))
    assert 0.95 <= factor <= 1.05
    assert factor != pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(moved, (plane.array + 1000.0) * factor - 1000, atol=1.5)
    assert jitter_attenuation(plane, 0.0, np.random.default_rng(2)) is plane


# -- who is held out --------------------------------------------------------------------------


def patients(cases):
    return {case.patient_id for case in cases}


def test_held_out_patients_give_neither_scans_nor_shapes(many_root, tmp_path):
    same = {"case_00001": "case_00000"}  # one person with two scans
    recipe = tiny_recipe(
        many_root,
        sources={"scans": {"layout": "kits23", "root": many_root, "patients": same}},
        masks=[MOVED],
        validation={"share": 0.4},
    )
    trained, held = hold_out(recipe, index_of(recipe, tmp_path))
    assert len(patients(held.hosts)) == 2
    assert not patients(trained.cases) & patients(held.cases)
    assert patients(trained.cases) | patients(held.cases) == {
        f"case_{n:05d}" for n in (0, *range(2, 6))
    }
    for side, cast in (("train", trained), ("held-out", held)):
        for job in plan_jobs(recipe, cast, 40, side):
            assert job.donors
            assert job.host.patient_id in patients(cast.hosts)
            assert patients(job.donors) <= patients(cast.cases) - {job.host.patient_id}


def test_patients_can_be_held_out_by_name(many_root, tmp_path):
    recipe = tiny_recipe(many_root, validation={"patients": ["case_00004"]})
    trained, held = hold_out(recipe, index_of(recipe, tmp_path))
    assert patients(held.hosts) == {"case_00004"}
    assert len(trained.hosts) == 5


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["case_7"], r"no scan of a patient 'case_7' \(first of 2: case_00000, case_00001\)"),
        (["case_00002"], "no scan of a patient 'case_00002'"),  # has no image
        (["case_00000", "case_00001"], "holds out every patient; name fewer"),
    ],
)
def test_patients_who_cannot_be_held_out_are_an_error(kits_root, tmp_path, names, message):
    recipe = tiny_recipe(kits_root, validation={"patients": names})
    with pytest.raises(RecipeError, match=message):
        hold_out(recipe, index_of(recipe, tmp_path))


def test_a_single_patient_is_trained_on(kits_root, tmp_path):
    one = {"scans": {"layout": "kits23", "root": kits_root, "cases": ["case_00000"]}}
    recipe = tiny_recipe(kits_root, sources=one, validation={"masks": 3})
    data = open_set(recipe, tmp_path)
    assert not data.held_out
    assert {one.case_id for one in data.slices} == {"case_00000"}  # for the sample strip


def test_sources_without_an_image_are_an_error(kits_root, tmp_path):
    bare = {"scans": {"layout": "kits23", "root": kits_root, "cases": ["case_00002"]}}
    recipe = tiny_recipe(kits_root, sources=bare)
    with pytest.raises(RecipeError, match="no case of its sources has an image"):
        hold_out(recipe, index_of(recipe, tmp_path))


# -- what is drawn ----------------------------------------------------------------------------


def test_visits_go_by_the_weights_of_sections_and_sources(many_root, tmp_path):
    sources = {
        "scans": {"layout": "kits23", "root": many_root, "cases": ["case_0000[0-3]"]},
        "more": {"layout": "kits23", "root": many_root, "cases": ["case_00004"]},
    }
    data = {"source_weights": {"scans": 3}, "coarsen": 0.25, "thicken": 0.4}
    recipe = tiny_recipe(many_root, sources=sources, data=data)
    cast, _ = hold_out(recipe, index_of(recipe, tmp_path))
    jobs = plan_jobs(recipe, cast, 4000, "train")
    draws = [(job.host, draw) for job in jobs for draw in job.draws]
    assert sorted(draw.number for _, draw in draws) == list(range(4000))
    hosts = Counter(host.case_id for host, _ in draws)
    assert hosts["case_00004"] / 4000 == pytest.approx(1 / 4, abs=0.03)
    assert hosts["case_00000"] / 4000 == pytest.approx(3 / 16, abs=0.03)
    sections = Counter(draw.section for _, draw in draws)
    assert [sections[n] / 4000 for n in range(3)] == pytest.approx([0.5, 0.25, 0.25], abs=0.03)
    factors = Counter(draw.factor for _, draw in draws)
    assert factors[1] / 4000 == pytest.approx(0.75, abs=0.03)
    assert factors[2] / factors[3] == pytest.approx(1, abs=0.2)
    assert sum(draw.thick for _, draw in draws) / 4000 == pytest.approx(0.4, abs=0.03)


def test_thick_slices_are_not_made_thicker(many_root, tmp_path):
    recipe = tiny_recipe(many_root, data={"thicken": 1.0})
    cast, _ = hold_out(recipe, index_of(recipe, tmp_path))
    thick = [replace(host, affine=host.affine @ np.diag([1, 1, 2, 1])) for host in cast.hosts]
    for hosts, expected in ((cast.hosts, True), (tuple(thick), False)):
        jobs = plan_jobs(recipe, replace(cast, hosts=hosts), 20, "train")
        assert {draw.thick for job in jobs for draw in job.draws} == {expected}


def test_a_section_that_no_case_can_serve_is_an_error_at_once(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root, masks=[{"name": "cysts", "kind": "organ", "label": "cyst"}])
    with pytest.raises(RecipeError, match="masks 'cysts': no case to train on has cyst; drop"):
        open_set(recipe, tmp_path)


def test_a_section_without_a_donor_is_an_error_at_once(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root, masks=[{**MOVED, "label": "cyst"}])
    with pytest.raises(RecipeError, match=r"'moved': no other patient of 'scans' .* has cyst"):
        open_set(recipe, tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_masks_that_always_fail_end_with_the_reason_and_no_traceback_in_it(
    kits_root, tmp_path, workers
):
    recipe = tiny_recipe(kits_root, masks=[IMPOSSIBLE])
    with pytest.raises(
        MaskError, match=r"section could be drawn; none: .*leaves nothing"
    ) as caught:
        open_set(recipe, tmp_path, workers)
    assert "Traceback" not in str(caught.value)


@pytest.mark.long
def test_transplants_take_shapes_of_other_patients(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root, masks=[MOVED])
    data = open_set(recipe, tmp_path)
    assert [case.case_id for case in data.trained_on] == [f"case_{n:05d}" for n in range(3)]
    assert set(take(recipe, data, 1)[0]["label"].tolist()) == {1}


# -- the cache --------------------------------------------------------------------------------


def test_cached_patches_are_those_that_were_cut(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root, data={"patches": 12, "patches_per_mask": 1})
    data = open_set(recipe, tmp_path)
    assert len(data.patches) == 12
    for row in range(12):
        patch = data.patches.patch(row)
        assert patch.image.dtype == np.float32
        assert np.abs(patch.image).max() <= 1
        assert patch.mask.any()
        assert not patch.mask.all()
        assert patch.spacing_mm == pytest.approx((0.8, 0.8))
    # HU come back: the tiny scan has three plateaus with 5 HU of noise.
    codec = PatchRules.from_config(build_unet(recipe).config).codec(None)
    kidney = next(p for p in map(data.patches.patch, range(12)) if p.label == 1)
    assert np.median(codec.decode(kidney.image[kidney.mask])) == pytest.approx(180, abs=15)


def test_held_out_slices_come_back_whole(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root, validation={"masks": 9})
    first, again = open_set(recipe, tmp_path), open_set(recipe, tmp_path)
    (held,) = first.held_out
    assert len(first.slices) == 9
    for one, same in zip(first.slices, again.slices, strict=True):
        assert one.case_id == held.case_id
        assert one.plane.array.dtype == np.int16
        assert one.plane.shape == (48, 40, 1)
        assert np.array_equal(one.plane.array, same.plane.array)
        assert np.array_equal(one.region.array, same.region.array)
        assert np.array_equal(one.plane.affine, same.plane.affine)
        assert one.region.array.sum() == sum(patch.own.sum() for patch in one.patches)


def test_cache_is_the_same_whoever_draws_it(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root, validation={"masks": 3})
    one, two = open_set(recipe, tmp_path / "one"), open_set(recipe, tmp_path / "two", workers=2)
    files = [
        sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.arrow"))
        for name in ("one", "two")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 2
    for path in files[0]:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    assert len(one.patches) == len(two.patches) == 48


def test_cache_is_drawn_once_and_again_when_what_it_follows_from_changes(
    kits_root, tmp_path, monkeypatch
):
    recipe = tiny_recipe(kits_root)
    open_set(recipe, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(training_cache, "draw_masks", None)  # nothing is drawn any more
        open_set(recipe, tmp_path)
        open_set(tiny_recipe(kits_root, optim={"max_steps": 9}), tmp_path)
        with pytest.raises(TypeError):
            open_set(tiny_recipe(kits_root, seed=4), tmp_path)
    folders = {path.parent for path in (tmp_path / "patches").glob("*/*.arrow")}
    assert len(folders) == 1
    open_set(tiny_recipe(kits_root, seed=4), tmp_path)
    shutil.rmtree(kits_root / "case_00001")
    write_kits(kits_root, make_tiny_case("case_00001", noise_seed=7))
    open_set(recipe, tmp_path)
    assert len({path.parent for path in (tmp_path / "patches").glob("*/*.arrow")}) == 3


def test_what_a_kill_left_of_a_cache_is_not_taken_for_one(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root)
    open_set(recipe, tmp_path)
    (folder,) = {path.parent for path in (tmp_path / "patches").glob("*/*.arrow")}
    half = folder.rename(folder.with_name(f".{folder.name}.tmp"))
    (half / training_cache.PATCHES).write_bytes(b"cut short")
    assert len(open_set(recipe, tmp_path).patches) == 48
    assert folder.is_dir()
    assert not half.exists()


@pytest.mark.parametrize("name", ["patches.arrow", "held-out.arrow", "digests"])
def test_damaged_patches_are_cut_anew_and_told(kits_root, tmp_path, name, caplog):
    caplog.set_level("WARNING", "synthct")
    recipe = tiny_recipe(kits_root, validation={"masks": 3})
    open_set(recipe, tmp_path)
    (path,) = (tmp_path / "patches").glob(f"*/{name}")
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    assert len(open_set(recipe, tmp_path).patches) == 48
    assert path.read_bytes() == good
    (message,) = [one.getMessage() for one in caplog.records if one.name.startswith("synthct")]
    assert message.startswith(f"{path.parent} is damaged and made anew ({name}: ")


def test_patches_are_on_the_disk_before_they_have_their_name(kits_root, tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(training_cache, "sync_file", lambda path: events.append(path.name))
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda s, t: events.append("rename") or rename(s, t))
    open_set(tiny_recipe(kits_root), tmp_path)
    assert events == ["patches.arrow", "held-out.arrow", "rename"]


def test_a_full_disk_is_a_resource_error_and_leaves_nothing(kits_root, tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    recipe = tiny_recipe(kits_root)
    monkeypatch.setattr(training_cache, "_write", full_disk)
    with pytest.raises(ResourceError, match=r"No space left on device .* same command again"):
        open_set(recipe, tmp_path)
    assert not [path for path in (tmp_path / "patches").iterdir() if path.is_dir()]


# -- batches ----------------------------------------------------------------------------------


def test_every_batch_is_of_one_size_with_a_mask_in_each_patch(kits_root, tiny_set):
    recipe, seen = tiny_recipe(kits_root), set()
    batches = PatchBatches(recipe, tiny_set.patches)
    for number in range(20):
        batch = batches[number]
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
    window = PatchRules.from_config(build_unet(recipe).config).codec("kidney")
    seen = set()
    for batch in take(recipe, tiny_set, 20):
        for image, mask, label in zip(batch["image"], batch["mask"], batch["label"], strict=True):
            seen.add(int(label))
            hu = window.decode(image[mask > 0.5].numpy())
            if label == 1:  # painted as kidney, which is brightest
                assert np.median(hu) == pytest.approx(180, abs=15)
            elif label == 2:
                assert np.median(hu) == pytest.approx(90, abs=15)
    assert seen == {0, 1, 2}


def test_a_batch_follows_from_its_number_whatever_was_asked_before(kits_root, tiny_set):
    recipe = tiny_recipe(
        kits_root, data={**tiny_recipe(kits_root).data.model_dump(), "join_masks": 0.5}
    )
    far = 3 * PatchBatches(recipe, tiny_set.patches).batches_per_epoch + 1
    on_the_way = list(islice(batches_from(PatchBatches(recipe, tiny_set.patches), 0, 0), far + 1))
    straight = next(batches_from(PatchBatches(recipe, tiny_set.patches), far, 0))
    read_ahead = next(batches_from(PatchBatches(recipe, tiny_set.patches), far, 1))
    for name, value in on_the_way[far].items():
        assert torch.equal(value, straight[name])
        assert torch.equal(value, read_ahead[name])
    assert not torch.equal(on_the_way[far]["image"], on_the_way[far - 1]["image"][:1])


def test_processes_share_an_epoch_out(kits_root, tmp_path):
    recipe = tiny_recipe(
        kits_root,
        data={"patches": 48, "patches_per_mask": 2, "flip": 0.0},
        model={**tiny_recipe(kits_root).model.model_dump(), "patch_sizes": [64]},
    )
    data = open_set(recipe, tmp_path)
    each = [PatchBatches(recipe, data.patches, n, 2) for n in range(2)]
    assert each[0].patches_per_batch(64) == 4
    assert each[0].batches_per_epoch == 48 // 8
    images = torch.cat([b[n]["image"] for b in each for n in range(6)])
    assert len(images) == 48
    pictures = {picture.numpy().tobytes() for picture in images}
    # Of a small mask several patches may show the same slice.
    assert pictures == {data.patches.patch(n).image.tobytes() for n in range(48)}


@pytest.mark.parametrize(("size", "count"), [(64, 20), (96, 9), (128, 5), (192, 2), (1024, 1)])
def test_batches_of_all_sizes_have_about_as_many_pixels(kits_root, tiny_set, size, count):
    recipe = tiny_recipe(kits_root, optim={"batch_size": 5})
    assert PatchBatches(recipe, tiny_set.patches).patches_per_batch(size) == count


def test_fewer_patches_than_a_batch_are_repeated(kits_root, tmp_path):
    recipe = tiny_recipe(
        kits_root, data={"patches": 6, "patches_per_mask": 1}, optim={"batch_size": 8}
    )
    data = open_set(recipe, tmp_path)
    batches = PatchBatches(recipe, data.patches)
    for batch in take(recipe, data, 3):
        count, _, size, _ = batch["image"].shape
        assert count == batches.patches_per_batch(size) > 6


def test_only_masks_of_whatever_fits_are_joined(kits_root, tiny_set):
    base = {"patches": 48, "patches_per_mask": 2}
    alone = take(tiny_recipe(kits_root, data=base), tiny_set, 6)
    joined = take(tiny_recipe(kits_root, data={**base, "join_masks": 1.0}), tiny_set, 6)
    grew = 0
    for one, other in zip(alone, joined, strict=True):
        # Joined or not, the same patches are flipped.
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["label"], other["label"])
        assert (other["mask"] >= one["mask"]).all()
        grown = (other["mask"] - one["mask"]).sum(dim=(1, 2, 3)) > 0
        assert not grown[one["label"] != 0].any()
        grew += int(grown.sum())
    assert grew > 3


def test_flipped_patches_keep_their_masks_on_the_tissue(kits_root, tmp_path):
    recipe = tiny_recipe(
        kits_root,
        masks=[{"name": "tumors", "kind": "organ", "label": "tumor"}],
        data={"patches": 16, "patches_per_mask": 2, "flip": 1.0},
    )
    data = open_set(recipe, tmp_path)
    codec = PatchRules.from_config(build_unet(recipe).config).codec("tumor")
    cut = {data.patches.patch(n).image[::-1].tobytes() for n in range(len(data.patches))}
    for batch in take(recipe, data, 2):
        hu = codec.decode(batch["image"][batch["mask"] > 0.5].numpy())
        assert hu.mean() == pytest.approx(90, abs=3)
        assert {image.numpy().tobytes() for image in batch["image"]} <= cut


def test_sagittal_patches_are_not_flipped(kits_root, tmp_path):
    data = {"patches": 16, "patches_per_mask": 2, "flip": 1.0, "views": {"sagittal": 1.0}}
    recipe = tiny_recipe(kits_root, data=data)
    patches = open_set(recipe, tmp_path).patches
    assert not any(patches.patch(n).flips for n in range(len(patches)))


def test_label_dropout_leaves_some_labels_untold(kits_root, tiny_set):
    base = {"patches": 48, "patches_per_mask": 2}
    told = take(tiny_recipe(kits_root, data=base), tiny_set, 40)
    recipe = tiny_recipe(kits_root, data={**base, "label_dropout": 0.3})
    some = take(recipe, tiny_set, 40)
    null = build_unet(recipe).null_label
    assert null == 3
    before, after = (torch.cat([b["label"] for b in batches]) for batches in (told, some))
    untold = after == null
    assert untold.float().mean().item() == pytest.approx(0.3, abs=0.1)
    assert torch.equal(after[~untold], before[~untold])


def test_a_view_that_would_need_resampling_becomes_axial(kits_root, tmp_path):
    narrow = {**tiny_recipe(kits_root).model.model_dump(), "spacing_range_mm": [0.5, 1.0]}
    data = {"patches": 8, "patches_per_mask": 2, "views": {"coronal": 1.0}}
    recipe = tiny_recipe(kits_root, model=narrow, data=data, masks=[KIDNEYS])
    batch = take(recipe, open_set(recipe, tmp_path), 1)[0]
    np.testing.assert_allclose(batch["spacing_mm"][:, 1], 0.8, rtol=1e-6)


def test_coronal_patches_have_the_spacing_of_their_plane(kits_root, tmp_path):
    data = {"patches": 8, "patches_per_mask": 2, "views": {"coronal": 1.0}}
    recipe = tiny_recipe(kits_root, data=data, masks=[KIDNEYS])
    batch = take(recipe, open_set(recipe, tmp_path), 1)[0]
    np.testing.assert_allclose(batch["spacing_mm"][:, 1], 2.5, rtol=1e-6)


def test_labels_of_a_cast_are_looked_up_in_the_index_not_in_voxels(kits_root, tmp_path):
    recipe = tiny_recipe(kits_root)
    cast, _ = hold_out(recipe, index_of(recipe, tmp_path))
    without = tuple(
        replace(host, labels={k: v for k, v in host.labels.items() if k != "tumor"})
        if host.case_id == "case_00001"
        else host
        for host in cast.hosts
    )
    jobs = plan_jobs(recipe, replace(cast, hosts=without), 60, "train")
    sections = {job.host.case_id: {v.section for v in job.draws} for job in jobs}
    assert sections == {"case_00000": {0, 1, 2}, "case_00001": {0, 1}}
