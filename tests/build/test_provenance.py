"""What a sample's provenance says, against the sample itself and against its sources' files."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_recipe import SECTIONS, tiny_recipe, write_data

from synthct.build.check import Checked, check
from synthct.build.context import BuildContext
from synthct.build.draw import CaseReader, masks_of
from synthct.build.prepare import Draft, prepare
from synthct.build.provenance import sample_key
from synthct.build.sample import finish
from synthct.dataset.digest import array_digest
from synthct.dataset.png import decode_hu, decode_labels, decode_mask
from synthct.dataset.rows import encode
from synthct.errors import PolicyError
from synthct.models.folder import write_sums
from synthct.recipe.recipe import Recipe
from synthct.volume.views import from_picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("provenance") / "data")


def checked_with(folder: Path, checkpoint: Path, **changes: Any) -> Checked:
    recipe = Recipe.model_validate(tiny_recipe(folder, checkpoint, **changes))
    return check(recipe, cache_dir=folder / "cache")


def row_of(checked: Checked, section: str) -> tuple[Draft, dict[str, Any]]:
    group = next(g for g in masks_of(checked.plan.specs) if g[0].section.name == section)
    draft, *_ = prepare(group, checked, CaseReader(checked.label_names))
    assert isinstance(draft, Draft)
    painted = [np.full((p.size, p.size), 0.25, dtype=np.float32) for p in draft.patches]
    sample = finish(draft, painted, BuildContext(checked, {"device": "cpu"}))
    return draft, encode(sample, keep_original=True)


@pytest.mark.parametrize("section", SECTIONS)
def test_provenance_agrees_with_the_pictures_and_the_files(
    folder: Path, tiny_checkpoint: Path, section: str
) -> None:
    checked = checked_with(folder, tiny_checkpoint, view="coronal")
    draft, row = row_of(checked, section)
    told = json.loads(row["provenance"])
    painted = decode_mask(row["mask"]["bytes"])
    labels = decode_labels(row["label_map"]["bytes"])
    facts = asdict(draft.sample.facts)
    assert {name: told[name] for name in facts} == {name: row[name] for name in facts} == facts
    # the mask
    assert told["mask"]["voxels"] == np.count_nonzero(painted)
    assert told["mask"]["sha256"] == array_digest(painted.astype(np.uint8))
    voxel_mm3 = np.prod(told["host"]["spacing_mm"])
    assert told["mask"]["volume_mm3"] == pytest.approx(voxel_mm3 * painted.sum())
    value = told["mask"]["label_value"]
    assert (value is None) == (told["mask"]["label_map"] == "keep")
    if value is not None:
        assert set(labels[painted]) == {value}
    # its box in the host's voxels
    start, stop = told["mask"]["box"]
    places = np.argwhere(from_picture(painted, "coronal"))
    places += np.array([0, row["slice_index"], 0])
    assert (start, stop) == (places.min(axis=0).tolist(), (places.max(axis=0) + 1).tolist())
    # shares of real and of synthetic tissue
    assert told["synthetic_voxel_fraction"] == row["painted_fraction"]
    assert told["real_voxel_fraction"] + told["synthetic_voxel_fraction"] == pytest.approx(1)
    # the host's voxels, by which a patch-only release is put together
    assert told["outside_max_abs_diff"] == row["outside_max_abs_diff"] == 0
    original = decode_hu(row["original"]["bytes"])
    assert told["host"]["slice_sha256"] == array_digest(original)
    file = folder / "hosts" / told["case_id"] / "imaging.nii.gz"
    assert told["host"]["image_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    # how it was painted
    assert [p["strength"] for p in told["generation"]["patches"]] == [
        p.strength for p in draft.patches
    ]
    assert told["generation"]["num_inference_steps"] == 2
    assert (told["donor"] is not None) == (section == "tumors")
    if told["donor"]:
        named = [entry.case_id for entry in draft.spec.donors]
        assert named[told["donor"]["attempt"]] == told["donor_case_id"]


def test_what_judges_or_surrounds_a_sample_does_not_change_its_digest(
    folder: Path, tiny_checkpoint: Path
) -> None:
    one = row_of(checked_with(folder, tiny_checkpoint), "organ")[1]
    stricter = {"licence": "CC-BY-NC-SA-4.0", "variants": 5, "version": "9.0.0"}
    same = row_of(checked_with(folder, tiny_checkpoint, **stricter), "organ")[1]
    assert json.loads(same["provenance"])["dataset"] != json.loads(one["provenance"])["dataset"]
    assert same["sample_digest"] == one["sample_digest"]
    other = row_of(checked_with(folder, tiny_checkpoint, seed=6), "organ")[1]
    assert other["sample_digest"] != one["sample_digest"]


def test_a_key_changes_with_all_that_decides_a_sample_and_with_nothing_else(
    folder: Path, tiny_checkpoint: Path
) -> None:
    checked = checked_with(folder, tiny_checkpoint)
    spec = next(s for s in checked.plan.specs if s.section.name == "tumors")
    section, files = spec.section, checked.checkpoint
    assert files is not None
    others = {"a": files, "b": replace(files, hashes={**files.hashes, "more": "0" * 64})}

    def key(*, changed: dict[str, Any] | None = None, checkpoint: str = "a", **fields: Any) -> str:
        recipe = checked.recipe.model_copy(update=changed or {})
        other = replace(checked, recipe=recipe, checkpoint=others[checkpoint])
        return sample_key(replace(spec, **fields), other)

    inpaint = checked.recipe.inpaint
    lighter = section.model_copy(update={"weight": 9.0})
    assert key() == key(changed={"variants": 9, "name": "x"}, section=lighter)
    longer = section.model_copy(update={"max_extent_mm": 9.0})
    host = replace(spec.host, voxel_sha256="f" * 64)
    keys = [
        key(),
        key(checkpoint="b"),
        key(variant=1),
        key(draw=7),
        key(slice_ordinal=1),
        key(host=host),
        key(donors=spec.donors[:1]),
        key(changed={"seed": 8}),
        key(changed={"view": "sagittal"}),
        key(section=longer),
        key(changed={"inpaint": inpaint.model_copy(update={"num_inference_steps": 3})}),
        key(changed={"inpaint": inpaint.model_copy(update={"scheduler": "ddim"})}),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "facts",
    [{"licence": "CC-BY-NC-SA-4.0"}, {"cases": [{"case_id": "s1", "licence": "CC-BY-NC-SA-4.0"}]}],
    ids=["of the checkpoint", "of one scan"],
)
def test_the_licence_of_what_the_checkpoint_was_trained_on_binds_the_dataset(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path, facts: dict[str, Any]
) -> None:
    strict = Path(shutil.copytree(tiny_checkpoint, tmp_path / "strict"))
    told = json.loads((strict / "training.json").read_text())
    (strict / "training.json").write_text(json.dumps({**told, "licence": "CC-BY-4.0", **facts}))
    write_sums(strict)
    sources = tiny_recipe(folder, strict)["sources"]
    free = {name: {**section, "licence": "CC-BY-4.0"} for name, section in sources.items()}
    assert checked_with(folder, strict, sources=free).licence == "CC-BY-NC-SA-4.0"
    with pytest.raises(PolicyError) as err:
        checked_with(folder, strict, sources=free, licence="CC-BY-4.0")
    for part in ("source 'hosts': CC-BY-4.0", "checkpoint 'strict': CC-BY-NC-SA-4.0"):
        assert part in str(err.value)
