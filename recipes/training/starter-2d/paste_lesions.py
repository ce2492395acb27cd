"""Paste tumours into healthy scans, for training on places that never had one.

    python recipes/training/starter-2d/paste_lesions.py OUTPUT FOLDER...

Around a real tumour the scan tells that there is one: its rim, the organ that it pushes aside.
Where a tumour is to be painted into a healthy organ, nothing tells, and a network that has learned
from real tumours only completes the organ instead. So each FOLDER/CASE/ct.nii.gz gets tumours in
soft tissue and lung whose voxels alone are changed, written to OUTPUT/CASE-0 and OUTPUT/CASE-1 with
their masks; and OUTPUT/phantom-* are phantoms with the tumours of their twins. The layout ``nifti``
of a recipe reads both.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from synthct.sources.phantoms import PHANTOM_LABELS, make_phantom
from synthct.volume import Volume, read_ct, write_volume

Values = npt.NDArray[Any]
Region = npt.NDArray[np.bool_]

SEED = 20261130
#: Voxels of a scan for each lesion, and most of them in a scan.
VOXELS_PER_LESION, MOST = 300_000, 14
RADIUS_MM = (5, 26)
#: Voxels of enhanced organs, or of lung, with fewer of which there is none to speak of.
LEAST_PLACES = 5000
#: Lesions are drawn in each scan so many times.
COPIES = 2
#: How many phantoms of each pixel size in mm.
PHANTOMS = {0.8: 5, 1.6: 24}
TUMOURS = ("kidney_tumor", "liver_tumor")


def paste(ct: Volume, rng: np.random.Generator) -> tuple[Volume, Volume]:
    """Paste tumours of drawn place, shape and brightness.

    Args:
        ct: HU.
        rng: Draws them.

    Returns:
        HU and uint8 mask, on its grid; outside of the mask HU are as they were.
    """
    hu, done = ct.array.astype(np.float32), np.zeros(ct.shape, bool)
    spacing = np.array(ct.spacing_mm)
    smooth = ndimage.gaussian_filter(hu, 2.0 / spacing)
    body = _body(hu, spacing)
    bone = ndimage.gaussian_filter((hu > 350).astype(np.float32), 5 / spacing) > 0.02
    chest = ndimage.gaussian_filter((hu < -600).astype(np.float32), 25 / spacing) > 0.3
    tissue = ndimage.gaussian_filter(((hu > -20) & body).astype(np.float32), 6 / spacing) > 0.45
    soft = body & tissue & ~bone & (smooth > 0) & (smooth < 260)
    lung = body & chest & (smooth < -650) & (smooth > -930)
    kinds = [np.argwhere(kind) for kind in (soft, soft & (smooth > 110), soft, lung)]
    count = int(np.clip(hu.size // VOXELS_PER_LESION, 3, MOST))
    for number in range(count):
        among = kinds[number % 4] if len(kinds[number % 4]) > LEAST_PLACES else kinds[0]
        for _ in range(20):
            centre = among[rng.integers(len(among))]
            radius = np.exp(rng.uniform(*np.log(RADIUS_MM)))
            reach = np.ceil(1.6 * radius / spacing).astype(int) + 2
            low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, ct.shape)
            box = tuple(slice(*pair) for pair in zip(low, high, strict=True))
            if done[box].any():
                continue
            lesion, mask = _tumour(hu[box], centre - low, radius, spacing, rng)
            if mask.sum() > 40:
                hu[box], done[box] = np.where(mask, lesion, hu[box]), mask
                break
    return Volume(np.rint(hu).astype(np.int16), ct.affine), Volume(done.astype(np.uint8), ct.affine)


def _body(hu: Values, spacing: Values) -> Region:
    """What lies at least 5 mm below the skin, slice by slice."""
    found = np.zeros(hu.shape, bool)
    for k in range(hu.shape[2]):
        parts, count = ndimage.label(ndimage.binary_opening(hu[:, :, k] > -300, iterations=3))
        if count:
            body = ndimage.binary_fill_holes(parts == 1 + np.argmax(np.bincount(parts.flat)[1:]))
            found[:, :, k] = ndimage.binary_erosion(body, iterations=int(5 / spacing[0]) + 1)
    return found


def _tumour(
    hu: Values, centre: Values, radius: float, spacing: Values, rng: np.random.Generator
) -> tuple[Values, Region]:
    """HU and mask of a rough ellipsoid around ``centre``, darker than what it lies in."""

    def noise(width_mm: float) -> Values:
        field = ndimage.gaussian_filter(rng.standard_normal(hu.shape), width_mm / spacing)
        return np.asarray(field / (field.std() + 1e-6), np.float32)

    away = (np.moveaxis(np.indices(hu.shape), 0, -1) - centre) * spacing
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    stretch = np.exp(rng.normal(0, 0.15, 3))
    distance = np.linalg.norm(away @ turn / stretch, axis=-1) - radius
    distance = distance + rng.uniform(0.04, 0.16) * radius * noise(max(radius / 2.5, 2.0))
    bone_or_air = (hu > 350) | ((hu < -250) & (hu[tuple(centre)] > -250))
    mask = (distance < 0) & ~ndimage.binary_opening(bone_or_air, iterations=2)
    parts, _ = ndimage.label(mask)
    mask = parts == parts[tuple(centre)] if parts[tuple(centre)] else np.zeros_like(mask)
    near = (distance < 8) & (hu > -20) & (hu < 300)
    beside = hu[near]
    organ = float(np.percentile(beside, 70)) if beside.size > 30 else 45.0
    plain = rng.uniform(22, 42)
    share = rng.uniform(0.1, 0.75) if organ > 75 else rng.uniform(0.3, 1.2)
    level = plain + share * (organ - plain)
    swing = 4 + 0.2 * abs(level - plain)
    lesion = level + swing * (0.8 * noise(max(radius / 3, 1.5)) + 0.5 * noise(1.5))
    if rng.random() < 0.4:  # brighter rim
        lesion += rng.uniform(0.1, 0.3) * abs(level - plain) * np.exp(-(((distance + 3) / 3) ** 2))
    if radius > 9 and rng.random() < 0.35:  # necrotic core
        core = distance / radius + rng.uniform(0.25, 0.6) + 0.15 * noise(radius / 3)
        lesion += (20 - lesion) * (0.5 - 0.5 * np.tanh(core / 0.14))
    grain = ndimage.gaussian_filter(rng.standard_normal(hu.shape), 0.7)
    rough = (hu - ndimage.gaussian_filter(hu, 1.0))[near]
    grain_hu = 0.5 * float(np.median(np.abs(rough))) / 0.6745 if rough.size > 30 else 10.0
    lesion = lesion + grain_hu * grain / grain.std()
    # Voxels at the rim hold some of what lies outside.
    share = np.clip(-distance / np.mean(spacing[:2]) + 0.3, 0, 1)
    return (share * lesion + (1 - share) * hu).astype(np.float32), mask


def main(output: Path, folders: list[Path]) -> None:
    """Every case of the folders, and phantoms."""
    for path in sorted(path for folder in folders for path in folder.glob("*/ct.nii.gz")):
        name, ct = path.parent.name, read_ct(path)
        for copy in range(COPIES):
            rng = np.random.default_rng([SEED, copy, *name.encode()])
            _write(output / f"{name}-{copy}", *paste(ct, rng))
    for spacing, patients in PHANTOMS.items():
        for patient in range(patients):
            ill, well = (
                make_phantom(
                    2027,
                    patient,
                    spacing_mm=(spacing, spacing, 4.0),
                    oblique=False,
                    tumours=tumours,
                )
                for tumours in (True, False)
            )
            mask = np.isin(ill.labels, [PHANTOM_LABELS[name] for name in TUMOURS])
            ct = Volume(np.where(mask, ill.ct, well.ct), ill.affine)
            labels = Volume(mask.astype(np.uint8), ill.affine)
            _write(output / f"phantom-{patient:02d}-{spacing}", ct, labels)


def _write(folder: Path, ct: Volume, mask: Volume) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(ct, folder / "ct.nii.gz")
    write_volume(mask, folder / "tumor.nii.gz")
    print(f"{folder.name}: {mask.array.sum()} voxels of tumours", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]])
