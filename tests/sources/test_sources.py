"""Sources: layouts find the right files, reading is lossless, errors say what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import KITS_AXES, halves, make_tiny_case, write_structures
from pydantic import TypeAdapter, ValidationError

from synthct.errors import SourceError
from synthct.sources import (
    Index,
    Kits,
    Nifti,
    Source,
    TotalSegmentator,
    index_sources,
    label_table,
    read_case,
)
from synthct.volume import Box, Volume, restore_orientation, shifted, write_volume
from synthct.volume.case import Case


def index_one(source: Source, tmp_path: Path, *labels: str) -> Index:
    return index_sources({"hosts": source}, labels, cache_dir=tmp_path / "cache")


# --- layouts ---


def test_kits_is_read_losslessly_in_spite_of_its_axis_order(
    kits_root: Path, tmp_path: Path, tiny_case: Case
) -> None:
    source = Kits(root=kits_root)
    entry = index_one(source, tmp_path).entry("hosts", "case_00000")
    case = read_case(entry, label_table({"hosts": source}, ["tumor"]))
    assert np.array_equal(case.scan().array, tiny_case.scan().array)
    assert np.array_equal(case.labels.array, tiny_case.labels.array)
    np.testing.assert_allclose(case.scan().affine, tiny_case.scan().affine, atol=1e-4)
    assert case.labels.array.dtype == np.uint8
    assert case.label_names == {"kidney": 1, "tumor": 2, "cyst": 3}


def test_kits_case_without_an_image_is_a_donor(
    kits_root: Path, tmp_path: Path, tiny_case: Case
) -> None:
    index = index_one(Kits(root=kits_root), tmp_path)
    assert [e.image is None for e in index.entries("hosts")] == [False, False, True]
    donor = index.entry("hosts", "case_00002")
    assert donor.image_sha256 is None
    assert donor.voxel_sha256 is None
    case = read_case(donor, {"tumor": 7})
    assert case.ct is None
    assert np.array_equal(case.region("tumor"), tiny_case.region("tumor"))
    assert set(np.unique(case.labels.array)) == {0, 7}


def test_stats_are_the_true_voxels_volume_and_box(
    kits_root: Path, tmp_path: Path, tiny_case: Case
) -> None:
    entry = index_one(Kits(root=kits_root), tmp_path).entry("hosts", "case_00001")
    truth = tiny_case.region("tumor")
    tumor = entry.labels["tumor"]
    assert tumor.voxels == truth.sum()
    assert tumor.volume_ml == pytest.approx(truth.sum() * 0.8 * 0.8 * 2.5 / 1000, rel=1e-4)
    assert tumor.box == Box.around(truth)
    assert "cyst" not in entry.labels
    assert "cyst" in entry.available
    assert entry.spacing_mm == pytest.approx((0.8, 0.8, 2.5), abs=1e-4)


def test_union_is_the_sum_of_its_parts(organs_root: Path, tmp_path: Path, tiny_case: Case) -> None:
    source = TotalSegmentator(root=organs_root)
    labels = ["kidney", "lung_nodule"]
    entry = index_one(source, tmp_path, *labels).entry("hosts", "s0001")
    kidney = tiny_case.region("kidney")
    assert entry.labels["kidney"].voxels == kidney.sum()
    assert entry.labels["kidney"].box == Box.around(kidney)
    assert set(entry.labels) == {"kidney", "kidney_left", "kidney_right", "lung_nodule"}
    table = label_table({"hosts": source}, labels)
    assert table == {"kidney_left": 1, "kidney_right": 2, "lung_nodule": 3}
    case = read_case(entry, table)
    assert np.array_equal(case.region("kidney"), kidney)


def test_parts_win_over_a_file_with_the_name_of_their_union(
    organs_root: Path, tmp_path: Path
) -> None:
    source = TotalSegmentator(root=organs_root)
    entry = index_one(source, tmp_path, "lung").entry("hosts", "s0001")
    assert entry.structures_of("lung") == ("lung_upper_lobe_left", "lung_lower_lobe_right")
    assert "lung" not in entry.label_files
    assert "lung" not in label_table({"hosts": source}, ["lung"])


def test_file_without_parts_is_a_structure_of_its_own(tmp_path: Path, tiny_case: Case) -> None:
    write_structures(tmp_path / "v2", tiny_case, {"heart": tiny_case.region("kidney")})
    source = TotalSegmentator(root=tmp_path / "v2")
    entry = index_one(source, tmp_path, "heart").entry("hosts", "tiny")
    assert entry.structures_of("heart") == ("heart",)
    assert entry.labels["heart"].voxels == tiny_case.region("kidney").sum()


def test_case_without_structures_is_a_host_and_knows_its_split(
    organs_root: Path, tmp_path: Path
) -> None:
    index = index_one(TotalSegmentator(root=organs_root), tmp_path, "kidney")
    assert [entry.split for entry in index.entries("hosts")] == ["train", "validation"]
    bare = index.entry("hosts", "s0002")
    assert not bare.labels
    assert not read_case(bare, {"kidney_left": 1}).labels.array.any()


def test_unknown_split_in_meta_csv_is_refused(organs_root: Path, tmp_path: Path) -> None:
    (organs_root / "meta.csv").write_text("image_id,split\ns0001,trian\n")
    with pytest.raises(SourceError, match=r"meta\.csv: split 'trian' of s0001"):
        index_one(TotalSegmentator(root=organs_root), tmp_path)


def test_a_case_in_two_splits_of_meta_csv_is_refused(organs_root: Path, tmp_path: Path) -> None:
    source = TotalSegmentator(root=organs_root)
    (organs_root / "meta.csv").write_text("image_id,split\ns0001,train\ns0001,test\n")
    with pytest.raises(SourceError, match=r"meta\.csv: lists s0001 twice, .* train and in test"):
        index_one(source, tmp_path)
    (organs_root / "meta.csv").write_text("image_id,split\ns0001,val\ns0001,validation\n")
    assert index_one(source, tmp_path).entry("hosts", "s0001").split == "validation"


def test_a_huge_field_in_meta_csv_is_told(organs_root: Path, tmp_path: Path) -> None:
    (organs_root / "meta.csv").write_text(f"image_id,split\ns0001,{'t' * 200_000}\n")
    with pytest.raises(SourceError, match=r"meta\.csv: is no table of cases \(field larger"):
        index_one(TotalSegmentator(root=organs_root), tmp_path)


def test_a_sixth_lumbar_vertebra_is_one_and_what_only_looks_like_it_is_told(
    tmp_path: Path, tiny_case: Case
) -> None:
    """TotalSegmentator's ``total_v3`` has ``vertebrae_L6`` in place of ``vertebrae_S1``."""
    parts = halves(tiny_case.region("kidney"))
    names = ("vertebrae_L5", "vertebrae_L6")
    structures = dict(zip(names, parts, strict=True))
    structures |= {"vertebrae_L7": parts[0], "rib_left_1": parts[0], "kidney_left": parts[1]}
    write_structures(tmp_path / "v3", tiny_case, structures)
    index = index_one(TotalSegmentator(root=tmp_path / "v3"), tmp_path, "vertebrae")
    entry = index.entry("hosts", "tiny")
    assert entry.structures_of("vertebrae") == names
    assert entry.labels["vertebrae"].voxels == tiny_case.region("kidney").sum()
    told = [note for note in index.notes if "looks like" in note]
    assert len(told) == 1
    assert "'vertebrae_L7' looks like a part of vertebrae but is not counted there" in told[0]


