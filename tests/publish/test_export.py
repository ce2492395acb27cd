"""Exports: the same voxels at the same places, in folders that ``load_dataset`` reads."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
from lesion_rows import Host, make_host, slices_of, write_lesions
from tiny_recipe import write_data, write_recipe
from typer.testing import CliRunner

from synthct.build.run import build
from synthct.cli import app
from synthct.dataset.rows import stored_rows
from synthct.errors import ConflictError, ResourceError, VerifyError
from synthct.publish.export import run
from synthct.publish.export.export_format import file_stem
from synthct.publish.export.run import export
from synthct.recipe.recipe import Recipe
from synthct.sources.exported import _read_csv
from synthct.volume.views import PLANES, VIEW_AXIS, Plane, from_picture

HOSTILE = "../../etc/тест case\n:*?[a]{b}://-\N{RIGHT-TO-LEFT OVERRIDE}" + "long" * 60


def load(kind: str, folder: Path, cache: Path) -> Any:
    from datasets import load_dataset

    return load_dataset(kind, data_dir=str(folder), cache_dir=str(cache))


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def hosts() -> list[Host]:
    return [make_host("test one"), make_host("host b")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, hosts: list[Host]) -> Path:
    """Lesions of two hosts, with the hosts' own slices, one axial slice missing."""
    middle = slices_of(hosts[0], "axial")[3]
    folder = tmp_path_factory.mktemp("export") / "lesions/1.0.0"
    return write_lesions(folder, hosts, left_out=[middle], real=True)


def overlay(image: nib.Nifti1Image, host: Host) -> np.ndarray:
    """Where in the host's scan the voxels of an image lie, as whole indices (I, J, K, 3)."""
    grid = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij"), -1)
    millimetres = nib.affines.apply_affine(image.affine, grid)
    found = nib.affines.apply_affine(np.linalg.inv(host.case.scan().affine), millimetres)
    assert np.abs(found - np.rint(found)).max() < 1e-3  # in voxels: the header holds float32
    return np.rint(found).astype(int)


@pytest.mark.parametrize("view", PLANES)
def test_volumes_lie_where_the_host_has_them(view: Plane, tmp_path: Path) -> None:
    host = make_host()
    folder = write_lesions(tmp_path / "lesions/1.0.0", [host], view)
    rows = load("niftifolder", export(folder, "nifti", tmp_path / "out"), tmp_path / "cache")
    first, number = slices_of(host, view)[0], len(slices_of(host, view))
    assert number > 5
    assert len(rows["train"]) == 2  # one for each variant
    for variant, row in enumerate(rows["train"]):
        assert row["slice_index"] == list(range(first, first + number))
        assert row["variant"] == variant
        for name, truth in {
            "image": host.painted[variant],
            "label_map": host.labels[variant],
            "mask": host.lesion,
            "original": host.painted[None],
        }.items():
            image = row[name]
            where = overlay(image, host)
            assert image.shape[VIEW_AXIS[view]] == number
            assert where.min() >= 0
            voxels = np.asarray(image.dataobj)
            assert np.array_equal(voxels, truth[tuple(np.moveaxis(where, -1, 0))])
            assert np.array_equal(np.unique(where[..., VIEW_AXIS[view]]), row["slice_index"])
            header = image.header
            assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
            assert np.allclose(header.get_qform(), header.get_sform(), atol=1e-3)
            assert header.get_xyzt_units()[0] == "mm"
            assert image.get_data_dtype() == (np.int16 if name in ("image", "original") else "u1")


