#!/usr/bin/env bash
# SimpleITK 2.5.7: a DICOM segmentation is read without an error as a stack of its frames.
#
# The file below, written by highdicom 0.28.2, has two segments that overlap, on slices of 2.5 mm:
# segment 1 on slices 2 and 3, segment 2 on slices 3 to 5. SimpleITK.ReadImage gives one volume of
# five slices, the frames of both segments after each other, with values 0 and 255 and a distance
# of slices of 1.0 mm. So a mask read this way shows every segment, at wrong places and of a wrong
# volume, and nothing says so. highdicom's own reader places the frames: four slices of 2.5 mm.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && cd "$folder"
python3 -m venv env && . env/bin/activate
pip install -q SimpleITK==2.5.7 highdicom==0.28.2 pydicom==3.0.2
cat > read.py <<'PY'
import warnings

import highdicom as hd
import numpy as np
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

warnings.simplefilter("ignore")
study, series, frame = (generate_uid() for _ in range(3))


def ct(index: int) -> Dataset:
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
    one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "A^B", "1", "", ""
    one.StudyDate, one.StudyTime, one.StudyID, one.AccessionNumber = "20260101", "000000", "1", ""
    one.ReferringPhysicianName, one.PositionReferenceIndicator, one.Modality = "", "", "CT"
    one.SeriesNumber, one.InstanceNumber = 1, index + 1
    one.Rows, one.Columns, one.PixelSpacing, one.SliceThickness = 16, 20, [0.7, 0.7], 2.5
    one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    one.ImagePositionPatient = [-10, -20, 30 + 2.5 * index]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
    one.PixelData = np.zeros((16, 20), np.int16).tobytes()
    return one


masks = np.zeros((6, 16, 20, 2), np.uint8)
masks[1:3, 4:12, 4:12, 0] = 1
masks[2:5, 8:12, 8:16, 1] = 1
code = hd.sr.CodedConcept("85756007", "SCT", "Tissue")
segments = [
    hd.seg.SegmentDescription(n, f"s{n}", code, code, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
    for n in (1, 2)
]
file = hd.seg.Segmentation(
    [ct(n) for n in range(6)], masks, hd.seg.SegmentationTypeValues.BINARY, segments,
    generate_uid(), 1, generate_uid(), 1, "maker", "model", "1", "1",
)
file.save_as("seg.dcm")

image = SimpleITK.ReadImage("seg.dcm")
values = np.unique(SimpleITK.GetArrayFromImage(image)).tolist()
print("SimpleITK:", image.GetSize()[2], "slices,", image.GetSpacing()[2], "mm, values", values)
volume = hd.seg.segread("seg.dcm").get_volume(segment_numbers=[2])
print("highdicom:", volume.array.shape[0], "slices,", volume.spacing[0], "mm")
PY
python read.py | tee said.txt
[ "$(sed -n 1p said.txt)" = "SimpleITK: 5 slices, 1.0 mm, values [0, 255]" ] || { echo "this has changed"; exit 1; }
[ "$(sed -n 2p said.txt)" = "highdicom: 4 slices, 2.5 mm" ] || { echo "this has changed"; exit 1; }
