"""Label the lungs of CT scans by threshold, for training on scans that have no label maps.

    python recipes/training/starter-2d/label_lungs.py OUTPUT FOLDER...

Each FOLDER/CASE/ct.nii.gz is copied to OUTPUT/CASE/ct.nii.gz, with OUTPUT/CASE/lung.nii.gz beside
it, which the layout ``nifti`` of a recipe reads.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

from synthct.volume import Volume, read_ct, write_volume

#: Lung and the air of its bronchi are below; smaller parts are gut; vessels are closed.
BELOW_HU, LEAST_MM2, VESSEL_MM = -500, 1000, 3.0
#: With less of a scan than this share, what seems to be lung is gas in the gut.
LEAST_SHARE = 0.05


def lungs(ct: Volume) -> Volume:
    """The lungs of axial slices: air within the body that is no gut gas and no trachea.

    Args:
        ct: HU.

    Returns:
        uint8 on its grid.
    """
    flat, spacing = ndimage.generate_binary_structure(2, 1), ct.spacing_mm[:2]
    found = np.zeros(ct.shape, np.uint8)
    for k in range(ct.shape[2]):
        hu = ct.array[:, :, k]
        body = ndimage.binary_opening(hu > -300, flat, iterations=3)
        parts, count = ndimage.label(body)
        if not count:
            continue
        body = ndimage.binary_fill_holes(parts == 1 + np.argmax(np.bincount(parts.flat)[1:]))
        parts, _ = ndimage.label(body & (hu < BELOW_HU), flat)
        large = np.bincount(parts.flat) * np.prod(spacing) >= LEAST_MM2
        mean = ndimage.mean(hu, parts, np.arange(len(large)))
        lung = (large & (np.arange(len(large)) > 0) & (mean > -940))[parts]  # gas is below
        radius = max(1, round(VESSEL_MM / min(spacing)))
        found[:, :, k] = ndimage.binary_closing(np.pad(lung, radius), flat, radius)[
            radius:-radius, radius:-radius
        ]
    return Volume(found, ct.affine)


def main(output: Path, folders: list[Path]) -> None:
    """Label every case of the folders."""
    for path in sorted(path for folder in folders for path in folder.glob("*/ct.nii.gz")):
        labels = lungs(read_ct(path))
        if labels.array.mean() < LEAST_SHARE:
            labels = Volume(np.zeros_like(labels.array), labels.affine)
        case = output / path.parent.name
        case.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, case / "ct.nii.gz")
        write_volume(labels, case / "lung.nii.gz")
        print(f"{case.name}: {100 * labels.array.mean():.1f} % lung")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]])