def test_overlapping_structures_keep_the_first(organs_root: Path, tmp_path: Path) -> None:
    source = TotalSegmentator(root=organs_root)
    entry = index_one(source, tmp_path, "kidney").entry("hosts", "s0001")
    case = read_case(entry, {"liver": 9, "lung_nodule": 8, "kidney_left": 7})
    assert (case.labels.array == 9).sum() > 0
    assert (case.labels.array == 8).sum() == 0
    assert set(np.unique(case.labels.array)) == {0, 7, 9}


def test_union_is_offered_only_if_all_its_parts_were_read(
    organs_root: Path, tmp_path: Path
) -> None:
    entry = index_one(TotalSegmentator(root=organs_root), tmp_path).entry("hosts", "s0001")
    assert read_case(entry, {"kidney_left": 1}).unions == {}
    both = read_case(entry, {"kidney_left": 1, "kidney_right": 2}).unions
    assert both == {"kidney": ("kidney_left", "kidney_right")}


def test_nifti_finds_nnunet_folders_by_pattern(tmp_path: Path, tiny_case: Case) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for name in ("a[1]", "b"):
        write_volume(tiny_case.scan(), tmp_path / f"imagesTr/{name}_0000.nii.gz")
        write_volume(tiny_case.labels, tmp_path / f"labelsTr/{name}.nii.gz")
    source = Nifti(
        root=tmp_path,
        image="imagesTr/{case}_0000.nii.gz",
        labels="labels*/{case}.nii.gz",
        label_names={"lesion": 2},
        patients={"b": "a[1]"},
    )
    index = index_one(source, tmp_path)
    assert [entry.case_id for entry in index.entries("hosts")] == ["a[1]", "b"]
    case = read_case(index.entry("hosts", "a[1]"), label_table({"hosts": source}, []))
    assert np.array_equal(case.labels.array == 1, tiny_case.region("tumor"))
    assert case.labels.array.max() == 1


