"""Spine with its canal, ribs, costal cartilage, sternum and the wings of the pelvis."""

from __future__ import annotations

import numpy as np

from synthct.sources.phantoms.body import wall_profile, wall_radius
from synthct.sources.phantoms.scene import Scene
from synthct.sources.phantoms.shapes import polyline, segment_distance, smooth_max, smooth_min, tube
from synthct.sources.phantoms.space import Box, FloatArray

# Height of a vertebra with its disc, by place: lumbar levels are taller than thoracic ones.
_LUMBAR_MM, _THORACIC_MM = 34.0, 24.0


def vertebra_centres() -> list[float]:
    """Heights of the vertebral bodies from L5 up to T1 in the standard body, mm."""
    heights = [17.0 - 34.0 * n for n in range(5)][::-1]
    z = heights[-1] + _LUMBAR_MM / 2
    for n in range(12):
        size = _LUMBAR_MM - 3 - 0.65 * n if n < 11 else _THORACIC_MM
        heights.append(z + size / 2)
        z += size
    return heights


def _bone_hu(scene: Scene, box: Box, sdf: FloatArray, shell_mm: float, cortex: float) -> FloatArray:
    """Marrow with trabeculae inside a dense shell."""
    marrow = scene.who.hu["marrow"] + 26 * scene.fine[box] + 14 * scene.grain[box]
    shell = 0.5 + 0.5 * np.tanh((sdf + np.float32(shell_mm)) / np.float32(0.9))
    hu: FloatArray = marrow + (cortex - marrow) * shell
    return hu


def paint_spine(scene: Scene) -> None:
    """Vertebral bodies, discs, arches with processes and facet joints, canal with its cord."""
    space = scene.space
    box = space.box((-52, -86, -400), (52, 24, 500))
    if box is None:
        return
    x, y, z = space.at(box)
    bumps = scene.bumps[box]
    hu = scene.who.hu
    centres = np.array(vertebra_centres())
    sizes = np.gradient(centres)
    level = np.interp(z, centres, np.arange(len(centres), dtype=float))
    index = np.clip(np.rint(level).astype(int), 0, len(centres) - 1)
    w = (z - centres[index]).astype(np.float32)
    size = sizes[index].astype(np.float32)
    thoracic = np.clip((z - 20) / 120, 0, 1).astype(np.float32)
    side = np.abs(x)
    rounds = np.square(2 * w / size)
    wide = (23.5 - 8 * thoracic) * (0.9 + 0.1 * np.clip(rounds, 0, 1))
    deep = (17.5 - 2 * thoracic) * (0.93 + 0.07 * np.clip(rounds, 0, 1))
    oval = (np.abs(x / wide) ** 2.3 + np.abs(y / deep) ** 2.3 + 1e-5) ** (1 / 2.3)
    round_body = (oval - 1) * deep
    # The back of a vertebral body is flat or hollow toward the canal.
    round_body = smooth_max(round_body, -(y + deep * 0.86) - 0.012 * x * x, 4.0)
    disc_mm = 8.5 - 4 * thoracic
    bow = 1.2 - 1.6 * np.exp(-np.square(round_body / 9))
    body = smooth_max(round_body + 0.4 * bumps, np.abs(w) - (size - disc_mm) / 2 - bow, 2.0)
    disc = hu["muscle"] + 28 + 4 * scene.grain[box]
    scene.fill(box, round_body + 0.5, disc)
    arch = _arch(side, y, w, thoracic) + 0.4 * bumps
    canal = np.sqrt((x / (11.5 - 1.5 * thoracic)) ** 2 + ((y + 25.5 - 2 * thoracic) / 8.8) ** 2)
    canal = ((canal - 1) * 9).astype(np.float32)
    arch = smooth_max(arch, -canal, 1.5)
    cortex = 560.0 + 1.1 * (hu["marrow"] - 165)
    scene.fill(box, body, _bone_hu(scene, box, body, 1.0, cortex), "vertebrae")
    scene.fill(box, arch, _bone_hu(scene, box, arch, 2.2, cortex + 90), "vertebrae")
    scene.fill(box, canal, hu["visceral_fat"] + 30)
    sac = canal + 1.4 + 0.5 * scene.grain[box]
    scene.fill(box, sac, 18.0 + 2 * scene.grain[box])
    cord = np.sqrt((x / 1.25) ** 2 + (y + 25.5 - 2 * thoracic) ** 2) - 4.3
    scene.fill(box, smooth_max(cord, 15 - z, 5.0), hu["cord"], "spinal_cord")


def _arch(side: FloatArray, y: FloatArray, w: FloatArray, thoracic: FloatArray) -> FloatArray:
    """Pedicles, laminae, spinous and transverse processes and facets of every level at once."""
    t = thoracic
    flat = w * 0.55
    pedicle = segment_distance(side, y, flat - 1, (13.5, -13, 0), (16, -30, 0), 4.2, 4.6)
    lamina = segment_distance(side, y, w * 0.42 + 1, (16.5, -33, 0), (2, -44, -1.5), 3.9, 3.2)
    spinous = segment_distance(
        side, y + 3 * t, w * 0.36 + 3 + 2 * t, (0, -43, 0), (0, -69, -1.5), 2.6, 4.0
    )
    transverse = segment_distance(
        side + 8 * t, y + 7 * t, w * 0.75 - 2, (18, -30, 0), (43, -36, 0), 4.6, 3.4
    )
    facet = np.sqrt((side - 18.5 + 3 * t) ** 2 + ((y + 36) * 1.15) ** 2 + (0.55 * w + 0.5) ** 2)
    # The joint is a thin dark line through the facets, below the level's centre.
    joint = 0.9 - np.abs(side - 18.5 + 3 * t + 0.5 * (y + 36)) + np.clip(w + 6, 0, None)
    facet = np.maximum(facet - 8.5, joint)
    merged = smooth_min(smooth_min(pedicle, lamina, 5.0), spinous, 4.0)
    return smooth_min(smooth_min(merged, transverse, 4.0), facet.astype(np.float32), 3.0)


