"""DICOM series, SEG and RTSTRUCT files of volumes, for tests; a writer of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    generate_uid,
)

from synthct.volume import Volume

CT, RTSTRUCT = CTImageStorage, RTStructureSetStorage
LPS = np.diag([-1.0, -1, 1, 1])


def uid(name: str) -> UID:
    """The same UID for the same name."""
    return generate_uid(entropy_srcs=[name])


def dataset(sop_class: str, name: str, **elements: Any) -> Dataset:
    """What every file has."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), uid(name)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = sop_class, uid(name)
    data.PatientID, data.PatientName = "MRN-4711", "Doe^Jane"
    data.PatientBirthDate = data.PatientSex = data.StudyID = data.AccessionNumber = ""
    data.StudyDate = data.StudyTime = data.ReferringPhysicianName = ""
    data.StudyInstanceUID = uid("study")
    data.FrameOfReferenceUID, data.PositionReferenceIndicator = uid("frame"), ""
    data.Manufacturer = "tests"
    data.SeriesNumber, data.InstanceNumber = 1, 1
    for keyword, value in elements.items():
        if value is None:
            if keyword in data:
                delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    return data


def save(data: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def geometry(volume: Volume, k: int) -> dict[str, Any]:
    """Place of the slice ``k``, in DICOM's words: columns along i, rows along j."""
    affine = LPS @ volume.affine
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    position = affine @ [0, 0, k, 1]
    return {
        "ImagePositionPatient": [float(f"{x:.9g}") for x in position[:3]],
        "ImageOrientationPatient": [
            float(f"{x:.9g}") for x in (affine[:3, :2] / steps[:2]).T.ravel()
        ],
        "PixelSpacing": [float(f"{x:.9g}") for x in steps[1::-1]],
        "SliceThickness": float(f"{steps[2]:.9g}"),
        "Columns": volume.shape[0],
        "Rows": volume.shape[1],
    }


def ct_slice(volume: Volume, k: int, series: str, **elements: Any) -> Dataset:
    """A slice of a CT, stored unsigned with an intercept of -1024."""
    stored = (volume.array[:, :, k].T.astype(np.int32) + 1024).astype(np.uint16)
    data = dataset(
        CT, f"{series}/{k}", Modality="CT", SeriesInstanceUID=uid(series),
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2", BitsAllocated=16, BitsStored=16, HighBit=15,
        PixelRepresentation=0, RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU",
        AcquisitionNumber=1, KVP=120, **geometry(volume, k),
    )  # fmt: skip
    data.InstanceNumber = volume.shape[2] - k
    data.PixelData = stored.tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    return data


def write_series(
    folder: Path, volume: Volume, series: str = "series", **elements: Any
) -> list[Path]:
    """A CT series; files are named so that their order is not that of the slices.

    Args:
        folder: Where.
        volume: HU.
        series: What its UIDs are made of.
        elements: Further elements; None takes one away.
    """
    paths = []
    for k in range(volume.shape[2]):
        data = ct_slice(volume, k, series, **elements)
        paths.append(save(data, folder / f"{series}_{(k * 7) % volume.shape[2]:03d}.dcm"))
    return paths


def write_rtstruct(
    path: Path, volume: Volume, regions: Mapping[str, np.ndarray], series: str = "series"
) -> Path:
    """Contours around boolean regions (I, J, K), along the edges of voxels, holes included."""
    from skimage.measure import find_contours

    to_lps = LPS @ volume.affine
    rois, drawn = [], []
    for number, (name, region) in enumerate(regions.items(), start=1):
        contours = []
        for k in np.flatnonzero(region.any(axis=(0, 1))):
            # Around a frame of background, so that contours at the border are closed too.
            for points in find_contours(np.pad(region[:, :, k], 1).astype(float), 0.5):
                ijk = np.column_stack([points[:-1] - 1, np.full(len(points) - 1, k)])
                contours.append(contour(ijk @ to_lps[:3, :3].T + to_lps[:3, 3]))
        rois.append(item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=uid("frame"),
                         ROIGenerationAlgorithm=""))  # fmt: skip
        drawn.append(item(ReferencedROINumber=number, ContourSequence=Items(contours)))
    return save(rtstruct(rois, drawn, series), path)


def rtstruct(rois: list[Dataset], drawn: list[Dataset], series: str = "series") -> Dataset:
    of_series = item(SeriesInstanceUID=uid(series))
    of_study = item(RTReferencedSeriesSequence=Items([of_series]))
    frame = item(FrameOfReferenceUID=uid("frame"), RTReferencedStudySequence=Items([of_study]))
    return dataset(
        RTSTRUCT, f"{series}/rtstruct", Modality="RTSTRUCT", StructureSetLabel="drawn",
        SeriesInstanceUID=uid(f"{series}/rtstruct series"),
        StructureSetROISequence=Items(rois), ROIContourSequence=Items(drawn),
        ReferencedFrameOfReferenceSequence=Items([frame]),
    )  # fmt: skip


def contour(points: np.ndarray, kind: str = "CLOSED_PLANAR") -> Dataset:
    """A contour of points (N, 3) in LPS mm."""
    numbers = [f"{x:.10g}"[:16] for x in points.ravel()]
    return item(ContourGeometricType=kind, NumberOfContourPoints=len(points), ContourData=numbers)


def item(**elements: Any) -> Dataset:
    data = Dataset()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


def write_seg(
    path: Path,
    series: list[Path],
    regions: Mapping[str, np.ndarray],
    kind: str = "BINARY",
) -> Path:
    """A SEG of highdicom; a region (I, J, K) is boolean, or a share in a fractional SEG."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    files = [dcmread(one) for one in series]
    order = np.argsort([-int(file.InstanceNumber) for file in files])
    files = [files[n] for n in order]
    described = [
        hd.seg.SegmentDescription(number, name, codes.SCT.Organ, codes.SCT.Kidney, "MANUAL")
        for number, name in enumerate(regions, start=1)
    ]
    stack = np.stack([region.T for region in regions.values()], axis=-1)
    if kind == "LABELMAP":
        values = np.arange(1, stack.shape[-1] + 1)
        stack = (stack.astype(np.uint8) * values.astype(np.uint8)).max(axis=-1)
    seg = hd.seg.Segmentation(
        files, stack, kind, described, uid(f"{path.name} series"), 2, uid(path.name), 1,
        "tests", "tests", "1", "1",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return path
