#!/usr/bin/env bash
# SimpleITK 2.5.7: a CT series of a tilted gantry is read with its slices in the wrong places.
#
# Each slice says where it lies (ImagePositionPatient). With a gantry tilted by 20 degrees, slices
# 5 mm apart are also shifted by 1.82 mm from one to the next. ImageSeriesReader drops the shift and
# spreads the slices along their normal, 5.32 mm apart, without a warning: of 30 slices the last lies
# 53.6 mm from where its own header puts it. What works: one's own affine from the positions of the
# first and the last slice (it is sheared), or a corrected copy by dcm2niix.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && cd "$folder"
python3 -m venv env && . env/bin/activate
pip install -q SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6
python - <<'PY'
import math
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

Path("ct").mkdir()
series, study, frame = (generate_uid() for _ in range(3))
shift = 5 * math.tan(math.radians(20))
for k in range(30):
    ct = Dataset()
    ct.file_meta = FileMetaDataset()
    ct.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ct.file_meta.MediaStorageSOPClassUID = ct.SOPClassUID = CTImageStorage
    ct.file_meta.MediaStorageSOPInstanceUID = ct.SOPInstanceUID = generate_uid()
    ct.SeriesInstanceUID, ct.StudyInstanceUID, ct.FrameOfReferenceUID = series, study, frame
    ct.Modality, ct.PatientID, ct.PatientName = "CT", "tilted", ""
    ct.ImageType, ct.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], k + 1
    ct.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ct.ImagePositionPatient = [0, round(-shift * k, 6), 5 * k]
    ct.PixelSpacing, ct.SliceThickness, ct.GantryDetectorTilt = [0.8, 0.8], 5, 20
    ct.Rows = ct.Columns = 32
    ct.SamplesPerPixel, ct.PhotometricInterpretation = 1, "MONOCHROME2"
    ct.BitsAllocated = ct.BitsStored = 16
    ct.HighBit, ct.PixelRepresentation, ct.RescaleSlope, ct.RescaleIntercept = 15, 1, 1, 0
    ct.PixelData = np.full((32, 32), k, np.int16).tobytes()
    ct.save_as(f"ct/{k:02d}.dcm", enforce_file_format=True)

names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames("ct")
image = sitk.ReadImage(names)
assert [int(image[0, 0, k]) for k in range(30)] == list(range(30)), "slices are in another order"
read = np.array(image.TransformIndexToPhysicalPoint((0, 0, 29)))
meant = np.array([float(x) for x in dcmread(names[-1]).ImagePositionPatient])
off = float(np.linalg.norm(read - meant))
print(f"SimpleITK {sitk.Version_VersionString()}: spacing {image.GetSpacing()}")
print(f"last slice at {read.round(2)}, by its header at {meant.round(2)}: {off:.1f} mm apart")
assert off > 50, "this has changed"
PY
