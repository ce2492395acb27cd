"""The trunk: outline, fat, wall, cavity, diaphragm, muscles, table; no organs, no bones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthct.sources.phantoms.scene import Scene
from synthct.sources.phantoms.shapes import smooth_max, smooth_min
from synthct.sources.phantoms.space import Box, FloatArray, coverage

_EVERYWHERE = (slice(None), slice(None), slice(None))

# Half widths, front and back of the chest and abdominal wall along z, standard body, mm.
_Z = np.array([-220, -150, -60, 0, 80, 150, 230, 300, 345, 380], dtype=float)
_HALF_WIDTH = np.array([136, 128, 116, 118, 127, 130, 122, 94, 60, 55], dtype=float)
_FRONT = np.array([92, 100, 103, 112, 120, 116, 98, 64, 35, 30], dtype=float)
_BACK = np.array([50, 50, 48, 52, 64, 72, 66, 50, 40, 40], dtype=float)
_EXPONENT = 2.35


@dataclass(frozen=True)
class Trunk:
    """Signed distances of the trunk over all voxels, in body coordinates.

    Attributes:
        wall: Outside of the muscular wall and rib cage.
        cavity: Inside of it.
        diaphragm_z: Height of the diaphragm above each voxel's place.
    """

    wall: FloatArray
    cavity: FloatArray
    diaphragm_z: FloatArray


def wall_profile(scene: Scene, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Half width, front and back of the wall at heights ``z``, for this patient."""
    belly = scene.who.visceral * np.exp(-(((z + 20) / 90.0) ** 2))
    half = np.interp(z, _Z, _HALF_WIDTH) + 22 * belly
    front = np.interp(z, _Z, _FRONT) - 10 + 36 * belly
    back = np.interp(z, _Z, _BACK)
    return half.astype(np.float32), front.astype(np.float32), back.astype(np.float32)


def wall_radius(scene: Scene, angle: FloatArray, z: FloatArray) -> FloatArray:
    """Distance of the wall from (x, y) = (0, 0) at an angle from +x, counter-clockwise."""
    half, front, back = wall_profile(scene, z)
    depth = np.where(np.sin(angle) > 0, front, back)
    level = (np.abs(np.cos(angle)) / half) ** _EXPONENT
    level += (np.abs(np.sin(angle)) / depth) ** _EXPONENT
    radius: FloatArray = (level ** (-1 / _EXPONENT)).astype(np.float32)
    return radius


def _oval(
    x: FloatArray,
    y: FloatArray,
    half: FloatArray,
    front: FloatArray,
    back: FloatArray,
    exponent: float = _EXPONENT,
) -> FloatArray:
    """Signed distance, roughly, to an egg-shaped outline with its centre at the spine."""
    depth = np.where(y > 0, front, back)
    level = (np.abs(x) / half) ** exponent + (np.abs(y) / depth) ** exponent
    level = np.maximum(level, 1e-4) ** (1 / exponent)
    slope = np.sqrt((x / half**2) ** 2 + (y / depth**2) ** 2) + 2e-3
    distance: FloatArray = (level * (level - 1) / slope).astype(np.float32)
    return np.clip(distance, -120, 120)


def build_trunk(scene: Scene) -> Trunk:
    """Paint the trunk from the skin inward and return what organs must fit into."""
    space = scene.space
    x, y, z = space.coarse
    half, front, back = wall_profile(scene, z)
    wall = _oval(x, y, half, front, back)
    chest = 1 / (1 + np.exp(-(z - 110) / 18))
    skin = _outline(scene, x, y, z, half, front, back)
    thickness = _wall_thickness(scene, x, y, chest)
    diaphragm = _diaphragm(wall + 11, x, y)
    wall_full = space.upsample(wall) + 1.2 * scene.bumps
    cavity = wall_full + space.upsample(thickness.astype(np.float32))
    outline = space.upsample(skin)
    _paint_shell(scene, outline, wall_full, cavity, space.upsample(chest.astype(np.float32)))
    return Trunk(wall_full, cavity, space.upsample(diaphragm) + 1.5 * scene.bumps)


def _outline(
    scene: Scene,
    x: FloatArray,
    y: FloatArray,
    z: FloatArray,
    half: FloatArray,
    front: FloatArray,
    back: FloatArray,
) -> FloatArray:
    fat = scene.who.fat_mm
    rng = scene.rng("outline")
    chest = 1 / (1 + np.exp(-(z - 130) / 30))
    # Pectoral and shoulder muscles lie outside the ribs.
    flank = fat * (1 - 0.45 * chest) + (8 + 14 * chest)
    belly = fat * float(rng.uniform(0.55, 1.0)) * (1 - 0.5 * chest) + (4 + 12 * chest)
    rear = 34 + 0.55 * fat - 6 * chest
    # Flat on the table, with the furrow of the spine.
    furrow = 5.0 * np.exp(-((x / 16) ** 2)) * (y < 0)
    skin = _oval(x, y, half + flank, front + belly, back + rear, 2.25) + furrow
    lying = -(y + back + rear - 7 - 0.0006 * x * x)
    merged: FloatArray = smooth_max(skin, lying.astype(np.float32), 16.0)
    return merged


