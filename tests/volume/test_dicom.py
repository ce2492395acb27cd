"""CT series of DICOM: the same voxels at the same place, or the reason why not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_writer import (
    LPS,
    contour,
    ct_slice,
    dataset,
    geometry,
    item,
    rtstruct,
    save,
    uid,
    write_rtstruct,
    write_seg,
    write_series,
)
from orientations import stored_in_all_ways
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    MPEG2MPML,
    UID,
    EnhancedCTImageStorage,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from synthct.errors import SourceError
from synthct.volume import Volume, canonical, same_grid
from synthct.volume.case import Case
from synthct.volume.dicom.drawn import fill_even_odd, read_drawn
from synthct.volume.dicom.files import Drawn, Series, joint_sha256
from synthct.volume.dicom.scan import read_series, reference_to


def series_in(folder: Path) -> Series:
    return Series(folder, tuple(sorted(folder.glob("*.dcm"))))


def read(folder: Path, **more: Any) -> Volume:
    return read_series(series_in(folder), **more)[0]


def assert_same(one: Volume, other: Volume) -> None:
    assert np.array_equal(one.array, other.array)
    assert same_grid(one.shape, one.affine, other.affine)


def small(case: Case) -> Volume:
    """Six slices of the case."""
    scan = case.scan()
    return Volume(scan.array[:, :, 9:15], scan.affine)


# --- scans ---


def test_a_series_is_read_as_it_is_however_it_is_stored(tmp_path: Path, tiny_case: Case) -> None:
    for number, stored in enumerate(stored_in_all_ways(small(tiny_case))):
        if number % 9 == 0:  # every axis along the slices, every flip
            write_series(tmp_path / str(number), stored)
            assert_same(read(tmp_path / str(number)), canonical(stored))


def test_slope_and_intercept_are_those_of_each_slice(tmp_path: Path, tiny_case: Case) -> None:
    scan = small(tiny_case)
    write_series(tmp_path, scan)
    paths = sorted(tmp_path.glob("*.dcm"))
    first, second = dcmread(paths[0]), dcmread(paths[1])
    first.RescaleIntercept, first.PixelRepresentation = 0, 1
    first.PixelData = (first.pixel_array.astype(np.int32) - 1024).astype(np.int16).tobytes()
    second.RescaleSlope = 0.5
    second.PixelData = (second.pixel_array * 2).tobytes()
    for data, path in ((first, paths[0]), (second, paths[1])):
        save(data, path)
    assert_same(read(tmp_path), scan)


def test_padding_is_clipped_and_told(tmp_path: Path, tiny_case: Case) -> None:
    scan = small(tiny_case)
    padded = scan.array.copy()
    padded[:3] = -2000
    for k in range(scan.shape[2]):
        data = ct_slice(scan, k, "padded", PixelRepresentation=1, RescaleIntercept=0)
        data.PixelData = np.ascontiguousarray(padded[:, :, k].T).tobytes()
        save(data, tmp_path / f"{k}.dcm")
    remarks: list[str] = []
    found = read(tmp_path, remarks=remarks)
    assert np.array_equal(found.array, padded.clip(-1024))
    assert "values below -1024 HU (padding) are clipped to it" in remarks


def test_a_tilted_gantry_stays_tilted_and_is_told(tmp_path: Path, tiny_case: Case) -> None:
    scan = small(tiny_case)
    tilted = scan.affine.copy()
    tilted[:3, 2] += 0.4 * tilted[:3, 1] * 2.5 / 0.8
    write_series(tmp_path, Volume(scan.array, tilted))
    remarks: list[str] = []
    assert_same(read(tmp_path, remarks=remarks), Volume(scan.array, tilted))
    assert remarks == ["the image's slices are sheared (tilted gantry) and stay so"]


def test_an_enhanced_series_is_read_frame_by_frame(tmp_path: Path, tiny_case: Case) -> None:
    scan = small(tiny_case)
    save(enhanced(scan), tmp_path / "all.dcm")
    assert_same(read(tmp_path), scan)


def test_an_enhanced_series_of_other_values_is_refused(tmp_path: Path, tiny_case: Case) -> None:
    data = enhanced(small(tiny_case))
    groups = data.SharedFunctionalGroupsSequence[0]
    groups.PixelValueTransformationSequence[0].RescaleType = "Z_EFF"
    save(data, tmp_path / "all.dcm")
    with pytest.raises(SourceError, match="of the type Z_EFF, not HU"):
        read(tmp_path)


def test_positions_may_be_rounded_to_a_tenth_of_a_millimetre(
    tmp_path: Path, tiny_case: Case
) -> None:
    scan = small(tiny_case)
    fine = Volume(scan.array, np.diag([0.7, 0.7, 0.625, 1.0]))
    for k in range(6):
        rounded = round(geometry(fine, k)["ImagePositionPatient"][2], 1)
        place = [0, 0, rounded]
        save(ct_slice(fine, k, "fine", ImagePositionPatient=place), tmp_path / f"{k}.dcm")
    assert np.array_equal(read(tmp_path).array, scan.array)


def test_localizers_among_the_frames_are_left_out(tmp_path: Path, tiny_case: Case) -> None:
    scan = small(tiny_case)
    data = enhanced(scan)
    frame = data.PerFrameFunctionalGroupsSequence[2]  # the last along the k axis
    frame.CTImageFrameTypeSequence = Items([item(FrameType=["ORIGINAL", "PRIMARY", "LOCALIZER"])])
    save(data, tmp_path / "all.dcm")
    assert read(tmp_path).shape[2] == 5


def enhanced(scan: Volume) -> Dataset:
    """A multi-frame CT, its frames in an order of their own."""
    order = [3, 0, 5, 1, 4, 2]
    frames = [
        item(
            PlanePositionSequence=Items(
                [item(ImagePositionPatient=geometry(scan, k)["ImagePositionPatient"])]
            )
        )
        for k in order
    ]
    places = geometry(scan, 0)
    shared = item(
        PlaneOrientationSequence=Items(
            [item(ImageOrientationPatient=places["ImageOrientationPatient"])]
        ),
        PixelMeasuresSequence=Items([item(PixelSpacing=places["PixelSpacing"])]),
        PixelValueTransformationSequence=Items(
            [item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")]
        ),
    )
    stored = (scan.array[:, :, order].T.astype(np.int32) + 1024).astype(np.uint16)
    return dataset(
        EnhancedCTImageStorage, "enhanced", Modality="CT", SeriesInstanceUID=uid("enhanced"),
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2", BitsAllocated=16, BitsStored=16, HighBit=15,
        PixelRepresentation=0, NumberOfFrames=6, Rows=places["Rows"], Columns=places["Columns"],
        SharedFunctionalGroupsSequence=Items([shared]),
        PerFrameFunctionalGroupsSequence=Items(frames), PixelData=stored.tobytes(),
    )  # fmt: skip


@pytest.mark.parametrize(
    "syntax", ["RLELossless", "JPEGLSLossless", "DeflatedExplicitVRLittleEndian"]
)
def test_compressed_slices_are_decoded(tmp_path: Path, tiny_case: Case, syntax: str) -> None:
    from pydicom import uid as uids

    scan = small(tiny_case)
    for path in write_series(tmp_path, scan):
        data = dcmread(path)
        if syntax.startswith("Deflated"):
            data.file_meta.TransferSyntaxUID = uids.DeflatedExplicitVRLittleEndian
        else:
            data.compress(getattr(uids, syntax))
        data.save_as(path)
    assert_same(read(tmp_path), scan)


def test_a_compression_without_decoder_names_the_package(tmp_path: Path, tiny_case: Case) -> None:
    for path in write_series(tmp_path, small(tiny_case)):
        data = dcmread(path)
        data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        data.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        data["PixelData"].VR = "OB"
        data.save_as(path)
    with pytest.raises(SourceError, match=r"JPEG Lossless.*pip install python-gdcm"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [
        (JPEGLSLossless, r"compressed as JPEG-LS.*cannot be decoded.*fetch it again"),
        (MPEG2MPML, r"compressed as MPEG2.*pydicom does not decode; convert the series"),
    ],
)
def test_compressed_pixels_that_are_damaged_or_films_are_refused(
    tmp_path: Path, tiny_case: Case, syntax: UID, reason: str
) -> None:
    for path in write_series(tmp_path, small(tiny_case)):
        data = dcmread(path)
        data.file_meta.TransferSyntaxUID = syntax
        data.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        data["PixelData"].VR = "OB"
        data.save_as(path)
    with pytest.raises(SourceError, match=reason):
        read(tmp_path)


def test_loss_in_compression_is_told(tmp_path: Path, tiny_case: Case) -> None:
    write_series(tmp_path, small(tiny_case), LossyImageCompression="01")
    remarks: list[str] = []
    read(tmp_path, remarks=remarks)
    assert remarks == ["slices were compressed with loss (LossyImageCompression)"]


def change(folder: Path, index: int, **elements: Any) -> None:
    """Change a slice, counted along the k axis."""
    paths = sorted(folder.glob("*.dcm"), key=lambda path: -int(dcmread(path).InstanceNumber))
    data = dcmread(paths[index])
    for keyword, value in elements.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    data.save_as(paths[index])


def remove(folder: Path, *indices: int) -> None:
    paths = sorted(folder.glob("*.dcm"), key=lambda path: -int(dcmread(path).InstanceNumber))
    for index in indices:
        paths[index].unlink()


def test_a_missing_slice_is_refused_by_name(tmp_path: Path, tiny_case: Case) -> None:
    write_series(tmp_path, small(tiny_case))
    remove(tmp_path, 2, 3)
    wanted = (
        r"2 slices are missing, .*'series_001.dcm' and 'series_004.dcm' \(7.5 mm apart, others 2.5"
    )
    with pytest.raises(SourceError, match=wanted):
        read(tmp_path)


def test_a_double_slice_is_refused_by_name(tmp_path: Path, tiny_case: Case) -> None:
    paths = write_series(tmp_path, small(tiny_case))
    (tmp_path / "copy.dcm").write_bytes(paths[2].read_bytes())
    with pytest.raises(
        SourceError, match=r"1 slice lies where another.*'copy.dcm' and 'series_002"
    ):
        read(tmp_path)


def test_several_acquisitions_in_one_series_are_told(tmp_path: Path, tiny_case: Case) -> None:
    scan = small(tiny_case)
    write_series(tmp_path, scan)
    for k in range(scan.shape[2]):
        save(ct_slice(scan, k, "series", AcquisitionNumber=2), tmp_path / f"second{k}.dcm")
    with pytest.raises(SourceError, match=r"6 slices .*AcquisitionNumber 1 \(6\), 2 \(6\)"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Rows": 20}, "slices of one series differ"),
        ({"PixelSpacing": [0.9, 0.8]}, "slices of one series differ"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "slices of one series differ"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "is not two directions"),
        ({"ImagePositionPatient": None}, "has no ImagePositionPatient"),
        ({"ImagePositionPatient": [0, 0, 0]}, "not evenly spaced|slices are missing"),
        ({"PixelSpacing": None}, "has no PixelSpacing"),
        ({"PixelSpacing": [0, 0]}, "is not of a CT"),
        ({"RescaleSlope": None}, "has no RescaleSlope"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"RescaleIntercept": None}, "has no RescaleIntercept"),
        ({"SamplesPerPixel": 3}, "picture in colours"),
        ({"PixelData": b"\0" * 100}, "cannot be decoded.*cut short"),
        ({"PixelData": None}, "cannot be decoded"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "is no CT image"),
    ],
)
def test_a_bad_slice_is_refused(
    tmp_path: Path, tiny_case: Case, elements: dict[str, Any], reason: str
) -> None:
    write_series(tmp_path, small(tiny_case))
    change(tmp_path, 2, **elements)
    with pytest.raises(SourceError, match=reason):
        read(tmp_path)


@pytest.mark.parametrize("size", [0, 100, 140, 400, 900, 1500, 4000])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, tiny_case: Case, size: int) -> None:
    path = write_series(tmp_path, small(tiny_case))[1]
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(SourceError, match=re.escape(path.name)):
        read(tmp_path)


def test_a_single_slice_is_refused(tmp_path: Path, tiny_case: Case) -> None:
    write_series(tmp_path, small(tiny_case))
    remove(tmp_path, 1, 2, 3, 4, 5)
    with pytest.raises(SourceError, match="has 1 CT slice"):
        read(tmp_path)


def test_what_is_not_in_hu_is_refused(tmp_path: Path, tiny_case: Case) -> None:
    write_series(tmp_path, small(tiny_case), RescaleIntercept=0)
    with pytest.raises(SourceError, match=r"not HU: .*RescaleIntercept"):
        read(tmp_path)


def test_an_uneven_shift_of_slices_is_refused(tmp_path: Path, tiny_case: Case) -> None:
    scan = small(tiny_case)
    write_series(tmp_path, scan)
    x, y, z = geometry(scan, 2)["ImagePositionPatient"]
    change(tmp_path, 2, ImagePositionPatient=[x + 0.5, y, z])
    with pytest.raises(SourceError, match=r"not evenly spaced: 'series_002\.dcm' lies 0\.6"):
        read(tmp_path)


def test_another_file_than_was_indexed_is_refused(tmp_path: Path, tiny_case: Case) -> None:
    write_series(tmp_path, small(tiny_case))
    with pytest.raises(SourceError, match="not those that were indexed"):
        read(tmp_path, sha256=joint_sha256(iter(["0"])))


def test_a_slice_is_told_by_its_uids_wherever_it_is_stored(tmp_path: Path, tiny_case: Case) -> None:
    scan = small(tiny_case)
    flipped = Volume(scan.array[:, :, ::-1], scan.affine @ np.diag([1.0, 1, -1, 1]))
    for name, stored in (("plain", scan), ("flipped", flipped)):
        write_series(tmp_path / name, stored, name)
        found = reference_to(series_in(tmp_path / name), 2, 1)
        k = 1 if name == "plain" else 4
        assert found["instances"] == [uid(f"{name}/{k}")]
        assert (found["series"], found["study"]) == (uid(name), uid("study"))
        assert reference_to(series_in(tmp_path / name), 0, 1)["instances"] == []


# --- labels ---


def regions(case: Case) -> dict[str, np.ndarray]:
    """A kidney with a hole, and what is in the hole."""
    tumor = case.region("tumor")
    return {"Kidney": case.region("kidney") & ~tumor, "GTV-1": tumor}


def test_contours_give_the_voxels_that_they_were_drawn_around(
    tmp_path: Path, tiny_case: Case
) -> None:
    scan, drawn = tiny_case.scan(), regions(tiny_case)
    ring = drawn["Kidney"].copy()
    ring[20:24, 18:21] = False  # a hole that does not reach the outside
    drawn = {**drawn, "ring": ring, "border": np.ones_like(ring)}
    write_series(tmp_path / "ct", scan)
    path = write_rtstruct(tmp_path / "rt.dcm", scan, drawn)
    for number, region in enumerate(drawn.values(), start=1):
        found = read_drawn(Drawn(((path, (number,)),), series_in(tmp_path / "ct")))
        assert_same(found, Volume(region.astype(np.uint8), scan.affine))


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segments_give_the_voxels_that_they_hold(
    tmp_path: Path, tiny_case: Case, kind: str
) -> None:
    scan, drawn = tiny_case.scan(), regions(tiny_case)
    files = write_series(tmp_path / "ct", scan)
    path = write_seg(tmp_path / "seg.dcm", files, drawn, kind)
    for number, region in enumerate(drawn.values(), start=1):
        remarks: list[str] = []
        structure = Drawn(((path, (number,)),), series_in(tmp_path / "ct"))
        found = read_drawn(structure, remarks=remarks)
        assert_same(found, Volume(region.astype(np.uint8), scan.affine))
        assert any("share of 0.5" in text for text in remarks) == (kind == "FRACTIONAL")


def test_parts_of_several_files_are_one_structure(tmp_path: Path, tiny_case: Case) -> None:
    scan, drawn = tiny_case.scan(), regions(tiny_case)
    files = write_series(tmp_path / "ct", scan)
    seg = write_seg(tmp_path / "seg.dcm", files, {"Kidney": drawn["Kidney"]})
    contours = write_rtstruct(tmp_path / "rt.dcm", scan, {"GTV-1": drawn["GTV-1"]})
    both = Drawn(((seg, (1,)), (contours, (1,))), series_in(tmp_path / "ct"))
    assert np.array_equal(read_drawn(both).array > 0, drawn["Kidney"] | drawn["GTV-1"])


def test_a_segment_on_the_flipped_grid_is_put_where_it_lies(
    tmp_path: Path, tiny_case: Case
) -> None:
    scan, drawn = tiny_case.scan(), regions(tiny_case)
    write_series(tmp_path / "ct", scan)
    other = next(v for n, v in enumerate(stored_in_all_ways(scan)) if n == 21)
    files = write_series(tmp_path / "other", other, "other")
    turned = next(
        v for n, v in enumerate(stored_in_all_ways(Volume(drawn["GTV-1"], scan.affine))) if n == 21
    )
    path = write_seg(tmp_path / "seg.dcm", files, {"GTV-1": turned.array})
    found = read_drawn(Drawn(((path, (1,)),), series_in(tmp_path / "ct")))
    assert np.array_equal(found.array > 0, drawn["GTV-1"])


@pytest.mark.parametrize("shift_mm", [(0.4, 0, 0), (0, 0, 1.25), (200, 0, 0)])
def test_a_segment_off_the_grid_is_refused(
    tmp_path: Path, tiny_case: Case, shift_mm: tuple[float, float, float]
) -> None:
    scan, drawn = tiny_case.scan(), regions(tiny_case)
    write_series(tmp_path / "ct", scan)
    moved = scan.affine.copy()
    moved[:3, 3] += shift_mm
    files = write_series(tmp_path / "other", Volume(scan.array, moved), "other")
    path = write_seg(tmp_path / "seg.dcm", files, {"GTV-1": drawn["GTV-1"]})
    with pytest.raises(SourceError, match=r"seg.dcm: frame 1 does not lie on the grid"):
        read_drawn(Drawn(((path, (1,)),), series_in(tmp_path / "ct")))


def drawing(tmp_path: Path, scan: Volume, contours: list[Dataset]) -> Drawn:
    write_series(tmp_path / "ct", scan)
    drawn = item(ReferencedROINumber=1, ContourSequence=Items(contours))
    path = save(rtstruct([item(ROINumber=1, ROIName="x")], [drawn]), tmp_path / "rt.dcm")
    return Drawn(((path, (1,)),), series_in(tmp_path / "ct"))


def square(scan: Volume, k: float, low: float = 5.5, high: float = 10.5) -> np.ndarray:
    ijk = np.array([[low, low, k], [high, low, k], [high, high, k], [low, high, k]])
    to_lps = LPS @ scan.affine
    return np.asarray(ijk @ to_lps[:3, :3].T + to_lps[:3, 3])


def test_a_contour_between_slices_is_refused(tmp_path: Path, tiny_case: Case) -> None:
    scan = small(tiny_case)
    structure = drawing(tmp_path, scan, [contour(square(scan, 2.5))])
    with pytest.raises(SourceError, match=r"lies on no slice .*0.50 slices off.*contours: interp"):
        read_drawn(structure)


def ball(scan: Volume, places: list[float]) -> list[Dataset]:
    """Circles of a ball around slice 2.5, on the grid of the scan, in mm."""
    spacing, middle = np.array(scan.spacing_mm), 2.5
    contours = []
    for k in places:
        radius_mm = np.sqrt(8.0**2 - ((k - middle) * spacing[2]) ** 2)
        turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)
        centre = np.array(scan.shape[:2]) / 2
        ij = centre + radius_mm * np.column_stack([np.cos(turn), np.sin(turn)]) / spacing[:2]
        ijk = np.column_stack([ij, np.full(len(ij), k)])
        to_lps = LPS @ scan.affine
        contours.append(contour(ijk @ to_lps[:3, :3].T + to_lps[:3, 3]))
    return contours


@pytest.mark.parametrize("places", [[0.0, 2, 4], [0.5, 1.5, 2.5, 3.5, 4.5], [0, 1, 2, 3, 4, 5]])
def test_slices_between_contours_are_interpolated_on_demand(
    tmp_path: Path, tiny_case: Case, places: list[float]
) -> None:
    scan = small(tiny_case)
    drawn = replace(drawing(tmp_path, scan, ball(scan, places)), interpolates=True)
    remarks: list[str] = []
    found = read_drawn(drawn, remarks=remarks).array.astype(bool)
    filled = np.flatnonzero(found.any(axis=(0, 1)))
    assert filled.tolist() == list(range(int(np.ceil(places[0])), int(places[-1]) + 1))
    assert remarks == (
        [] if len(places) == 6 else ["slices between the contours of a structure are interpolated"]
    )
    i, j, k = np.indices(scan.shape)
    distance = (np.stack([i, j, k], -1) - [*np.array(scan.shape[:2]) / 2, 2.5]) * scan.spacing_mm
    truth = (distance**2).sum(-1) <= 64
    overlap = 2 * (found & truth)[..., filled].sum() / (found.sum() + truth[..., filled].sum())
    assert overlap > 0.95


def test_parts_that_are_apart_stay_apart(tmp_path: Path, tiny_case: Case) -> None:
    scan = small(tiny_case)
    contours = [contour(square(scan, k)) for k in (0, 1, 4, 5)]
    drawn = replace(drawing(tmp_path, scan, contours), interpolates=True)
    remarks: list[str] = []
    found = read_drawn(drawn, remarks=remarks).array
    assert np.flatnonzero(found.any(axis=(0, 1))).tolist() == [0, 1, 4, 5]
    assert "left empty" in remarks[0]


def test_a_lone_contour_between_slices_goes_to_the_nearest(tmp_path: Path, tiny_case: Case) -> None:
    scan = small(tiny_case)
    drawn = replace(drawing(tmp_path, scan, [contour(square(scan, 2.4))]), interpolates=True)
    assert np.flatnonzero(read_drawn(drawn).array.any(axis=(0, 1))).tolist() == [2]


def test_a_contour_that_is_not_parallel_to_the_slices_is_refused_anyway(
    tmp_path: Path, tiny_case: Case
) -> None:
    scan = small(tiny_case)
    points = square(scan, 2.5)
    points[0] += (LPS @ scan.affine)[:3, 2]
    drawn = replace(drawing(tmp_path, scan, [contour(points)]), interpolates=True)
    with pytest.raises(SourceError, match="lies on no slice"):
        read_drawn(drawn)


def test_a_contour_beyond_the_series_is_refused(tmp_path: Path, tiny_case: Case) -> None:
    scan = small(tiny_case)
    with pytest.raises(SourceError, match="lies on no slice"):
        read_drawn(drawing(tmp_path, scan, [contour(square(scan, 7))]))


def test_slices_between_contours_stay_empty_and_are_told(tmp_path: Path, tiny_case: Case) -> None:
    scan = small(tiny_case)
    structure = drawing(tmp_path, scan, [contour(square(scan, k)) for k in (1.02, 3)])
    remarks: list[str] = []
    found = read_drawn(structure, remarks=remarks).array
    assert [int(n) for n in found.sum(axis=(0, 1))] == [0, 25, 0, 25, 0, 0]
    assert any("left empty, not interpolated" in text for text in remarks)


def test_points_are_left_out_and_told(tmp_path: Path, tiny_case: Case) -> None:
    scan = small(tiny_case)
    structure = drawing(tmp_path, scan, [contour(square(scan, 1)[:1], "POINT")])
    remarks: list[str] = []
    assert not read_drawn(structure, remarks=remarks).array.any()
    assert remarks == [
        "points and open lines of an RTSTRUCT are left out, since they have no inside"
    ]


def test_the_inside_is_even_odd() -> None:
    outer = np.array([[0.5, 0.5], [8.5, 0.5], [8.5, 8.5], [0.5, 8.5]])
    inner = outer * 0.5 + 2
    filled = fill_even_odd([outer, inner], (10, 12))
    assert filled.shape == (10, 12)
    assert filled[1:9, 1:9].sum() == filled.sum() == 64 - 16
    assert not filled[3:7, 3:7].any()
    keyhole = np.vstack([outer, outer[:1], inner[::-1], inner[-1:]])
    assert np.array_equal(fill_even_odd([keyhole], (10, 12)), filled)


def test_voxels_on_a_contour_belong_to_it() -> None:
    """rt-utils, and whoever uses OpenCV, draws through the centres of the outermost voxels."""
    corners = np.array([[2, 3], [7, 3], [9, 5], [7, 9], [2, 9]], dtype=float)
    expected = np.zeros((12, 12), dtype=bool)
    expected[2:8, 3:10] = True
    expected[8, 4:8], expected[9, 5] = True, True
    rng = np.random.default_rng(0)
    for points in (corners, corners[::-1], np.roll(corners, 2, axis=0)):
        rounded = points + rng.uniform(-1e-5, 1e-5, points.shape)
        assert np.array_equal(fill_even_odd([rounded], (12, 12)), expected)
    hole = np.array([[3, 4], [6, 4], [6, 8], [3, 8]], dtype=float)
    expected[4:6, 5:8] = False
    assert np.array_equal(fill_even_odd([corners, hole], (12, 12)), expected)


def test_a_contour_that_leaves_the_slice_is_cut_off() -> None:
    beyond = np.array([[-5.5, -5.5], [3.5, -5.5], [3.5, 30.5], [-5.5, 30.5]])
    filled = fill_even_odd([beyond], (10, 12))
    assert filled[:4].all()
    assert not filled[4:].any()
