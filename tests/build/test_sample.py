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
from synthct.build.context import BuildContext
from synthct.build.draw import CaseReader, masks_of, noise_stream
from synthct.build.prepare import Draft, Outcome, painted_value, prepare
from synthct.build.sample import finish
from synthct.dataset.png import decode_hu, decode_labels, decode_mask
from synthct.dataset.rows import encode
from synthct.dataset.sample import Sample
from synthct.dataset.writer import Rejection
from synthct.errors import MaskError, VerifyError
from synthct.masks.slicing import on_slice, slice_of
from synthct.masks.transplant import Transplant
from synthct.models.patch import paste_patches
from synthct.recipe.recipe import Recipe
from synthct.seeds import derive_seed
from synthct.volume import Volume
from synthct.volume.views import PLANES, VIEW_AXIS, Plane, from_picture


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


def outcome_of(checked: Checked, section: str, **rules: Any) -> Outcome:
    group = next(g for g in masks_of(checked.plan.specs) if g[0].section.name == section)
    assert checked.rules is not None
    other = replace(checked, rules=replace(checked.rules, **rules))
    return prepare(group, other, CaseReader(checked.label_names))


def draft_of(checked: Checked, section: str) -> Draft:
    first, *variants = outcome_of(checked, section)
    assert isinstance(first, Draft)
    assert {one.spec.mask_id for one in variants} <= {first.spec.mask_id}
    return first


def rejected_of(checked: Checked, section: str, **rules: Any) -> list[Rejection]:
    outcome = outcome_of(checked, section, **rules)
    assert all(isinstance(one, Rejection) for one in outcome)
    return [one for one in outcome if isinstance(one, Rejection)]


def finished(checked: Checked, draft: Draft) -> Sample:
    painted = [np.full((p.size, p.size), 0.25, dtype=np.float32) for p in draft.patches]
    return finish(draft, painted, BuildContext(checked, {"device": "cpu"}))


def made(checked: Checked, section: str) -> tuple[Draft, Sample]:
    draft = draft_of(checked, section)
    return draft, finished(checked, draft)


def canonical_hu(path: Path) -> np.ndarray:
    """The scan as nibabel reads it, canonical and clipped."""
    image = nib.as_closest_canonical(nib.load(path))
    return np.clip(np.rint(image.get_fdata()), -1024, 3071).astype(np.int16)


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("view", PLANES)
def test_every_kind_of_mask_is_painted_into_the_hosts_own_slice(
    folder: Path, checkpoint: Path, section: str, view: Plane
) -> None:
    inpaint = {"checkpoint": str(checkpoint), "grain": "checkpoint"}
    checked = checked_with(folder, checkpoint, view=view, inpaint=inpaint)
    draft, sample = made(checked, section)
    file = folder / "data/hosts" / sample.facts.case_id / "imaging.nii.gz"
    axis = VIEW_AXIS[view]
    source = canonical_hu(file).take([sample.facts.slice_index], axis=axis)
    row = encode(sample, keep_original=True)
    region = from_picture(decode_mask(row["mask"]["bytes"]), checked.recipe.view)
    image = from_picture(decode_hu(row["image"]["bytes"]), checked.recipe.view)
    original = from_picture(decode_hu(row["original"]["bytes"]), checked.recipe.view)
    assert np.array_equal(original, source)
    assert region.any()
    assert np.array_equal(image[~region], source[~region])
    # A constant was painted, its grain as it is, and the codec says which.
    (painted,) = np.unique(image[region])
    assert painted == np.rint(draft.patches[0].codec.decode(np.full(1, 0.25, np.float32)))[0]
    assert sample.metrics["outside_max_abs_diff"] == 0
    assert sample.metrics["painted_mean_hu"] == painted
    assert sample.metrics["painted_std_hu"] == 0
    assert sample.metrics["replaced_mean_hu"] == pytest.approx(source[region].mean())


@pytest.mark.parametrize("section", SECTIONS)
def test_the_recorded_parameters_give_the_same_mask_again(
    folder: Path, checkpoint: Path, section: str
) -> None:
    checked = checked_with(folder, checkpoint)
    _, sample = made(checked, section)
    stored = json.loads(encode(sample)["provenance"])
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
    assert np.array_equal(region.array, sample.mask)
    assert (stored["donor"] is not None) == (section == "tumors")


