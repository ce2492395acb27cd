"""Elastic deformations that cannot fold: the flow of a smooth velocity field for unit time.

The field is a sum of a few sine waves, so a sample's provenance holds it in some forty numbers.
Its flow is computed by scaling and squaring (Arsigny et al., "A Log-Euclidean framework for
statistics on diffeomorphisms", 2006) on a grid, and the Jacobian determinant of the applied
displacement is checked in every cell of that grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.masks.shape import Points

NUM_WAVES = 6

#: Squarings: the first step is 1/64 of the displacement, far below a cell of the grid.
NUM_SQUARINGS = 6

#: Cells from the centre of the grid to its edge.
HALF_CELLS = 8

#: Tissue squeezed to less than this share of its volume is not plausible.
LEAST_JACOBIAN = 0.15


@dataclass(frozen=True)
class Velocity:
    """A stationary velocity field, in mm per unit of time around an origin.

    Attributes:
        frequencies: (N, 3) wave vectors in radians per mm.
        phases: (N,) in radians.
        amplitudes_mm: (N, 3).
    """

    frequencies: Points
    phases: Points
    amplitudes_mm: Points

    def at(self, points_mm: Points) -> Points:
        """Velocity at points (..., 3), as (..., 3)."""
        return np.asarray(np.sin(points_mm @ self.frequencies.T + self.phases) @ self.amplitudes_mm)

    def scaled(self, factor: float) -> Velocity:
        """The same field with its amplitudes times ``factor``."""
        return Velocity(self.frequencies, self.phases, (self.amplitudes_mm * factor).round(5))

    def as_json(self) -> dict[str, Any]:
        """The numbers as JSON."""
        return {
            "frequencies": self.frequencies.tolist(),
            "phases": self.phases.tolist(),
            "amplitudes_mm": self.amplitudes_mm.tolist(),
        }

    @classmethod
    def from_json(cls, numbers: dict[str, Any]) -> Velocity:
        """The inverse of ``as_json``."""
        return cls(*(np.asarray(numbers[key], dtype=np.float64) for key in cls.__annotations__))


@dataclass(frozen=True, eq=False)
class Displacement:
    """A displacement field on a cubic grid around the origin.

    Attributes:
        field_mm: (N, N, N, 3) displacement in mm.
        step_mm: Grid step.
        jacobian_min: Smallest Jacobian determinant of ``x + field(x)`` over all cells.
        jacobian_max: Greatest one.
    """

    field_mm: Points
    step_mm: float
    jacobian_min: float
    jacobian_max: float

    def move(self, points_mm: Points) -> Points:
        """Displaced points (..., 3), in mm around the origin."""
        return np.asarray(points_mm + _sample(self.field_mm, points_mm / self.step_mm))


def draw_velocity(
    rng: np.random.Generator, radius_mm: float, reach_mm: float, max_displacement_mm: float
) -> tuple[Velocity, Displacement] | None:
    """A random velocity field and its flow, which keeps the limit on the displacement.

    Wavelengths are 1.5 to 3.5 radii. The strength is random, at most a quarter of the radius, and
    halved until nothing is compressed to less than 15 % of its volume.

    Args:
        rng: The mask's random generator.
        radius_mm: Radius of the solid to deform.
        reach_mm: Half the side of the cube in which the flow will be applied.
        max_displacement_mm: Bound on the displacement; 0 returns None.
    """
    directions = rng.normal(size=(NUM_WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = radius_mm * rng.uniform(1.5, 3.5, (NUM_WAVES, 1))
    phases = rng.uniform(0, 2 * np.pi, NUM_WAVES)
    amplitudes = rng.normal(size=(NUM_WAVES, 3))
    strength = rng.uniform(0.4, 1.0) * min(max_displacement_mm, radius_mm / 4)
    if strength <= 0:
        return None
    raw = Velocity((directions * 2 * np.pi / lengths).round(6), phases.round(5), amplitudes)
    speed = np.linalg.norm(raw.at(_grid(max(reach_mm, 1.0) / HALF_CELLS)), axis=-1).max()
    velocity = raw.scaled(strength / float(speed))
    for _ in range(6):
        displacement = flow(velocity, reach_mm)
        if displacement.jacobian_min >= LEAST_JACOBIAN:
            return velocity, displacement
        velocity = velocity.scaled(0.5)
    return None


def flow(velocity: Velocity, reach_mm: float) -> Displacement:
    """The flow of ``velocity`` for unit time, in a cube of half side ``reach_mm``.

    It is a diffeomorphism, computed by scaling and squaring.
    """
    step_mm = max(reach_mm, 1.0) / HALF_CELLS
    points = _grid(step_mm)
    # exp(v) = exp(v / 2^n) squared n times; squaring is u <- u + u(x + u).
    field = velocity.at(points) / 2**NUM_SQUARINGS
    for _ in range(NUM_SQUARINGS):
        field = field + _sample(field, (points + field) / step_mm)
    low, high = jacobian_range(field, step_mm)
    return Displacement(field, step_mm, low, high)


def jacobian_range(field_mm: Points, step_mm: float) -> tuple[float, float]:
    """Smallest and greatest Jacobian determinant of ``x + field(x)``, at all corners of all cells.

    Args:
        field_mm: (X, Y, Z, 3) displacement in mm.
        step_mm: Grid step in mm.
    """
    low, high = np.inf, -np.inf
    slopes = [np.diff(field_mm, axis=axis) / step_mm for axis in range(3)]
    for corner in np.ndindex(2, 2, 2):
        columns = []
        for axis, slope in enumerate(slopes):
            side: list[slice] = [
                slice(None) if a == axis else (slice(1, None) if c else slice(0, -1))
                for a, c in enumerate(corner)
            ]
            columns.append(slope[tuple(side)] + np.eye(3)[axis])
        x, y, z = columns
        determinant = np.einsum("...d,...d->...", x, np.cross(y, z))
        low = min(low, float(determinant.min()))
        high = max(high, float(determinant.max()))
    return low, high


def _grid(step_mm: float) -> Points:
    """The points (N, N, N, 3) of the cubic grid, in mm around the origin."""
    axis = np.arange(-HALF_CELLS, HALF_CELLS + 1) * step_mm
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


def _sample(field: Points, at_cells: npt.NDArray[np.float64]) -> Points:
    """Trilinear values (..., 3) of a field, held constant beyond its edge.

    Args:
        field: (N, N, N, 3).
        at_cells: Places (..., 3) in cells from the grid's centre.
    """
    from scipy.ndimage import map_coordinates

    places = np.moveaxis(at_cells + HALF_CELLS, -1, 0)
    parts = [map_coordinates(field[..., d], places, order=1, mode="nearest") for d in range(3)]
    return np.stack(parts, axis=-1)