def paint_ribs(scene: Scene) -> None:
    """Twelve pairs of ribs in the wall, their cartilages and the sternum."""
    rng = scene.rng("ribs")
    heights = vertebra_centres()[5:]
    cortex = 540.0 + 1.2 * (scene.who.hu["marrow"] - 165)
    slope = float(rng.uniform(0.9, 1.1))
    for rib, height in enumerate(heights):
        number = 12 - rib
        reach = {12: 70.0, 11: 105.0}.get(number, 138.0 + 5 * (10 - number) * (number > 6))
        drop = {12: 55.0, 11: 72.0}.get(number, 82.0 if number > 3 else 52.0) * slope
        for side in (1.0, -1.0):
            swept = np.deg2rad(np.linspace(0, min(reach, 162.0), 26))
            points = _on_wall(scene, side, swept, height + 6, drop)
            head = np.array([[side * 21, -20, height + 8]])
            points = np.concatenate([head, points[1:]])
            radii = np.full(len(points), 4.4 if number > 2 else 4.0)
            radii[:2] = 4.2
            _paint_rib(scene, points, radii, cortex)
            if number <= 10 and number > 1:
                _paint_cartilage(scene, points[-1], side, number)
    _paint_sternum(scene)


def _paint_sternum(scene: Scene) -> None:
    space = scene.space
    box = space.box((-34, 20, 105), (34, 150, 290))
    if box is None:
        return
    x, y, z = space.at(box)
    heights = np.linspace(100, 300, 41).astype(np.float32)
    middle = np.interp(z, heights, wall_profile(scene, heights)[1] - 7)
    wide = 2.4 + 1.2 * np.exp(-np.square((z - 255) / 18))
    plate = np.hypot(x / wide, y - middle) - 6.2 + 0.4 * scene.bumps[box]
    sdf = smooth_max(plate, np.abs(z - 198) - 72, 8.0).astype(np.float32)
    scene.fill(box, sdf, _bone_hu(scene, box, sdf, 1.1, 400.0), "sternum")


def _on_wall(scene: Scene, side: float, swept: FloatArray, z0: float, drop: float) -> FloatArray:
    """Points along the wall, from the back (0) round the flank to the front (180 degrees)."""
    angle = (-np.pi / 2 + 0.22) + swept
    share = swept / np.deg2rad(150)
    z = z0 - drop * np.clip(share, 0, 1.1) ** 1.15
    radius = wall_radius(scene, angle.astype(np.float32), z.astype(np.float32)) - 6.0
    return np.stack([side * radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def _paint_rib(scene: Scene, points: FloatArray, radii: FloatArray, cortex: float) -> None:
    found = tube(scene.space, points, radii)
    if found is None:
        return
    box, sdf = found
    sdf = sdf + 0.35 * scene.bumps[box]
    scene.fill(box, sdf, _bone_hu(scene, box, sdf, 1.3, cortex), "ribs")


def _paint_cartilage(scene: Scene, end: FloatArray, side: float, number: int) -> None:
    """From a rib's end forward and up to the sternum."""
    target_z = float(np.interp(number, [2, 7, 10], [250, 135, 122]))
    knots = []
    for step in np.linspace(0, 1, 7):
        x = end[0] * (1 - step) + side * 12 * step
        z = end[2] * (1 - step) + target_z * step
        half, front, _ = wall_profile(scene, np.array([z], np.float32))
        rise = (1 - min(abs(x) / float(half[0]), 0.999) ** 2.35) ** (1 / 2.35)
        knots.append(
            (x, end[1] * max(0, 1 - 3 * step) + (float(front[0]) * rise - 6) * min(1, 3 * step), z)
        )
    points = polyline(knots)
    found = tube(scene.space, points, np.full(len(points), 4.6))
    if found is None:
        return
    box, sdf = found
    rind = 40 * np.exp(-np.square((sdf + 0.8) / 1.0))
    scene.fill(box, sdf, 95.0 + 8 * scene.grain[box] + rind)


def paint_pelvis(scene: Scene) -> None:
    """The iliac wings, which low abdominal scans reach."""
    space = scene.space
    box = space.box((-150, -80, -400), (150, 70, -85))
    if box is None:
        return
    x, y, z = space.at(box)
    side = np.abs(x)
    # A curved plate: its crest is highest at the flank.
    plate = side - (62 + 0.42 * (y + 45)) - 0.25 * (z + 100) - 6 * np.sin((y + 45) / 30)
    thick = 4.5 + 2.0 * np.cos((y - 20) / 28)
    crest = z + 92 + 0.012 * np.square(y - 2)
    wing = smooth_max(np.abs(plate) * 0.85 - thick, crest, 5.0)
    wing = smooth_max(wing, np.abs(y - 2) - 55, 6.0).astype(np.float32)
    scene.fill(box, wing, _bone_hu(scene, box, wing, 1.4, 560.0))