def _wall_thickness(scene: Scene, x: FloatArray, y: FloatArray, chest: FloatArray) -> FloatArray:
    """Three flat muscles at the flank, the two recti in front, a thin linea alba between them."""
    bulk = scene.who.muscle
    side = 12.5 * bulk
    in_front = 1 / (1 + np.exp(-(y - 40) / 7))
    rectus = 10.0 * bulk / (1 + np.exp((np.abs(x) - 58) / 4.0))
    rectus = rectus * (1 - 0.85 * np.exp(-((x / 7.0) ** 2)))
    oblique = 9.5 * bulk * (1 - 0.75 * np.exp(-(((np.abs(x) - 68) / 7.0) ** 2)))
    front = np.where(np.abs(x) < 66, np.maximum(rectus, 2.0), oblique)
    behind = 1 / (1 + np.exp((y + 18) / 6))
    belly = side * (1 - in_front) + front * in_front
    belly = belly * (1 - behind) + 6.0 * behind
    thickness: FloatArray = (belly * (1 - chest) + 11.0 * chest).astype(np.float32)
    return thickness


def _diaphragm(cavity: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Two domes that fall steeply into the sulci along the chest wall, deepest behind."""
    right = 1 / (1 + np.exp(-x / 14))
    bulge = np.exp(-(((np.abs(x) - 60) / 44) ** 2) - ((y - 12) / 62) ** 2)
    top = 88 + 10 * right + 30 * bulge
    sulcus = 8 + 0.42 * (y + 50)
    inward = np.clip(-cavity / (66 + 0.1 * (y + 50)), 0, 1)
    dome = np.sqrt(1 - np.square(1 - inward))
    height: FloatArray = (sulcus + (top - sulcus) * dome).astype(np.float32)
    return height


def _paint_shell(
    scene: Scene, outline: FloatArray, wall: FloatArray, cavity: FloatArray, chest: FloatArray
) -> None:
    hu = scene.who.hu
    body = coverage(outline)
    scene.paint(_EVERYWHERE, body, hu["skin"])
    strands = _strands(scene)
    fat = hu["fat"] + 4 * scene.grain + 34 * strands
    scene.paint(_EVERYWHERE, coverage(outline + np.float32(1.9)), fat)
    scene.labels[outline < 0] = 0
    muscle = muscle_texture(scene, _EVERYWHERE)
    # Fat planes between the three muscles of the flank.
    depth = -wall / np.maximum(cavity - wall, 1)
    for plane in (0.36, 0.69):
        thin = np.exp(-np.square((depth - plane) / 0.055)) * (np.abs(scene.space.x) > 74)
        muscle = muscle - (1 - chest) * np.clip(45 + 40 * scene.bumps, 8, 100) * thin
    scene.fill(_EVERYWHERE, wall, muscle)
    _paint_outer_muscles(scene, wall)
    inner = coverage(cavity)
    visceral = hu["visceral_fat"] + 4 * scene.grain + 42 * strands
    scene.paint(_EVERYWHERE, inner, visceral)
    scene.labels[inner >= 0.5] = 0


def _paint_outer_muscles(scene: Scene, wall: FloatArray) -> None:
    """Pectorals in front of the ribs, latissimus and serratus beside and behind them."""
    box = scene.space.box((-170, -110, 70), (170, 150, 400))
    if box is None:
        return
    x, y, z = scene.space.at(box)
    side = np.abs(x)
    pectoral = 13 * np.exp(-np.square((side - 62) / 46) - np.square((z - 248) / 55)) * (y > 0)
    lateral = 12 * np.exp(-np.square((y + 32) / 44) - np.square((z - 240) / 115)) * (side > 30)
    height = np.float32(scene.who.muscle) * np.maximum(pectoral, lateral) - 1.5
    layer = np.maximum(wall[box] - 2.2 - height, 2.2 - wall[box])
    scene.fill(box, layer.astype(np.float32), muscle_texture(scene, box))


def _strands(scene: Scene) -> FloatArray:
    """Septa and small vessels in fat: thin sheets where a smooth field crosses zero, in places."""
    sheet = np.exp(-np.square(scene.grain * 9))
    places = np.clip(scene.bumps, 0, 2)
    strands: FloatArray = sheet * places * 0.7 + 0.22 * np.clip(scene.fine - 1.3, 0, 2)
    return strands


def paint_back_muscles(scene: Scene) -> None:
    """Erector spinae, quadratus lumborum, psoas and the crura of the diaphragm."""
    space = scene.space
    bulk = scene.who.muscle
    rng = scene.rng("back-muscles")
    box = space.box((-85, -92, -400), (85, 40, 500))
    if box is None:
        return
    x, y, z = space.at(box)
    bumps = scene.bumps[box]
    muscle = muscle_texture(scene, box)
    side = np.abs(x)
    chest = 1 / (1 + np.exp(-(z - 90) / 25))
    # Erector spinae: wide and thick at the loin, narrower behind the ribs.
    wide, deep = (31 - 4 * chest) * bulk, (21 - 5 * chest) * bulk
    # Its outer edge lies further forward than its ridge beside the spine.
    u, v = (side - 31 + 2 * chest) / wide, (y + 53 + 8 * chest - 0.12 * (side - 30)) / deep
    level = (np.abs(u) ** 2.3 + np.abs(v) ** 2.3 + 1e-6) ** (1 / 2.3)
    erector = (level - 1) * deep + 1.8 * bumps
    lumbar = z - 25
    quadratus = np.maximum(
        (np.sqrt(((side - 62) / 20) ** 2 + ((y + 28) / 8.5) ** 2) - 1) * 8.5 * bulk, lumbar
    )
    drop = np.clip((28 - z) / 150, 0, 1.3)
    psoas_radius = (4 + 14.5 * np.sqrt(drop)) * bulk
    lean = float(rng.uniform(0.85, 1.1))
    psoas = np.sqrt(((side - 28 - 15 * drop) / lean) ** 2 + ((y + 2 + 4 * drop) * lean) ** 2)
    psoas = np.maximum(psoas - psoas_radius + 0.8 * bumps, z - 26)
    flexor = smooth_min(psoas, quadratus.astype(np.float32), 2.0)
    crus_height = np.abs(z - 42) - 46
    crus = np.sqrt(((side - 12) / 1.1) ** 2 + ((y - 22 - 0.1 * (z - 30)) / 1.9) ** 2) - 4.6
    crus = smooth_max(crus, crus_height, 6.0) + 0.6 * bumps
    for sdf in (crus, flexor, erector):
        scene.fill(box, sdf.astype(np.float32), muscle)
    # The fat plane that parts multifidus from longissimus.
    cleft = np.exp(-(((side - 22 - 0.3 * (y + 54)) / 1.3) ** 2)) * np.clip(bumps + 0.9, 0, 1.6)
    scene.paint(
        box,
        coverage(erector.astype(np.float32) + 3) * np.clip(cleft * 0.5, 0, 0.7),
        scene.who.hu["visceral_fat"],
        keep_label=True,
    )


def muscle_texture(scene: Scene, box: Box) -> FloatArray:
    """HU of muscle with streaks of fat between its bundles, more of them in some patients."""
    grain, fine, bumps = scene.grain[box], scene.fine[box], scene.bumps[box]
    streaks = np.exp(-np.square(fine * 3.0)) * np.clip(0.5 + 0.8 * bumps, 0, 2)
    sheets = np.exp(-np.square((grain + 0.5 * fine) * 2.6))
    fat = np.float32(scene.who.marbling) * (
        16 * streaks + 22 * sheets * np.clip(0.7 + bumps, 0, 1.8)
    )
    texture: FloatArray = np.float32(scene.who.hu["muscle"]) + 3 * grain + 2 * fine - fat
    return texture


def paint_table(scene: Scene) -> None:
    """A curved couch of two thin shells with foam between, and a mat, under the patient."""
    space = scene.space
    rng = scene.rng("table")
    # The couch is not part of the patient: straight in millimetres, whatever the warp.
    i, j, k = np.ogrid[: space.shape[0], : space.shape[1], : space.shape[2]]
    a = space.affine.astype(np.float32)
    x = a[0, 0] * i + a[0, 1] * j + a[0, 2] * k + a[0, 3]
    y = a[1, 0] * i + a[1, 1] * j + a[1, 2] * k + a[1, 3]
    lowest = float(space.mm((0.0, -90 - 0.55 * scene.who.fat_mm, 0.0))[1])
    top = lowest - 9 + x * x * float(rng.uniform(0.0006, 0.0011))
    depth = (top - y).astype(np.float32)
    thick = float(rng.uniform(14, 30))
    air = (scene.ct < -990) & (depth > -10) & (np.abs(x) < 215)
    below = np.broadcast_to(depth, space.shape)[air]
    hu = np.full(below.shape, -1000, np.float32)
    hu += 900 * np.clip(1.6 - np.abs(below), 0, 1)
    hu += 880 * np.clip(1.6 - np.abs(below - thick), 0, 1)
    hu += 55 * ((below > 0) & (below < thick))
    hu += 40 * ((below < -1.5) & (below > -8))
    scene.ct[air] = np.maximum(scene.ct[air], hu)
