"""Two kidneys in their fat: cortex, pyramids, sinus with its fat, pelvis, ureter and vessels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthct.sources.phantoms.scene import Scene
from synthct.sources.phantoms.shapes import (
    FAR,
    ellipsoid,
    euler,
    polyline,
    segment_distance,
    smooth_max,
    smooth_min,
    tube,
)
from synthct.sources.phantoms.space import FloatArray, coverage


@dataclass(frozen=True)
class Kidney:
    """One kidney's place in body coordinates.

    Attributes:
        name: Its label.
        side: 1 right, -1 left.
        centre: (3,) middle of the kidney.
        radii: (3,) half extents toward the side, front and top of its own frame.
        axes: (3, 3) rows are its own axes: lateral, anterior, superior.
        cortex_mm: Depth of the cortex.
    """

    name: str
    side: float
    centre: npt.NDArray[np.float64]
    radii: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]
    cortex_mm: float

    def hull(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Signed distance to the kidney without its hilum, for others to keep away from."""
        return ellipsoid(x, y, z, self.centre, self.radii, self.axes)

    def point(self, own: tuple[float, float, float]) -> npt.NDArray[np.float64]:
        """Body coordinates of a point in the kidney's frame."""
        place: npt.NDArray[np.float64] = self.centre + np.asarray(own) @ self.axes
        return place


def draw_kidneys(scene: Scene) -> tuple[Kidney, Kidney]:
    """Place a right and a left kidney."""
    rng = scene.rng("kidneys")
    size = float(rng.normal(1.0, 0.06))
    spread = 57 + 8 * scene.who.visceral

    def one(name: str, side: float, height: float) -> Kidney:
        scale = size * float(rng.normal(1.0, 0.04))
        # The upper pole leans inward and back, and the hilum looks forward.
        tilt = euler(float(rng.normal(0.22, 0.05)), 0.0, 0.0)
        lean = euler(0.0, side * float(rng.normal(-0.24, 0.06)), 0.0)
        turn = euler(0.0, 0.0, -side * float(rng.normal(0.5, 0.12)))
        frame = turn @ lean @ tilt
        axes = frame.T * np.array([[side], [1.0], [1.0]])
        centre = np.array(
            [
                side * (spread + rng.normal(0, 2.5)),
                -8 + 4 * scene.who.visceral + rng.normal(0, 2.5),
                height + rng.normal(0, 6),
            ]
        )
        radii = np.array([29.0, 25.0, 54.0]) * scale * rng.normal(1.0, 0.03, 3)
        return Kidney(name, side, centre, radii, axes, float(rng.uniform(4.8, 6.5)) * scale)

    return one("kidney_right", 1.0, -14.0), one("kidney_left", -1.0, -2.0)


def paint_kidney(scene: Scene, kidney: Kidney) -> None:
    """Paint a kidney and what lies in its sinus."""
    space, hu = scene.space, scene.who.hu
    rng = scene.rng(f"inside-{kidney.name}")
    reach = float(kidney.radii.max()) + 6
    box = space.box(kidney.centre - reach, kidney.centre + reach)
    if box is None:
        return
    u, v, w = _own(space.at(box), kidney)
    a, b, c = (float(r) for r in kidney.radii)
    bumps, grain = scene.bumps[box], scene.grain[box]
    outer = ellipsoid(u, v, w, (0, 0, 0), (a, b, c))
    # Medial flattening and the hilum, a slot that opens toward the middle.
    outer = smooth_max(outer, -(u + a * 0.80) - 0.004 * w * w, 9.0)
    slot = ellipsoid(u, v, w, (-a * 1.0, 0, 0), (a * 0.62, b * 0.30, c * 0.30))
    outer = smooth_max(outer, -slot, 7.0) + 1.5 * bumps + 0.25 * grain
    sinus = ellipsoid(u, v, w, (-a * 0.22, 0, 0), (a * 0.55, b * 0.34, c * 0.60))
    sinus = smooth_min(sinus, slot, 6.0) + 1.0 * bumps + 0.7 * grain
    depth = -outer
    medulla = _pyramids(u, v, w, kidney, rng)
    medulla = smooth_max(medulla + 0.5 * grain, np.float32(kidney.cortex_mm) - depth, 3.0)
    parenchyma = np.float32(hu["kidney_cortex"]) + 2.5 * grain + 2 * bumps
    # Soft corticomedullary borders, as in life.
    pyramid = 0.5 - 0.5 * np.tanh(medulla / 0.9)
    parenchyma = parenchyma + (hu["kidney_medulla"] - hu["kidney_cortex"]) * pyramid
    alpha = coverage(outer)
    scene.paint(box, alpha, parenchyma, kidney.name)
    inside = coverage(sinus) * alpha
    scene.paint(box, inside, hu["visceral_fat"] + 14 + 5 * grain, keep_label=True)
    _paint_pelvis(scene, kidney, rng)
    # The label map takes the sinus out of the parenchyma only where it opens to the hilum.
    hilum = (inside >= 0.5) & (sinus < -1) & (u < -a * 0.45)
    scene.labels[box][hilum & (alpha >= 0.5)] = 0


