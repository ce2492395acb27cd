"""Lungs with their vessels and airways, heart, and what lies between them."""

from __future__ import annotations

import numpy as np

from synthct.sources.phantoms.body import Trunk
from synthct.sources.phantoms.scene import PHANTOM_LABELS, Scene
from synthct.sources.phantoms.shapes import ellipsoid, euler, polyline, smooth_max, smooth_min, tube
from synthct.sources.phantoms.space import FloatArray, Point, coverage
from synthct.sources.phantoms.trees import grow, paint_tree
from synthct.sources.phantoms.vessels import random_points, vessel

_HEART = np.array([-24.0, 44.0, 128.0])
_HEART_AXES = euler(0.25, -0.55, 0.6)
# Corners of what the chest can reach.
_REACH = ((-150, -90, -10), (150, 120, 345))


def paint_chest(scene: Scene, trunk: Trunk) -> None:
    """Everything above the diaphragm but the great vessels and bones."""
    space, hu = scene.space, scene.who.hu
    box = space.box(*_REACH)
    if box is None:
        return
    x, y, z = space.at(box)
    dome = (trunk.diaphragm_z[box] - z) * np.float32(0.8)
    cavity = trunk.cavity[box]
    # The muscle of the diaphragm shows as a thin line between lung and fat.
    scene.fill(box, smooth_max(cavity, dome - 1.5, 2.0), hu["muscle"])
    mediastinum = _mediastinum(x, y, z, scene.bumps[box])
    lung = smooth_max(smooth_max(cavity + 1.6, dome + 1.6, 5.0), -mediastinum, 9.0)
    lung = np.maximum(lung, 3.0 - np.abs(x))
    lung = smooth_max(lung, (z - 318) + 0.25 * np.abs(np.abs(x) - 40), 25.0).astype(np.float32)
    between = smooth_max(smooth_max(cavity, dome, 2.0), -lung - 1.5, 1.0)
    fat = hu["visceral_fat"] + 4 * scene.grain[box] + 30 * np.clip(scene.bumps[box] - 0.6, 0, 1.2)
    scene.fill(box, smooth_max(between, mediastinum - 2, 1.0).astype(np.float32), fat)
    _paint_heart(scene)
    air = -865 + 14 * scene.bumps[box] + 8 * scene.grain[box] + 22 * np.clip(scene.fine[box], 0, 3)
    # Blood settles behind, so the lung is denser there.
    air = air - np.clip(y, -60, 60) * 0.45
    alpha = coverage(lung)
    right = x > 0
    inside = scene.paint(box, alpha, air)
    labels = scene.labels[box]
    labels[inside & right] = PHANTOM_LABELS["lung_right"]
    labels[inside & ~right] = PHANTOM_LABELS["lung_left"]
    within = np.zeros(space.shape, np.float32)
    within[box] = alpha
    _paint_lung_vessels(scene, within)
    _paint_airways(scene)
    _paint_trunks(scene)


def _mediastinum(x: FloatArray, y: FloatArray, z: FloatArray, bumps: FloatArray) -> FloatArray:
    """Signed distance to what lies between the lungs."""
    heart = ellipsoid(x, y, z, _HEART, (54, 46, 40), _HEART_AXES) - 4
    column = np.sqrt(x**2 + ((y + 8) / 1.35) ** 2) - 25
    front = np.abs(x) - 9 - 10 * np.exp(-np.square((z - 215) / 45))
    front = smooth_max(front, -y, 4.0)
    arch = ellipsoid(x, y, z, (-4, 30, 225), (34, 46, 34))
    hilum = ellipsoid(x, y, z, (0, 18, 170), (46, 24, 26))
    gutter = ellipsoid(x, y, z, (0, -52, 150), (31, 24, 400))
    heart = smooth_min(heart, gutter, 8.0)
    inlet = ellipsoid(x, y, z, (-2, 24, 300), (36, 30, 62))
    heart = smooth_min(heart, inlet, 8.0)
    merged = smooth_min(smooth_min(heart, column.astype(np.float32), 12.0), front, 10.0)
    return smooth_min(smooth_min(merged, arch, 10.0), hilum, 14.0) + 1.2 * bumps


def _paint_heart(scene: Scene) -> None:
    """Four chambers with the muscle between them and fat in the grooves."""
    space, hu = scene.space, scene.who.hu
    box = space.box(_HEART - 75, _HEART + 75)
    if box is None:
        return
    x, y, z = space.at(box)
    bumps, grain = scene.bumps[box], scene.grain[box]
    pericardium = ellipsoid(x, y, z, _HEART, (53, 45, 39), _HEART_AXES) + 1.2 * bumps
    scene.fill(box, pericardium, hu["visceral_fat"] + 5 * grain)
    muscle = pericardium + 4.5 + 2.5 * bumps
    groove = ellipsoid(x, y, z, _HEART + np.array([16, 6, 12]), (7, 60, 60), _HEART_AXES)
    # Fat lies in the furrow between atria and ventricles, not deep in the heart.
    groove = smooth_max(groove + 2 * grain, -(pericardium + 13), 4.0)
    muscle = smooth_max(muscle, -groove, 3.0)
    scene.fill(box, muscle, hu["myocardium"] + 3 * grain, "heart")
    chambers = (
        ((-50, 42, 116), (25, 20, 19), "heart_left"),
        ((-20, 66, 116), (30, 13, 20), "heart_right"),
        ((14, 46, 130), (18, 21, 22), "heart_right"),
        ((-14, 22, 142), (23, 15, 18), "heart_left"),
    )
    for centre, radii, blood in chambers:
        chamber = smooth_max(
            ellipsoid(x, y, z, centre, radii, _HEART_AXES) + 1.5 * bumps, muscle + 2.5, 4.0
        )
        scene.fill(box, chamber, hu[blood] + 4 * grain + 6 * bumps, "heart")


