"""Masks from the user's files: found by case, checked against the scan's grid, never empty."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_tiny_case
from orientations import read_in_all_ways, stored_in_all_ways
from tiny_recipe import tiny_recipe, write_data

from synthct.build.check import Checked, check
from synthct.build.preview import describe
from synthct.build.run import build
from synthct.dataset.png import decode_mask
from synthct.dataset.writer import read_shard
from synthct.errors import MaskError, RecipeError, SourceError
from synthct.masks.base import Mask
from synthct.masks.own import Own
from synthct.recipe.recipe import Recipe
from synthct.volume import Box, Volume, canonical, shifted, write_volume
from synthct.volume.case import Case
from synthct.volume.views import from_picture

HOSTS = ("case_00000", "case_00001")


def drawn_region() -> np.ndarray:
    """Two separate bars, the first one larger."""
    region = np.zeros((48, 40, 24), dtype=np.uint8)
    region[14:26, 12:20, 8:15] = 1
    region[30:36, 12:20, 8:15] = 1
    return region


def masks_of(host: Case, region: np.ndarray | None = None) -> Case:
    """What the source of masks says of a host."""
    array = drawn_region() if region is None else region
    names = {"mask": 5, "other": 6}
    labels = Volume((array * 5).astype(np.uint8), host.labels.affine)
    return replace(host, source="masks", ct=None, labels=labels, label_names=names)


def own(**fields: Any) -> Own:
    return Own.model_validate({"name": "o", **fields})


def built(kind: Own, host: Case, mask: Case, seed: int = 0) -> Mask:
    return kind.build(host, mask, kind.draw(host, mask, np.random.default_rng(seed)))


def test_the_mask_is_what_the_file_says() -> None:
    host = make_tiny_case()
    mask = built(own(), host, masks_of(host))
    assert np.array_equal(mask.in_host((48, 40, 24)), drawn_region() == 1)
    assert mask.label is None
    assert mask.facts["parts"] == 2


def test_a_random_part_is_one_of_the_pieces() -> None:
    host = make_tiny_case()
    sizes = {
        built(own(part="random"), host, masks_of(host), seed).facts["voxels"] for seed in range(9)
    }
    assert sizes == {12 * 8 * 7, 6 * 8 * 7}


def test_an_empty_mask_is_refused() -> None:
    host = make_tiny_case()
    empty = masks_of(host, np.zeros((48, 40, 24)))
    with pytest.raises(MaskError, match="'mask' has no voxels"):
        own().draw(host, empty, np.random.default_rng(0))
    with pytest.raises(MaskError, match="'tumour' is not in the label map"):
        own(region="tumour").draw(host, empty, np.random.default_rng(0))
    with pytest.raises(MaskError, match="case tiny has no mask in source 'masks'"):
        own().draw(host, None, np.random.default_rng(0))


def test_a_mask_on_another_grid_is_refused_with_the_difference() -> None:
    host = make_tiny_case()
    mask = masks_of(host)
    half = Volume(mask.labels.array, shifted(mask.labels.affine, (0.5, 0, 0)))
    moved = replace(mask, labels=half)
    with pytest.raises(MaskError, match=r"another grid than the scan .*, 0\.40 mm away"):
        own().draw(host, moved, np.random.default_rng(0))
    beyond = Volume(mask.labels.array[..., 1:], shifted(mask.labels.affine, (0, 0, 2)))
    with pytest.raises(MaskError, match=r"\(48, 40, 23\), not \(48, 40, 24\)"):
        own().draw(host, replace(mask, labels=beyond), np.random.default_rng(0))


def test_a_file_may_cover_a_part_of_the_scan() -> None:
    host = make_tiny_case()
    mask = masks_of(host)
    part = mask.labels.crop(Box((10, 0, 3), (40, 40, 20)))
    cropped = built(own(), host, replace(mask, labels=part))
    whole = built(own(), host, mask)
    assert np.array_equal(cropped.in_host((48, 40, 24)), whole.in_host((48, 40, 24)))


def test_parameters_replay_the_same_mask_and_notice_a_changed_file() -> None:
    host, kind = make_tiny_case(), own(part="random")
    params = json.loads(json.dumps(kind.draw(host, masks_of(host), np.random.default_rng(1))))
    one = kind.build(host, masks_of(host), params)
    two = kind.build(make_tiny_case(), masks_of(host), params)
    assert one.box == two.box
    assert np.array_equal(one.region.array, two.region.array)
    with pytest.raises(MaskError, match="was its file changed"):
        kind.build(host, masks_of(host, drawn_region()[::-1] * (np.arange(24) > 9)), params)
    with pytest.raises(MaskError, match="drawn for host tiny"):
        kind.build(make_tiny_case("other"), masks_of(host), params)


def test_scan_and_mask_may_be_stored_in_any_two_ways() -> None:
    host = make_tiny_case()
    expected = built(own(), host, masks_of(host))
    stored = stored_in_all_ways(masks_of(host).labels)
    for n, (read, labels) in enumerate(zip(read_in_all_ways(host), stored, strict=True)):
        mask = replace(masks_of(host), labels=canonical(labels))
        found = built(own(), read, mask)
        assert found.box == expected.box, n
        assert np.array_equal(found.region.array, expected.region.array)


@pytest.mark.parametrize(
    ("fields", "policy"),
    [({}, "ignore"), ({"label": "tumor"}, "paint"), ({"label": "tumor", "label_map": "keep"},
                                                     "keep")],
)  # fmt: skip
def test_the_label_map_follows_what_is_known(fields: dict[str, Any], policy: str) -> None:
    assert own(**fields).label_policy() == policy


def test_the_structure_is_the_region_the_label_or_mask() -> None:
    assert own().donor_labels() == ("mask",)
    assert own(label="tumor").donor_labels() == ("tumor",)
    assert own(label="tumor", region="drawn").donor_labels() == ("drawn",)


def write_masks(root: Path, regions: dict[str, Volume]) -> Path:
    root.mkdir(parents=True)
    for case_id, volume in regions.items():
        write_volume(volume, root / f"{case_id}_mask.nii.gz")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("own") / "data")


def volume(region: np.ndarray | None = None) -> Volume:
    """A mask in another order of axes than the scan's."""
    affine = make_tiny_case().labels.affine
    array = drawn_region() if region is None else region
    return list(stored_in_all_ways(Volume(array.astype(np.uint8), affine)))[29]


