"""Tumours and cysts of kidney and liver, painted last so that their volumes are exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.sources.phantoms.kidneys import Kidney
from synthct.sources.phantoms.scene import PHANTOM_LABELS, Scene
from synthct.sources.phantoms.shapes import ellipsoid, rotation
from synthct.sources.phantoms.space import FloatArray, coverage


@dataclass(frozen=True)
class Lesion:
    """One lesion as drawn, in body coordinates."""

    kind: str
    organ: str
    centre: npt.NDArray[np.float64]
    radius_mm: float
    axes: npt.NDArray[np.float64]
    stretch: npt.NDArray[np.float64]
    rough: float
    necrotic: float
    exophytic: bool


def draw_lesions(
    scene: Scene, kidneys: tuple[Kidney, Kidney], tumours: bool | None
) -> list[Lesion]:
    """Draw the lesions of a patient.

    Args:
        scene: Gives the random streams.
        kidneys: Where kidney lesions grow.
        tumours: True for at least one kidney tumour, False for no tumour or cyst at all, None to
            leave it to chance.
    """
    rng = scene.rng("lesions")
    counts = {
        "kidney_tumor": int(rng.choice(3, p=[0.45, 0.45, 0.1])),
        "kidney_cyst": int(rng.choice(4, p=[0.5, 0.25, 0.15, 0.1])),
        "liver_tumor": int(rng.choice(6, p=[0.65, 0.12, 0.08, 0.06, 0.05, 0.04])),
        "liver_cyst": int(rng.choice(4, p=[0.62, 0.2, 0.1, 0.08])),
    }
    if tumours is False:
        return []
    if tumours:
        counts["kidney_tumor"] = max(counts["kidney_tumor"], 1)
    lesions: list[Lesion] = []
    for kind, count in counts.items():
        draw_one = scene.rng(f"lesions-{kind}")
        for _ in range(count):
            for _ in range(20):
                lesion = _draw(draw_one, kind, kidneys)
                apart = all(
                    np.linalg.norm(lesion.centre - other.centre)
                    > 1.35 * (lesion.radius_mm + other.radius_mm)
                    for other in lesions
                )
                if apart:
                    lesions.append(lesion)
                    break
    return lesions


def _draw(rng: np.random.Generator, kind: str, kidneys: tuple[Kidney, Kidney]) -> Lesion:
    is_cyst = kind.endswith("cyst")
    exophytic = False
    if kind.startswith("kidney"):
        kidney = kidneys[int(rng.integers(2))]
        organ = kidney.name
        median = 9.0 if is_cyst else 15.0
        radius = float(np.clip(median * np.exp(rng.normal(0, 0.42)), 4.5, 36))
        way = np.array([rng.uniform(-0.25, 1.0), rng.normal(0, 0.75), rng.normal(0, 0.8)])
        way /= np.linalg.norm(way) + 1e-9
        exophytic = bool(rng.random() < 0.55)
        depth = rng.uniform(0.86, 1.08) if exophytic else rng.uniform(0.55, 0.8)
        centre = kidney.point(tuple(way * kidney.radii * depth))
    else:
        organ = "liver"
        median = 9.0 if is_cyst else 12.0
        radius = float(np.clip(median * np.exp(rng.normal(0, 0.5)), 4.5, 34))
        centre = np.array([72.0, 12.0, 38.0]) + rng.uniform(-1, 1, 3) * np.array([42, 46, 42])
    stretch = np.exp(rng.normal(0, 0.06 if is_cyst else 0.13, 3))
    return Lesion(
        kind=kind,
        organ=organ,
        centre=centre,
        radius_mm=radius,
        axes=rotation(rng, 180.0),
        stretch=stretch / np.prod(stretch) ** (1 / 3),
        rough=0.03 if is_cyst else float(rng.uniform(0.08, 0.2)),
        necrotic=0.0 if is_cyst else float(rng.random() < 0.4) * float(rng.uniform(0.35, 0.75)),
        exophytic=exophytic,
    )


def paint_lesions(scene: Scene, lesions: list[Lesion], cavity: FloatArray) -> list[dict[str, Any]]:
    """Paint lesions and measure them.

    Args:
        scene: The canvas with all organs painted.
        lesions: What to paint.
        cavity: Signed distance to the abdominal cavity over all voxels.

    Returns:
        Facts of each lesion of which at least one voxel lies in the scan.
    """
    space = scene.space
    voxel_ml = abs(float(np.linalg.det(space.affine[:3, :3]))) / 1000
    facts = []
    for index, lesion in enumerate(lesions):
        reach = lesion.radius_mm * 1.7 + 4
        box = space.box(lesion.centre - reach, lesion.centre + reach)
        if box is None:
            continue
        x, y, z = space.at(box)
        bumps, grain, fine = scene.bumps[box], scene.grain[box], scene.fine[box]
        radii = lesion.stretch * lesion.radius_mm
        sdf = ellipsoid(x, y, z, lesion.centre, tuple(radii), lesion.axes)
        sdf = sdf + np.float32(lesion.rough * lesion.radius_mm) * (bumps + 0.35 * grain)
        labels = scene.labels[box]
        allowed = labels == PHANTOM_LABELS[lesion.organ]
        if lesion.kind.startswith("kidney"):
            # They grow into fat, not into muscle, bone, bowel or the liver.
            allowed |= (labels == 0) & (cavity[box] < -1)
        alpha = coverage(sdf.astype(np.float32)) * allowed
        if lesion.kind.endswith("cyst"):
            scene.paint(box, alpha, 9.0 + 1.0 * grain, lesion.kind)
        else:
            _paint_tumour(scene, lesion, box, sdf, alpha, (bumps, grain, fine), index)
        inside = (alpha >= 0.5) & allowed
        count = int(np.count_nonzero(inside))
        if count == 0:
            continue
        where = np.argwhere(inside).mean(axis=0) + [s.start for s in box]
        centre = space.affine[:3, :3] @ where + space.affine[:3, 3]
        facts.append(
            {
                "kind": lesion.kind,
                "organ": lesion.organ,
                "volume_ml": count * voxel_ml,
                "centre_mm": [float(value) for value in centre],
                "exophytic": lesion.exophytic,
                "necrotic": lesion.necrotic > 0,
            }
        )
    return facts


def _paint_tumour(
    scene: Scene,
    lesion: Lesion,
    box: tuple[slice, slice, slice],
    sdf: FloatArray,
    alpha: FloatArray,
    fields: tuple[FloatArray, FloatArray, FloatArray],
    index: int,
) -> None:
    """Uneven enhancement, a brighter rim, and a core without blood in some."""
    bumps, grain, fine = fields
    hu = scene.who.hu[lesion.kind]
    plain = 34.0
    rng = scene.rng(f"tumour-{index}")
    vivid = float(rng.uniform(0.45, 1.35))
    lively = plain + (hu - plain) * vivid
    swing = 0.22 * abs(lively - plain) + 5
    texture = lively + swing * (0.8 * bumps + 0.7 * grain) + 0.3 * swing * fine
    rim = np.exp(-np.square((sdf + 2.5) / 2.5))
    texture = texture + 0.25 * (lively - plain) * rim
    if lesion.necrotic:
        edge = sdf / lesion.radius_mm + (1 - lesion.necrotic) + 0.3 * bumps + 0.18 * grain
        dead = 0.5 - 0.5 * np.tanh(edge / 0.14)
        texture = texture + (20 + 4 * grain - texture) * dead
    scene.paint(box, alpha, np.clip(texture, 5, 260), lesion.kind)