def test_nifti_takes_a_file_per_structure(tmp_path: Path, tiny_case: Case) -> None:
    left, right = halves(tiny_case.region("kidney"))
    write_structures(tmp_path / "x", tiny_case, {"seg_l": left, "seg_r": right})
    source = Nifti(
        root=tmp_path / "x",
        image="{case}/ct.nii.gz",
        structures={
            "kidney_left": "{case}/segmentations/seg_l.nii.gz",
            "kidney_right": "{case}/segmentations/seg_r.nii.gz",
            "liver": "{case}/segmentations/liver.nii.gz",
        },
        unions={"kidney": ("kidney_left", "kidney_right")},
    )
    entry = index_one(source, tmp_path, "kidney").entry("hosts", "tiny")
    assert "liver" not in entry.available
    table = label_table({"hosts": source}, ["kidney", "kidney_right"])
    assert table == {"kidney_left": 1, "kidney_right": 2}
    region = read_case(entry, table).region("kidney")
    assert np.array_equal(region, tiny_case.region("kidney"))


def test_nifti_refuses_two_files_for_one_case(tmp_path: Path, tiny_case: Case) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_volume(tiny_case.scan(), tmp_path / folder / "one.nii.gz")
    with pytest.raises(SourceError, match=r"case one has two files, a/one\.nii\.gz and b/one"):
        index_one(Nifti(root=tmp_path, image="*/{case}.nii.gz"), tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": "../{case}.nii.gz"}, "leads out of root"),
        ({"image": "/x/{case}.nii.gz"}, "leads out of root"),
        ({"image": "images/ct.nii.gz"}, "has no {case}"),
        ({"image": "{case}/{patient}.nii.gz"}, "no other"),
        ({"image": "{case}.png"}, "must end with"),
        ({}, "give a pattern"),
        ({"labels": "{case}.nii.gz"}, "go together"),
        ({"labels": "{case}.nii.gz", "label_names": {"a": 255}}, "255 with 'structures'"),
        ({"labels": "{case}.nii.gz", "label_names": {"a": 1, "b": 1}}, "to two structures"),
        ({"structures": {"a": "{case}.nii.gz"}, "unions": {"u": ["b"]}}, "not a structure"),
        ({"image": "{case}.nii.gz", "colour": 1}, "colour"),
    ],
)
def test_bad_nifti_section_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        TypeAdapter(Source).validate_python({"layout": "nifti", "root": "x", **fields})
    assert message in str(error.value)


# --- errors ---


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        (Kits(root=Path("no/such/kits")), ["kits23", "CC BY-NC-SA 4.0", "KITS23_ROOT"]),
        (TotalSegmentator(root=Path("no/ts")), ["zenodo", "CC BY 4.0", "TOTALSEGMENTATOR_ROOT"]),
        (Nifti(root=Path("no/nifti"), image="{case}.nii"), ["no/nifti"]),
    ],
)
def test_missing_root_says_where_to_get_the_data(
    source: Kits, parts: list[str], tmp_path: Path
) -> None:
    with pytest.raises(SourceError) as error:
        index_one(source, tmp_path)
    for part in ["source 'hosts'", "does not exist", "--source", *parts]:
        assert part in str(error.value)


