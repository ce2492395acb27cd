"""DICOM files of a painted volume: its slices as a CT series, its labels as a SEG.

They are marked as synthetic and derived, have UIDs that follow from their content, and hold neither
dates nor names of anybody. The same volume gives the same bytes.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from synthct.dataset.sample import Sample
from synthct.errors import RecipeError
from synthct.version import __version__
from synthct.volume import Array

if TYPE_CHECKING:
    from pydicom import Dataset

#: Labels that are no organ, by parts of their names, in the words of SNOMED CT.
_LESIONS = {"tumor": "Neoplasm", "tumour": "Neoplasm", "lesion": "Neoplasm", "cyst": "Cyst"}
#: SEG needs a date, and no patient's may leave the scan.
_NO_DATE, _NO_TIME = "19000101", "000000"
_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Origin:
    """What the files of one volume have in common.

    Attributes:
        patient: The person, as the dataset calls it.
        host: Names the host; its files are of one study and one frame of reference.
        name: Names the volume and what is in it.
        is_painted: Whether a model painted something.
        description: What was painted, in a few words.
        window: Level and width in HU that it is looked at with.
        sources: For each slice what it is in DICOM, where the dataset tells; see ``reference_to``.
    """

    patient: str
    host: str
    name: str
    is_painted: bool
    description: str
    window: tuple[float, float]
    sources: Sequence[Mapping[str, Any] | None]


@dataclass(frozen=True)
class Series:
    """One of the series of a volume.

    Attributes:
        origin: What it is of.
        number: Of the series in its study.
        what: What it shows, in a word.
    """

    origin: Origin
    number: int
    what: str

    @property
    def key(self) -> str:
        """Names the series; its UIDs follow from it."""
        return f"{self.origin.name} {self.what}"


def require_highdicom() -> None:
    """Make sure that DICOM can be written.

    Raises:
        RecipeError: If highdicom is not installed.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as err:
        raise RecipeError(
            "DICOM is written by highdicom, which is not installed; run pip install '.[dicom]'"
        ) from err


def ct_series(slices: Sequence[Sample], pictures: Sequence[Array], series: Series) -> list[Dataset]:
    """A CT series, one data set per slice.

    Args:
        slices: Where they lie.
        pictures: HU of each (rows, columns).
        series: What it is.
    """
    return [
        _ct_slice(one, picture, series, n)
        for n, (one, picture) in enumerate(zip(slices, pictures, strict=True), start=1)
    ]


def segmentation(
    images: Sequence[Dataset], regions: Array, names: Sequence[str], series: Series
) -> Dataset | None:
    """A binary SEG of the slices of a CT series; None if all of it is empty.

    Args:
        images: The CT series that it is drawn on.
        regions: Boolean (slices, rows, columns, segments).
        names: Of the segments.
        series: What it is.
    """
    import highdicom as hd
    from pydicom import Dataset

    if not regions.any():
        return None
    key, origin, what = series.key, series.origin, series.what
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of patients without a birth date
        seg = hd.seg.Segmentation(
            source_images=list(images),
            pixel_array=regions,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_segment(n, name) for n, name in enumerate(names, start=1)],
            series_instance_uid=_uid(f"{key} series"),
            series_number=series.number,
            sop_instance_uid=_uid(key),
            instance_number=1,
            manufacturer="synthct",
            manufacturer_model_name="synthct",
            software_versions=__version__,
            device_serial_number="none",
            content_label=what.upper(),
            content_description=f"{origin.description}: {what}"[:64],
        )
    assert isinstance(seg, Dataset)
    seg.SeriesDescription = f"{origin.description}: {what}"[:64]
    seg.SyntheticData = "YES" if origin.is_painted else "NO"
    _make_reproducible(seg, key)
    return seg


