"""``export --to nifti --whole``: the hosts' own files with the lesions in them."""

from __future__ import annotations

import csv
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from tiny_recipe import tiny_recipe, write_data
from typer.testing import CliRunner

from synthct.build.run import build
from synthct.cli import app
from synthct.dataset.rows import decode, stored_rows
from synthct.errors import RecipeError, SourceError
from synthct.publish.export.run import Whole, export
from synthct.recipe.recipe import Recipe
from synthct.volume import Volume, canonical

BLOBS = {"name": "blob", "kind": "blob", "radius_mm": [3, 6]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("whole") / "data", hosts=("case_00000",)).parent


def made(folder: Path, checkpoint: Path, name: str, **changes: Any) -> Path:
    fields = {"masks": [BLOBS], "masks_per_case": 3, "keep_original": False}
    data = tiny_recipe(folder / "data", checkpoint, **(fields | changes)) | {"name": name}
    recipe = Recipe.model_validate(data)
    return build(recipe, folder / "out", cache_dir=folder / "cache", workers=0)


@pytest.fixture(scope="module")
def volumes(folder: Path, tiny_checkpoint: Path) -> Path:
    return made(folder, tiny_checkpoint, "volumes", view="volume", margin_mm=2)


def whole(dataset: Path, folder: Path, output: Path) -> Path:
    where = Whole({"hosts": folder / "data/hosts"}, folder / "cache")
    return export(dataset, "nifti", output, whole=where)


def check(dataset: Path, folder: Path, plain: Path) -> int:
    """That each scan is the host's file but for the masks, which hold the samples; their number."""
    host = nibabel.load(folder / "data/hosts/case_00000/imaging.nii.gz")
    stored = np.asanyarray(host.dataobj)
    rows = [row for one in sorted(dataset.glob("data/*")) for row in stored_rows(one)]
    samples = {row["sample_id"]: decode(row) for row in rows}
    with (plain / "samples.csv").open(newline="", encoding="utf-8") as stream:
        listed = list(csv.DictReader(stream))
    assert {one["sample_id"] for one in listed} == samples.keys()
    scans = {one["image_file_name"] for one in listed}
    for name in scans:
        image = nibabel.load(plain / "train" / name)
        numbers = nibabel.load(plain / "train" / name.replace("_image", "_mask"))
        labels = nibabel.load(plain / "train" / name.replace("_image", "_label_map"))
        assert image.header["descrip"] == host.header["descrip"]
        for other in (image, numbers, labels):
            assert np.allclose(other.affine, host.affine, atol=1e-5)
            assert other.shape == host.shape
        number, hu = np.asanyarray(numbers.dataobj), np.asanyarray(image.dataobj)
        assert hu.dtype == stored.dtype
        assert np.array_equal(hu[number == 0], stored[number == 0])
        turned = canonical(Volume(hu, image.affine)), canonical(Volume(number, image.affine))
        for one in (one for one in listed if one["image_file_name"] == name):
            sample = samples[one["sample_id"]]
            place = np.linalg.inv(turned[0].affine) @ sample.affine[:, 3]
            i, j, k = np.rint(place[:3]).astype(int)
            box = tuple(slice(a, a + n) for a, n in zip((i, j, k), sample.shape, strict=True))
            assert (turned[1].array[box][sample.mask] == int(one["number"])).all()
            assert np.array_equal(turned[0].array[box][sample.mask], sample.image[sample.mask])
    return len(scans)


def test_volumes_lie_in_their_hosts_file(volumes: Path, folder: Path, tmp_path: Path) -> None:
    plain = whole(volumes, folder, tmp_path / "plain")
    assert check(volumes, folder, plain) >= 2  # two variants; lesions that overlap lie apart

    from datasets import load_dataset

    rows = load_dataset("niftifolder", data_dir=str(plain), cache_dir=str(tmp_path), split="train")
    assert rows[0]["image"].shape == rows[0]["mask"].shape
    assert sum(len(row["sample_ids"]) for row in rows) == 6