def test_grain_is_made_to_the_surroundings_and_what_was_measured_is_kept(
    folder: Path, checkpoint: Path
) -> None:
    checked = checked_with(folder, checkpoint)
    draft, sample = made(checked, "organ")
    generation = sample.provenance["generation"]
    assert generation["grain"] == "surroundings"
    measured = generation["measured_grain"]
    assert measured["painted_hu"] < measured["around_hu"]
    assert sample.metrics["painted_std_hu"] == pytest.approx(measured["around_hu"], rel=0.5)
    assert np.array_equal(finished(checked, draft).image, sample.image)


def test_masks_do_not_depend_on_how_they_are_painted(folder: Path, checkpoint: Path) -> None:
    inpaint = {"checkpoint": str(checkpoint), "num_inference_steps": 50, "scheduler": "ddim"}
    one = checked_with(folder, checkpoint)
    other = checked_with(folder, checkpoint, inpaint=inpaint, variants=1, keep_original=False)
    for section in SECTIONS:
        first, second = draft_of(one, section), draft_of(other, section)
        assert np.array_equal(first.sample.mask, second.sample.mask)
        assert first.params == second.params


@pytest.mark.parametrize("view", PLANES)
def test_the_slices_of_a_lesion_are_samples_of_one_3d_object(
    folder: Path, checkpoint: Path, view: Plane
) -> None:
    masks = [{"name": "tumors", **SECTIONS["tumors"], "slices": "all"}]
    checked = checked_with(folder, checkpoint, masks=masks, view=view, masks_per_case=1)
    drafts = [one for one in outcome_of(checked, "tumors") if isinstance(one, Draft)]
    slices = [one for one in drafts if one.spec.variant == 0]
    assert len(slices) > 2
    axis = VIEW_AXIS[view]
    indices = [one.sample.facts.slice_index for one in slices]
    assert indices == list(range(indices[0], indices[0] + len(indices)))
    assert len({json.dumps(one.params["region"]) for one in slices}) == 1
    # Replayed in 3D, the recorded lesion is all slices together.
    spec, section = slices[0].spec, checked.recipe.masks[0]
    reader = CaseReader(checked.label_names)
    donor = slices[0].donor
    assert donor is not None
    host = reader.read(spec.host)
    whole = section.build(host, reader.read(donor), slices[0].params["region"])
    shown = np.zeros(host.labels.shape, dtype=bool)
    for one in slices:
        whole_host = Volume(shown, host.labels.affine)
        whole_host.slab(axis, one.sample.facts.slice_index).array[...] = one.sample.mask
    assert np.array_equal(shown, whole.in_host(host.labels.shape))
    samples = [finished(checked, draft) for draft in drafts]
    assert {one.facts.lesion_id for one in samples} == {spec.lesion_id}
    assert len({one.facts.mask_id for one in samples}) == len(slices)
    assert len({one.facts.sample_id for one in samples}) == 2 * len(slices)


def test_a_slice_too_large_for_the_checkpoint_is_refused_and_the_others_are_painted(
    folder: Path, checkpoint: Path
) -> None:
    masks = [{"name": "organ", **SECTIONS["organ"], "slices": "all"}]
    checked = checked_with(folder, checkpoint, masks=masks, masks_per_case=1)
    small = {"patch_sizes": (32,), "spacing_range_mm": (0.5, 0.7)}
    outcome = outcome_of(checked, "organ", **small)
    assert {type(one) for one in outcome} == {Draft, Rejection}
    ids = [one.spec.sample_id if isinstance(one, Draft) else one.sample_id for one in outcome]
    host = checked.plan.specs[0].host.case_id
    slices = len(outcome) // 2
    assert ids == [f"{host}.organ.d000.s{n}.v{v}" for n in range(slices) for v in (0, 1)]


def test_another_seed_draws_other_masks(folder: Path, checkpoint: Path) -> None:
    one = draft_of(checked_with(folder, checkpoint), "blob")
    other = draft_of(checked_with(folder, checkpoint, seed=6), "blob")
    assert one.params != other.params


