"""``export --to nnunet``: what nnU-Net asserts of a raw dataset, and reading it as a source."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from tiny_recipe import SECTIONS, tiny_recipe, write_data
from typer.testing import CliRunner

from synthct.build.run import build
from synthct.cli import app
from synthct.errors import ConflictError, RecipeError
from synthct.publish.export.nnunet import WrittenCase, folds_of
from synthct.publish.export.run import Whole, export
from synthct.recipe.recipe import Recipe
from synthct.sources import DatasetJson, download, index_sources

HOSTS = tuple(f"case_{n:05d}" for n in range(4))
MASKS = [
    {**SECTIONS["tumors"], "name": "tumors"},
    {**SECTIONS["blob"], "name": "blob", "label_map": "ignore"},
]
VERIFY_AND_PLAN = """
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprint_dataset,
    plan_experiment_dataset,
)
if __name__ == "__main__":
    extract_fingerprint_dataset(501, num_processes=1, check_dataset_integrity=True)
    plan_experiment_dataset(501, ExperimentPlanner)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import make_tiny_case, write_kits

    root = write_data(tmp_path_factory.mktemp("nnunet") / "data", hosts=HOSTS[:2])
    for number, case_id in enumerate(HOSTS[2:], 10):
        write_kits(root / "hosts", make_tiny_case(case_id, noise_seed=number), image=True)
    return root.parent


def made(folder: Path, checkpoint: Path, name: str, **changes: Any) -> Path:
    fields = {
        "masks": MASKS,
        "masks_per_case": 2,
        "keep_original": False,
        "view": "volume",
        "margin_mm": 2,
        "splits": {"train": 0.75, "test": 0.25},
    }
    data = tiny_recipe(folder / "data", checkpoint, **(fields | changes)) | {"name": name}
    data["sources"]["donors"]["patients"] = {"case_00002": "donor-2", "case_00003": "donor-3"}
    recipe = Recipe.model_validate(data)
    return build(recipe, folder / "out", cache_dir=folder / "cache", workers=0)


def exported(dataset: Path, folder: Path, output: Path, *, real: bool = False) -> Path:
    where = Whole({"hosts": folder / "data/hosts"}, folder / "cache", real)
    return export(dataset, "nnunet", output / "Dataset501_Tiny", whole=where)


@pytest.fixture(scope="module")
def plain(folder: Path, tiny_checkpoint: Path) -> Path:
    dataset = made(folder, tiny_checkpoint, "volumes")
    return exported(dataset, folder, folder / "raw", real=True)


