"""Liver, gallbladder, spleen, pancreas, stomach, duodenum and bowel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from synthct.sources.phantoms.body import Trunk
from synthct.sources.phantoms.kidneys import Kidney
from synthct.sources.phantoms.scene import Scene
from synthct.sources.phantoms.shapes import (
    carve,
    ellipsoid,
    euler,
    polyline,
    smooth_max,
    smooth_min,
    tube,
)
from synthct.sources.phantoms.space import Box, FloatArray, coverage
from synthct.sources.phantoms.trees import grow, paint_tree
from synthct.sources.phantoms.vessels import random_points


@dataclass(frozen=True)
class _Hollow:
    """The wall of a hollow organ and what is in it.

    Attributes:
        label: Name in the label map.
        wall_mm: Thickness of the wall.
        folds_mm: How far folds reach into the lumen.
        content: What is in it beside gas.
    """

    label: str
    wall_mm: float
    folds_mm: float
    content: Literal["fluid", "food", "stool"]


STOMACH = _Hollow("stomach", wall_mm=4.2, folds_mm=1.6, content="food")
DUODENUM = _Hollow("duodenum", wall_mm=2.4, folds_mm=1.3, content="fluid")
SMALL_BOWEL = _Hollow("small_bowel", wall_mm=2.2, folds_mm=1.3, content="fluid")
COLON = _Hollow("colon", wall_mm=1.9, folds_mm=2.4, content="stool")
#: Distance in mm of the points on a hollow organ's curve.
HOLLOW_STEP_MM = 6.0


def _room(scene: Scene, trunk: Trunk, box: Box, gap: float) -> FloatArray:
    """The abdominal cavity under the diaphragm, less ``gap`` mm."""
    under = (scene.space.z[box] - trunk.diaphragm_z[box]) * np.float32(0.8) + np.float32(gap + 0.8)
    return smooth_max(trunk.cavity[box] + np.float32(gap), under, 6.0)


def paint_liver(scene: Scene, trunk: Trunk, kidneys: tuple[Kidney, Kidney]) -> None:
    """Liver with portal and hepatic veins, its fissure, and the gallbladder under it."""
    space, hu = scene.space, scene.who.hu
    rng = scene.rng("liver")
    box = space.box((-100, -80, -90), (150, 130, 120))
    if box is None:
        return
    x, y, z = space.at(box)
    bumps = scene.bumps[box]
    size = float(rng.normal(1.0, 0.07))
    right = ellipsoid(x, y, z, (64, 10, 40), (84 * size, 100, 98 * size))
    left_reach = float(rng.uniform(56, 84))
    left = ellipsoid(x, y, z, (-4, 56, 66), (left_reach, 50, 40 * size), euler(0.1, -0.12, 0.12))
    liver = smooth_min(right, left, 18.0)
    liver = smooth_max(liver, _room(scene, trunk, box, -1.2), 5.0)
    # The visceral surface rises from the right tip toward the left lobe and faces back.
    tip = float(rng.uniform(-84, -48))
    under = (tip + 0.58 * (118 - x) + 0.16 * (y - 20) - z) * 0.84 + 2.5 * bumps
    liver = smooth_max(liver, under, 14.0)
    behind = (18 - y - 0.95 * (x - 26) - 0.35 * (z - 20)) * 0.7 + 1.5 * bumps
    liver = smooth_max(liver, behind.astype(np.float32), 12.0)
    spine = np.sqrt((x + 6) ** 2 + (y - 4) ** 2) - 38
    liver = carve(liver, spine, 0.0, 8.0)
    for kidney in kidneys:
        liver = carve(liver, kidney.hull(x, y, z), 4.0 + 9 * scene.who.visceral, 8.0)
    has_gallbladder = bool(rng.random() < 0.88)
    if has_gallbladder:
        liver = carve(liver, ellipsoid(x, y, z, (51, 62, -2), (12, 17, 27)), 0.5, 5.0)
    ligament = float(rng.uniform(2, 10))
    fissure = np.maximum(
        np.abs(x - ligament - 0.25 * (y - 60) + 2 * bumps) - 0.9, np.maximum(44 - y, z - 58)
    )
    liver = carve(liver, fissure.astype(np.float32), 0.0, 2.0) + 0.8 * bumps
    texture = hu["liver"] + 2.2 * scene.grain[box] + 2.5 * bumps
    inside = coverage(liver.astype(np.float32))
    scene.paint(box, inside, texture, "liver")
    within = np.zeros(space.shape, np.float32)
    within[box] = coverage((liver + 4).astype(np.float32))
    # The cava runs in a groove of the liver.
    lobes = np.concatenate(
        [
            random_points(rng, 95, np.array([66, 14, 36]), np.array([72, 72, 76.0])),
            random_points(rng, 30, np.array([-4, 56, 60]), np.array([60, 36, 28.0])),
        ]
    )
    portal = grow(np.array([32.0, 36.0, 36.0]), lobes, rng, leaf_mm=1.0, root_mm=5.4)
    lobes = np.concatenate(
        [
            random_points(rng, 70, np.array([64, 14, 44]), np.array([70, 70, 66.0])),
            random_points(rng, 22, np.array([-4, 56, 62]), np.array([60, 34, 26.0])),
        ]
    )
    hepatic = grow(np.array([17.0, 28.0, 86.0]), lobes, rng, leaf_mm=1.15, root_mm=5.6)
    paint_tree(scene, hepatic, hu["hepatic_vein"], within)
    paint_tree(scene, portal, hu["portal_vein"], within)
    if has_gallbladder:
        _paint_gallbladder(scene, rng)


def _paint_gallbladder(scene: Scene, rng: np.random.Generator) -> None:
    full = float(rng.uniform(0.75, 1.15))
    curve = polyline(
        [
            (38, 48, 18, 5 * full),
            (46, 58, 6, 9.5 * full),
            (54, 68, -10, 12.5 * full),
            (58, 74, -22, 11 * full),
        ],
        4.0,
    )
    found = tube(scene.space, curve[:, :3], curve[:, 3])
    if found is None:
        return
    box, sdf = found
    sdf = sdf + 0.6 * scene.bumps[box]
    scene.fill(box, sdf - 1.6, scene.who.hu["organ_wall"], "gallbladder")
    scene.fill(box, sdf, scene.who.hu["gallbladder"] + 1.0 * scene.grain[box], "gallbladder")


def paint_spleen(scene: Scene, trunk: Trunk, kidneys: tuple[Kidney, Kidney]) -> None:
    """Spleen, a crescent against the left chest wall; mottled in the arterial phase."""
    space = scene.space
    rng = scene.rng("spleen")
    size = float(np.clip(rng.normal(1.0, 0.1), 0.78, 1.3))
    box = space.box((-160, -90, -40), (-35, 60, 120))
    if box is None:
        return
    x, y, z = space.at(box)
    spleen = ellipsoid(
        x, y, z, (-78, -22, 66), (46 * size, 60 * size, 56 * size), euler(0.25, 0.2, -0.35)
    )
    spleen = smooth_max(spleen, _room(scene, trunk, box, -0.6), 5.0)
    spleen = carve(spleen, ellipsoid(x, y, z, (-38, 30, 62), (34, 42, 70)), 2.0, 7.0)
    for kidney in kidneys:
        spleen = carve(spleen, kidney.hull(x, y, z), 3.0 + 4 * scene.who.visceral, 7.0)
    spleen = (spleen + 1.0 * scene.bumps[box]).astype(np.float32)
    mottled = 16.0 if scene.who.phase == "arterial" else 1.5
    texture = scene.who.hu["spleen"] + mottled * np.tanh(scene.bumps[box] + 0.6 * scene.grain[box])
    scene.fill(box, spleen, texture + 1.5 * scene.grain[box], "spleen")


def paint_pancreas(scene: Scene) -> None:
    """Pancreas, lobulated, with fat between the lobules."""
    rng = scene.rng("pancreas")
    plump = float(rng.uniform(0.8, 1.15))
    knots = [
        (30, 40, -26, 9),
        (28, 43, -8, 12.5),
        (14, 55, 6, 9),
        (-10, 60, 16, 8.5),
        (-36, 46, 24, 9.5),
        (-60, 24, 36, 9.5),
        (-78, 2, 44, 7),
    ]
    curve = polyline(knots, 5.0)
    found = tube(scene.space, curve[:, :3], curve[:, 3] * plump)
    if found is None:
        return
    box, sdf = found
    grain, fine = scene.grain[box], scene.fine[box]
    sdf = sdf + 1.3 * grain + 0.5 * fine
    fatty = float(rng.uniform(0.15, 1.0))
    clefts = np.clip(np.exp(-np.square(grain * 3.2)) * 0.55 * fatty, 0, 0.6)
    hu = scene.who.hu["pancreas"] + 4 * grain
    hu = hu + (scene.who.hu["visceral_fat"] - hu) * clefts
    scene.fill(box, sdf, hu, "pancreas")


def paint_stomach(scene: Scene, trunk: Trunk) -> None:
    """Stomach: fundus under the left dome, body forward, antrum across; gas over fluid."""
    rng = scene.rng("stomach")
    full = float(rng.uniform(0.72, 1.1))
    knots = [
        (-54, -4, 76, 25),
        (-60, 18, 62, 30),
        (-64, 46, 40, 27),
        (-52, 68, 14, 22),
        (-26, 78, 0, 18),
        (4, 72, 2, 14),
        (26, 62, 4, 8),
    ]
    curve = polyline(knots, HOLLOW_STEP_MM)
    curve[:, 3] *= full
    _paint_hollow(scene, trunk, curve, STOMACH, gas=float(rng.uniform(0.1, 0.75)))


def paint_duodenum(scene: Scene, trunk: Trunk) -> None:
    """Duodenum around the head of the pancreas and across before the aorta."""
    knots = [
        (28, 62, 4, 9),
        (44, 52, 2, 10),
        (47, 42, -20, 10.5),
        (42, 36, -46, 10),
        (18, 42, -54, 9),
        (-14, 44, -48, 9.5),
        (-34, 46, -26, 9.5),
    ]
    _paint_hollow(scene, trunk, polyline(knots, HOLLOW_STEP_MM), DUODENUM, gas=-0.4)


def paint_bowel(scene: Scene, trunk: Trunk) -> None:
    """Colon around the abdomen with stool and gas, small bowel loops in the middle."""
    rng = scene.rng("bowel")
    v = scene.who.visceral
    out = 1 + 0.13 * v
    low, side = float(rng.normal(2, 12)), float(rng.normal(0, 4))
    _paint_loops(scene, trunk, rng, out)
    right = [
        (78, 22, -190, 24),
        (88, 26, -140, 27),
        (92, 16, -95, 24),
        (90, 18, -66, 22),
        (74, 42, -46, 21),
    ]
    across = [
        (48, 74, -40 + low, 21),
        (14, 84, -44 + low, 20),
        (-24, 84, -36 + low, 20),
        (-62, 66, -8, 19),
    ]
    left = [
        (-96, 26, 22, 18),
        (-104, 2, -12, 17),
        (-102, 4, -60, 16),
        (-97, 12, -110, 16),
        (-84, 22, -160, 16),
    ]
    for knots in (right, across, left):
        placed = [
            (x * out + side * 0.3, y * out, z, r * float(rng.uniform(0.82, 1.08)))
            for x, y, z, r in knots
        ]
        gas = float(rng.uniform(-0.5, 0.7) if knots is across else rng.uniform(-0.9, 0.35))
        _paint_hollow(scene, trunk, polyline(placed, HOLLOW_STEP_MM), COLON, gas=gas)


def _paint_loops(scene: Scene, trunk: Trunk, rng: np.random.Generator, out: float) -> None:
    for _ in range(18):
        start = np.array([rng.uniform(-68, 52), rng.uniform(46, 84), rng.uniform(-170, -5)])
        heading = rng.standard_normal(3)
        knots = []
        for _ in range(6):
            radius = float(rng.uniform(8.5, 13.0))
            knots.append((start[0] * out, start[1] * out, start[2], radius))
            heading = heading + rng.standard_normal(3) * 0.9
            heading /= np.linalg.norm(heading)
            start = start + heading * 26
            bounds = np.array([[-76, 62], [38, 92], [-180, 4]])
            heading = np.where((start < bounds[:, 0]) | (start > bounds[:, 1]), -heading, heading)
            start = np.clip(start, bounds[:, 0], bounds[:, 1])
        gas = float(rng.uniform(-1.6, 0.2))
        _paint_hollow(scene, trunk, polyline(knots, HOLLOW_STEP_MM), SMALL_BOWEL, gas=gas)


def _paint_hollow(
    scene: Scene, trunk: Trunk, curve: FloatArray, organ: _Hollow, *, gas: float
) -> None:
    """Paint a hollow organ, or a part of one.

    Args:
        scene: The canvas.
        trunk: Keeps the organ inside the abdominal wall.
        curve: (N, 4), its middle and radius in mm along its way.
        organ: Its wall and what is in it.
        gas: Level of gas over fluid, in radii behind (positive) or in front of the middle; a
            patient lies on the back, so gas collects in front.
    """
    points, radii = curve[:, :3], np.maximum(curve[:, 3], 4.0)
    found = tube(scene.space, points, radii)
    if found is None:
        return
    box, sdf = found
    hu = scene.who.hu
    grain, fine, bumps = scene.grain[box], scene.fine[box], scene.bumps[box]
    # Haustra and peristalsis: the outline swells and narrows.
    outline = sdf + np.float32(organ.folds_mm * 1.1) * bumps + 0.6 * grain
    outline = smooth_max(outline, _room(scene, trunk, box, 0.6), 3.0)
    free = scene.labels[box] == 0
    alpha = coverage(outline) * free
    scene.paint(box, alpha, hu["organ_wall"] + 4 * grain, organ.label)
    folds = np.float32(organ.folds_mm * 0.7) * np.abs(grain)
    lumen = outline + np.float32(organ.wall_mm) + folds + 0.3 * fine
    if organ.content == "stool":
        inside = -40 + 45 * grain + 30 * fine - 700 * np.clip(fine * 0.8 + grain * 0.5 - 0.85, 0, 1)
    elif organ.content == "food":
        inside = 38 + 12 * grain + 9 * fine - 420 * np.clip(fine - 2.0, 0, 1)
    else:
        inside = hu["bowel_content"] + 10 * grain + 6 * fine
    filled = coverage(lumen) * alpha
    scene.paint(box, filled, np.maximum(inside, -1000), keep_label=True)
    middle = np.interp(scene.space.z[box], *_sorted_profile(points))
    mean_radius = float(radii.mean())
    level = middle - gas * mean_radius - scene.space.y[box]
    scene.paint(
        box, coverage((level + 0.4 * bumps).astype(np.float32)) * filled, -985.0, keep_label=True
    )


def _sorted_profile(points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Heights of a curve's points in rising order, and their y."""
    order = np.argsort(points[:, 2])
    return points[order, 2], points[order, 1]