def test_each_size_of_a_series_has_a_scan_of_its_own(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    masks = [{**BLOBS, "radius_mm": [4, 6]}]
    fields = {"view": "volume", "margin_mm": 2, "series": {"volume_factor": [0.4, 1, 2]}}
    series = made(folder, tiny_checkpoint, "series", masks=masks, variants=1, **fields)
    assert check(series, folder, whole(series, folder, tmp_path / "plain")) >= 3


def test_all_slices_of_lesions_are_pasted_back(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    slices = made(folder, tiny_checkpoint, "slices", masks=[{**BLOBS, "slices": "all"}], variants=1)
    assert check(slices, folder, whole(slices, folder, tmp_path / "plain")) >= 1


def test_geometry_is_the_hosts_for_simpleitk_monai_and_torchio(
    volumes: Path, folder: Path, tmp_path: Path
) -> None:
    plain = whole(volumes, folder, tmp_path / "plain")
    path = next((plain / "train").glob("*_image.nii.gz"))
    host_path = folder / "data/hosts/case_00000/imaging.nii.gz"
    itk = pytest.importorskip("SimpleITK")
    one, host = itk.ReadImage(str(path)), itk.ReadImage(str(host_path))
    for of in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(one, of)() == getattr(host, of)()
    mask = itk.ReadImage(str(path).replace("_image", "_mask"))
    assert np.allclose(mask.GetDirection(), host.GetDirection(), atol=1e-6)
    opened = nibabel.load(path)
    hu = np.asanyarray(opened.dataobj)
    if find_spec("monai") is not None:
        reader: Any = import_module("monai.data").NibabelReader()
        array, facts = reader.get_data(reader.read(str(path)))
        assert np.array_equal(array, hu)
        assert np.allclose(facts["affine"], opened.affine, atol=1e-4)
    if find_spec("torchio") is not None:
        tio: Any = import_module("torchio")
        mask_path = str(path).replace("_image", "_mask")
        subject = tio.Subject(image=tio.ScalarImage(path), mask=tio.LabelMap(mask_path))
        subject.check_consistent_space()
        assert np.array_equal(subject.image.data[0].numpy(), hu)
        assert np.allclose(subject.image.affine, opened.affine, atol=1e-4)
        assert subject.mask.data.any()


@pytest.mark.long
def test_volumes_of_whole_scans_need_no_hosts(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    scans = made(folder, tiny_checkpoint, "scans", view="volume", extent="scan")
    with_hosts = whole(scans, folder, tmp_path / "with")
    assert check(scans, folder, with_hosts) >= 2
    nowhere = Whole({}, tmp_path / "cache")
    without = export(scans, "nifti", tmp_path / "without", whole=nowhere)
    names = sorted(path.name for path in (with_hosts / "train").glob("*.nii.gz"))
    assert names == sorted(path.name for path in (without / "train").glob("*.nii.gz"))
    for name in names:
        one, other = (nibabel.load(plain / "train" / name) for plain in (with_hosts, without))
        same = canonical(Volume(np.asanyarray(one.dataobj), one.affine))
        assert np.array_equal(same.array, np.asanyarray(other.dataobj))
        assert np.allclose(same.affine, other.affine, atol=1e-4)
    with pytest.raises(RecipeError, match="--real writes the hosts"):
        export(scans, "nnunet", tmp_path / "Dataset007_Mine", whole=replace(nowhere, real=True))


def test_single_slices_show_no_lesion_and_are_refused(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    single = made(folder, tiny_checkpoint, "single", variants=1, masks_per_case=1)
    with pytest.raises(RecipeError, match="build with 'slices: all' or 'view: volume'"):
        whole(single, folder, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_what_does_not_go_together_is_told(volumes: Path, folder: Path, tmp_path: Path) -> None:
    nowhere = Whole({}, folder / "cache")
    with pytest.raises(RecipeError, match="write --to nifti --whole"):
        export(volumes, "png", tmp_path / "plain", whole=nowhere)
    with pytest.raises(RecipeError, match="--to nifti"):
        export(volumes, "png", tmp_path / "plain")
    with pytest.raises(RecipeError, match="where the scans are"):
        export(volumes, "nifti", tmp_path / "plain", whole=nowhere)
    arguments = ["export", str(volumes), "--to", "nifti", "--source", "hosts=x"]
    assert "--whole" in CliRunner().invoke(app, arguments).output


def test_another_scan_is_refused(volumes: Path, folder: Path, tmp_path: Path) -> None:
    other = write_data(tmp_path / "data", hosts=("case_00000",))
    path = other / "hosts/case_00000/imaging.nii.gz"
    image = nibabel.load(path)
    hu = np.asanyarray(image.dataobj) + np.int16(1)
    nibabel.save(nibabel.Nifti1Image(hu, image.affine), path)
    with pytest.raises(SourceError, match="not the voxels that were painted"):
        export(volumes, "nifti", tmp_path / "plain",
               whole=Whole({"hosts": other / "hosts"}, folder / "cache"))  # fmt: skip
