"""Aorta, cava, portal vein and their large branches, and the small vessels of the mesentery."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from synthct.sources.phantoms.kidneys import Kidney
from synthct.sources.phantoms.scene import Scene
from synthct.sources.phantoms.shapes import polyline, tube
from synthct.sources.phantoms.space import FloatArray, Point
from synthct.sources.phantoms.trees import grow, paint_tree

Knots = Sequence[Point]


def vessel(
    scene: Scene,
    knots: Knots,
    hu: float | tuple[float, float, float, float],
    label: str | None = None,
    *,
    wall_hu: float | None = None,
    squeeze: float = 1.0,
) -> None:
    """Paint a vessel along knots (x, y, z, radius).

    Args:
        scene: The canvas.
        knots: Body coordinates and radius.
        hu: HU of blood, or (low z, its HU, high z, its HU) where it mixes on the way.
        label: Name in the label map.
        wall_hu: HU of a wall of 1.2 mm, for the aorta.
        squeeze: Less than 1 lets the lumen vary, as in veins.
    """
    curve = polyline(knots, 6.0)
    found = tube(scene.space, curve[:, :3], np.maximum(curve[:, 3], 0.5))
    if found is None:
        return
    box, sdf = found
    sdf = sdf + np.float32(0.5 + 1.2 * (1 - squeeze)) * scene.bumps[box]
    blood: float | FloatArray
    if isinstance(hu, tuple):
        z = scene.space.z[box]
        share = np.clip((z - hu[0]) / (hu[2] - hu[0]), 0, 1)
        blood = (hu[1] + (hu[3] - hu[1]) * share + 3 * scene.grain[box]).astype(np.float32)
    else:
        blood = hu + 2.5 * scene.grain[box]
    if wall_hu is not None:
        scene.fill(box, sdf - 1.2, wall_hu, label)
    scene.fill(box, sdf, blood, label)


def paint_great_vessels(scene: Scene, kidneys: tuple[Kidney, Kidney]) -> None:
    """Aorta from the arch to its fork, cava, renal vessels, coeliac trunk, portal vein."""
    hu = scene.who.hu
    rng = scene.rng("great-vessels")
    lean = float(rng.normal(0, 2.5))
    wide = float(np.clip(rng.normal(1.0, 0.12), 0.75, 1.35))
    cava = (-30.0, hu["cava_low"], 45.0, hu["cava_high"])
    vessel(
        scene,
        [
            (27, 24, -200, 9),
            (26, 26, -120, 9),
            (25, 25, -60, 10),
            (26, 26, -10, 11),
            (24, 28, 30, 11.5),
            (19, 24, 70, 12.5),
            (16, 28, 100, 13),
        ],
        cava,
        "inferior_vena_cava",
        squeeze=0.3,
    )
    for kidney in kidneys:
        a, b, c = (float(r) for r in kidney.radii)
        hilum = kidney.point((-a * 0.75, 0, c * 0.05))
        inside = kidney.point((-a * 0.25, b * 0.1, c * 0.12))
        start = (24.0, 28.0) if kidney.side > 0 else (20.0, 36.0)
        middle = (kidney.side * 36.0, 22.0) if kidney.side > 0 else (-8.0, 44.0)
        vein: list[Point] = [(*start, hilum[2] + 6, 4.5), (*middle, hilum[2] + 8, 4.8)]
        if kidney.side < 0:
            vein.append((-30.0, 30.0, float(hilum[2]) + 5, 4.8))
        vein += [(*hilum, 4.6), (*inside, 2.4)]
        vessel(scene, vein, hu["renal_vein"], squeeze=0.6)
        vessel(
            scene,
            [
                (-7, 30, hilum[2] + 12, 2.8),
                (kidney.side * 32, 16, hilum[2] + 6, 2.7),
                (*(hilum + np.array([0, -2, 5])), 2.6),
                (*(inside + np.array([0, -2, 8])), 1.6),
            ],
            hu["aorta"],
        )
    _paint_portal(scene)
    bifurcation = -98.0
    aorta: Knots = [
        (-4, 31, bifurcation - 2, 7.2 * wide),
        (-7 + lean, 31, -60, 8.4 * wide),
        (-7 + lean, 31, 0, 9.2 * wide),
        (-6 + lean, 29, 50, 10.5 * wide),
        (-14, 22, 95, 11 * wide),
        (-24, 8, 150, 11.5 * wide),
        (-27, 4, 200, 12 * wide),
        (-22, 12, 228, 12.5 * wide),
        (-6, 34, 242, 13 * wide),
        (12, 52, 226, 14 * wide),
        (10, 54, 190, 14.5 * wide),
        (-8, 42, 168, 14 * wide),
    ]
    for side in (1, -1):
        vessel(
            scene,
            [
                (-4, 31, bifurcation, 6.2),
                (side * 18 - 3, 30, bifurcation - 30, 5.4),
                (side * 38, 22, bifurcation - 75, 5),
            ],
            hu["aorta"],
        )
    vessel(scene, aorta, hu["aorta"], "aorta", wall_hu=hu["muscle"] + 4)
    vessel(
        scene,
        [
            (-6 + lean, 38, 26, 3.6),
            (-5, 52, 18, 3.6),
            (-3, 60, -10, 3.4),
            (2, 60, -60, 2.8),
            (12, 62, -100, 2),
        ],
        hu["aorta"],
    )
    vessel(
        scene,
        [
            (-6 + lean, 38, 40, 3.6),
            (-6, 54, 44, 3.4),
            (-26, 46, 34, 2.8),
            (-52, 24, 46, 2.6),
            (-70, 2, 50, 2.4),
            (-84, -10, 52, 2),
        ],
        hu["aorta"],
    )
    vessel(
        scene, [(-6, 54, 44, 3), (10, 58, 36, 2.6), (24, 54, 32, 2.4), (36, 44, 40, 2)], hu["aorta"]
    )
    _paint_calcium(scene, aorta, rng)


def _paint_portal(scene: Scene) -> None:
    hu = scene.who.hu
    name = "portal_vein_and_splenic_vein"
    vessel(
        scene,
        [
            (14, 50, -110, 3.4),
            (13, 58, -60, 4.6),
            (10, 56, -20, 5.4),
            (10, 50, 6, 6.5),
            (22, 42, 24, 6.8),
            (34, 34, 38, 6.4),
        ],
        hu["portal_vein"],
        name,
        squeeze=0.6,
    )
    vessel(
        scene,
        [
            (10, 50, 6, 5.4),
            (-12, 47, 12, 4.8),
            (-40, 34, 22, 4.4),
            (-66, 10, 38, 4),
            (-84, -12, 46, 3.2),
        ],
        hu["portal_vein"],
        name,
        squeeze=0.6,
    )


def _paint_calcium(scene: Scene, aorta: Knots, rng: np.random.Generator) -> None:
    """Plaques in the wall of older aortas."""
    if rng.random() > 0.45:
        return
    curve = polyline(aorta[:6], 5.0)
    for _ in range(int(rng.integers(3, 14))):
        x, y, z, radius = curve[int(rng.integers(len(curve)))]
        angle = rng.uniform(0, 2 * np.pi)
        wall = np.array([x + radius * np.cos(angle), y + radius * np.sin(angle), z])
        along = wall + np.array([-np.sin(angle) * 3, np.cos(angle) * 3, rng.normal(0, 3)])
        found = tube(scene.space, np.stack([wall, along]), np.full(2, rng.uniform(0.7, 1.6)))
        if found is not None:
            scene.fill(found[0], found[1], float(rng.uniform(400, 900)), keep_label=True)


def paint_mesentery(scene: Scene, free: FloatArray) -> None:
    """Small vessels that fan out through the visceral fat.

    Args:
        scene: The canvas.
        free: Coverage of the abdominal cavity over all voxels.
    """
    rng = scene.rng("mesentery")
    wide = 1 + 0.2 * scene.who.visceral
    for root, hu, leaf in (
        ((4.0, 60.0, -15.0), "hepatic_artery", 0.85),
        ((12.0, 58.0, -25.0), "vein", 1.05),
    ):
        targets = np.stack(
            [
                rng.uniform(-92, 92, 220) * wide,
                rng.uniform(28, 92, 220) * wide,
                rng.uniform(-150, 45, 220),
            ],
            axis=1,
        )
        tree = grow(np.array(root), targets, rng, leaf_mm=leaf, root_mm=3.0)
        paint_tree(scene, tree, scene.who.hu[hu], free)
    for side in (1, -1):
        targets = np.stack(
            [side * rng.uniform(20, 105, 45), rng.uniform(-38, 15, 45), rng.uniform(-110, 60, 45)],
            axis=1,
        )
        tree = grow(np.array([side * 22.0, 24.0, -30.0]), targets, rng, leaf_mm=0.65, root_mm=1.8)
        paint_tree(scene, tree, scene.who.hu["vein"], free)


def random_points(
    rng: np.random.Generator,
    count: int,
    centre: npt.NDArray[np.float64],
    radii: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Points evenly spread in an ellipsoid, (count, 3)."""
    way = rng.standard_normal((count, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    return centre + way * rng.random((count, 1)) ** (1 / 3) * radii