def _own(
    at: tuple[FloatArray, FloatArray, FloatArray], kidney: Kidney
) -> tuple[FloatArray, FloatArray, FloatArray]:
    x, y, z = (axis - np.float32(c) for axis, c in zip(at, kidney.centre, strict=True))
    m = kidney.axes.astype(np.float32)
    u, v, w = (m[row, 0] * x + m[row, 1] * y + m[row, 2] * z for row in range(3))
    return u, v, w


def _pyramids(
    u: FloatArray, v: FloatArray, w: FloatArray, kidney: Kidney, rng: np.random.Generator
) -> FloatArray:
    """Cones with their tips at the sinus and their bases under the cortex, columns between."""
    a, b, c = (float(r) for r in kidney.radii)
    medulla = np.full(u.shape, FAR, np.float32)
    rows = np.linspace(-0.78, 0.78, 5)
    for row, height in enumerate(rows):
        for angle in (-75.0, 0.0, 75.0):
            turn = np.deg2rad(angle + rng.normal(0, 9) + (25 if row % 2 else -12))
            radial = np.sqrt(1 - height**2)
            way = np.array(
                [np.cos(turn) * radial, np.sin(turn) * radial, height + rng.normal(0, 0.06)]
            )
            base = way * (np.array([a, b, c]) - kidney.cortex_mm - 3.0)
            tip = np.array([-a * 0.22, 0, 0]) + way * np.array([a * 0.55, b * 0.34, c * 0.6]) * 0.9
            wide = float(rng.uniform(7.0, 9.6))
            cone = segment_distance(u, v, w, tip, base, 2.6, wide)
            np.minimum(medulla, cone, out=medulla)
    return medulla


def _paint_pelvis(scene: Scene, kidney: Kidney, rng: np.random.Generator) -> None:
    """Calyces, renal pelvis and the first part of the ureter; bright when contrast is excreted."""
    a, b, c = (float(r) for r in kidney.radii)
    urine = scene.who.hu["urine"]
    full = float(rng.uniform(0.7, 1.25))
    middle = kidney.point((-a * 0.55, 0, -c * 0.04))
    branches = [
        polyline(
            [middle, kidney.point((-a * 0.3, 0, c * h)), kidney.point((a * 0.02, b * s, c * e))],
            5.0,
        )
        for h, e, s in ((0.25, 0.46, 0.05), (0.02, 0.06, -0.1), (-0.24, -0.44, 0.05))
    ]
    for branch in branches:
        _stamp(scene, branch, np.linspace(3.4, 2.2, len(branch)) * full, urine)
    way = [
        kidney.point((-a * 0.4, 0, 0)),
        kidney.point((-a * 1.0, -b * 0.05, -c * 0.1)),
        kidney.point((-a * 1.2, 0, -c * 0.55)),
        np.array([kidney.side * 43, 8, kidney.centre[2] - 95]),
        np.array([kidney.side * 36, 14, kidney.centre[2] - 190]),
    ]
    line = polyline([tuple(p) for p in way], 6.0)
    along = np.linspace(0, 1, len(line))
    _stamp(scene, line, np.interp(along, [0, 0.08, 0.2, 1], [4.5, 5.0, 2.4, 1.8]) * full, urine)


def _stamp(
    scene: Scene, points: npt.NDArray[np.float64], radii: npt.NDArray[np.float64], hu: float
) -> None:
    found = tube(scene.space, points, radii)
    if found is None:
        return
    box, sdf = found
    scene.fill(box, sdf - 0.9, scene.who.hu["muscle"] - 12, keep_label=True)
    scene.fill(box, sdf, hu, keep_label=True)
