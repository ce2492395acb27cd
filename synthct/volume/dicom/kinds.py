"""What a DICOM file is, by its header: a part of a CT series, labels drawn on one, or other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from synthct.errors import SourceError
from synthct.volume.dicom.files import open_dicom, understood

if TYPE_CHECKING:
    from pydicom import Dataset

#: SOP classes: CT, enhanced (multi-frame) CT, and CT that was converted to it.
CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1",
              "1.2.840.10008.5.1.4.1.1.2.2")  # fmt: skip
SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_DICOMDIR = "1.2.840.10008.1.3.10"
#: Types of values that are HU or not stated.
HU_TYPES = ("HU", "US", "")

_WANTED = (
    "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "RescaleType", "PatientID",
    "SeriesInstanceUID", "SeriesDescription", "ImagePositionPatient", "NumberOfFrames",
    "ReferencedSeriesSequence", "SourceImageSequence", "SegmentSequence",
    "StructureSetROISequence", "ReferencedFrameOfReferenceSequence",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What a DICOM file is.

    Attributes:
        kind: ``CT``, ``SEG``, ``RTSTRUCT``, or ``other``.
        what: Of others, what they are; of the rest, the description of the series.
        series: UID of its series.
        instance: UID of the file.
        patient: The person by the file; empty if it does not say.
        place: Of a single slice, its position as it stands in the file.
        drawn_on: UIDs of the series that labels are drawn on, or of its files.
        structures: Number and name of each segment or region of interest.
    """

    kind: Literal["CT", "SEG", "RTSTRUCT", "other"]
    what: str
    series: str = ""
    instance: str = ""
    patient: str = ""
    place: str = ""
    drawn_on: tuple[str, ...] = ()
    structures: tuple[tuple[int, str], ...] = ()


def kind_of(path: Path) -> Kind:
    """What a DICOM file is.

    Raises:
        SourceError: If it is damaged.
    """
    header = open_dicom(path, only=_WANTED)
    with understood(path):
        sop_class = str(header.get("SOPClassUID", ""))
        if not sop_class:
            if header.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
                return Kind("other", "DICOMDIR")
            raise SourceError(
                f"{path}: damaged or cut short (it has no SOPClassUID); fetch it again"
            )
        if sop_class in CT_CLASSES:
            kind = _kind_of_ct(header)
        elif sop_class in SEG_CLASSES:
            kind = _kind_of_seg(header)
        elif sop_class == RTSTRUCT_CLASS:
            kind = _kind_of_rtstruct(header)
        else:
            return Kind("other", str(header.get("Modality") or "of no modality"))
    if kind.kind != "other" and not (kind.series and kind.instance):
        raise SourceError(
            f"{path}: has no SeriesInstanceUID or SOPInstanceUID, by which files belong together; "
            "repair or remove it"
        )
    return kind


def _kind_of_ct(header: Dataset) -> Kind:
    kinds = [str(one).upper() for one in _several(header.get("ImageType"))]
    modality, values = str(header.get("Modality", "")), str(header.get("RescaleType") or "").upper()
    if modality != "CT":
        return Kind("other", modality or "of no modality")
    if "LOCALIZER" in kinds:
        return Kind("other", "CT localizer")
    if values not in HU_TYPES:
        return Kind("other", f"CT of {values}")
    position = [str(one) for one in _several(header.get("ImagePositionPatient"))]
    place = "" if "NumberOfFrames" in header else " ".join(position)
    return Kind("CT", *_names(header), place)


def _kind_of_seg(header: Dataset) -> Kind:
    structures = tuple(
        (int(one.SegmentNumber), str(one.get("SegmentLabel") or ""))
        for one in header.get("SegmentSequence") or ()
        if int(one.SegmentNumber) > 0  # of a label map, 0 is the background
    )
    series = [str(one.SeriesInstanceUID) for one in header.get("ReferencedSeriesSequence") or ()]
    files = [str(one.ReferencedSOPInstanceUID) for one in header.get("SourceImageSequence") or ()]
    drawn_on = tuple(dict.fromkeys(series or files))
    return Kind("SEG", *_names(header), "", drawn_on, structures)


def _kind_of_rtstruct(header: Dataset) -> Kind:
    structures = tuple(
        (int(one.ROINumber), str(one.get("ROIName") or ""))
        for one in header.get("StructureSetROISequence") or ()
    )
    drawn_on = (
        str(series.SeriesInstanceUID)
        for frame in header.get("ReferencedFrameOfReferenceSequence") or ()
        for study in frame.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    )
    return Kind("RTSTRUCT", *_names(header), "", tuple(dict.fromkeys(drawn_on)), structures)


def _names(header: Dataset) -> tuple[str, str, str, str]:
    """Description of the series, its UID, that of the file, and the person."""
    names = ("SeriesDescription", "SeriesInstanceUID", "SOPInstanceUID", "PatientID")
    description, series, instance, patient = (str(header.get(n) or "").strip() for n in names)
    return description, series, instance, patient


def _several(value: object) -> Iterable[object]:
    """The values of an element, of which pydicom gives a single one as it is."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) or not isinstance(value, Iterable) else value