def test_kits_root_one_level_too_high_names_the_right_one(kits_root: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no case_\*/segmentation.nii.gz; use .*dataset"):
        index_one(Kits(root=kits_root.parent), tmp_path)


def test_labels_off_the_grid_are_refused_in_mm(kits_root: Path, tmp_path: Path) -> None:
    labels = make_tiny_case().labels
    moved = Volume(labels.array, shifted(labels.affine, (0, 0, 1)))
    path = kits_root / "case_00001/segmentation.nii.gz"
    write_volume(restore_orientation(moved, KITS_AXES), path)
    with pytest.raises(SourceError, match=r"case case_00001: .* lies 2\.50 mm off"):
        index_one(Kits(root=kits_root), tmp_path)
    longer = np.concatenate([labels.array, labels.array[:1]])
    write_volume(restore_orientation(Volume(longer, labels.affine), KITS_AXES), path)
    with pytest.raises(SourceError, match=r"another grid \(49, 40, 24\) than the case \(48, 40"):
        index_one(Kits(root=kits_root), tmp_path)


def test_equal_voxels_under_two_patients_are_refused(
    kits_root: Path, organs_root: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    sources = {"donors": Kits(root=kits_root), "hosts": TotalSegmentator(root=organs_root)}
    with pytest.raises(SourceError, match=r'patients: \{"s0001": "case_00000"\} in source .hosts'):
        index_sources(sources, [], cache_dir=cache)
    same = {"s0001": "case_00000", "s0002": "case_00001"}
    sources["hosts"] = TotalSegmentator(root=organs_root, patients=same)
    index = index_sources(sources, [], cache_dir=cache)
    assert index.entry("hosts", "s0001").patient_id == "case_00000"


def test_value_that_kits_does_not_have_is_refused(kits_root: Path, tmp_path: Path) -> None:
    labels = make_tiny_case().labels
    odd = Volume(np.where(labels.array == 2, 9, labels.array), labels.affine)
    write_volume(odd, kits_root / "case_00000/segmentation.nii.gz")
    with pytest.raises(SourceError, match=r"case_00000: .*segmentation\.nii\.gz holds the value 9"):
        index_one(Kits(root=kits_root), tmp_path)


def test_link_that_leads_out_of_the_root_is_refused(kits_root: Path, tmp_path: Path) -> None:
    path = kits_root / "case_00000/imaging.nii.gz"
    path.rename(tmp_path / "elsewhere.nii.gz")
    path.symlink_to(tmp_path / "elsewhere.nii.gz")
    with pytest.raises(SourceError, match=r"imaging\.nii\.gz: leads out of"):
        index_one(Kits(root=kits_root), tmp_path)


# --- real data ---


@pytest.mark.long
@pytest.mark.realdata
def test_real_kits_shapes_and_hosts(shared_data: Path, tmp_path: Path) -> None:
    source = Kits(root=shared_data / "kits23/dataset", cases=("case_000*", "case_90003"))
    index = index_one(source, tmp_path)
    donors = [entry for entry in index.entries("hosts") if entry.image is None]
    assert len(donors) > 5
    assert all(0.1 < entry.labels["tumor"].volume_ml < 3000 for entry in donors)
    host = index.entry("hosts", "case_90003")
    assert host.shape == (512, 512, 41)
    assert host.spacing_mm == pytest.approx((0.797, 0.797, 5.0), abs=1e-3)
    assert "tumor" not in host.labels


@pytest.mark.realdata
def test_real_scan_is_the_same_in_both_layouts(shared_data: Path, tmp_path: Path) -> None:
    sources = {
        "kits": Kits(root=shared_data / "kits23/dataset", cases=("case_90001",)),
        "v1": TotalSegmentator(root=shared_data / "totalsegmentator_v1"),
        "v2": TotalSegmentator(root=shared_data / "totalsegmentator_v2", cases=("s0001",)),
    }
    cache = tmp_path / "cache"
    with pytest.raises(SourceError, match="very same voxels"):
        index_sources(sources, ["kidney"], cache_dir=cache)
    sources["kits"] = sources["kits"].model_copy(update={"patients": {"case_90001": "s0001"}})
    index = index_sources(sources, ["kidney", "lung"], cache_dir=cache)
    entries = [index.entries(name)[0] for name in sources]
    assert len({entry.voxel_sha256 for entry in entries}) == 1
    assert entries[0].labels["kidney"].voxels == entries[2].labels["kidney"].voxels
    assert entries[1].labels["lung"].voxels == 4226
