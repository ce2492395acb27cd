from __future__ import annotations

import getpass
import json
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from tiny_recipe import SECTIONS, tiny_recipe, write_data

from synthct.build import sample as sample_module
from synthct.build.check import Checked, check
from synthct.build.draw import CaseReader, Refused, masks_of
from synthct.build.prepare import Prepared, painted_value, prepare
from synthct.build.references import References
from synthct.build.sample import finish, noise_seed
from synthct.dataset.png import decode_hu, decode_labels, decode_mask
from synthct.dataset.schema import Row
from synthct.errors import MaskError
from synthct.masks import on_slice, slice_of
from synthct.masks.transplant import Transplant
from synthct.recipe.recipe import Recipe
from synthct.volume.views import VIEW_AXIS, from_picture

FACTS: dict[str, Any] = {
    "references": References({}),
    "trained_on": None,
    "generation": {"checkpoint": "tiny", "checkpoint_id": "0" * 64},
    "numerics": {"device": "cpu"},
    "licence": "CC-BY-NC-SA-4.0",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_data(folder / "data")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Path:
    return tiny_checkpoint


def checked_with(folder: Path, checkpoint: Path, **changes: Any) -> Checked:
    recipe = Recipe.model_validate(tiny_recipe(folder / "data", checkpoint, **changes))
    return check(recipe, cache_dir=folder / "cache")


def outcome_of(checked: Checked, section: str, **rules: Any) -> tuple[Prepared | Refused, ...]:
    group = next(g for g in masks_of(checked.plan.specs) if g[0].section == section)
    reader = CaseReader(checked.label_names)
    return prepare(group, checked.recipe, replace(checked.rules, **rules), reader)


def prepared_of(checked: Checked, section: str, **rules: Any) -> Prepared | Refused:
    (mask,) = outcome_of(checked, section, **rules)
    return mask


def finished(checked: Checked, mask: Prepared, **facts: Any) -> Row:
    painted = [np.full((p.size, p.size), 0.25, dtype=np.float32) for p in mask.patches]
    row, hu = finish(mask, mask.specs[0], painted, checked.recipe, **{**FACTS, **facts})
    assert hu.shape == (np.count_nonzero(mask.region.array),)
    return row


def made(checked: Checked, section: str) -> tuple[Prepared, Row]:
    mask = prepared_of(checked, section)
    assert isinstance(mask, Prepared)
    return mask, finished(checked, mask)


def canonical_hu(path: Path) -> np.ndarray:
    """The scan as nibabel reads it, canonical and clipped."""
    image = nib.as_closest_canonical(nib.load(path))
    return np.clip(np.rint(image.get_fdata()), -1024, 3071).astype(np.int16)


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("view", ["axial", "coronal", "sagittal"])
def test_every_kind_of_mask_is_painted_into_the_hosts_own_slice(
    folder: Path, checkpoint: Path, section: str, view: str
) -> None:
    checked = checked_with(folder, checkpoint, view=view)
    mask, row = made(checked, section)
    file = folder / "data/hosts" / row.facts.case_id / "imaging.nii.gz"
    source = canonical_hu(file).take([mask.slice_index], axis=VIEW_AXIS[checked.recipe.view])
    region = from_picture(decode_mask(row.mask), checked.recipe.view)
    image = from_picture(decode_hu(row.image), checked.recipe.view)
    assert row.original is not None
    assert np.array_equal(from_picture(decode_hu(row.original), checked.recipe.view), source)
    assert region.any()
    assert np.array_equal(image[~region], source[~region])
    # A constant was painted, and the codec says which.
    (painted,) = np.unique(image[region])
    assert painted == np.rint(mask.patches[0].codec.decode(np.float32(0.25)))
    assert row.metrics["outside_max_abs_diff"] == 0
    assert row.metrics["painted_mean_hu"] == painted
    assert row.metrics["painted_std_hu"] == 0
    assert row.metrics["replaced_mean_hu"] == pytest.approx(source[region].mean())


@pytest.mark.parametrize("section", SECTIONS)
def test_the_recorded_parameters_give_the_same_mask_again(
    folder: Path, checkpoint: Path, section: str
) -> None:
    checked = checked_with(folder, checkpoint)
    _, row = made(checked, section)
    stored = json.loads(row.provenance)
    params = stored["mask"]["params"]
    reader = CaseReader(checked.label_names)
    host, donor = (
        reader.read(checked.index.entry(stored[role]["source"], stored[role]["case"]))
        if stored[role]
        else None
        for role in ("host", "donor")
    )
    assert host is not None
    kind = next(m for m in checked.recipe.masks if m.name == section)
    flat = slice_of(kind.build(host, donor, params["region"]), "axial", params)
    _, region = on_slice(host.scan(), flat, "axial")
    assert np.array_equal(region.array, from_picture(decode_mask(row.mask), "axial"))
    assert (stored["donor"] is not None) == (section == "tumors")


def test_masks_do_not_depend_on_how_they_are_painted(folder: Path, checkpoint: Path) -> None:
    inpaint = {"checkpoint": str(checkpoint), "num_inference_steps": 50, "scheduler": "ddim"}
    one = checked_with(folder, checkpoint)
    other = checked_with(folder, checkpoint, inpaint=inpaint, variants=1, keep_original=False)
    for section in SECTIONS:
        first, second = prepared_of(one, section), prepared_of(other, section)
        assert isinstance(first, Prepared)
        assert isinstance(second, Prepared)
        assert np.array_equal(first.region.array, second.region.array)
        assert first.params == second.params


@pytest.mark.parametrize("view", ["axial", "coronal", "sagittal"])
def test_the_slices_of_a_lesion_are_samples_of_one_3d_object(
    folder: Path, checkpoint: Path, view: str
) -> None:
    masks = [{"name": "tumors", **SECTIONS["tumors"], "slices": "all"}]
    checked = checked_with(folder, checkpoint, masks=masks, view=view, masks_per_case=1)
    slices = [m for m in outcome_of(checked, "tumors") if isinstance(m, Prepared)]
    assert len(slices) > 2
    axis = VIEW_AXIS[checked.recipe.view]
    indices = [mask.slice_index for mask in slices]
    assert indices == list(range(indices[0], indices[0] + len(indices)))
    assert len({json.dumps(mask.params["region"]) for mask in slices}) == 1
    # Replayed in 3D, the recorded lesion is all slices together.
    spec, section = slices[0].specs[0], checked.recipe.masks[0]
    reader = CaseReader(checked.label_names)
    donor = slices[0].donor
    assert donor is not None
    host = reader.read(spec.host)
    whole = section.build(host, reader.read(donor), slices[0].params["region"])
    shown = np.zeros(host.labels.shape, dtype=bool)
    for mask in slices:
        shown[tuple(mask.slice_index if a == axis else slice(None) for a in range(3))] = (
            mask.region.array.squeeze(axis)
        )
    assert np.array_equal(shown, whole.in_host(host.labels.shape))
    rows = [
        finish(m, s, [np.zeros((p.size,) * 2, np.float32) for p in m.patches],
               checked.recipe, **FACTS)[0] for m in slices for s in m.specs
    ]  # fmt: skip
    assert {row.facts.lesion_id for row in rows} == {spec.lesion_id}
    assert len({row.facts.mask_id for row in rows}) == len(slices)
    assert len({row.facts.sample_id for row in rows}) == 2 * len(slices)


def test_a_slice_too_large_for_the_checkpoint_is_refused_and_the_others_are_painted(
    folder: Path, checkpoint: Path
) -> None:
    masks = [{"name": "organ", **SECTIONS["organ"], "slices": "all"}]
    checked = checked_with(folder, checkpoint, masks=masks, masks_per_case=1)
    small = {"patch_sizes": (32,), "spacing_range_mm": (0.5, 0.7)}
    outcome = outcome_of(checked, "organ", **small)
    kinds = {type(mask) for mask in outcome}
    assert kinds == {Prepared, Refused}
    ordinals = [mask.specs[0].slice_ordinal for mask in outcome]
    assert ordinals == list(range(len(outcome)))


def test_another_seed_draws_other_masks(folder: Path, checkpoint: Path) -> None:
    one = prepared_of(checked_with(folder, checkpoint), "blob")
    other = prepared_of(checked_with(folder, checkpoint, seed=6), "blob")
    assert isinstance(one, Prepared)
    assert isinstance(other, Prepared)
    assert one.params != other.params


@pytest.mark.parametrize("section", SECTIONS)
def test_provenance_names_no_machine_and_no_place_on_it(
    folder: Path, checkpoint: Path, section: str
) -> None:
    _, row = made(checked_with(folder, checkpoint), section)
    texts = list(strings_in(json.loads(row.provenance)))
    words = {word for text in texts for word in re.findall(r"[\w-]+", text)}
    assert not words & {socket.gethostname(), getpass.getuser()}
    assert not [text for text in texts if str(folder) in text or text.startswith(("/", "~"))]


def strings_in(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *strings_in(list(value.values()))]
    if isinstance(value, list):
        return [text for item in value for text in strings_in(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize(
    ("section", "changes", "expected"),
    [
        ("tumors", {}, 2),
        ("tumors", {"label_map": "ignore"}, 255),
        ("box", {}, 255),
        ("blob", {}, 255),
        ("organ", {}, None),
        ("organ", {"margin_mm": 1}, 255),
        ("organ", {"label_map": "paint", "margin_mm": 1}, 1),
    ],
)
def test_the_label_map_follows_the_picture(
    folder: Path, checkpoint: Path, section: str, changes: dict[str, Any], expected: int | None
) -> None:
    masks = [{"name": section, **SECTIONS[section], **changes}]
    checked = checked_with(folder, checkpoint, masks=masks)
    mask, row = made(checked, section)
    labels = from_picture(decode_labels(row.label_map), "axial")
    region = mask.region.array
    entry = checked.index.entry("hosts", row.facts.case_id)
    before = CaseReader(checked.label_names).read(entry).labels.array[:, :, [mask.slice_index]]
    assert np.array_equal(labels[~region], before[~region])
    assert np.array_equal(labels[region], before[region] if expected is None else
                          np.full(region.sum(), expected))  # fmt: skip


def test_a_mask_that_cannot_be_placed_is_refused_with_its_reason(
    folder: Path, checkpoint: Path
) -> None:
    masks = [{"name": "tumors", **SECTIONS["tumors"], "deform": {"scale": [4, 4]}}]
    refused = prepared_of(checked_with(folder, checkpoint, masks=masks), "tumors")
    assert isinstance(refused, Refused)
    assert refused.reason == "transplant: organ_fraction"
    assert "even at scale 4" in refused.detail
    assert [spec.variant for spec in refused.specs] == [0, 1]


def test_a_mask_too_large_for_the_checkpoint_is_refused_with_its_extent(
    folder: Path, checkpoint: Path
) -> None:
    checked = checked_with(folder, checkpoint)
    refused = prepared_of(checked, "organ", patch_sizes=(16,), spacing_range_mm=(0.5, 0.9))
    assert isinstance(refused, Refused)
    assert refused.reason == "organ: cannot be painted"
    assert "mm, more than the 4 mm" in refused.detail


@pytest.mark.parametrize(
    ("label", "into", "expected"),
    [
        ("tumor", "kidney", 5),  # kidney_tumor: the part that says where it was painted
        ("tumor", "liver", 6),
        ("tumor", "spleen", 5),  # no such part: the first
        ("cyst", "kidney", 9),
    ],
)
def test_a_union_is_painted_as_the_part_that_fits(label: str, into: str, expected: int) -> None:
    section = Transplant(name="t", label=label, into=into)
    names = {"kidney": 1, "kidney_tumor": 5, "liver_tumor": 6, "cyst": 9}
    unions = {"tumor": ("lung_tumor", "kidney_tumor", "liver_tumor")}
    assert painted_value(section, label, names, unions) == expected


def test_a_label_without_a_value_is_an_error_only_where_it_is_painted() -> None:
    section = Transplant(name="t", label="tumor", into="kidney")
    with pytest.raises(MaskError, match="no source numbers the label 'tumor'"):
        painted_value(section, "tumor", {"kidney": 1}, {})
    ignoring = Transplant(name="t", label="tumor", into="kidney", label_map="ignore")
    assert painted_value(ignoring, "tumor", {"kidney": 1}, {}) is None


def test_a_donors_union_counts_where_the_host_has_none(folder: Path, checkpoint: Path) -> None:
    """A donor of one layout knows 'lesion' as a union; the host, of another, has no such thing."""
    checked = checked_with(folder, checkpoint)
    group = next(g for g in masks_of(checked.plan.specs) if g[0].section == "tumors")
    donors = tuple(replace(d, unions={"lesion": ("tumor",)}) for d in group[0].donors)
    section = next(m for m in checked.recipe.masks if m.name == "tumors")
    recipe = checked.recipe.model_copy(
        update={"masks": (section.model_copy(update={"label": "lesion"}),)}
    )
    specs = [replace(spec, donors=donors) for spec in group]
    rules = replace(checked.rules, labels=("lesion",))
    (mask,) = prepare(specs, recipe, rules, CaseReader(checked.label_names))
    assert isinstance(mask, Prepared)
    assert set(np.unique(mask.labels[mask.region.array])) == {2}


def test_a_change_outside_of_the_mask_never_becomes_a_sample(
    folder: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = checked_with(folder, checkpoint)
    mask = prepared_of(checked, "blob")
    assert isinstance(mask, Prepared)
    paste = sample_module.paste_patches

    def careless(*args: Any) -> Any:
        done = paste(*args)
        array = done.array.copy()
        array[tuple(np.argwhere(~mask.region.array)[7])] += 3
        return replace(done, array=array)

    monkeypatch.setattr(sample_module, "paste_patches", careless)
    with pytest.raises(AssertionError, match="3 HU changed outside"):
        finished(checked, mask)


def test_whether_the_host_was_trained_on_is_said_if_the_checkpoint_says_so(
    folder: Path, checkpoint: Path
) -> None:
    checked = checked_with(folder, checkpoint)
    mask = prepared_of(checked, "organ")
    assert isinstance(mask, Prepared)
    own = mask.specs[0].host.voxel_sha256
    assert own is not None
    assert finished(checked, mask).facts.host_in_training is None
    assert finished(checked, mask, trained_on=frozenset()).facts.host_in_training is False
    assert finished(checked, mask, trained_on=frozenset({own})).facts.host_in_training is True


def test_variants_share_a_mask_and_have_noise_of_their_own(folder: Path, checkpoint: Path) -> None:
    checked = checked_with(folder, checkpoint)
    groups = masks_of(checked.plan.specs)
    assert [len(group) for group in groups] == [2] * 8
    seeds = [noise_seed(checked.recipe, s, p) for s in checked.plan.specs for p in (0, 1)]
    assert len(set(seeds)) == len(seeds)


def test_the_reader_keeps_only_the_last_cases(folder: Path, checkpoint: Path) -> None:
    checked = checked_with(folder, checkpoint)
    reader = CaseReader(checked.label_names, keep=2)
    first, second = checked.index.entries("hosts")
    donor = checked.index.entries("donors")[0]
    kept = reader.read(first)
    reader.read(second)
    assert reader.read(first) is kept
    reader.read(donor)  # pushes out the second, which was read longest ago
    assert reader.read(first) is kept
    assert reader.read(donor).ct is None