@pytest.mark.parametrize("view", PLANES)
def test_pictures_give_the_host_back(view: Plane, tmp_path: Path) -> None:
    host = make_host()
    folder = write_lesions(tmp_path / "lesions/1.0.0", [host], view)
    rows = load("imagefolder", export(folder, "png", tmp_path / "out"), tmp_path / "cache")
    assert len(rows["train"]) == 2 * len(slices_of(host, view))
    for row in rows["train"]:
        plane = [row["slice_index"]]
        axis = VIEW_AXIS[view]
        hu = np.asarray(row["image"]).astype(np.int16) - 1024
        truth = host.painted[row["variant"]].take(plane, axis)
        assert np.array_equal(from_picture(hu, view), truth)
        before = np.asarray(row["original"]).astype(np.int16) - 1024
        assert np.array_equal(from_picture(before, view), host.painted[None].take(plane, axis))
        mask = from_picture(np.asarray(row["mask"]) > 0, view)
        assert np.array_equal(mask, host.lesion.take(plane, axis))
        labels = from_picture(np.asarray(row["label_map"]), view)
        assert np.array_equal(labels, host.labels[row["variant"]].take(plane, axis))
        where = overlay(
            nib.Nifti1Image(hu[:, :, None], np.array(row["affine"]).reshape(4, 4)), host
        )
        there = host.painted[row["variant"]][tuple(np.moveaxis(where, -1, 0))]
        assert np.array_equal(there[:, :, 0], hu)


def test_slices_that_are_no_neighbours_are_no_volume(dataset: Path, tmp_path: Path) -> None:
    metadata = pq.read_table(export(dataset, "nifti", tmp_path / "out") / "train/metadata.parquet")
    indices = metadata["slice_index"].to_pylist()
    assert len(indices) == 2 * 3  # before and after the gap; two variants and the host's own
    assert [len(run) for run in indices] == [3, len(indices[1])] * 3
    assert all(run == list(range(run[0], run[0] + len(run))) for run in indices)
    assert indices[0][-1] + 2 == indices[1][0]
    assert metadata["variant"].to_pylist() == [0, 0, 1, 1, None, None]


@pytest.mark.parametrize("kind", ["nifti", "png"])
def test_splits_and_columns_are_those_of_the_dataset(
    dataset: Path, kind: str, tmp_path: Path
) -> None:
    folder = export(dataset, kind, tmp_path / "out")
    rows = load({"nifti": "niftifolder", "png": "imagefolder"}[kind], folder, tmp_path / "cache")
    with (folder / "samples.csv").open(newline="", encoding="utf-8") as stream:
        listed = {row["sample_id"]: row for row in csv.DictReader(stream)}
    for split in ("train", "test"):  # a case called "test one" is in train
        stored = list(stored_rows(dataset / f"data/{split}-00000-of-00001.parquet"))
        found: dict[str, dict[str, Any]] = {}
        for row in rows[split].remove_columns(["image", "mask", "label_map", "original"]):
            if kind == "png":
                found[row["sample_id"]] = row
            for n, sample_id in enumerate(row["sample_id"] if kind == "nifti" else ()):
                one = {k: v[n] if isinstance(v, list) else v for k, v in row.items()}
                found[sample_id] = one
        assert found.keys() == {row["sample_id"] for row in stored}
        for row in stored:
            mine, text = found[row["sample_id"]], listed[row["sample_id"]]
            for name in ("case_id", "variant", "seam_ratio", "provenance", "sample_digest"):
                assert mine[name] == row[name]
            assert text["split"] == split
            assert text["seam_ratio"] == str(row["seam_ratio"])
            assert (folder / split / text["image_file_name"]).is_file()
            if kind == "nifti":
                image = nib.load(folder / split / text["image_file_name"])
                index = round((nib.affines.apply_affine(
                    np.linalg.inv(make_host().case.scan().affine) @ image.affine,
                    [0, 0, int(text["slice"])],
                ))[2])  # fmt: skip
                assert index == row["slice_index"]


@pytest.mark.parametrize("kind", ["nifti", "png"])
def test_the_same_dataset_gives_the_same_bytes(dataset: Path, kind: str, tmp_path: Path) -> None:
    one, two = (hashes(export(dataset, kind, tmp_path / name)) for name in ("a", "b"))
    assert one == two
    assert len(one) > 10


