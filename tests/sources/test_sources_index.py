"""The index is right, kept on disk and made again only where needed; labels get one numbering."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import KITS_AXES, make_tiny_case, write_structures

from synthct.errors import SourceError
from synthct.sources import (
    Index,
    Kits,
    Nifti,
    Source,
    TotalSegmentator,
    facts,
    index_sources,
    label_table,
    lesions,
    read_case,
)
from synthct.sources.stored import read_label_map
from synthct.volume import Volume, restore_orientation, write_volume
from synthct.volume.anatomy import lesions_of


def index_one(source: Source, tmp_path: Path, *labels: str) -> Index:
    return index_sources({"hosts": source}, labels, cache_dir=tmp_path / "cache")


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> Volume:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(facts, "read_image", refuse)
    monkeypatch.setattr(facts, "read_label_map", refuse)


def test_second_index_reads_no_voxels(
    kits_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = index_one(Kits(root=kits_root), tmp_path)
    forbid_reading(monkeypatch)
    second = index_one(Kits(root=kits_root, licence=None), tmp_path)
    for one, two in zip(first.entries("hosts"), second.entries("hosts"), strict=True):
        assert (one.labels, one.shape, one.voxel_sha256) == (
            two.labels,
            two.shape,
            two.voxel_sha256,
        )
        assert (one.image_sha256, one.label_sha256) == (two.image_sha256, two.label_sha256)
        assert np.array_equal(one.affine, two.affine)


def test_changed_file_is_read_again(kits_root: Path, tmp_path: Path) -> None:
    before = index_one(Kits(root=kits_root), tmp_path).entry("hosts", "case_00002")
    labels = make_tiny_case().labels
    emptied = Volume(np.where(labels.array == 2, 0, labels.array), labels.affine)
    path = before.label_files["tumor"]
    assert isinstance(path, Path)
    write_volume(restore_orientation(emptied, KITS_AXES), path)
    after = index_one(Kits(root=kits_root), tmp_path).entry("hosts", "case_00002")
    assert "tumor" not in after.labels
    assert after.label_sha256 != before.label_sha256


def test_a_file_edited_with_size_and_time_kept_is_read_again(
    kits_root: Path, tmp_path: Path
) -> None:
    """Else every run would say that it is not the file that was indexed."""
    source = Kits(layout="kits23", root=kits_root)
    before = index_one(source, tmp_path).entry("hosts", "case_00001")
    (path,) = set(before.label_files.values())
    assert isinstance(path, Path)
    state, raw = path.stat(), bytearray(path.read_bytes())
    raw[4] ^= 1  # of the time in the header of gzip: another file with the same voxels
    path.write_bytes(raw)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    after = index_one(source, tmp_path).entry("hosts", "case_00001")
    assert after.label_sha256 != before.label_sha256
    read_case(after, {"kidney": 1})


def test_only_the_files_of_wanted_labels_are_read(
    organs_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    read = read_label_map
    monkeypatch.setattr(
        facts, "read_label_map", lambda p, **kw: opened.append(p.name) or read(p, **kw)
    )
    monkeypatch.setattr(
        "synthct.sources.read.read_label_map",
        lambda p, **kw: opened.append(p.name) or read(p, **kw),
    )
    source = TotalSegmentator(root=organs_root)
    index_one(source, tmp_path, "kidney")
    assert sorted(opened) == ["kidney_left.nii.gz", "kidney_right.nii.gz"]
    opened.clear()
    entry = index_one(source, tmp_path, "liver", "kidney").entry("hosts", "s0001")
    assert opened == ["liver.nii.gz"]
    opened.clear()
    read_case(entry, {"liver": 1})
    assert opened == ["liver.nii.gz"]


def test_hosts_and_donors_of_one_root_are_read_once(
    kits_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    read = read_label_map
    monkeypatch.setattr(facts, "read_label_map", lambda p, **kw: opened.append(p) or read(p, **kw))
    both = {"hosts": Kits(root=kits_root), "donors": Kits(root=kits_root)}
    index = index_sources(both, [], cache_dir=tmp_path / "cache")
    assert len(opened) == 3
    assert [e.source for e in index.entries("donors")] == ["donors"] * 3


def test_damaged_cache_is_made_anew(kits_root: Path, tmp_path: Path) -> None:
    index_one(Kits(root=kits_root), tmp_path)
    (cache,) = (tmp_path / "cache/index").iterdir()
    good = cache.read_bytes()
    cache.write_bytes(good[: len(good) // 2])
    index_one(Kits(root=kits_root), tmp_path)
    assert cache.read_bytes() == good


def test_what_was_read_before_an_error_is_kept(
    kits_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = kits_root / "case_00002/segmentation.nii.gz"
    good = last.read_bytes()
    last.write_bytes(good[:-20])
    with pytest.raises(SourceError, match=r"source 'hosts': .*damaged"):
        index_one(Kits(root=kits_root), tmp_path)
    last.write_bytes(good)
    opened: list[Path] = []
    read = read_label_map
    monkeypatch.setattr(facts, "read_label_map", lambda p, **kw: opened.append(p) or read(p, **kw))
    index_one(Kits(root=kits_root), tmp_path)
    assert opened == [last]


def test_hash_of_voxels_survives_another_compression(kits_root: Path, tmp_path: Path) -> None:
    before = index_one(Kits(root=kits_root), tmp_path).entry("hosts", "case_00000")
    plain = kits_root / "case_00000/imaging.nii"
    write_volume(restore_orientation(make_tiny_case().scan(), KITS_AXES), plain)
    (kits_root / "case_00000/imaging.nii.gz").unlink()
    after = index_one(Kits(root=kits_root), tmp_path).entry("hosts", "case_00000")
    assert after.image == plain
    assert after.voxel_sha256 == before.voxel_sha256
    assert after.image_sha256 != before.image_sha256


def test_cases_and_exclude_take_patterns_and_tell_of_typing_errors(
    kits_root: Path, tmp_path: Path
) -> None:
    source = Kits(
        root=kits_root,
        cases=("case_0000[01]",),
        exclude=("case_00000", "case_0002"),
        patients={"x": "y"},
    )
    index = index_one(source, tmp_path)
    assert [entry.case_id for entry in index.entries("hosts")] == ["case_00001"]
    assert len(index.notes) == 2
    assert "patients: there is no case 'x'" in index.notes[0]
    assert "exclude: 'case_0002' matches no case; did you mean 'case_00002'?" in index.notes[1]
    with pytest.raises(SourceError, match="cases: 'cse_00001' matches no case; did you mean"):
        index_one(Kits(root=kits_root, cases=("cse_00001",)), tmp_path)
    with pytest.raises(SourceError, match="leave no case"):
        index_one(Kits(root=kits_root, exclude=("*",)), tmp_path)


def test_folder_without_a_label_map_is_skipped_and_counted(kits_root: Path, tmp_path: Path) -> None:
    (kits_root / "case_00009").mkdir()
    (skipped,) = index_one(Kits(root=kits_root), tmp_path).skipped
    assert (skipped.source, skipped.case_id) == ("hosts", "case_00009")
    assert "segmentation.nii.gz" in skipped.reason


def test_unknown_source_or_case_is_named(kits_root: Path, tmp_path: Path) -> None:
    index = index_one(Kits(root=kits_root), tmp_path)
    with pytest.raises(SourceError, match="did you mean 'hosts'"):
        index.entries("host")
    with pytest.raises(SourceError, match="no case 'case_7'"):
        index.entry("hosts", "case_7")


def test_entries_travel_to_worker_processes(organs_root: Path, tmp_path: Path) -> None:
    entry = index_one(TotalSegmentator(root=organs_root), tmp_path, "liver").entries("hosts")[0]
    copy = pickle.loads(pickle.dumps(entry))
    assert copy.labels == entry.labels
    assert np.array_equal(copy.affine, entry.affine)


# --- lesions ---


def index_lesions(root: Path, tmp_path: Path) -> Index:
    wanted = {"donors": [("tumor", "kidney"), ("cyst", "kidney")]}
    both = {"hosts": Kits(root=root), "donors": Kits(root=root)}
    return index_sources(both, [], cache_dir=tmp_path / "cache", lesions=wanted)


def test_lesions_are_described_once_and_anew_when_the_file_changes(
    kits_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = index_lesions(kits_root, tmp_path)
    assert first.entry("hosts", "case_00000").lesions == {}
    found = first.entry("donors", "case_00000").lesions
    assert list(found) == [("tumor", "kidney")], "a case without cysts lends none"
    assert found["tumor", "kidney"] == lesions_of(make_tiny_case(), "tumor", "kidney")
    opened: list[str] = []
    read = read_case
    monkeypatch.setattr(
        lesions,
        "read_case",
        lambda entry, names: opened.append(entry.case_id) or read(entry, names),
    )
    again = index_lesions(kits_root, tmp_path)
    assert opened == []
    assert again.entry("donors", "case_00000").lesions == found
    labels = make_tiny_case().labels
    half = Volume(labels.array.copy(), labels.affine)
    half.array[half.array == 2] *= np.arange((labels.array == 2).sum(), dtype=np.uint8) % 2
    write_volume(restore_orientation(half, KITS_AXES), kits_root / "case_00002/segmentation.nii.gz")
    changed = index_lesions(kits_root, tmp_path).entry("donors", "case_00002").lesions
    assert opened == ["case_00002"]
    assert changed["tumor", "kidney"] != found["tumor", "kidney"]


def test_lesions_that_another_structure_hides_are_none(tmp_path: Path) -> None:
    case = make_tiny_case("s0001")
    kidney, tumor = case.region("kidney"), case.region("tumor")
    root = tmp_path / "organs"
    write_structures(root, case, {"kidney_left": kidney, "liver": tumor, "spleen": kidney})
    source = TotalSegmentator(root=root)
    wanted = ["kidney_left", "liver", "spleen"]
    pairs = [("liver", "kidney_left"), ("spleen", "kidney_left")]
    index = index_sources(
        {"hosts": source}, wanted, cache_dir=tmp_path / "cache", lesions={"hosts": pairs}
    )
    entry = index.entry("hosts", "s0001")
    read = read_case(entry, label_table({"hosts": source}, wanted))
    assert entry.lesions["liver", "kidney_left"] == lesions_of(read, "liver", "kidney_left")
    # Where structures overlap, the first keeps the voxels: the kidney, here all of the spleen's.
    assert entry.lesions["spleen", "kidney_left"] == ()


# --- label table ---


def test_kits_keeps_its_numbers_whatever_comes_before(kits_root: Path, organs_root: Path) -> None:
    sources = {"organs": TotalSegmentator(root=organs_root), "donors": Kits(root=kits_root)}
    table = label_table(sources, ["spleen", "kidney", "no_such_label"])
    assert table == {
        "kidney": 1,
        "tumor": 2,
        "cyst": 3,
        "spleen": 4,
        "kidney_left": 5,
        "kidney_right": 6,
    }


def test_stated_values_are_kept_and_given_to_no_other(kits_root: Path) -> None:
    sources = {"donors": Kits(root=kits_root)}
    table = label_table(sources, [], {"tumor": 1, "spleen": 2})
    assert table == {"kidney": 3, "tumor": 1, "cyst": 4}


def test_no_structure_gets_the_value_that_means_ignore(tmp_path: Path) -> None:
    names = {f"s{n}": n for n in range(1, 255)} | {f"s{n}": n + 1 for n in range(255, 300)}
    source = Nifti(root=tmp_path, labels="{case}.nii.gz", label_names=names)
    table = label_table({"hosts": source}, [])
    assert len(table) == 299
    assert 255 not in table.values()
    assert table["s254"] == 254
    assert table["s255"] == 256


def test_many_structures_make_a_wider_label_map(kits_root: Path, tmp_path: Path) -> None:
    entry = index_one(Kits(root=kits_root), tmp_path).entry("hosts", "case_00000")
    case = read_case(entry, {"kidney": 1, "tumor": 300})
    assert case.labels.array.dtype == np.uint16
    assert case.labels.array.max() == 300


def copied(folder: Path, name: str, *, level: int = 9) -> None:
    """The label map of ``case_00000`` as a case of its own, compressed anew."""
    volume = gzip.decompress((folder / "case_00000/segmentation.nii.gz").read_bytes())
    (folder / name).mkdir()
    (folder / name / "segmentation.nii.gz").write_bytes(gzip.compress(volume, level))


def test_a_hosts_label_map_under_another_name_is_no_other_person(
    kits_root: Path, tmp_path: Path
) -> None:
    copied(kits_root, "case_00777", level=1)
    with pytest.raises(SourceError, match=r"case_00777 .*very same label maps as case case_00000"):
        index_sources({"hosts": Kits(root=kits_root)}, ["kidney"], cache_dir=tmp_path / "cache")


def test_two_donors_without_images_may_not_share_a_label_map(
    kits_root: Path, tmp_path: Path
) -> None:
    copied(kits_root, "case_00777")
    copied(kits_root, "case_00778", level=1)
    donors = Kits(root=kits_root, cases=("case_0077*",))
    with pytest.raises(SourceError, match=r'patients: \{"case_00778": "case_00777"\}'):
        index_sources({"donors": donors}, ["kidney"], cache_dir=tmp_path / "cache")


def test_what_says_that_two_cases_are_one_person_can_be_pasted(tmp_path: Path) -> None:
    """YAML takes 02 for a number."""
    case = make_tiny_case()
    for name in ("01", "02"):
        write_volume(case.scan(), tmp_path / f"{name}.nii.gz")
    with pytest.raises(SourceError, match=r'with patients: \{"02": "01"\} in source'):
        index_one(Nifti(root=tmp_path, image="{case}.nii.gz"), tmp_path)


def test_scans_of_two_people_may_share_a_label_map(kits_root: Path, tmp_path: Path) -> None:
    hosts = Kits(root=kits_root, cases=("case_00000", "case_00001"))
    index = index_sources({"hosts": hosts}, ["kidney"], cache_dir=tmp_path / "cache")
    first, second = index.entries("hosts")
    assert first.label_fingerprint == second.label_fingerprint is not None
