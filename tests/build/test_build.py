from __future__ import annotations

import hashlib
import html
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, load_dataset
from PIL import Image
from tiny_recipe import HOSTS, SECTIONS, tiny_recipe, write_data, write_recipe

from synthct.build.run import build
from synthct.dataset.lockfile import read_lock
from synthct.dataset.manifest import read_manifest
from synthct.errors import ConflictError, MaskError, ResourceError, SourceError, VerifyError
from synthct.recipe.plan import SampleSpec
from synthct.recipe.recipe import Recipe

Make = Callable[..., Path]

#: ``synthct.build`` is the function.
build_module = import_module("synthct.build.run")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    write_data(folder / "data")
    return folder


@pytest.fixture(scope="module")
def make(folder: Path, tiny_checkpoint: Path) -> Make:
    """Builds the tiny recipe, with changes, into an output folder of that name."""

    def run(
        output: str,
        *,
        workers: int = 0,
        limit: int | None = None,
        lock: Path | None = None,
        **changes: Any,
    ) -> Path:
        recipe = Recipe.model_validate(tiny_recipe(folder / "data", tiny_checkpoint, **changes))
        return build(
            recipe,
            folder / output,
            cache_dir=folder / "cache",
            workers=workers,
            limit=limit,
            lock=lock,
        )

    return run


#: Measures that the tests put limits on; the second is only defined for a later variant.
LIMITED = ("seam_ratio", "variant_diversity")


@pytest.fixture(scope="module")
def built(make: Make) -> Path:
    """The tiny recipe, built in one process."""
    return make("out")


@pytest.fixture
def no_painting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test fail if a model is loaded."""

    def paint(*_: Any) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr(build_module, "load_context", paint)


def files_of(folder: Path) -> dict[str, str]:
    """Every file of a finished version to its sha256, as computed from the disk."""
    manifest = read_manifest(folder)
    assert manifest is not None
    hashes = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    assert {f.path: f.sha256 for f in manifest.files} | {
        "manifest.json": hashes["manifest.json"]
    } == hashes
    return hashes


def loaded(folder: Path, cache: Path, *, decode: bool = True) -> Dataset:
    everything = load_dataset(str(folder), cache_dir=str(cache))
    assert isinstance(everything, DatasetDict)
    assert list(everything) == ["train"]
    return everything["train"]


@pytest.mark.long
def test_datasets_of_one_version_are_not_taken_for_each_other(
    built: Path, make: Make, tmp_path: Path
) -> None:
    """``datasets`` caches a folder under its base name, which is the version's."""
    other = make("other", limit=3)
    twin = tmp_path / built.name
    shutil.copytree(other, twin)
    cache = tmp_path / "cache"
    assert loaded(built, cache).num_rows == 16
    assert loaded(twin, cache).num_rows == 3


@pytest.mark.long
def test_the_same_samples_with_other_columns_are_not_taken_from_the_cache(
    make: Make, tmp_path: Path
) -> None:
    first = make("columns", limit=3)
    assert "original" in loaded(first, tmp_path).column_names
    content = read_manifest(first).release.content_id
    shutil.rmtree(first)
    second = make("columns", limit=3, keep_original=False)
    assert second == first
    assert read_manifest(second).release.content_id == content
    assert "original" not in loaded(second, tmp_path).column_names


def test_the_dataset_loads_and_its_pictures_decode(built: Path, tmp_path: Path) -> None:
    rows = loaded(built, tmp_path)
    assert rows.num_rows == 16
    assert set(rows["mask_kind"]) == {"organ", "box", "transplant", "blob"}
    assert set(rows["case_id"]) == set(HOSTS)
    row = rows[0]
    for name in ("image", "mask", "label_map", "original", "preview"):
        assert isinstance(row[name], Image.Image)
        assert row[name].size == (48, 40)
    assert np.asarray(row["image"]).max() > 1024
    assert row["provenance"]["generation"]["num_inference_steps"] == 2
    assert row["provenance"]["host"]["case"] == row["case_id"]


