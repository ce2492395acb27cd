#!/usr/bin/env bash
# rt-utils 1.2.7: an RTSTRUCT written from a mask encloses less than the mask.
#
# Contours are drawn through the centres of a mask's outermost voxels, not around the voxels. rt-utils
# gives the mask back, since it fills in whatever a contour touches, but who measures the contours
# (their area, a volume, a distance) gets half a voxel less on every side: of a lesion of 10 x 10
# voxels 81 mm2 in place of 100, of one of 5 x 5 voxels 16 in place of 25, and one voxel is nothing.
# A reader must count a voxel whose centre lies on a contour as inside to get the mask back.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && cd "$folder"
python3 -m venv env && . env/bin/activate
pip install -q rt-utils==1.2.7 pydicom==3.0.2 numpy==2.4.6
python - <<'PY'
from pathlib import Path

import numpy as np
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from rt_utils import RTStructBuilder

Path("ct").mkdir()
series, study, frame = (generate_uid() for _ in range(3))
for k in range(4):
    ct = Dataset()
    ct.file_meta = FileMetaDataset()
    ct.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ct.file_meta.MediaStorageSOPClassUID = ct.SOPClassUID = CTImageStorage
    ct.file_meta.MediaStorageSOPInstanceUID = ct.SOPInstanceUID = generate_uid()
    ct.SeriesInstanceUID, ct.StudyInstanceUID, ct.FrameOfReferenceUID = series, study, frame
    ct.Modality, ct.PatientID, ct.PatientName = "CT", "box", ""
    for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                    "AccessionNumber", "ReferringPhysicianName", "Manufacturer"):
        setattr(ct, keyword, "")
    ct.SeriesNumber, ct.InstanceNumber = 1, k + 1
    ct.ImageOrientationPatient, ct.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 3 * k]
    ct.PixelSpacing, ct.SliceThickness, ct.Rows, ct.Columns = [1, 1], 3, 32, 32
    ct.SamplesPerPixel, ct.PhotometricInterpretation = 1, "MONOCHROME2"
    ct.BitsAllocated = ct.BitsStored = 16
    ct.HighBit, ct.PixelRepresentation, ct.RescaleSlope, ct.RescaleIntercept = 15, 1, 1, 0
    ct.PixelData = np.zeros((32, 32), np.int16).tobytes()
    ct.save_as(f"ct/{k}.dcm", enforce_file_format=True)


def area_mm2(contour: Dataset) -> float:
    x, y, _ = np.array(contour.ContourData, float).reshape(-1, 3).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


for size, expected in ((10, 81), (5, 16), (1, 0)):
    mask = np.zeros((32, 32, 4), bool)
    mask[10 : 10 + size, 10 : 10 + size, 1] = True
    written = RTStructBuilder.create_new(dicom_series_path="ct")
    written.add_roi(mask=mask, name="lesion")
    written.save("rt.dcm")
    read = RTStructBuilder.create_from(dicom_series_path="ct", rt_struct_path="rt.dcm")
    assert np.array_equal(read.get_roi_mask_by_name("lesion"), mask), "rt-utils lost voxels"
    (region,) = dcmread("rt.dcm").ROIContourSequence
    area = sum(area_mm2(contour) for contour in region.ContourSequence)
    print(f"mask of {int(mask.sum())} mm2: contours enclose {area:g} mm2")
    assert area == expected, "this has changed"
PY