def samples_of(plain: Path) -> list[dict[str, str]]:
    with (plain / "samples.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def check(plain: Path) -> None:
    """What ``verify_dataset_integrity`` of nnU-Net 2.8 asserts, for ``imagesTs`` too."""
    content = json.loads((plain / "dataset.json").read_text())
    assert content.keys() >= {"labels", "channel_names", "numTraining", "file_ending"}
    values = list(content["labels"].values())
    assert values == list(range(len(values)))
    assert list(content["labels"])[-1] == "ignore" or "ignore" not in content["labels"]
    ending = content["file_ending"]
    for part in ("Tr", "Ts"):
        images = {path.name: path for path in (plain / f"images{part}").iterdir()}
        labels = {path.name: path for path in (plain / f"labels{part}").iterdir()}
        names = {name.removesuffix(f"_0000{ending}") for name in images}
        assert {f"{name}{ending}" for name in names} == labels.keys()
        assert not any("." in name for name in names)
        if part == "Tr":
            assert len(names) == content["numTraining"]
        for name in names:
            image = nibabel.load(images[f"{name}_0000{ending}"])
            label_map = nibabel.load(labels[f"{name}{ending}"])
            assert image.shape == label_map.shape
            assert np.array_equal(image.affine, label_map.affine)
            assert image.header.get_data_dtype() == np.int16
            found = np.asanyarray(label_map.dataobj)
            assert found.dtype == np.uint8
            assert set(np.unique(found)) <= set(values)


@pytest.mark.long
def test_the_files_are_what_nnunet_asks_for(plain: Path) -> None:
    check(plain)
    content = json.loads((plain / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "CT"}
    assert list(content["labels"]) == ["background", "kidney", "tumor", "cyst", "ignore"]
    assert content["licence"] == "CC-BY-NC-SA-4.0"
    host = nibabel.load(plain.parents[1] / "data/hosts/case_00000/imaging.nii.gz")
    for row in (row for row in samples_of(plain) if row["case_id"] == "case_00000"):
        scan = nibabel.load(plain / row["image_file_name"])
        assert np.allclose(scan.affine, host.affine, atol=1e-5)
        same = np.asanyarray(scan.dataobj) == np.asanyarray(host.dataobj)
        assert same.all() == (row["is_real_scan"] == "true")
        assert same.mean() > 0.5


def test_painted_voxels_have_the_renumbered_labels(plain: Path) -> None:
    found = {
        value
        for row in samples_of(plain)
        if row["mask_name"] == "blob"
        for value in np.unique(nibabel.load(plain / row["label_file_name"]).dataobj)
    }
    assert found == {0, 1, 2, 4}


def test_the_table_tells_who_was_made_from_whom_and_the_licences(plain: Path) -> None:
    rows = samples_of(plain)
    real = [row for row in rows if row["is_real_scan"] == "true"]
    assert [row["patient_id"] for row in real] == list(HOSTS)
    painted = [row for row in rows if row["mask_name"] == "tumors"]
    assert painted
    assert all(row["donor_patient_id"] in {"donor-2", "donor-3", "case_00004"} for row in painted)
    assert {row["donor_licence"] for row in painted} == {"CC-BY-NC-SA-4.0"}
    assert {row["host_licence"] for row in rows} == {"CC-BY-NC-SA-4.0"}
    tests = {row["patient_id"] for row in rows if row["split"] == "test"}
    assert len(tests) == 1
    for row in rows:
        part = "Ts" if row["patient_id"] in tests else "Tr"
        assert row["image_file_name"].startswith(f"images{part}/")


def test_folds_go_by_patient_and_judge_real_scans(plain: Path) -> None:
    rows = samples_of(plain)
    people: dict[str, set[str]] = {}
    for row in rows:
        name = Path(row["label_file_name"]).name.removesuffix(".nii.gz")
        people.setdefault(name, set()).update({row["patient_id"], row["donor_patient_id"]} - {""})
    judges = [row for row in rows if row["is_real_scan"] == "true" and row["split"] != "test"]
    real = {Path(row["label_file_name"]).name.removesuffix(".nii.gz") for row in judges}
    folds = json.loads((plain / "splits_final.json").read_text())
    assert len(folds) == 3
    for fold in folds:
        held_out = set.union(*(people[name] for name in fold["val"]))
        assert set(fold["val"]) <= real
        assert all(people[name].isdisjoint(held_out) for name in fold["train"])
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(real)


def case(name: str, split: str, patient: str, *donors: str, real: bool = False) -> WrittenCase:
    return WrittenCase(name, split, patient, frozenset({patient, *donors}), real)


def test_no_fold_trains_on_a_donor_that_it_judges() -> None:
    cases = [case("a", "train", "A", real=True), case("b", "train", "B", real=True),
             case("ab", "train", "A", "B"), case("t", "test", "T", real=True)]  # fmt: skip
    folds = sorted(folds_of(cases), key=lambda fold: fold["val"])
    assert folds == [{"train": ["b"], "val": ["a"]}, {"train": ["a"], "val": ["b"]}]


def test_a_validation_split_is_the_only_fold() -> None:
    cases = [case("a", "train", "A"), case("v", "validation", "V"), case("t", "test", "T")]
    assert folds_of(cases) == [{"train": ["a"], "val": ["v"]}]
    assert folds_of(cases[:1]) == []


def test_read_back_as_a_source_it_knows_patients_splits_and_licence(
    plain: Path, folder: Path
) -> None:
    section = DatasetJson(layout="nnunet", root=plain)
    found = download({"hosts": section}, folder / "cache")
    assert found["hosts"].licence == "CC-BY-NC-SA-4.0"
    entries = index_sources(found, ["tumor"], cache_dir=folder / "cache").entries("hosts")
    tests = {row["patient_id"] for row in samples_of(plain) if row["split"] == "test"}
    assert {entry.patient_id for entry in entries} == set(HOSTS) - tests
    assert {entry.split for entry in entries} == {"train"}


def test_all_slices_of_lesions_make_whole_scans(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    masks = [{**SECTIONS["blob"], "name": "blob", "slices": "all"}]
    slices = made(folder, tiny_checkpoint, "slices", view="axial", margin_mm=None, masks=masks,
                  variants=1, masks_per_case=1, splits={"train": 1.0})  # fmt: skip
    plain = exported(slices, folder, tmp_path)
    check(plain)
    assert len({row["image_file_name"] for row in samples_of(plain)}) == len(HOSTS)
    assert not list((plain / "imagesTs").iterdir())


def test_what_it_cannot_write_is_told(folder: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    masks = [{**SECTIONS["blob"], "name": "blob"}]
    single = made(folder, tiny_checkpoint, "single", view="axial", margin_mm=None, masks=masks,
                  variants=1, masks_per_case=1)  # fmt: skip
    with pytest.raises(RecipeError, match="build with 'slices: all' or 'view: volume'"):
        exported(single, folder, tmp_path)
    whole = Whole({"hosts": folder / "data/hosts"}, folder / "cache")
    with pytest.raises(RecipeError, match="DatasetXXX_Name"):
        export(single, "nnunet", tmp_path / "mine", whole=whole)
    (tmp_path / "Dataset001_A").write_text("taken")
    with pytest.raises(ConflictError, match="not empty"):
        export(single, "nnunet", tmp_path / "Dataset001_A", whole=whole)
    arguments = ["export", str(single), "--to", "png", "--real"]
    assert "--real is for --to nnunet" in CliRunner().invoke(app, arguments).output


def test_the_command_writes_beside_the_version(folder: Path, tiny_checkpoint: Path) -> None:
    dataset = made(folder, tiny_checkpoint, "volumes")
    arguments = ["export", str(dataset), "--to", "nnunet", "--cache-dir", str(folder / "cache"),
                 "--source", f"hosts={folder / 'data/hosts'}"]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    check(folder / "out/volumes/1.0.0.nnunet/Dataset501_Volumes")


@pytest.mark.slow
def test_nnunet_itself_finds_no_fault_and_plans_for_whole_scans(
    plain: Path, tmp_path: Path
) -> None:
    python = os.environ.get("NNUNET_PYTHON")
    if python is None:
        pytest.skip("NNUNET_PYTHON is not the interpreter of an environment with nnunetv2")
    script = tmp_path / "plan.py"
    script.write_text(VERIFY_AND_PLAN)
    paths = {
        "nnUNet_raw": str(plain.parent),
        "nnUNet_preprocessed": str(tmp_path / "preprocessed"),
        "nnUNet_results": str(tmp_path),
    }
    done = subprocess.run(
        [python, str(script)], env=os.environ | paths, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "verify_dataset_integrity Done" in done.stdout
    assert "Warning" not in done.stdout, done.stdout
    plans = json.loads((tmp_path / f"preprocessed/{plain.name}/nnUNetPlans.json").read_text())
    host = nibabel.load(plain.parents[1] / "data/hosts/case_00000/imaging.nii.gz").shape
    # SimpleITK reads axes in reverse, and nnU-Net puts the coarsest first
    whole = [host[::-1][axis] for axis in plans["transpose_forward"]]
    assert plans["original_median_shape_after_transp"] == whole
    planned = plans["configurations"]
    assert planned["3d_fullres"]["median_image_size_in_voxels"] == whole
    assert planned["2d"]["median_image_size_in_voxels"] == whole[1:]