def _paint_lung_vessels(scene: Scene, within: FloatArray) -> None:
    hu = scene.who.hu
    rng = scene.rng("lung-vessels")
    for side in (1.0, -1.0):
        for kind, hilum in (
            ("pulmonary", (36.0, 14.0, 178.0)),
            ("heart_left", (32.0, 22.0, 158.0)),
        ):
            count = 260
            targets = np.concatenate(
                [
                    random_points(
                        rng, count, np.array([side * 68, 8, 180]), np.array([56, 82, 140.0])
                    ),
                    # The bases are wide, and most seen in abdominal scans.
                    random_points(
                        rng, 130, np.array([side * 72, -22, 92]), np.array([54, 60, 66.0])
                    ),
                ]
            )
            root = np.array([side * hilum[0], hilum[1], hilum[2]])
            tree = grow(root, targets, rng, leaf_mm=0.78, root_mm=6.5)
            paint_tree(scene, tree, hu[kind], within)


def _paint_trunks(scene: Scene) -> None:
    """Superior vena cava, pulmonary arteries, veins into the left atrium, branches of the arch."""
    hu = scene.who.hu
    vessel(
        scene,
        [
            (-52, 20, 305, 5),
            (-22, 50, 268, 6),
            (10, 46, 256, 7),
            (22, 38, 240, 9),
            (23, 36, 200, 9.5),
            (18, 42, 160, 10),
        ],
        hu["heart_right"],
    )
    vessel(scene, [(50, 20, 305, 5), (30, 38, 262, 6.5), (22, 38, 240, 8)], hu["heart_right"])
    vessel(
        scene,
        [
            (-22, 66, 146, 11),
            (-24, 62, 168, 13),
            (-22, 46, 188, 12.5),
            (-8, 30, 193, 10.5),
            (18, 26, 190, 10),
            (40, 16, 182, 7),
            (58, 8, 172, 4.5),
        ],
        hu["pulmonary"],
    )
    vessel(
        scene,
        [(-22, 46, 188, 11), (-34, 24, 196, 9.5), (-44, 10, 186, 7), (-58, 0, 170, 4.5)],
        hu["pulmonary"],
    )
    for side in (1, -1):
        for end in (14, -26):
            vessel(
                scene,
                [
                    (-14 + side * 16, 22, 144, 6.5),
                    (side * 40, 14, 150 + end / 2, 5),
                    (side * 58, 2, 146 + end, 3),
                ],
                hu["heart_left"],
            )
    for top in ((16, 30, 300), (-14, 18, 300), (-30, 10, 305)):
        start = (0.4 * top[0], 0.6 * top[1] + 18, 246)
        vessel(scene, [(*start, 5.5), (0.8 * top[0], top[1] + 6, 275, 4.5), (*top, 4)], hu["aorta"])


def _paint_airways(scene: Scene) -> None:
    """Trachea, main bronchi and a few of their branches, and the esophagus behind."""
    muscle = scene.who.hu["muscle"]
    main: list[list[Point]] = [[(2, 16, 340, 8.5), (2, 14, 260, 8.8), (1, 12, 208, 9)]]
    for side, drop in ((1.0, 0.0), (-1.0, -6.0)):
        main.append(
            [(1, 12, 206, 8.0), (side * 18, 12, 192 + drop, 6.8), (side * 36, 14, 180 + drop, 5.4)]
        )
        main.append(
            [(side * 34, 13, 182 + drop, 4.4), (side * 50, 0, 150, 3.2), (side * 62, -18, 112, 1.8)]
        )
        main.append(
            [(side * 34, 13, 182 + drop, 4.2), (side * 52, 26, 206, 2.8), (side * 60, 30, 240, 1.6)]
        )
    lumens = []
    for index, knots in enumerate(main):
        curve = polyline(knots, 6.0)
        found = tube(scene.space, curve[:, :3], curve[:, 3])
        if found is None:
            continue
        box, sdf = found
        label = "trachea" if index == 0 else None
        scene.fill(box, sdf - 1.1, muscle - 20, label, keep_label=label is None)
        lumens.append((box, sdf, label))
    for box, sdf, label in lumens:
        scene.fill(box, sdf, -985.0, label, keep_label=label is None)
    gullet: list[Point] = [
        (-2, 0, 340, 6),
        (-6, 0, 240, 6.5),
        (-10, 16, 170, 7),
        (-14, 30, 110, 7.5),
        (-30, 24, 88, 9),
        (-48, 8, 80, 10),
    ]
    vessel(scene, gullet, muscle - 4, "esophagus")
    if scene.rng("esophagus").random() < 0.5:
        vessel(
            scene, [(-6, 1, 300, 1.6), (-7, 1, 235, 2.4), (-10, 17, 190, 1.2)], -900.0, "esophagus"
        )
