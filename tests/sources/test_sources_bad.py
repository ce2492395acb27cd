"""Bad cases: found, named, left out where the recipe says so, and never read as something else."""

from __future__ import annotations

import html
import json
import os
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pytest
from conftest import KITS_AXES, make_tiny_case, write_kits, write_structures
from tiny_recipe import tiny_recipe, write_data, write_recipe

from synthct.build.check import check
from synthct.build.preview import describe
from synthct.build.run import build
from synthct.errors import SourceError
from synthct.recipe.recipe import load_recipe
from synthct.sources import (
    Index,
    Kits,
    Nifti,
    Source,
    TotalSegmentator,
    facts,
    index_sources,
    label_table,
    read_case,
)
from synthct.volume import Volume, nifti_bytes, restore_orientation, shifted, write_volume
from synthct.volume.case import Case


def index_one(source: Source, tmp_path: Path, *, skip: bool = False) -> Index:
    policy: Literal["skip", "stop"] = "skip" if skip else "stop"
    return index_sources({"hosts": source}, [], cache_dir=tmp_path / "cache", on_bad_case=policy)


def flip(path: Path, byte: int = 200) -> None:
    raw = bytearray(path.read_bytes())
    raw[byte] ^= 1
    path.write_bytes(raw)


# --- left out, or the end ---


def spoil_image(folder: Path) -> None:
    flip(folder / "imaging.nii.gz")


def spoil_labels(folder: Path) -> None:
    (folder / "segmentation.nii.gz").write_bytes(b"")


def shift_labels(folder: Path, mm: float = 0.8) -> None:
    labels = make_tiny_case().labels
    affine = labels.affine.copy()
    affine[0, 3] += mm
    moved = restore_orientation(Volume(labels.array, affine), KITS_AXES)
    write_volume(moved, folder / "segmentation.nii.gz")


def add_value(folder: Path) -> None:
    labels = make_tiny_case().labels
    odd = restore_orientation(Volume(labels.array * 3, labels.affine), KITS_AXES)
    write_volume(odd, folder / "segmentation.nii.gz")


def add_fraction(folder: Path) -> None:
    labels = make_tiny_case().labels
    image = nib.Nifti1Image(labels.array.astype(np.float32) * 0.5, labels.affine)
    image.set_qform(None)
    (folder / "segmentation.nii.gz").write_bytes(image.to_bytes())


SPOILT = {
    "flipped bit": (spoil_image, "imaging.nii.gz: damaged"),
    "empty file": (spoil_labels, "segmentation.nii.gz: the file is empty"),
    "other grid": (shift_labels, "lies 0.80 mm off the grid"),
    "unknown value": (add_value, "holds the value 6"),
    "fraction": (add_fraction, "label value 0.5 is not a whole number"),
}


@pytest.mark.parametrize(("spoil", "reason"), SPOILT.values(), ids=SPOILT.keys())
def test_a_bad_case_stops_or_is_left_out_with_its_reason(
    kits_root: Path, tmp_path: Path, spoil: object, reason: str
) -> None:
    assert callable(spoil)
    spoil(kits_root / "case_00001")
    with pytest.raises(SourceError, match=f"case_00001.*{reason}"):
        index_one(Kits(root=kits_root), tmp_path)
    index = index_one(Kits(root=kits_root), tmp_path, skip=True)
    assert [entry.case_id for entry in index.entries("hosts")] == ["case_00000", "case_00002"]
    (skipped,) = index.skipped
    assert (skipped.source, skipped.case_id) == ("hosts", "case_00001")
    assert reason in skipped.reason
    assert str(tmp_path) not in skipped.reason
    assert skipped.reason.isprintable()


def test_a_source_of_bad_cases_alone_is_an_error_all_the_same(
    kits_root: Path, tmp_path: Path
) -> None:
    for folder in kits_root.iterdir():
        spoil_labels(folder)
    with pytest.raises(SourceError, match=r"no case is good; case_00002: .*empty"):
        index_one(Kits(root=kits_root), tmp_path, skip=True)


def test_skipped_cases_are_told_by_plan_lock_and_card(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    data = write_data(tmp_path / "data")
    spoil_image(data / "hosts/case_00001")
    path = write_recipe(tmp_path / "tiny.yaml", data, tiny_checkpoint, keep_original=False)
    with pytest.raises(SourceError, match=r"imaging\.nii\.gz: damaged"):
        check(load_recipe(path), cache_dir=tmp_path / "cache")
    write_recipe(path, data, tiny_checkpoint, on_bad_case="skip", keep_original=False)
    recipe = load_recipe(path)
    checked = check(recipe, cache_dir=tmp_path / "cache")
    assert set(checked.plan.count("host")) == {"case_00000"}
    (line,) = [s for s in describe(checked).splitlines() if "left out" in s]
    assert "hosts case_00001: case_00001/imaging.nii.gz: damaged" in line
    folder = build(recipe, tmp_path / "out", cache_dir=tmp_path / "cache", limit=2, workers=0)
    (left_out,) = json.loads((folder / "synthct.lock").read_text())["left_out"]
    assert (left_out["source"], left_out["case"]) == ("hosts", "case_00001")
    assert "damaged" in left_out["reason"]
    card = (folder / "README.md").read_text()
    assert "Cases that were left out: 1." in card
    assert "hosts: case_00001 left out" in html.unescape(card).replace("\\", "")
    for name in ("README.md", "synthct.lock"):
        assert str(tmp_path) not in (folder / name).read_text()


def test_a_recipe_skips_only_if_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps(tiny_recipe(tmp_path, tmp_path)))
    assert load_recipe(path).on_bad_case == "stop"