def _ct_slice(one: Sample, picture: Array, series: Series, number: int) -> Dataset:
    """The file of a slice, the ``number``-th of its series from 1."""
    from pydicom import Dataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    origin = series.origin
    is_painted = origin.is_painted and series.what == "image"
    data, uid = Dataset(), UID(_uid(f"{series.key} {number}"))
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = uid
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    affine = one.picture_affine
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    directions = _LPS[:, None] * affine[:3, :3] / steps
    painter = "inside of a mask painted by a model; " if is_painted else ""
    elements: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL" if one.view == "axial" else "REFORMATTED"],
        "SyntheticData": "YES" if is_painted else "NO",
        "Modality": "CT",
        "PatientID": origin.patient[:64],
        **dict.fromkeys(
            ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
             "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
             "PatientPosition", "Laterality", "AcquisitionNumber", "KVP"), ""
        ),
        "StudyInstanceUID": _uid(f"{origin.host} study"),
        "FrameOfReferenceUID": _uid(f"{origin.host} frame"),
        "SeriesInstanceUID": _uid(series.key),
        "SeriesNumber": series.number,
        "SeriesDescription": origin.description[:64],
        "InstanceNumber": number,
        "Manufacturer": "synthct",
        "ManufacturerModelName": "synthct",
        "SoftwareVersions": __version__,
        "DerivationDescription": f"{painter}HU clipped to -1024..3071; for research only",
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "ImagePositionPatient": _decimals(_LPS * affine[:3, 3]),
        "ImageOrientationPatient": _decimals([*directions[:, 1], *directions[:, 0]]),
        "PixelSpacing": _decimals(steps[:2]),
        "SliceThickness": _decimals(steps[2:])[0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": picture.shape[0],
        "Columns": picture.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "RescaleType": "HU",
        "WindowCenter": _decimals(origin.window[:1])[0],
        "WindowWidth": _decimals(origin.window[1:])[0],
        "PixelData": np.ascontiguousarray(picture, "<i2").tobytes(),
    }  # fmt: skip
    source = origin.sources[number - 1]
    if source is not None:
        elements |= {"FrameOfReferenceUID": source["frame_of_reference"], **_references(source)}
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


def _references(source: Mapping[str, Any]) -> dict[str, Any]:
    """The elements that name the slice that a slice is derived from; it is of another study."""
    from pydicom import Dataset
    from pydicom.sr.codedict import codes

    def item(**elements: Any) -> Dataset:
        data = Dataset()
        for keyword, value in elements.items():
            setattr(data, keyword, value)
        return data

    if not source["instances"]:
        return {}
    code = codes.DCM.SourceImageForImageProcessingOperation
    purpose = item(CodeValue=code.value, CodingSchemeDesignator="DCM", CodeMeaning=code.meaning)
    files = [
        {"ReferencedSOPClassUID": source["class"], "ReferencedSOPInstanceUID": uid}
        for uid in source["instances"]
    ]
    series = item(
        SeriesInstanceUID=source["series"],
        ReferencedInstanceSequence=[item(**file) for file in files],
    )
    study = item(StudyInstanceUID=source["study"], ReferencedSeriesSequence=[series])
    images = [item(**file, PurposeOfReferenceCodeSequence=[purpose]) for file in files]
    return {
        "SourceImageSequence": images,
        "StudiesContainingOtherReferencedInstancesSequence": [study],
    }


def _segment(number: int, name: str) -> Any:
    """A segment's description for highdicom."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    lesion = next((word for part, word in _LESIONS.items() if part in name.lower()), None)
    organ = getattr(codes.SCT, name.title().replace("_", ""), None)
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=(
            codes.SCT.MorphologicallyAbnormalStructure if lesion else codes.SCT.AnatomicalStructure
        ),
        segmented_property_type=(
            getattr(codes.SCT, lesion) if lesion else organ or codes.SCT.BodyStructure
        ),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="synthct", family=codes.DCM.ArtificialIntelligence, version=__version__
        ),
    )


def _make_reproducible(seg: Dataset, key: str) -> None:
    """Take out what highdicom draws or reads from the clock."""
    seg.ContentDate, seg.ContentTime = _NO_DATE, _NO_TIME
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime"):
        if keyword in seg:
            delattr(seg, keyword)
    for item in seg.get("ContributingEquipmentSequence") or ():
        item.pop("ContributionDateTime", None)
    organization = _uid(f"{key} dimensions")
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization


def _uid(name: str) -> str:
    """A UID that follows from a name (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'synthct {name}').int}"


def _decimals(numbers: Sequence[float] | Array) -> list[str]:
    """Numbers as DICOM's decimal strings, of at most 16 characters."""
    return [_decimal(float(number)) for number in numbers]


def _decimal(number: float) -> str:
    for digits in range(16, 0, -1):
        text = f"{number:.{digits}g}"
        if len(text) <= 16:
            return text
    raise AssertionError("one digit fits")


def label_regions(labels: Array, names: Mapping[str, int]) -> Array:
    """Boolean (..., segments) of a label map (...), one for each name."""
    return np.stack([labels == value for value in names.values()], axis=-1)
