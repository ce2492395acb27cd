"""Put a patient together: draw, paint, scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from synthct.errors import SourceError
from synthct.sources.phantoms.body import build_trunk, paint_back_muscles, paint_table
from synthct.sources.phantoms.bones import paint_pelvis, paint_ribs, paint_spine
from synthct.sources.phantoms.chest import paint_chest
from synthct.sources.phantoms.kidneys import draw_kidneys, paint_kidney
from synthct.sources.phantoms.lesions import draw_lesions, paint_lesions
from synthct.sources.phantoms.organs import (
    paint_bowel,
    paint_duodenum,
    paint_liver,
    paint_pancreas,
    paint_spleen,
    paint_stomach,
)
from synthct.sources.phantoms.scene import SOLID, Scene, draw_patient
from synthct.sources.phantoms.shapes import euler
from synthct.sources.phantoms.space import Space, coverage, stream
from synthct.sources.phantoms.texture import blur, noise_level, scanner_noise
from synthct.sources.phantoms.vessels import paint_great_vessels, paint_mesentery

Region = Literal["abdomen", "chest", "abdomen_chest"]
Triple = tuple[float, float, float]

# Lowest and highest z of each region in the standard body, mm.
_EXTENT: dict[str, tuple[float, float]] = {
    "abdomen": (-90.0, 112.0),
    "chest": (40.0, 325.0),
    "abdomen_chest": (-150.0, 320.0),
}


@dataclass(frozen=True)
class Phantom:
    """A procedural CT with its truth.

    Attributes:
        ct: int16 HU (I, J, K).
        labels: uint8 label map (I, J, K), values of ``PHANTOM_LABELS``; 0 is unlabelled.
        affine: (4, 4) float64, voxel index to RAS+ mm; closest-canonical, possibly oblique.
        facts: JSON-able truth: phase, spacing, and each lesion's kind, volume and centre.
    """

    ct: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]
    facts: dict[str, Any]


def make_phantom(
    seed: int,
    patient: int,
    *,
    region: Region = "abdomen",
    spacing_mm: Triple | None = None,
    shape: tuple[int, int, int] | None = None,
    tumours: bool | None = None,
    oblique: bool | None = None,
) -> Phantom:
    """Make one patient's CT; the same arguments give the same bytes.

    The anatomy depends on ``seed`` and ``patient`` alone: other spacings, shapes, obliquities and
    regions are other scans of the same person in the same phase.

    Args:
        seed: Names the series of patients.
        patient: Number of the patient in it, from 0.
        region: What the scan covers.
        spacing_mm: Voxel size; drawn between 0.7 and 5 mm, or fitted to ``shape``, if None.
        shape: Voxels along i, j, k; as many as cover the region if None.
        tumours: True for at least one kidney tumour, False for no lesion at all, None to leave
            it to chance.
        oblique: Whether the grid is tilted by some degrees; drawn (one in four) if None.

    Returns:
        The phantom.

    Raises:
        SourceError: If a seed, patient, region, spacing or shape is out of range.
    """
    _check(seed, patient, region, spacing_mm, shape)
    who = draw_patient(seed, patient)
    rng = stream(seed, patient, "scan")
    draws = rng.random(8)
    low, high = (value * who.proportions[2] for value in _EXTENT[region])
    width = (2 * (154 + who.fat_mm) + 36) * who.proportions[0]
    front = (118 + who.fat_mm + 26 * who.visceral) * who.proportions[1]
    depth = front + (142 + 0.55 * who.fat_mm) * who.proportions[1]
    field_mm = (width, depth, high - low)
    spacing, size = _grid(field_mm, spacing_mm, shape, draws)
    is_oblique = bool(draws[3] < 0.25) if oblique is None else oblique
    centre = np.array([0.0, front + 4 - depth / 2, (low + high) / 2])
    affine = _affine(spacing, size, centre, is_oblique, rng)

    space = Space(affine, size, who.proportions, seed, patient)
    scene = Scene(space, who, seed, patient)
    trunk = build_trunk(scene)
    kidneys = draw_kidneys(scene)
    paint_chest(scene, trunk)
    paint_back_muscles(scene)
    free = coverage(trunk.cavity + 2) * (scene.labels == 0) * (space.z < trunk.diaphragm_z)
    paint_mesentery(scene, free.astype(np.float32))
    for kidney in kidneys:
        paint_kidney(scene, kidney)
    paint_liver(scene, trunk, kidneys)
    paint_spleen(scene, trunk, kidneys)
    paint_great_vessels(scene, kidneys)
    paint_pancreas(scene)
    paint_stomach(scene, trunk)
    paint_duodenum(scene, trunk)
    paint_bowel(scene, trunk)
    paint_pelvis(scene)
    paint_ribs(scene)
    paint_spine(scene)
    lesions = paint_lesions(scene, draw_lesions(scene, kidneys, tumours), trunk.cavity)
    paint_table(scene)

    ct, noise_hu = _scan(scene, spacing, draws, rng)
    labels = scene.labels
    labels[labels == SOLID] = 0
    facts = {
        "seed": seed,
        "patient": patient,
        "region": region,
        "phase": who.phase,
        "spacing_mm": [float(value) for value in spacing],
        "oblique": is_oblique,
        "noise_hu": noise_hu,
        "lesions": lesions,
    }
    return Phantom(ct, labels, affine, facts)


def _check(
    seed: int,
    patient: int,
    region: str,
    spacing_mm: Triple | None,
    shape: tuple[int, int, int] | None,
) -> None:
    if seed < 0 or patient < 0:
        raise SourceError(f"phantom: seed {seed} and patient {patient} must be 0 or more")
    if region not in _EXTENT:
        raise SourceError(f"phantom: region is {region!r}, not one of {', '.join(_EXTENT)}")
    if spacing_mm is not None and not all(0.2 <= value <= 20 for value in spacing_mm):
        raise SourceError(f"phantom: spacing_mm {spacing_mm} must lie between 0.2 and 20 mm")
    if shape is not None and min(shape) < 8:
        raise SourceError(f"phantom: shape {shape} must have at least 8 voxels along each axis")


def _grid(
    field_mm: Triple,
    spacing_mm: Triple | None,
    shape: tuple[int, int, int] | None,
    draws: npt.NDArray[np.float64],
) -> tuple[Triple, tuple[int, int, int]]:
    if spacing_mm is None and shape is not None:
        plane = max(field_mm[0] / shape[0], field_mm[1] / shape[1])
        spacing_mm = (plane, plane, field_mm[2] / shape[2])
    elif spacing_mm is None:
        plane = float(0.7 + 0.3 * draws[0] + 0.5 * max(0.0, draws[1] - 0.6))
        spacing_mm = (plane, plane, (1.25, 2.0, 2.5, 3.0, 3.75, 5.0)[int(draws[2] * 6)])
    if shape is None:
        counts = [int(np.ceil(f / s)) for f, s in zip(field_mm, spacing_mm, strict=True)]
        shape = (counts[0], counts[1], counts[2])
    return spacing_mm, shape


def _affine(
    spacing: Triple,
    size: tuple[int, int, int],
    centre: npt.NDArray[np.float64],
    oblique: bool,
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    affine = np.eye(4)
    tilt = np.deg2rad(rng.uniform(3, 12) * (1 if rng.random() < 0.5 else -1))
    twist = np.deg2rad(rng.normal(0, 2.5, 2))
    turn = euler(tilt, twist[0], twist[1]) if oblique else np.eye(3)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(size) - 1) / 2)
    return affine


def _scan(
    scene: Scene, spacing: Triple, draws: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int16], float]:
    """Blur, add noise, round to HU."""
    ct = blur(scene.ct, spacing, float(0.6 + 0.3 * draws[4]))
    thin = np.sqrt(2.5 / spacing[2])
    noise_hu = float(np.clip((9 + 9 * draws[5]) * thin, 8, 25))
    # Large voxels average the finest noise.
    noise_hu *= float(np.clip(1.15 / (spacing[0] + 0.35), 0.55, 1.0))
    noise = scanner_noise(scene.space.shape, spacing, 0.38 + 0.2 * float(draws[6]), rng)
    ct += noise * noise_level(ct, spacing) * np.float32(noise_hu)
    return np.clip(np.rint(ct), -1024, 3071).astype(np.int16), noise_hu