# --- the file that was indexed ---


@pytest.mark.parametrize("name", ["imaging.nii", "segmentation.nii"])
def test_a_flipped_voxel_of_a_plain_file_is_told_by_its_indexed_hash(
    tmp_path: Path, tiny_case: Case, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain .nii has no checksum, and a bad disk changes neither its size nor its times."""
    # One time of a file is always that of its last change; a bad disk keeps that one, too.
    monkeypatch.setattr(facts, "_stamp", lambda state: [state.st_size, state.st_mtime_ns])
    folder = write_kits(tmp_path / "kits", tiny_case)
    for path in list(folder.iterdir()):
        volume = tiny_case.scan() if path.name.startswith("imaging") else tiny_case.labels
        path.with_suffix("").write_bytes(nifti_bytes(volume, compress=False))
        path.unlink()
    source = Kits(root=tmp_path / "kits")
    # KiTS looks for case_* folders
    folder.rename(folder.with_name("case_00000"))
    table = label_table({"hosts": source}, [])
    entry = index_one(source, tmp_path).entry("hosts", "case_00000")
    read_case(entry, table)
    path = tmp_path / "kits/case_00000" / name
    before = path.stat()
    flip(path, 352 + 40_000)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = index_one(source, tmp_path).entry("hosts", "case_00000")
    with pytest.raises(SourceError, match=f"{name}: is not the file that was indexed"):
        read_case(again, table)


# --- what may be allowed ---


def test_a_frame_of_a_4d_scan_is_read_if_the_recipe_says_which(
    tmp_path: Path, tiny_case: Case
) -> None:
    scan = tiny_case.scan()
    frames = np.stack([scan.array, scan.array - 100, scan.array + 7], axis=3)
    image = nib.Nifti1Image(frames, scan.affine)
    image.set_sform(scan.affine, 1)
    image.set_qform(None)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    with pytest.raises(SourceError, match=r"shape is \(48, 40, 24, 3\).*'frame: 0' to 'frame: 2'"):
        index_one(Nifti(root=tmp_path, image="{case}.nii"), tmp_path)
    for frame in range(3):
        source = Nifti(root=tmp_path, image="{case}.nii", frame=frame)
        case = read_case(index_one(source, tmp_path).entry("hosts", "a"), {})
        assert np.array_equal(case.scan().array, frames[..., frame].clip(-1024, 3071))
    with pytest.raises(SourceError, match="expected a 3D scan"):
        index_one(Nifti(root=tmp_path, image="{case}.nii", frame=3), tmp_path)


def test_nan_is_filled_only_if_asked_for_and_told(tmp_path: Path, tiny_case: Case) -> None:
    scan = tiny_case.scan()
    array = scan.array.astype(np.float32)
    array[3, 2, 1], array[5, 5, 5] = np.nan, np.inf
    image = nib.Nifti1Image(array, scan.affine)
    image.set_qform(None)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    with pytest.raises(
        SourceError, match=r"2 voxels are not finite .* voxel \(3, 2, 1\); .*nan: f"
    ):
        index_one(Nifti(root=tmp_path, image="{case}.nii"), tmp_path)
    source = Nifti(root=tmp_path, image="{case}.nii", nan="fill")
    index = index_one(source, tmp_path)
    assert index.notes == ("source 'hosts': case a: 2 voxels that are not finite are read as air",)
    read = read_case(index.entry("hosts", "a"), {}).scan().array
    assert read[3, 2, 1] == read[5, 5, 5] == -1024
    read[3, 2, 1], read[5, 5, 5] = scan.array[3, 2, 1], scan.array[5, 5, 5]
    assert np.array_equal(read, scan.array)


# --- paths ---


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that no source may read from."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.nii.gz").write_bytes(nifti_bytes(make_tiny_case().labels, compress=True))
    (folder / "meta.csv").write_text("image_id,split\ns0001,test\n")
    return folder


PLACES = {
    "s0001/segmentations/liver.nii.gz": "secret.nii.gz",
    "s0001/ct.nii.gz": "secret.nii.gz",
    "meta.csv": "meta.csv",
    "s0002/segmentations": "",
}


@pytest.mark.parametrize("target", ["link", "relative link", "/dev/zero", "/dev/stdin", "pipe",
                                    "loop"])  # fmt: skip
@pytest.mark.parametrize("place", PLACES)
def test_nothing_beneath_a_root_leads_out_of_it(
    organs_root: Path, tmp_path: Path, outside: Path, place: str, target: str
) -> None:
    path, secret = organs_root / place, outside / PLACES[place]
    if path.exists():
        path.unlink()
    if target == "pipe":
        os.mkfifo(path)
    elif target == "relative link":
        path.symlink_to(os.path.relpath(secret, path.parent))
    else:
        path.symlink_to({"link": str(secret), "loop": path.name}.get(target, target))
    if place == "s0002/segmentations" and target == "pipe":
        assert (
            not index_one(TotalSegmentator(root=organs_root), tmp_path).entries("hosts")[1].labels
        )
        return
    with pytest.raises(SourceError, match=path.name):
        index_one(TotalSegmentator(root=organs_root), tmp_path)


@pytest.mark.parametrize(
    "pattern",
    ["../{case}.nii.gz", "a/../../{case}.nii", "/etc/{case}.nii", "~/{case}.nii", "..\\{case}.nii",
     "C:\\{case}.nii", "\\\\host\\{case}.nii", "./../{case}.nii.gz", "{case}/../../x.nii"],
)  # fmt: skip
def test_patterns_that_lead_out_are_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ValueError, match="leads out of root"):
        Nifti(root=tmp_path, image=pattern)


def test_links_within_the_root_are_followed(tmp_path: Path, tiny_case: Case) -> None:
    folder = write_structures(tmp_path / "x", tiny_case, {"liver": tiny_case.region("kidney")})
    store = tmp_path / "x/.store"
    store.mkdir()
    for path in (folder / "ct.nii.gz", folder / "segmentations/liver.nii.gz"):
        path.rename(store / path.name)
        path.symlink_to(os.path.relpath(store / path.name, path.parent))
    index = index_sources(
        {"hosts": TotalSegmentator(root=tmp_path / "x")}, ["liver"], cache_dir=tmp_path / "cache"
    )
    assert index.entry("hosts", "tiny").labels["liver"].voxels == tiny_case.region("kidney").sum()


def test_a_shift_of_a_twentieth_of_a_voxel_is_found(kits_root: Path, tmp_path: Path) -> None:
    for mm, found in ((0.005, False), (0.03, False), (0.05, True), (0.1, True), (5.0, True)):
        shift_labels(kits_root / "case_00001", mm)
        index = index_one(Kits(root=kits_root), tmp_path, skip=True)
        assert bool(index.skipped) is found, mm
    labels = make_tiny_case().labels
    for axes in ((1, 0, 2), (2, 1, 0)):
        turned = Volume(np.ascontiguousarray(labels.array.transpose(axes)), labels.affine)
        path = kits_root / "case_00001/segmentation.nii.gz"
        write_volume(restore_orientation(turned, KITS_AXES), path)
        assert index_one(Kits(root=kits_root), tmp_path, skip=True).skipped
    flipped = Volume(labels.array[::-1], shifted(labels.affine, (0, 0, 0)) @ np.diag([-1, 1, 1, 1]))
    write_volume(flipped, kits_root / "case_00001/segmentation.nii.gz")
    (skipped,) = index_one(Kits(root=kits_root), tmp_path, skip=True).skipped
    assert "mm off the grid" in skipped.reason


# --- names ---


@pytest.mark.parametrize("name", ["case\n00009", "case_\x1b[31m", "case_\udcff"])
def test_a_name_that_is_no_line_of_text_is_told_before_any_work(name: str, tmp_path: Path) -> None:
    write_kits(tmp_path / "kits", make_tiny_case("case_00000"))
    write_kits(tmp_path / "kits", make_tiny_case("case_00001", noise_seed=1)).rename(
        tmp_path / "kits" / name
    )
    source = Nifti(
        root=tmp_path / "kits", image="{case}/imaging.nii.gz", labels="{case}/segmentation.nii.gz",
        label_names={"kidney": 1},
    )  # fmt: skip
    with pytest.raises(SourceError, match="is no UTF-8 or holds characters") as err:
        index_one(source, tmp_path)
    assert str(err.value).isprintable()
    index = index_one(source, tmp_path, skip=True)
    assert [entry.case_id for entry in index.entries("hosts")] == ["case_00000"]
    (skipped,) = index.skipped
    assert skipped.case_id.isprintable()
    assert "rename" in str(err.value)


def test_a_patient_whose_name_is_no_line_of_text_is_told(tmp_path: Path) -> None:
    write_kits(tmp_path / "kits", make_tiny_case("case_00000"))
    source = Kits(
        layout="kits23", root=tmp_path / "kits", patients={"case_00000": "somebody\nelse"}
    )
    with pytest.raises(SourceError, match=r"the name 'somebody.*else' is no UTF-8 or holds"):
        index_one(source, tmp_path)
