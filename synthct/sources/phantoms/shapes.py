"""Signed distances of the few primitives that organs are made of, and how to join them.

Distances are approximate away from the surface; that is enough for smooth unions and coverage.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from synthct.sources.phantoms.space import Box, FloatArray, Point, Space

# Far enough not to touch an edge; a larger step would look like a soft edge to ``coverage``.
FAR = np.float32(8.0)


def ellipsoid(
    x: FloatArray,
    y: FloatArray,
    z: FloatArray,
    centre: Point,
    radii: Point,
    axes: npt.NDArray[np.float64] | None = None,
) -> FloatArray:
    """Signed distance to an ellipsoid; rows of ``axes`` are its unit axes in body coordinates."""
    u, v, w = x - np.float32(centre[0]), y - np.float32(centre[1]), z - np.float32(centre[2])
    if axes is not None:
        m = axes.astype(np.float32)
        u, v, w = (
            m[0, 0] * u + m[0, 1] * v + m[0, 2] * w,
            m[1, 0] * u + m[1, 1] * v + m[1, 2] * w,
            m[2, 0] * u + m[2, 1] * v + m[2, 2] * w,
        )
    inverse = [np.float32(1.0 / r) for r in radii]
    u, v, w = u * inverse[0], v * inverse[1], w * inverse[2]
    level = np.sqrt(u * u + v * v + w * w) + np.float32(1e-4)
    slope = np.sqrt((u * inverse[0]) ** 2 + (v * inverse[1]) ** 2 + (w * inverse[2]) ** 2)
    distance: FloatArray = level * (level - 1) / (slope + np.float32(1e-5))
    return distance


def smooth_min(a: FloatArray, b: FloatArray, blend: float) -> FloatArray:
    """Union of two shapes, rounded over ``blend`` mm."""
    h = np.clip(np.float32(blend) - np.abs(a - b), 0, None)
    merged: FloatArray = np.minimum(a, b) - h * h * np.float32(0.25 / blend)
    return merged


def smooth_max(a: FloatArray, b: FloatArray, blend: float) -> FloatArray:
    """Intersection of two shapes, rounded over ``blend`` mm."""
    return -smooth_min(-a, -b, blend)


def carve(shape: FloatArray, tool: FloatArray, gap: float, blend: float = 6.0) -> FloatArray:
    """A shape less another one that keeps ``gap`` mm away from it."""
    return smooth_max(shape, np.float32(gap) - tool, blend)


def segment_distance(
    x: FloatArray, y: FloatArray, z: FloatArray, a: Point, b: Point, ra: float, rb: float
) -> FloatArray:
    """Signed distance to a capsule whose radius goes from ``ra`` to ``rb``."""
    ax, ay, az = (np.float32(value) for value in a)
    dx, dy, dz = (np.float32(b[axis] - a[axis]) for axis in range(3))
    squared = np.float32(dx * dx + dy * dy + dz * dz) + np.float32(1e-6)
    px, py, pz = x - ax, y - ay, z - az
    t = np.clip((px * dx + py * dy + pz * dz) / squared, 0, 1)
    px -= t * dx
    py -= t * dy
    pz -= t * dz
    distance: FloatArray = np.sqrt(px * px + py * py + pz * pz)
    distance -= np.float32(ra) + t * np.float32(rb - ra)
    return distance


def tube(space: Space, points: FloatArray, radii: FloatArray) -> tuple[Box, FloatArray] | None:
    """Signed distance around a polyline, over the voxels that it can reach.

    Args:
        space: The voxels.
        points: (N, 3) body coordinates.
        radii: (N,) radius at each point.

    Returns:
        The box of voxels and the distance in it, ``FAR`` where no part of the tube is near; None
        if the tube lies outside the scan.
    """
    raw = space.unwarp(points)
    low, high = raw.min(axis=0, keepdims=True), raw.max(axis=0, keepdims=True)
    (box,) = space.boxes(low, high, radii.max(keepdims=True) + 12.0)
    if box is None:
        return None
    sdf = np.full([s.stop - s.start for s in box], FAR, np.float32)
    parts = space.boxes(raw[:-1], raw[1:], np.maximum(radii[:-1], radii[1:]) + 10.0)
    for n, part in enumerate(parts):
        if part is None:
            continue
        inner = tuple(
            slice(p.start - o.start, p.stop - o.start) for p, o in zip(part, box, strict=True)
        )
        x, y, z = space.at(part)
        wide = float(radii[n]), float(radii[n + 1])
        near = segment_distance(x, y, z, points[n], points[n + 1], *wide)
        np.minimum(sdf[inner], near, out=sdf[inner])
    return box, sdf


def polyline(knots: Sequence[Point], step: float = 8.0) -> npt.NDArray[np.float64]:
    """Points every ``step`` mm on a smooth curve through knots; further columns go along."""
    control = np.asarray(knots, dtype=np.float64)
    chord = np.concatenate(
        [[0], np.cumsum(np.linalg.norm(np.diff(control[:, :3], axis=0), axis=1))]
    )
    ends = np.concatenate(
        [2 * control[:1] - control[1:2], control, 2 * control[-1:] - control[-2:-1]]
    )
    samples = np.linspace(0, chord[-1], max(2, int(chord[-1] / step) + 1))
    index = np.clip(np.searchsorted(chord, samples, side="right") - 1, 0, len(control) - 2)
    t = ((samples - chord[index]) / (chord[index + 1] - chord[index]))[:, None]
    p0, p1, p2, p3 = (ends[index + offset] for offset in range(4))
    curve: npt.NDArray[np.float64] = 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    return curve


def rotation(rng: np.random.Generator, degrees: float) -> npt.NDArray[np.float64]:
    """A random small rotation, (3, 3); each Euler angle is uniform within ``degrees``."""
    angles = np.deg2rad(rng.uniform(-degrees, degrees, 3))
    return euler(float(angles[0]), float(angles[1]), float(angles[2]))


def euler(about_x: float, about_y: float, about_z: float) -> npt.NDArray[np.float64]:
    """Rotation (3, 3) about x, then y, then z, in radians."""
    cx, cy, cz = np.cos([about_x, about_y, about_z])
    sx, sy, sz = np.sin([about_x, about_y, about_z])
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turned: npt.NDArray[np.float64] = rz @ ry @ rx
    return turned
