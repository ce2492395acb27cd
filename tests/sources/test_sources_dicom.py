"""The layout ``dicom``: which series are cases, what is drawn on them, and who the patients are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from conftest import make_tiny_case
from dicom_writer import ct_slice, dataset, save, uid, write_rtstruct, write_seg, write_series
from pydantic import ValidationError
from pydicom import dcmread

from synthct.errors import SourceError
from synthct.sources import Dicom, Index, dicom_files, index_sources, label_table, read_case
from synthct.sources.stored import sha256_of
from synthct.storage.cache import read_kept
from synthct.volume import Volume, shifted, write_volume
from synthct.volume.case import Case

MR, SR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.88.33"


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_files, "_known", {})


def small(noise_seed: int = 0) -> Case:
    """A case of eight slices."""
    case = make_tiny_case(noise_seed=noise_seed)
    ct = Volume(case.scan().array[:, :, 8:16], case.scan().affine)
    labels = Volume(case.labels.array[:, :, 8:16], case.labels.affine)
    return Case("small", "small", "hosts", ct, labels, case.label_names)


def index_one(source: Dicom, tmp_path: Path, *labels: str, **options: Any) -> Index:
    return index_sources({"hosts": source}, labels, cache_dir=tmp_path / "cache", **options)


def ids(index: Index) -> list[str]:
    return [entry.case_id for entry in index.entries("hosts")]


def write_mixed(root: Path) -> None:
    """Two CT series of one person in one folder, among much else."""
    for number in range(2):
        write_series(root, small(number).scan(), f"series{number}")
    scan = small().scan()
    localizer = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    save(ct_slice(scan, 0, "scout", ImageType=localizer), root / "scout.dcm")
    save(ct_slice(scan, 0, "series0", ImageType=localizer), root / "scout_inside.dcm")
    save(ct_slice(scan, 0, "iodine", RescaleType="MGML"), root / "iodine.dcm")
    save(dataset(MR, "mr", Modality="MR", SeriesInstanceUID=uid("mr")), root / "mr.dcm")
    save(dataset(SR, "sr", Modality="SR", SeriesInstanceUID=uid("sr")), root / "report")
    (root / "notes.txt").write_text("no DICOM")
    (root / "empty.dcm").write_text("no DICOM either")
    (root / ".hidden.dcm").write_bytes((root / "mr.dcm").read_bytes())


def test_series_are_told_by_their_uids_and_nothing_else_is_taken(tmp_path: Path) -> None:
    write_mixed(tmp_path / "in")
    index = index_one(Dicom(root=tmp_path / "in"), tmp_path)
    assert len(ids(index)) == 2
    assert {entry.shape for entry in index.entries("hosts")} == {(48, 40, 8)}
    notes = "\n".join(index.notes)
    assert "left out: 2 CT localizer, 1 CT of MGML, 1 MR, 1 SR" in notes
    assert "1 file is called .dcm or .ima but is no DICOM" in notes
    assert "all 2 cases have one PatientID and count as one person" in notes


def test_a_case_has_the_voxels_and_structures_of_its_series(tmp_path: Path) -> None:
    case = small()
    write_series(tmp_path / "in/ct", case.scan())
    regions = {"Left Kidney": case.region("kidney"), "GTV-1": case.region("tumor")}
    write_rtstruct(tmp_path / "in/rt/1.dcm", case.scan(), regions)
    source = Dicom(root=tmp_path / "in", unions={"kidney": ("left_kidney", "right_kidney")})
    labels = ["kidney", "gtv_1"]
    index = index_one(source, tmp_path, *labels)
    (entry,) = index.entries("hosts")
    assert entry.available == ("gtv_1", "left_kidney", "kidney")
    assert entry.labels["kidney"].voxels == case.region("kidney").sum()
    names = label_table({"hosts": source}, labels)
    assert list(names) == ["left_kidney", "gtv_1"]
    found = read_case(entry, names)
    assert np.array_equal(found.scan().array, case.scan().array)
    assert np.array_equal(found.region("gtv_1"), case.region("tumor"))
    assert np.array_equal(found.region("kidney"), case.region("kidney"))


def test_nothing_tells_the_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "in/Doe_Jane", small().scan())
    paths = write_series(tmp_path / "in/MRN-4711", small(1).scan(), "other")
    paths[3].unlink()
    (tmp_path / "in/Doe_Jane/MRN-4711.dcm").write_bytes(paths[2].read_bytes())
    index = index_one(Dicom(root=tmp_path / "in"), tmp_path, on_bad_case="skip")
    kept = b"".join(read_kept(path) or b"" for path in (tmp_path / "cache/index").glob("*.headers"))
    assert b"p-" in kept
    # The paths are the user's own; digits alone could stand in a file's time or size.
    kept = kept.replace(b"MRN-4711.dcm", b"").replace(b"in/MRN-4711", b"")
    kept = kept.replace(b"in/Doe_Jane", b"")
    assert not any(name in kept for name in (b"Doe", b"Jane", b"MRN"))
    (skipped,) = index.skipped
    said = json.dumps(
        [skipped.reason, skipped.case_id, ids(index), index.entries("hosts")[0].patient_id]
    )
    assert "slice lies where another one does, the first are file " in said
    for name in ("Doe", "Jane", "MRN", "4711", str(tmp_path)):
        assert name not in said


def test_a_person_is_the_same_in_every_source(tmp_path: Path) -> None:
    for number in range(2):
        write_series(tmp_path / f"in{number}", small(number).scan(), f"series{number}")
    write_series(tmp_path / "in2", small(2).scan(), "third", PatientID="MRN-4712")
    sources = {f"s{n}": Dicom(root=tmp_path / f"in{n}") for n in range(3)}
    index = index_sources(sources, [], cache_dir=tmp_path / "cache")
    people = [index.entries(name)[0].patient_id for name in sources]
    assert people[0] == people[1] != people[2]


def test_files_without_patient_are_cases_of_their_own(tmp_path: Path) -> None:
    for number in range(2):
        write_series(tmp_path / "in", small(number).scan(), f"series{number}", PatientID="")
    index = index_one(Dicom(root=tmp_path / "in"), tmp_path)
    assert [entry.patient_id for entry in index.entries("hosts")] == ids(index)
    assert any("2 cases have no PatientID" in note for note in index.notes)
    first, second = ids(index)
    source = Dicom(root=tmp_path / "in", patients={first: "a", second: "a"})
    assert {entry.patient_id for entry in index_one(source, tmp_path).entries("hosts")} == {"a"}


def test_a_series_of_two_people_is_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in", small().scan())
    data = dcmread(paths[0])
    data.PatientID = "another"
    data.save_as(paths[0])
    with pytest.raises(SourceError, match="files of one series have 2 PatientIDs"):
        index_one(Dicom(root=tmp_path / "in"), tmp_path)


def test_cases_may_be_called_by_their_folders(tmp_path: Path) -> None:
    for number, folder in enumerate(("p1/ct", "p2/ct", "p2/ct")):
        write_series(tmp_path / "in" / folder, small(number).scan(), f"series{number}")
    index = index_one(Dicom(root=tmp_path / "in", case_names="folder", exclude=("p1*",)), tmp_path)
    assert [case_id[:6] for case_id in ids(index)] == ["p2_ct-", "p2_ct-"]
    index = index_one(Dicom(root=tmp_path / "in", case_names="folder", cases=("p1*",)), tmp_path)
    assert ids(index) == ["p1_ct"]


def test_only_the_folder_itself_counts_if_so_said(tmp_path: Path) -> None:
    write_series(tmp_path / "in", small().scan())
    write_series(tmp_path / "in/below", small(1).scan(), "below")
    assert len(ids(index_one(Dicom(root=tmp_path / "in"), tmp_path))) == 2
    assert len(ids(index_one(Dicom(root=tmp_path / "in", recursive=False), tmp_path))) == 1


def test_label_names_are_names_patterns_or_several(tmp_path: Path) -> None:
    case = small()
    files = write_series(tmp_path / "in/ct", case.scan())
    kidney, tumor = case.region("kidney"), case.region("tumor")
    write_seg(tmp_path / "in/a.dcm", files, {"Nodule 1": tumor, "KIDNEY, L": kidney})
    write_seg(tmp_path / "in/b.dcm", files, {"Nodule 2": kidney, "other": tumor})
    names = {"tumor": "nodule *", "kidney": ("Kidney", "kidney l"), "cyst": "Cyst"}
    source = Dicom(root=tmp_path / "in", label_names=names)
    index = index_one(source, tmp_path, "tumor", "kidney")
    (entry,) = index.entries("hosts")
    assert entry.available == ("kidney", "tumor")
    found = read_case(entry, label_table({"hosts": source}, ["tumor", "kidney"]))
    assert np.array_equal(found.region("tumor"), tumor | kidney)
    assert any("'cyst' is in no file of 1 of 1 case" in note for note in index.notes)


def test_several_files_of_one_structure_need_a_choice(tmp_path: Path) -> None:
    case = small()
    files = write_series(tmp_path / "in/ct", case.scan())
    kidney, tumor = case.region("kidney"), case.region("tumor")
    write_seg(tmp_path / "in/seg/one.dcm", files, {"Kidney": kidney})
    write_rtstruct(tmp_path / "in/rt/one.dcm", case.scan(), {"kidney": tumor})
    for source in (
        Dicom(root=tmp_path / "in"),
        Dicom(root=tmp_path / "in", label_names={"kidney": "kidney"}),
    ):
        with pytest.raises(SourceError, match=r"2 files draw 'kidney' .*'annotations: SEG'"):
            index_one(source, tmp_path)
    for wanted, region in (("SEG", kidney), ("RTSTRUCT", tumor), ("rt/*", tumor)):
        index = index_one(Dicom(root=tmp_path / "in", annotations=wanted), tmp_path, "kidney")
        assert index.entries("hosts")[0].labels["kidney"].voxels == region.sum()


def test_series_are_chosen_by_their_descriptions(tmp_path: Path) -> None:
    for number, kernel in enumerate(("Abd SOFT 1.0", "lung", "soft thick")):
        series = f"series{number}"
        write_series(tmp_path / "in", small(number).scan(), series, SeriesDescription=kernel)
    source = Dicom(root=tmp_path / "in", series=("*soft*",))
    assert len(ids(index_one(source, tmp_path))) == 2
    with pytest.raises(SourceError, match=r"'series' matches; it has 'Abd SOFT 1.0', 'lung', 's"):
        index_one(Dicom(root=tmp_path / "in", series=("bone*",)), tmp_path)


def test_slices_in_one_place_are_no_scan_and_listed(tmp_path: Path) -> None:
    write_series(tmp_path / "in", small().scan())
    for number in range(4):  # bolus tracking
        data = ct_slice(small().scan(), 3, "bolus")
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid(f"bolus{number}")
        save(data, tmp_path / f"in/bolus{number}.dcm")
    index = index_one(Dicom(root=tmp_path / "in"), tmp_path)
    assert len(ids(index)) == 1
    assert [one.reason for one in index.skipped] == [
        "all 4 slices lie in one place (a single slice, or bolus tracking)"
    ]
    for path in (tmp_path / "in").glob("series*"):
        path.unlink()
    with pytest.raises(SourceError, match="no CT series of several slices"):
        index_one(Dicom(root=tmp_path / "in"), tmp_path)


def test_a_segmentation_may_name_the_files_only(tmp_path: Path) -> None:
    case = small()
    files = write_series(tmp_path / "in/ct", case.scan())
    path = write_seg(tmp_path / "in/seg.dcm", files, {"x": case.region("tumor")})
    data = dcmread(path)
    del data.ReferencedSeriesSequence
    data.save_as(path)
    index = index_one(Dicom(root=tmp_path / "in"), tmp_path, "x")
    assert index.entries("hosts")[0].labels["x"].voxels == case.region("tumor").sum()


def test_a_drawing_on_a_series_that_is_not_here_is_told(tmp_path: Path) -> None:
    case = small()
    write_series(tmp_path / "in/ct", case.scan())
    write_rtstruct(tmp_path / "in/rt.dcm", case.scan(), {"x": case.region("tumor")}, "elsewhere")
    index = index_one(Dicom(root=tmp_path / "in"), tmp_path)
    assert index.entries("hosts")[0].available == ()
    assert any("1 SEG or RTSTRUCT file is drawn on no series" in note for note in index.notes)


def test_label_maps_lie_beside_the_series(tmp_path: Path) -> None:
    case = small()
    write_series(tmp_path / "in/p1/ct", case.scan())
    write_volume(case.labels, tmp_path / "in/p1/ct/labels.nii.gz")
    kidney = Volume(case.region("kidney").astype(np.uint8), case.labels.affine)
    write_volume(kidney, tmp_path / "in/masks_p1_ct.nii.gz")
    one = Dicom(root=tmp_path / "in", labels="{folder}/labels.nii.gz", label_names={"k": 1, "t": 2})
    (entry,) = index_one(one, tmp_path).entries("hosts")
    assert entry.labels["t"].voxels == case.region("tumor").sum()
    three = Dicom(root=tmp_path / "in", labels="{folder}/part.nrrd", label_names={"k": 1, "t": 2})
    region = tuple(slice(int(n.min()), int(n.max()) + 1) for n in np.nonzero(case.labels.array))
    image = SimpleITK.GetImageFromArray(case.labels.array[region].T)
    lps = np.diag([-1.0, -1, 1, 1]) @ shifted(case.labels.affine, [one.start for one in region])
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(steps.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / steps).ravel().tolist())
    SimpleITK.WriteImage(image, str(tmp_path / "in/p1/ct/part.nrrd"))
    (entry,) = index_one(three, tmp_path).entries("hosts")
    assert entry.labels["t"].voxels == case.region("tumor").sum()
    two = Dicom(root=tmp_path / "in", structures={"k": "masks_{case}.nii.gz"}, case_names="folder")
    (entry,) = index_one(two, tmp_path, "k").entries("hosts")
    assert entry.labels["k"].voxels == case.region("kidney").sum()


def test_headers_and_voxels_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = small()
    write_series(tmp_path / "in", case.scan())
    path = write_rtstruct(tmp_path / "in/rt.dcm", case.scan(), {"t": case.region("tumor")})
    source = Dicom(root=tmp_path / "in")
    first = index_one(source, tmp_path, "t").entries("hosts")[0]
    monkeypatch.setattr(dicom_files, "_known", {})
    for place in ("dicom_files.kind_of", "stored.read_series", "stored.read_drawn"):
        monkeypatch.setattr(f"synthct.sources.{place}", None)
    second = index_one(source, tmp_path, "t").entries("hosts")[0]
    assert (first.voxel_sha256, first.label_sha256) == (second.voxel_sha256, second.label_sha256)
    monkeypatch.undo()
    write_rtstruct(path, case.scan(), {"t": case.region("kidney")})
    third = index_one(source, tmp_path, "t").entries("hosts")[0]
    assert third.labels["t"].voxels == case.region("kidney").sum()
    assert third.image_sha256 == first.image_sha256


def test_a_file_that_changed_since_the_index_is_refused(tmp_path: Path) -> None:
    case = small()
    paths = write_series(tmp_path / "in", case.scan())
    (entry,) = index_one(Dicom(root=tmp_path / "in"), tmp_path).entries("hosts")
    data = dcmread(paths[0])
    data.StudyID = "later"
    data.save_as(paths[0])
    assert entry.image is not None
    assert sha256_of(entry.image) != entry.image_sha256
    with pytest.raises(SourceError, match="not those that were indexed"):
        read_case(entry, {})


def test_a_series_has_one_digest_whatever_its_files_are_called(tmp_path: Path) -> None:
    write_series(tmp_path / "in", small().scan())
    write_series(tmp_path / "other", small().scan())
    for number, path in enumerate(sorted((tmp_path / "other").iterdir(), reverse=True)):
        path.rename(path.with_name(f"IM{number}"))
    one, two = (
        index_one(Dicom(root=tmp_path / name), tmp_path).entries("hosts")[0]
        for name in ("in", "other")
    )
    assert one.image_sha256 == two.image_sha256
    assert one.case_id == two.case_id


def test_a_damaged_header_is_refused_by_name(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in", small().scan())
    paths[0].write_bytes(paths[0].read_bytes()[:200])
    with pytest.raises(SourceError, match=paths[0].name):
        index_one(Dicom(root=tmp_path / "in"), tmp_path)


@pytest.mark.parametrize("content", ["nothing", "mr", "below"])
def test_a_folder_without_ct_says_what_is_there(tmp_path: Path, content: str) -> None:
    (tmp_path / "in").mkdir()
    source = Dicom(root=tmp_path / "in", recursive=content != "below")
    if content == "mr":
        save(dataset(MR, "mr", Modality="MR", SeriesInstanceUID=uid("mr")), tmp_path / "in/mr.dcm")
    if content == "below":
        write_series(tmp_path / "in/ct", small().scan())
    reason = {
        "nothing": "no DICOM file in it",
        "mr": "only other DICOM files \\(1 MR\\)",
        "below": "'recursive: true'",
    }
    with pytest.raises(SourceError, match=reason[content]):
        index_one(source, tmp_path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"frame": 0}, "frame is for NIfTI"),
        ({"nan": "fill"}, "nan is for NIfTI"),
        ({"label_names": {"a": 1}}, "gives value 1"),
        ({"labels": "{case}.nii"}, "needs label_names"),
        ({"labels": "{case}.nii", "label_names": {"a": "b"}}, "needs label_names"),
        ({"labels": "labels.nii", "label_names": {"a": 1}}, "neither"),
        ({"labels": "{case}.dcm", "label_names": {"a": 1}}, "must end with"),
        ({"structures": {"a": "../{case}.nii"}}, "leads out of root"),
        ({"structures": {"a": "{case}.nii"}, "label_names": {"a": "b"}}, "not both"),
        ({"structures": {"a": "{case}.nii"}, "annotations": "SEG"}, "annotations is for"),
        ({"unions": {"a": ("a",)}}, "unions: 'a'"),
    ],
)
def test_a_section_that_contradicts_itself_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Dicom(root="x", **fields)


def test_without_pydicom_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    write_series(tmp_path / "in", small().scan())
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(SourceError, match=r"pip install '\.\[dicom\]'"):
        index_one(Dicom(root=tmp_path / "in"), tmp_path)