@pytest.mark.parametrize("section", SECTIONS)
def test_provenance_names_no_machine_and_no_place_on_it(
    folder: Path, checkpoint: Path, section: str
) -> None:
    _, sample = made(checked_with(folder, checkpoint), section)
    texts = list(strings_in(json.loads(encode(sample)["provenance"])))
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
    _, sample = made(checked, section)
    labels = from_picture(decode_labels(encode(sample)["label_map"]["bytes"]), "axial")
    region, facts = sample.mask, sample.facts
    entry = checked.index.entry("hosts", facts.case_id)
    before = CaseReader(checked.label_names).read(entry).labels.slab(2, facts.slice_index).array
    assert np.array_equal(labels[~region], before[~region])
    assert np.array_equal(labels[region], before[region] if expected is None else
                          np.full(region.sum(), expected))  # fmt: skip


def test_a_mask_that_cannot_be_placed_is_refused_with_its_reason(
    folder: Path, checkpoint: Path
) -> None:
    masks = [{"name": "tumors", **SECTIONS["tumors"], "deform": {"scale": [4, 4]}}]
    first, second = rejected_of(checked_with(folder, checkpoint, masks=masks), "tumors")
    assert first.reason == second.reason == "transplant: organ_fraction"
    assert "even at scale 4" in first.detail
    assert (first.sample_id[-3:], second.sample_id[-3:]) == (".v0", ".v1")


def test_a_mask_too_large_for_the_checkpoint_is_refused_with_its_extent(
    folder: Path, checkpoint: Path
) -> None:
    checked = checked_with(folder, checkpoint)
    refused, _ = rejected_of(checked, "organ", patch_sizes=(16,), spacing_range_mm=(0.5, 0.9))
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
    group = next(g for g in masks_of(checked.plan.specs) if g[0].section.name == "tumors")
    donors = tuple(replace(d, unions={"lesion": ("tumor",)}) for d in group[0].donors)
    section = group[0].section.model_copy(update={"label": "lesion"})
    specs = [replace(spec, donors=donors, section=section) for spec in group]
    assert checked.rules is not None
    other = replace(checked, rules=replace(checked.rules, labels=("lesion",)))
    draft, _ = prepare(specs, other, CaseReader(checked.label_names))
    assert isinstance(draft, Draft)
    assert set(np.unique(draft.sample.labels[draft.sample.mask])) == {2}


def test_a_change_outside_of_the_mask_never_becomes_a_sample(
    folder: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = checked_with(folder, checkpoint)
    draft = draft_of(checked, "blob")

    def careless(*args: Any) -> Any:
        done = paste_patches(*args)
        array = done.array.copy()
        array[tuple(np.argwhere(~draft.sample.mask)[7])] += 3
        return replace(done, array=array)

    monkeypatch.setattr(sample_module, "paste_patches", careless)
    with pytest.raises(VerifyError, match="3 HU changed outside"):
        finished(checked, draft)


def test_whether_the_host_was_trained_on_is_said_if_the_checkpoint_says_so(
    folder: Path, checkpoint: Path
) -> None:
    checked = checked_with(folder, checkpoint)
    own = checked.plan.specs[0].host.voxel_sha256

    def said(training: dict[str, Any]) -> bool | None:
        assert checked.checkpoint is not None
        files = replace(checked.checkpoint, training=training)
        return draft_of(replace(checked, checkpoint=files), "organ").sample.facts.host_in_training

    assert said({}) is None
    assert said({"cases": [{"voxel_sha256": "0" * 64}]}) is False
    assert said({"cases": [{"voxel_sha256": own}]}) is True


def test_variants_share_a_mask_and_have_noise_of_their_own(folder: Path, checkpoint: Path) -> None:
    checked = checked_with(folder, checkpoint)
    groups = masks_of(checked.plan.specs)
    assert [len(group) for group in groups] == [2] * 8
    seeds = [
        derive_seed(checked.recipe.seed, *noise_stream(s, p))
        for s in checked.plan.specs
        for p in (0, 1)
    ]
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
