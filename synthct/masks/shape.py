"""Smooth random solids: ellipsoids with a few waves on their surface.

A few numbers in millimetres describe one, so the same solid can be sampled on any grid, and its
size is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Point = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]

NUM_WAVES = 6


@dataclass(frozen=True)
class Waves:
    """Cosine waves over direction that make a sphere of radius 1 bumpy.

    The radius in direction ``u`` is ``1 + sum(amplitude * cos(frequency @ u + phase))``.

    Attributes:
        frequencies: (N, 3) wave vectors, in radians per unit of direction.
        phases: (N,) in radians.
        amplitudes: (N,) as shares of the radius; their sum stays below 1.
    """

    frequencies: tuple[Point, ...] = ()
    phases: tuple[float, ...] = ()
    amplitudes: tuple[float, ...] = ()

    @property
    def greatest(self) -> float:
        """Upper bound of the radius."""
        return 1.0 + sum(self.amplitudes)

    def radius(self, directions: Points) -> Points:
        """Radius in the given unit directions (N, 3), as (N,)."""
        radius = np.ones(len(directions))
        for frequency, phase, amplitude in zip(
            self.frequencies, self.phases, self.amplitudes, strict=True
        ):
            radius += amplitude * np.cos(directions @ np.asarray(frequency) + phase)
        return radius


def draw_waves(rng: np.random.Generator, radius_mm: float, roughness: float) -> Waves:
    """Random waves; small solids get fewer bumps, so that none is finer than a few mm.

    Args:
        rng: The mask's random generator.
        radius_mm: Radius of the solid.
        roughness: Sum of the amplitudes as a share of the radius, below 1.
    """
    directions = rng.normal(size=(NUM_WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    greatest = float(np.clip(radius_mm / 4, 2.0, 7.0))
    frequencies = np.round(directions * rng.uniform(1.0, greatest, (NUM_WAVES, 1)), 4)
    phases = np.round(rng.uniform(0, 2 * np.pi, NUM_WAVES), 4)
    shares = rng.dirichlet(np.full(NUM_WAVES, 2.0))
    x, y, z = frequencies.T.tolist()
    return Waves(
        tuple(zip(x, y, z, strict=True)),
        tuple(phases.tolist()),
        tuple(np.round(roughness * shares, 4).tolist()),
    )


@dataclass(frozen=True)
class WavyShape:
    """An ellipsoid with waves on its surface.

    Attributes:
        centre_mm: RAS+ mm.
        radii_mm: Semi-axes before the waves.
        rotation: Unit quaternion (w, x, y, z) from the semi-axes to RAS+.
        waves: Bumps of the surface.
    """

    centre_mm: Point
    radii_mm: Point
    rotation: Quaternion
    waves: Waves

    def contains(self, points_mm: Points) -> npt.NDArray[np.bool_]:
        """Which points (..., 3) in RAS+ mm lie inside, as (...)."""
        local = (points_mm - np.asarray(self.centre_mm)) @ rotation_matrix(self.rotation)
        local /= np.maximum(np.asarray(self.radii_mm), 1e-9)
        distance = np.sqrt(np.einsum("...d,...d->...", local, local))
        inside = distance <= 1.0 - sum(self.waves.amplitudes)
        # Only the shell between the least and the greatest radius needs the waves' cosines.
        shell = ~inside & (distance <= self.waves.greatest)
        if shell.any():
            unit = local[shell] / distance[shell][:, None]
            inside[shell] = distance[shell] <= self.waves.radius(unit)
        return np.asarray(inside)

    def corners_mm(self) -> Points:
        """The corners (8, 3) of a box around the solid, along the axes of RAS+ mm."""
        signs = np.array(np.meshgrid(*[(-1.0, 1.0)] * 3, indexing="ij")).reshape(3, -1).T
        semi_axes = rotation_matrix(self.rotation) * self.radii_mm
        reach_mm = self.waves.greatest * np.linalg.norm(semi_axes, axis=1)
        corners: Points = np.asarray(self.centre_mm) + reach_mm * signs
        return corners

    def as_json(self) -> dict[str, Any]:
        """The numbers as JSON."""
        return {
            "centre_mm": list(self.centre_mm),
            "radii_mm": list(self.radii_mm),
            "rotation": list(self.rotation),
            "frequencies": [list(f) for f in self.waves.frequencies],
            "phases": list(self.waves.phases),
            "amplitudes": list(self.waves.amplitudes),
        }

    @classmethod
    def from_json(cls, numbers: dict[str, Any]) -> WavyShape:
        """The inverse of ``as_json``."""
        x, y, z = numbers["centre_mm"]
        a, b, c = numbers["radii_mm"]
        qw, qx, qy, qz = numbers["rotation"]
        waves = Waves(
            tuple((u, v, w) for u, v, w in numbers["frequencies"]),
            tuple(numbers["phases"]),
            tuple(numbers["amplitudes"]),
        )
        return cls((x, y, z), (a, b, c), (qw, qx, qy, qz), waves)


def draw_rotation(rng: np.random.Generator, greatest_deg: float) -> Quaternion:
    """A random rotation by at most ``greatest_deg`` about any axis; 180 is uniform over all."""
    w, *xyz = rng.normal(size=4).tolist()
    length = float(np.linalg.norm(xyz))
    angle = 2 * np.arctan2(length, abs(w)) * min(greatest_deg, 180.0) / 180.0
    axis = np.asarray(xyz) / max(length, 1e-12) * np.sign(w or 1.0)
    x, y, z = (np.sin(angle / 2) * axis).round(6).tolist()
    return round(float(np.cos(angle / 2)), 6), x, y, z


def rotation_matrix(quaternion: Quaternion) -> Points:
    """The (3, 3) rotation of a quaternion (w, x, y, z), which is normalised first."""
    w, x, y, z = np.asarray(quaternion, dtype=np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def as_rotation(turn: Points) -> tuple[Quaternion, bool]:
    """An orthogonal (3, 3) as a rotation, and whether left and right are exchanged before it."""
    from scipy.spatial.transform import Rotation

    mirror = bool(np.linalg.det(turn) < 0)
    proper = turn * [-1.0, 1.0, 1.0] if mirror else turn
    x, y, z, w = Rotation.from_matrix(proper).as_quat().round(6).tolist()
    return (w, x, y, z), mirror


def reflection(normal: Points) -> Points:
    """The (3, 3) reflection in the plane with a normal (3,) of any length."""
    return np.asarray(np.eye(3) - 2 * np.outer(normal, normal) / (normal @ normal))


def rotation_between(start: Points, end: Points) -> Points:
    """The smallest rotation (3, 3) from one unit vector to another; identity if one is zero."""
    from scipy.spatial.transform import Rotation

    axis = np.cross(start, end)
    length = float(np.linalg.norm(axis))
    if length < 1e-9:
        return np.eye(3)
    angle = np.arctan2(length, float(start @ end))
    return np.asarray(Rotation.from_rotvec(axis / length * angle).as_matrix())
