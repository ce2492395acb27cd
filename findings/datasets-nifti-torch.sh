#!/usr/bin/env bash
# datasets 5.2.0: a Nifti() column cannot be read in torch format.
#
# load_dataset("niftifolder") reads a folder of valid NIfTI files, and each row gives a nibabel
# image. With with_format("torch"), which is what a DataLoader wants, reading any row is a
# TypeError ("object of type 'Nifti1ImageWrapper' has no len()"); in numpy format the row is an
# array of type object that holds the image, not its voxels. What works: no format, and
# np.asanyarray(row["nifti"].dataobj) in a transform of one's own.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && cd "$folder"
python3 -m venv env && . env/bin/activate
pip install -q datasets==5.2.0 nibabel==5.4.2 torch==2.13.0
export HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 HF_HOME="$folder/home"
python - <<'PY'
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
from datasets import load_dataset

Path("scans/train").mkdir(parents=True)
voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5) - 1024
for number in range(2):
    image = nibabel.Nifti1Image(voxels + np.int16(number), np.diag([0.8, 0.8, 5, 1]))
    nibabel.save(image, f"scans/train/{number}.nii.gz")
rows = load_dataset("niftifolder", data_dir="scans", cache_dir="cache", split="train")
assert np.array_equal(np.asanyarray(rows[0]["nifti"].dataobj), voxels), "voxels differ"

as_numpy = rows.with_format("numpy")[0]["nifti"]
print(f"datasets {version('datasets')}: numpy format gives {as_numpy.dtype}, {as_numpy.shape}")
assert as_numpy.dtype == object, "this has changed"
try:
    rows.with_format("torch")[0]
except TypeError as err:
    print(f"torch format raises TypeError: {err}")
    assert "has no len()" in str(err), "this has changed"
else:
    raise SystemExit("this has changed: torch format reads it")
PY
