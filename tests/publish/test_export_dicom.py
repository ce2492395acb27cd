"""Exports as DICOM and NIfTI open where people work, with the same HU at the same place."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from conftest import make_tiny_case
from dicom_writer import uid, write_rtstruct, write_series
from lesion_rows import Host, make_host, slices_of, write_lesions
from nibabel.affines import apply_affine
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from synthct.build.run import build
from synthct.errors import RecipeError
from synthct.publish.export.label_files import itksnap_text, label_table_xml, slicer_text
from synthct.publish.export.run import export
from synthct.recipe.recipe import load_recipe
from synthct.sources import Dicom, index_sources
from synthct.volume import Volume
from synthct.volume.dicom.drawn import read_drawn
from synthct.volume.dicom.files import Drawn, Series
from synthct.volume.dicom.scan import read_series
from synthct.volume.views import PLANES, VIEW_AXIS, Plane


@pytest.fixture(scope="module")
def host() -> Host:
    return make_host("test one", variants=1)


@pytest.fixture(scope="module", params=PLANES)
def exported(
    request: pytest.FixtureRequest, host: Host, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Plane, Path]:
    folder = tmp_path_factory.mktemp("dicom")
    version = write_lesions(folder / "lesions/1.0.0", [host], request.param, real=True)
    return request.param, export(version, "dicom", folder / "out")


def series(folder: Path) -> Series:
    return Series(folder, tuple(sorted(folder.iterdir())))


def itk(folder: Path) -> Volume:
    """A series as SimpleITK reads it, in RAS+."""
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = SimpleITK.ReadImage(names)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Volume(SimpleITK.GetArrayFromImage(image).T, np.diag([-1.0, -1, 1, 1]) @ affine)


def at(volume: Volume, host: Host) -> tuple[np.ndarray, ...]:
    """Which voxels of the host those of a volume are."""
    grid = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), -1)
    to_host = np.linalg.inv(host.case.scan().affine) @ volume.affine
    found = apply_affine(to_host, grid)
    assert np.abs(found - np.rint(found)).max() < 1e-2
    return tuple(np.moveaxis(np.rint(found).astype(int), -1, 0))


def all_files(folder: Path) -> Iterator[tuple[Path, Dataset]]:
    for path in sorted(folder.rglob("*.dcm")):
        yield path, dcmread(path)


def test_series_open_over_the_host_with_equal_hu(exported: tuple[Plane, Path], host: Host) -> None:
    view, out = exported
    for name, truth in (
        ("v0_image", host.painted[0]), ("v0_original", host.painted[None]),
        ("real_image", host.painted[None]),
    ):  # fmt: skip
        (folder,) = out.glob(f"train/*{name}")
        with_highdicom = hd.get_volume_from_series([dcmread(path) for path in folder.iterdir()])
        affine = np.diag([-1.0, -1, 1, 1]) @ with_highdicom.affine
        third = Volume(with_highdicom.array, affine)
        for volume in (itk(folder), read_series(series(folder))[0], third):
            where = at(volume, host)
            assert np.array_equal(volume.array, truth[where])
            found = sorted(np.unique(where[VIEW_AXIS[view]]))
            assert found == slices_of(host, view)


def test_segments_read_by_highdicom_lie_where_they_were(
    exported: tuple[Plane, Path], host: Host
) -> None:
    _, out = exported
    (labels,) = out.glob("train/*v0_label_map.dcm")
    (mask,) = out.glob("train/*v0_mask.dcm")
    wanted = {
        labels: {"kidney": host.labels[0] == 1, "tumor": host.labels[0] == 2},
        mask: {"mask": host.lesion},
    }
    for path, regions in wanted.items():
        seg = hd.seg.segread(path)
        for number, (name, region) in enumerate(regions.items(), start=1):
            assert seg.get_segment_description(number).SegmentLabel == name
            found = seg.get_volume(segment_numbers=[number], combine_segments=True)
            affine = np.diag([-1.0, -1, 1, 1]) @ found.affine
            where = at(Volume(found.array, affine), host)
            assert np.array_equal(found.array > 0, region[where])
            (folder,) = out.glob("train/*v0_image")
            ours = read_drawn(Drawn(((path, (number,)),), series(folder)))
            assert np.array_equal(ours.array > 0, region[at(ours, host)])


def test_files_say_what_they_are_and_not_who(exported: tuple[Plane, Path]) -> None:
    _, out = exported
    instances = set()
    for path, data in all_files(out):
        painted = "v0_" in str(path.relative_to(out)) and "original" not in str(path)
        assert data.SyntheticData == ("YES" if painted else "NO")
        assert data.ImageType[0] == "DERIVED"
        if data.Modality == "CT":
            assert data.ImageType[1] == "SECONDARY"
        assert data.PatientID == "test one"
        assert not data.PatientName
        for element in data.iterall():
            if element.VR in ("DA", "DT", "TM"):
                assert element.value in ("", None, "19000101", "000000")
            if element.VR == "UI":
                assert UID(str(element.value)).is_valid
        instances.add(data.SOPInstanceUID)
    assert len(instances) == sum(1 for _ in all_files(out))
    assert len({data.StudyInstanceUID for _, data in all_files(out)}) == 1
    assert len({data.FrameOfReferenceUID for _, data in all_files(out)}) == 1
    text = (out / "README.md").read_text()
    assert "load_dataset(" not in text
    assert "| `*/*_image` | folder of a CT series; HU |" in text


def test_the_same_dataset_gives_the_same_bytes_and_another_other_uids(
    tmp_path: Path, host: Host
) -> None:
    version = write_lesions(tmp_path / "lesions/1.0.0", [host], real=True)
    outs = [export(version, "dicom", tmp_path / f"out{n}") for n in range(2)]
    one, two = ({p.relative_to(o): p.read_bytes() for p in o.rglob("*.dcm")} for o in outs)
    assert one == two
    changed = make_host("test one", variants=2)
    changed.painted[0] = changed.painted.pop(1)
    other = write_lesions(tmp_path / "other/1.0.0", [changed])
    uids = [
        {data.SOPInstanceUID for path, data in all_files(out) if "v0_image" in str(path)}
        for out in (outs[0], export(other, "dicom", tmp_path / "out2"))
    ]
    assert not uids[0] & uids[1]


def test_an_export_read_back_knows_its_patient(
    exported: tuple[Plane, Path], tmp_path: Path
) -> None:
    _, out = exported
    index = index_sources({"hosts": Dicom(root=out)}, ["tumor"], cache_dir=tmp_path)
    assert {entry.patient_id for entry in index.entries("hosts")} == {"test one"}
    assert sum("tumor" in entry.labels for entry in index.entries("hosts")) == 2


def test_without_highdicom_the_command_is_named(
    tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = write_lesions(tmp_path / "lesions/1.0.0", [host])
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(RecipeError, match=r"pip install '\.\[dicom\]'"):
        export(version, "dicom", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("keep_uids", [False, True])
def test_dicom_goes_in_and_dicom_comes_out(
    tmp_path: Path, tiny_checkpoint: Path, keep_uids: bool
) -> None:
    """A series with an RTSTRUCT becomes a dataset, and its export has the HU of the series."""
    case = make_tiny_case()
    write_series(tmp_path / "in/ct", case.scan())
    regions = {"Kidney": case.region("kidney"), "GTV": case.region("tumor")}
    write_rtstruct(tmp_path / "in/rt.dcm", case.scan(), regions)
    host = {
        "layout": "dicom",
        "root": str(tmp_path / "in"),
        "label_names": {"kidney": "kidney", "tumor": "GTV*"},
        "keep_uids": keep_uids,
    }
    recipe = {
        "name": "tiny",
        "version": "1.0.0",
        "sources": {"hosts": host},
        "masks_per_case": 2,
        "quality": "none",
        "masks": [
            {"name": label, "kind": "organ", "label": label, "margin_mm": -0.5}
            for label in ("kidney", "tumor")
        ],
        "inpaint": {"checkpoint": str(tiny_checkpoint), "num_inference_steps": 2},
        "keep_original": True,
        "splits": {"train": 1.0},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    version = build(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "datasets", limit=3)
    out = export(version, "dicom", tmp_path / "out")
    for path in (*version.rglob("*"), *out.rglob("*")):
        if path.is_file() and path.suffix != ".parquet":
            content = path.read_bytes().replace(str(tmp_path).encode(), b"")
            assert not re.search(b"Doe|MRN-4711", content)
            assert keep_uids or uid("series").encode() not in content
    folders = list(out.glob("*/*_original"))
    assert folders
    for folder in folders:
        volume = itk(folder)
        where = at(volume, Host(case, case.region("tumor"), {}, {}))
        assert np.array_equal(volume.array, case.scan().array[where])
        labels = hd.seg.segread(folder.with_name(folder.name.replace("original", "label_map.dcm")))
        assert [one.SegmentLabel for one in labels.SegmentSequence] == ["kidney", "tumor"]
        image = itk(folder.with_name(folder.name.replace("original", "image")))
        assert not np.array_equal(image.array, volume.array)
        for path, k in zip(sorted(folder.iterdir()), np.unique(where[2]), strict=True):
            data = dcmread(path)
            assert (data.FrameOfReferenceUID == uid("frame")) == keep_uids
            assert data.StudyInstanceUID != uid("study")
            named = [one.ReferencedSOPInstanceUID for one in data.get("SourceImageSequence") or ()]
            assert named == ([uid(f"series/{k}")] if keep_uids else [])


# --- names of label values ---


def test_label_maps_in_nifti_name_their_values(tmp_path: Path, host: Host) -> None:
    version = write_lesions(tmp_path / "lesions/1.0.0", [host])
    out = export(version, "nifti", tmp_path / "out")
    (path,) = out.glob("train/*_label_map.nii.gz")
    header = nib.load(path).header
    root = ET.fromstring(header.extensions[0].get_content())
    table = {int(one.attrib["Key"]): one.text for one in root.iter("Label")}
    assert table == {1: "kidney", 2: "tumor", 255: "ignore"}
    image = SimpleITK.ReadImage(str(path))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image).T, np.asarray(nib.load(path).dataobj))
    (scan,) = out.glob("train/*_image.nii.gz")
    assert not nib.load(scan).header.extensions
    assert "    1 " in (out / "labels.itksnap.txt").read_text()
    assert "\n2 tumor " in (out / "labels.ctbl").read_text()
    assert "`labels.ctbl`" in (out / "README.md").read_text()


def test_files_of_names_have_the_form_that_viewers_read() -> None:
    labels = {"left kidney": 1, 'the "other" ]]> one': 40}
    for line in itksnap_text(labels).splitlines()[2:]:
        assert re.fullmatch(r' *\d+( +\d+){3} +[01](\.\d+)? +[01] +[01] +"[^"]*"', line)
    rows = [line.split() for line in slicer_text(labels).splitlines()[1:]]
    assert [row[:2] for row in rows] == [
        ["0", "background"], ["1", "left_kidney"], ["40", 'the_"other"_]]>_one'],
    ]  # fmt: skip
    assert all(len(row) == 6 and all(0 <= int(one) <= 255 for one in row[2:]) for row in rows)
    found = ET.fromstring(label_table_xml(labels)).iter("Label")
    assert {one.text: int(one.attrib["Key"]) for one in found} == labels