@pytest.mark.parametrize("kind", ["nifti", "png"])
def test_names_stay_in_their_folder(kind: str, tmp_path: Path) -> None:
    folder = write_lesions(
        tmp_path / "lesions/1.0.0", [make_host(variants=1)], sample_id=HOSTILE, lesion_id=HOSTILE
    )
    out = export(folder, kind, tmp_path / "deep/deeper/out")
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"train"}
    assert {path.name for path in tmp_path.iterdir()} == {"lesions", "deep"}
    names = [path.name for path in (out / "train").iterdir()]
    assert all(len(name.encode()) < 255 and name.isprintable() for name in names)
    assert any("тест" in name for name in names)
    loader = {"nifti": "niftifolder", "png": "imagefolder"}[kind]
    rows = load(loader, out, tmp_path / "cache")["train"]
    assert rows[0]["lesion_id"] == HOSTILE


def test_names_differ_where_case_does_not_count() -> None:
    names = {file_stem(1, "A").lower(), file_stem(2, "a").lower(), file_stem(3, "").lower()}
    assert len(names) == 3


def test_a_folder_without_originals_loads(tmp_path: Path) -> None:
    folder = write_lesions(tmp_path / "lesions/1.0.0", [make_host()], keep_original=False)
    for kind, loader in (("nifti", "niftifolder"), ("png", "imagefolder")):
        out = export(folder, kind, tmp_path / kind)
        assert not list(out.rglob("*_original*"))
        assert "original" not in load(loader, out, tmp_path / "cache")["train"].column_names


def test_a_damaged_dataset_is_refused(tmp_path: Path) -> None:
    folder = write_lesions(tmp_path / "lesions/1.0.0", [make_host()])
    shard = folder / "data/train-00000-of-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    done = CliRunner().invoke(app, ["export", str(folder), "--to", "png"])
    assert done.exit_code == 8
    assert "train-00000-of-00001.parquet" in done.output
    assert {path.name for path in folder.parent.iterdir()} == {"1.0.0"}
    with pytest.raises(VerifyError, match="no finished dataset"):
        export(tmp_path, "png", tmp_path / "out")