def checked(data: Path, checkpoint: Path, masks: Path, **section: Any) -> Checked:
    fields = tiny_recipe(
        data, checkpoint, masks=[{"name": "mine", "kind": "own", **section}], masks_per_case=2
    )
    structures = {"mask": "{case}_mask.nii.gz"}
    fields["sources"]["masks"] = {
        "layout": "nifti", "root": str(masks), "structures": structures, "licence": "CC0-1.0",
    }  # fmt: skip
    return check(Recipe.model_validate(fields), cache_dir=masks.parent / "cache")


@pytest.mark.long
def test_files_are_found_by_case_and_painted_where_they_say(
    data: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    root = write_masks(tmp_path / "masks", dict.fromkeys(HOSTS, volume()))
    made = checked(data, tiny_checkpoint, root)
    assert not [line for line in describe(made).splitlines() if "donors" in line]
    folder = build(made.recipe, tmp_path, cache_dir=tmp_path / "cache", workers=0)
    rows = [r for path in folder.glob("data/*") for r in read_shard(path).to_pylist()]
    assert {row["case_id"] for row in rows} == set(HOSTS)
    for row in rows:
        assert row["donor_case_id"] is None
        shown = from_picture(decode_mask(row["mask"]["bytes"]), "axial")[..., 0]
        assert np.array_equal(shown, drawn_region()[..., row["slice_index"]] == 1)
        stored = json.loads(row["provenance"])
        assert stored["donor"]["source"] == "masks"
        assert stored["donor"]["case"] == row["case_id"]
    card = (folder / "README.md").read_text()
    assert "| 3 | `cyst` |" in card
    assert "| 4 | `mask` |" not in card


def test_hosts_without_a_file_or_with_an_empty_one_are_left_out(
    data: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    root = write_masks(tmp_path / "masks", {HOSTS[1]: volume()})
    made = checked(data, tiny_checkpoint, root)
    assert {spec.host.case_id for spec in made.plan.specs} == {HOSTS[1]}
    assert any("1 host skipped, without a mask of its own" in note and HOSTS[0] in note
               for note in made.plan.notes)  # fmt: skip
    empty = volume(np.zeros((48, 40, 24)))
    write_volume(empty, root / f"{HOSTS[0]}_mask.nii.gz")
    made = checked(data, tiny_checkpoint, root)
    assert {spec.host.case_id for spec in made.plan.specs} == {HOSTS[1]}
    write_volume(empty, root / f"{HOSTS[1]}_mask.nii.gz")
    with pytest.raises(RecipeError, match="no case of 'masks' has 'mask'"):
        checked(data, tiny_checkpoint, root)


def test_files_of_other_cases_are_of_no_use(
    data: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    root = write_masks(tmp_path / "masks", {"case_7": volume()})
    with pytest.raises(RecipeError, match=r"no host has a mask of its own.*correct the pattern"):
        checked(data, tiny_checkpoint, root)


def test_a_file_on_another_grid_is_refused_before_anything_is_drawn(
    data: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    wrong = Volume(drawn_region(), shifted(make_tiny_case().labels.affine, (2, 0, 0)))
    root = write_masks(tmp_path / "masks", {HOSTS[0]: volume(), HOSTS[1]: wrong})
    with pytest.raises(SourceError, match=r"case_00001_mask.nii.gz lies 1.60 mm off the grid"):
        checked(data, tiny_checkpoint, root)


def test_a_file_of_a_part_of_the_scan_is_taken_and_told(
    data: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    affine = make_tiny_case().labels.affine
    part = Volume(drawn_region(), affine).crop(Box((10, 0, 3), (40, 40, 20)))
    root = write_masks(tmp_path / "masks", {HOSTS[0]: volume(), HOSTS[1]: part})
    notes = checked(data, tiny_checkpoint, root).plan.notes
    assert "masks 'mine': 1 of 2 masks cover a part of their scan's grid" in notes


def test_a_missing_source_is_named(tmp_path: Path, tiny_checkpoint: Path) -> None:
    fields = tiny_recipe(tmp_path, tiny_checkpoint, masks=[{"name": "m", "kind": "own"}])
    with pytest.raises(ValueError, match="takes shapes from the source 'masks'"):
        Recipe.model_validate(fields)