@pytest.mark.long
def test_slices_of_a_lesion_are_the_same_samples_in_any_shards(make: Make, tmp_path: Path) -> None:
    section = {"name": "tumors", **SECTIONS["tumors"], "slices": {"every_mm": 3}}
    changes = {"masks": [section], "masks_per_case": 1, "variants": 2}
    folders = [
        make(f"slices-{size}", workers=workers, samples_per_shard=size, **changes)
        for size, workers in ((1, 0), (100, 2))
    ]
    one, other = (loaded(folder, tmp_path, decode=False) for folder in folders)
    assert len(list((folders[0] / "data").iterdir())) == 4
    assert len(list((folders[1] / "data").iterdir())) == 1
    digests = [dict(zip(d["sample_id"], d["sample_digest"], strict=True)) for d in (one, other)]
    assert digests[0] == digests[1]
    lesions = set(one["lesion_id"])
    assert lesions == {f"{host}.tumors.d000" for host in HOSTS}
    assert one.num_rows > 2 * len(lesions)
    for lesion_id in lesions:
        rows = [row for row in other if row["lesion_id"] == lesion_id]
        assert len({json.dumps(r["provenance"]["mask"]["params"]["region"]) for r in rows}) == 1
        assert len({row["slice_index"] for row in rows}) == len(rows) / 2


def test_outside_of_the_mask_every_voxel_is_the_source_files(
    built: Path, folder: Path, tmp_path: Path
) -> None:
    """By nibabel and the row's own affine alone: no code of ours says where a pixel lies."""
    rows = loaded(built, tmp_path)
    scans = {}
    for case_id in HOSTS:
        scan = nib.load(folder / "data/hosts" / case_id / "imaging.nii.gz")
        scans[case_id] = np.rint(scan.get_fdata()).clip(-1024, 3071), np.linalg.inv(scan.affine)
    for row in rows:
        voxels, to_voxel = scans[row["case_id"]]
        hu = np.asarray(row["image"]).astype(int) - 1024
        original = np.asarray(row["original"]).astype(int) - 1024
        mask = np.asarray(row["mask"]) > 0
        r, c = np.indices(hu.shape)
        places = np.stack([r, c, np.zeros_like(r), np.ones_like(r)], axis=-1)
        ijk = places @ np.reshape(row["affine"], (4, 4)).T @ to_voxel.T
        whole = np.rint(ijk[..., :3]).astype(int)
        assert np.abs(ijk[..., :3] - whole).max() < 1e-3
        source = voxels[tuple(np.moveaxis(whole, -1, 0))]
        assert np.array_equal(original, source)
        assert np.array_equal(hu[~mask], source[~mask])
        assert mask.any()
        assert (hu[mask] != source[mask]).any()
        assert row["outside_max_abs_diff"] == 0


def test_variants_share_their_mask_and_differ_in_their_paint(built: Path, tmp_path: Path) -> None:
    rows = loaded(built, tmp_path)
    for number in range(0, 16, 2):
        first, second = rows[number], rows[number + 1]
        assert first["mask_id"] == second["mask_id"]
        assert np.array_equal(first["mask"], second["mask"])
        assert not np.array_equal(first["image"], second["image"])


def test_a_second_run_elsewhere_gives_the_same_bytes(make: Make, built: Path) -> None:
    assert files_of(make("again")) == files_of(built)


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_no_byte(make: Make, built: Path, workers: int) -> None:
    assert files_of(make(f"workers-{workers}", workers=workers)) == files_of(built)