def test_what_is_there_stays(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("full", "file"):
        done = CliRunner().invoke(
            app, ["export", str(dataset), "--to", "png", "--output", str(tmp_path / name)]
        )
        assert done.exit_code == 6, done.output
    assert (tmp_path / "full/mine.txt").read_text() == "mine"
    assert export(dataset, "png", tmp_path / "empty") == tmp_path / "empty"
    with pytest.raises(ConflictError, match="never changes"):
        export(dataset, "png", dataset / "png")
    assert {path.name for path in dataset.parent.iterdir()} == {"1.0.0"}


@pytest.mark.parametrize("kind", ["nifti", "png"])
def test_an_export_that_fails_leaves_nothing(
    dataset: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name.startswith("000004-"):
            raise OSError(28, "No space left on device", str(path))
        return written(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ResourceError, match="No space left"):
            export(dataset, kind, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_onto_a_full_disk_names_the_file_that_is_written(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "sendfile", full)  # what copies files in the end
    with pytest.raises(ResourceError, match="No space left") as err:
        export(dataset, "png", tmp_path / "out")
    assert str(err.value).startswith(str(tmp_path))
    assert str(dataset) not in str(err.value)


def test_cells_that_spreadsheets_run_are_marked_and_read_back(tmp_path: Path) -> None:
    texts = ["=1+1", "+1", "-1", "@x", "'=1", "plain", "it's"]
    host = make_host("one", variants=1)
    for number, text in enumerate(texts):
        folder = write_lesions(tmp_path / f"{number}/1.0.0", [host], patient_id=text)
        table = export(folder, "png", tmp_path / f"out{number}") / "samples.csv"
        with table.open(newline="") as file:
            (cell, *_) = (row["patient_id"] for row in csv.DictReader(file))
        assert not cell.startswith(("=", "+", "-", "@"))
        assert (cell == text) == (text in ("plain", "it's"))
        read = _read_csv(table)
        assert read is not None
        assert read[0]["patient_id"] == text


def test_a_killed_export_leaves_nothing_that_looks_whole(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # as after SIGKILL: nothing is cleaned up
        patch.setattr(run, "_put_in_place", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            export(dataset, "png", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {".out.exporting"}
    (tmp_path / ".out.exporting/stray").write_text("of another dataset")
    again = export(dataset, "png", tmp_path / "out")
    assert not (again / "stray").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def built(folder: Path, checkpoint: Path, release: str) -> Path:
    """A version with all slices of its lesions; both releases of it have the same samples."""
    tumors = {"name": "tumors", "kind": "transplant", "label": "tumor", "into": "kidney",
              "accept": {"inside_fraction": 0.5}, "slices": "all"}  # fmt: skip
    recipe = write_recipe(
        folder / f"{release}.yaml", folder / "data", checkpoint, release=release, masks=[tumors],
        masks_per_case=1, keep_original=False, variants=1,
    )  # fmt: skip
    words = ["build", str(recipe), "--output", str(folder / release), "--workers", "0"]
    done = CliRunner().invoke(app, [*words, "--cache-dir", str(folder / "cache")])
    assert done.exit_code == 0, done.output
    return folder / release / "tiny/1.0.0"


def require_overlay(row: dict[str, Any], scan: nib.Nifti1Image) -> None:
    """A volume has the voxels of a scan, at their place, wherever nothing was painted."""
    canonical = nib.as_closest_canonical(scan)
    first, image = row["slice_index"][0], row["image"]
    part = canonical.slicer[:, :, first : first + image.shape[2]]
    assert np.allclose(image.affine, part.affine, atol=1e-3)
    outside = np.asarray(row["mask"].dataobj) == 0
    assert 0 < np.count_nonzero(~outside) < outside.size
    there = np.asarray(part.dataobj).clip(-1024, 3071)
    assert np.array_equal(np.asarray(image.dataobj)[outside], there[outside])


@pytest.mark.long
def test_the_command_exports_what_was_built(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path / "data")
    full, patch = (built(tmp_path, tiny_checkpoint, release) for release in ("full", "patch"))
    refused = CliRunner().invoke(app, ["export", str(patch), "--to", "nifti"])
    assert refused.exit_code == 8
    assert "synthct compose" in refused.output
    monkeypatch.chdir(full)
    done = CliRunner().invoke(app, ["export", ".", "--to", "nifti"])
    assert done.exit_code == 0, done.output
    out = full.with_name("1.0.0.nifti")
    assert done.output.strip() == str(out)
    for name in ("attribution.md", "recipe.yaml", "synthct.lock", "preview.png"):
        assert (out / name).read_bytes() == (full / name).read_bytes()
    assert (out / "dataset_card.md").read_bytes() == (full / "README.md").read_bytes()
    page = (out / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-nc-sa-4.0" in page
    assert "| 1 | `kidney` |" in page
    assert "| 255 | ignore (if it occurs)" in page
    from datasets import load_dataset

    for row in load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"]:
        scan = nib.load(tmp_path / "data/hosts" / row["case_id"] / "imaging.nii.gz")
        require_overlay(row, scan)


@pytest.mark.long
@pytest.mark.realdata
def test_lesions_in_a_real_scan_lie_over_it(shared_data: Path, tmp_path: Path) -> None:
    kits = {"layout": "kits23", "root": str(shared_data / "kits23/dataset")}
    recipe = Recipe.model_validate(
        {
            "name": "real",
            "version": "1.0.0",
            "seed": 3,
            "sources": {"hosts": {**kits, "cases": ["case_90003"]}, "donors": kits},
            "masks_per_case": 1,
            "masks": [{"name": "tumors", "kind": "transplant", "label": "tumor", "into": "kidney",
                       "query": {"volume_ml": [2, 20]}, "slices": "all",
                       "accept": {"inside_fraction": 0.4, "organ_fraction": 0.4}}],
            "inpaint": {"method": "noise_fill"},
            "splits": {"train": 1.0},
        }
    )  # fmt: skip
    folder = build(recipe, tmp_path / "out", cache_dir=tmp_path / "cache", workers=0)
    out = export(folder, "nifti", tmp_path / "nifti")
    rows = load("niftifolder", out, tmp_path / "cache")["train"]
    assert len(rows) == 1
    assert rows[0]["image"].shape[2] > 2
    scan = nib.load(shared_data / "kits23/dataset/case_90003/imaging.nii.gz")
    require_overlay(rows[0], scan)