@pytest.mark.long
def test_a_killed_build_goes_on_to_the_same_bytes(
    make: Make, built: Path, folder: Path, tiny_checkpoint: Path
) -> None:
    recipe = write_recipe(folder / "killed.yaml", folder / "data", tiny_checkpoint)
    output = folder / "killed"
    staging = output / "tiny/.1.0.0.building"
    command = [sys.executable, "-m", "synthct", "build", str(recipe), "--output", str(output)]
    command += ["--cache-dir", str(folder / "cache"), "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    shard = staging / "tree/data/train-00000-of-00004.parquet"
    entry = staging / "journal/train-00000-of-00004.shard"
    while process.poll() is None and not entry.exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    finished = sorted((staging / "tree/data").glob("*.parquet"))
    assert 1 <= len(finished) < 4
    before = shard.stat().st_mtime_ns, shard.stat().st_ino
    made = make("killed")
    kept = (made / "data/train-00000-of-00004.parquet").stat()
    assert (kept.st_mtime_ns, kept.st_ino) == before  # not made again
    assert files_of(made) == files_of(built)
    assert not staging.exists()


@pytest.mark.long
def test_a_damaged_shard_of_an_interrupted_build_is_made_again(
    make: Make, built: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "write_documents", stop)
        with pytest.raises(KeyboardInterrupt):
            make("damaged")
    shard = folder / "damaged/tiny/.1.0.0.building/tree/data/train-00002-of-00004.parquet"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert files_of(make("damaged")) == files_of(built)


@pytest.mark.usefixtures("no_painting")
def test_building_what_is_there_does_nothing(
    make: Make, built: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    with caplog.at_level(logging.INFO, "synthct"):
        assert make("out") == built
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == before
    assert "is there already, nothing to do" in caplog.text


@pytest.mark.usefixtures("no_painting")
@pytest.mark.parametrize("changes", [{"seed": 6}, {"variants": 3}, {"keep_original": False}])
def test_another_recipe_needs_another_version(
    make: Make, built: Path, changes: dict[str, Any]
) -> None:
    before = files_of(built)
    with pytest.raises(ConflictError, match=r"tiny/1\.0\.0: version 1\.0\.0\+.*a higher version"):
        make("out", **changes)
    assert files_of(built) == before


def test_another_version_is_built_beside_the_first(make: Make, built: Path) -> None:
    before = files_of(built)
    assert make("out", version="1.1.0", limit=2) == built.with_name("1.1.0-first2")
    assert files_of(built) == before


def test_an_unfinished_build_of_another_recipe_is_not_gone_on_with(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build_module, "paint_samples", stop)
    with pytest.raises(KeyboardInterrupt):
        make("unfinished")
    with pytest.raises(ConflictError, match=r"unfinished/tiny/\.1\.0\.0\.building .* delete that"):
        make("unfinished", seed=6)


def test_a_limit_builds_the_first_samples_as_a_version_of_its_own(
    make: Make, built: Path, tmp_path: Path
) -> None:
    few = make("few", limit=3)
    assert few.name == "1.0.0-first3"
    rows, all_rows = loaded(few, tmp_path / "a"), loaded(built, tmp_path / "b")
    assert list(rows["sample_id"]) == list(all_rows["sample_id"])[:3]
    # The batches are other ones, so only the masks and what surrounds them are promised to agree.
    for one, other in zip(rows, all_rows.select(range(3)), strict=True):
        assert np.array_equal(one["mask"], other["mask"])


def test_an_output_that_cannot_be_written_is_told_before_any_work(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def index(*_: Any, **__: Any) -> None:
        pytest.fail("the sources were indexed")

    monkeypatch.setattr(import_module("synthct.build.check"), "index_sources", index)
    (folder / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="file"):
        make("file")


def test_a_folder_that_is_no_dataset_is_left_alone(make: Make, folder: Path) -> None:
    precious = folder / "other/tiny/1.0.0/thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("do not delete")
    with pytest.raises(ConflictError, match="is no finished dataset"):
        make("other")
    assert precious.read_text() == "do not delete"


def test_missing_data_is_told_with_what_to_do(make: Make, folder: Path) -> None:
    hosts = {"layout": "kits23", "root": str(folder / "nowhere")}
    donors = {"layout": "kits23", "root": str(folder / "data/donors")}
    with pytest.raises(SourceError) as err:
        make("missing", sources={"hosts": hosts, "donors": donors})
    for part in ("source 'hosts'", "nowhere does not exist", "github.com/neheller/kits23",
                 "CC BY-NC-SA", "--source", "KITS23_ROOT"):  # fmt: skip
        assert part in str(err.value)


@pytest.mark.long
def test_no_split_shares_a_patient_with_another(
    make: Make, folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    data = write_data(tmp_path, hosts=("case_00010", "case_00011", "case_00012", "case_00013"))
    sources = {
        "hosts": {"layout": "kits23", "root": str(data / "hosts"),
                  "patients": {"case_00010": "ann", "case_00011": "ann"}},
        "donors": {"layout": "kits23", "root": str(data / "donors")},
    }  # fmt: skip
    splits = {"train": 0.4, "validation": 0.3, "test": 0.3}
    masks = [{"name": name, **SECTIONS[name]} for name in ("tumors", "blob")]
    made = make("split", sources=sources, splits=splits, masks=masks, masks_per_case=2, variants=1)
    everything = load_dataset(str(made), cache_dir=str(tmp_path / "cache"))
    assert set(everything) == {"train", "validation", "test"}
    seen: dict[str, str] = {}
    for split, rows in everything.items():
        for person in {*rows["patient_id"], *rows["donor_patient_id"]} - {None}:
            assert seen.setdefault(person, split) == split
    assert {"ann", "case_00012", "case_00013"} <= set(seen)
    assert sum(rows.num_rows for rows in everything.values()) == 8


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_reads_like_any_other(
    make: Make, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def prepare(specs: list[SampleSpec], *_: Any) -> None:
        raise SourceError(f"case {specs[0].host.case_id}: imaging.nii.gz is damaged")

    monkeypatch.setattr(import_module("synthct.build.workers"), "prepare", prepare)
    with pytest.raises(SourceError) as err:
        make(f"failing-{workers}", workers=workers)
    assert str(err.value) == "case case_00000: imaging.nii.gz is damaged"


def test_a_killed_worker_is_told_as_such(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(import_module("synthct.build.workers"), "prepare", prepare)
    with pytest.raises(ResourceError, match=r"was killed by SIGKILL.* memory at case"):
        make("killed-worker", workers=1)


def test_refused_masks_are_counted_and_the_rest_is_built(make: Make, tmp_path: Path) -> None:
    large = {"name": "large", **SECTIONS["tumors"], "deform": {"scale": [4, 4]}}
    made = make("refused", masks=[large, {"name": "blob", **SECTIONS["blob"]}], masks_per_case=2)
    rows = loaded(made, tmp_path)
    assert set(rows["mask_name"]) == {"blob"}
    rejected = pq.read_table(made / "rejected.parquet").to_pydict()
    assert rejected["reason"] == ["transplant: organ_fraction"] * 4
    assert "transplant: organ_fraction" in html.unescape((made / "README.md").read_text())


@pytest.mark.long
def test_what_breaks_a_limit_is_rejected_with_its_measures(
    built: Path, make: Make, tmp_path: Path
) -> None:
    seams = sorted(loaded(built, tmp_path)["seam_ratio"])
    limit = (seams[-5] + seams[-4]) / 2
    made = make("limited", quality={"seam_ratio": {"max": limit}})
    kept = loaded(made, tmp_path)
    rejected = pq.read_table(made / "rejected.parquet").to_pylist()
    assert len(kept) == len(seams) - 4
    assert max(kept["seam_ratio"]) <= limit
    assert [r["value"] for r in rejected] == [r["seam_ratio"] for r in rejected]
    assert sorted(r["seam_ratio"] for r in rejected) == seams[-4:]
    assert {r["measure"] for r in rejected} == {"seam_ratio"}
    assert {r["reason"] for r in rejected} == {f"seam_ratio above {limit:g}"}
    assert all(r["mask_id"] and r["texture_ratio"] > 0 for r in rejected)
    assert f"seam_ratio above {limit:g}" in html.unescape((made / "README.md").read_text())
    manifest = read_manifest(made)
    assert manifest is not None
    assert manifest.release.rejected == {f"seam_ratio above {limit:g}": 4}


def test_a_limit_that_nothing_can_break_is_told(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    quality = {"mask_adherence": {"min": 0.1}, "hu_wasserstein": {"max": 1000}}
    with caplog.at_level(logging.WARNING):
        make("toothless", quality=quality, limit=1)
    notes = [record.message for record in caplog.records if "does not limit it" in record.message]
    assert any("other patients show real 'tumor', so mask_adherence" in note for note in notes)
    assert not any("hu_wasserstein" in note for note in notes)


@pytest.mark.long
def test_limits_change_no_byte_with_the_number_of_workers(
    built: Path, make: Make, tmp_path: Path
) -> None:
    rows = loaded(built, tmp_path)
    middle = {name: float(np.median([v for v in rows[name] if v])) for name in LIMITED}
    quality = {name: {"max": value} for name, value in middle.items()}
    alone = make("limited-0", quality=quality, workers=0)
    several = make("limited-2", quality=quality, workers=2)
    assert files_of(alone) == files_of(several)
    reasons = set(pq.read_table(alone / "rejected.parquet")["measure"].to_pylist())
    assert reasons == set(LIMITED)


def test_paintings_of_one_mask_are_compared_with_the_earlier_ones(
    built: Path, tmp_path: Path
) -> None:
    rows = loaded(built, tmp_path)
    diversity = dict(zip(zip(rows["mask_id"], rows["variant"], strict=True),
                         rows["variant_diversity"], strict=True))  # fmt: skip
    assert all((value is None) == (variant == 0) for (_, variant), value in diversity.items())
    assert all(0 < value < 2 for value in diversity.values() if value is not None)


def test_a_dataset_without_a_sample_is_an_error_and_leaves_nothing(
    make: Make, folder: Path
) -> None:
    large = {"name": "large", **SECTIONS["tumors"], "deform": {"scale": [4, 4]}}
    with pytest.raises(MaskError, match=r"all 16 samples were rejected \(16 transplant: organ_fr"):
        make("empty", masks=[large])
    assert not list((folder / "empty/tiny").iterdir())


def test_an_unknown_device_is_told_before_any_work(
    folder: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.model_validate(tiny_recipe(folder / "data", tiny_checkpoint))
    monkeypatch.setattr(build_module, "check", lambda *_, **__: pytest.fail("work began"))
    with pytest.raises(ResourceError, match="--device abacus"):
        build(recipe, folder / "device", device="abacus")


def test_no_file_names_the_machine_or_a_place_on_it(built: Path, folder: Path) -> None:
    for path in built.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert str(folder).encode() not in data
            if path.suffix not in (".parquet", ".png"):  # what rows say is seen in test_sample
                assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", data.decode())


@pytest.mark.long
def test_a_moved_data_folder_gives_the_same_dataset(
    make: Make, built: Path, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "data", tmp_path / "elsewhere")
    sources = tiny_recipe(tmp_path / "elsewhere", tmp_path)["sources"]
    assert files_of(make("moved", sources=sources)) == files_of(built)


@pytest.mark.long
def test_the_log_says_what_is_built_and_how_far_it_is(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "synthct"):
        make("logged")
    first, second, *shards, last = (r.getMessage() for r in caplog.records)
    assert re.fullmatch(
        r"synthct \S+  tiny 1\.0\.0  recipe [0-9a-f]{12}  checkpoint tiny [0-9a-f]{12}", first
    )
    assert second == "16 samples in 4 shards  train 16"
    assert len(shards) == 4
    assert shards[0].startswith("shard 00001/00004  4 samples  rejected 0  ")
    assert re.fullmatch(r"tiny 1\.0\.0\+[0-9a-f]{12}: 16 samples", last)


def test_the_records_hold_what_a_replay_needs(built: Path) -> None:
    lock = read_lock(built)
    assert [case.case for case in lock.sources["hosts"].cases] == list(HOSTS)
    assert all(len(h) == 64 for h in lock.checkpoint.files.values())
    assert (lock.licence, lock.labels["tumor"]) == ("CC-BY-NC-SA-4.0", 2)
    with Image.open(io.BytesIO((built / "preview.png").read_bytes())) as picture:
        assert picture.width > 600


@pytest.mark.long
def test_a_locked_build_gives_the_same_bytes(make: Make, built: Path) -> None:
    assert files_of(make("locked", lock=built)) == files_of(built)


def test_a_locked_build_refuses_whatever_has_drifted(
    make: Make, built: Path, folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConflictError, match=r"synthct.lock does not hold here.*\n  plan.id: "):
        make("drift", lock=built, seed=6)
    sources = tiny_recipe(folder / "data", tiny_checkpoint)["sources"]
    stricter = {**sources, "donors": {**sources["donors"], "licence": "CC-BY-NC-SA-3.0"}}
    message = r"sources.donors.licence: locked CC-BY-NC-SA-4.0, here CC-BY-NC-SA-3.0"
    with pytest.raises(ConflictError, match=message):
        make("drift", lock=built, sources=stricter)
    lock = json.loads((built / "synthct.lock").read_text())
    for part, key in (("numerics", "torch"), ("versions", "numpy"), ("writer", "pyarrow")):
        other = tmp_path / f"{part}.lock"
        other.write_text(json.dumps({**lock, part: {**lock[part], key: "0.0.1"}}))
        with pytest.raises(ConflictError, match=rf"{part}.{key}: locked 0.0.1, here ") as err:
            make("drift", lock=other)
        assert err.value.exit_code == 6
    assert not list((folder / "drift/tiny").iterdir())


def test_a_lock_that_is_not_there_or_damaged_is_told(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No such file"):
        make("drift", lock=tmp_path / "synthct.lock")
    (tmp_path / "synthct.lock").write_text("{}")
    with pytest.raises(VerifyError, match="is damaged"):
        make("drift", lock=tmp_path)
