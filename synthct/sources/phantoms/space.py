"""Where a phantom is evaluated: voxels in the patient's own millimetres, and how shapes cover them.

Anatomy is written as signed distances (negative inside, about a millimetre per unit) over body
coordinates; the affine, the patient's proportions and a smooth warp all happen here, so an organ
never knows the spacing. Nothing here knows an organ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, map_coordinates

from synthct.seeds import generator

FloatArray = npt.NDArray[np.floating[Any]]
Box = tuple[slice, slice, slice]
Point = Sequence[float] | npt.NDArray[Any]

# Standard deviation of a cubic B-spline through independent unit coefficients, in three dimensions.
_SPLINE_STD = 0.3316
_LATTICE_NODES = 48
_WARP_STEP_MM = 8.0
_COARSE_STEP_MM = 4.0
# A fine field is white noise on nodes this far apart (in features), smoothed by so many nodes.
_FIELD_NODES, _FIELD_PITCH, _FIELD_SMOOTH = 96, 0.48, 1.15


def stream(seed: int, patient: int, name: str) -> np.random.Generator:
    """A generator of its own for each named purpose, so that none depends on what others drew."""
    return generator(seed, "phantom", str(patient), name)


def coverage(sdf: FloatArray) -> FloatArray:
    """How much of each voxel lies inside, from the change of the signed distance across it.

    This is the partial-volume effect of thick slices and of edges, without supersampling.

    Args:
        sdf: Signed distance (I, J, K), negative inside.

    Returns:
        Fraction in [0, 1], (I, J, K).
    """
    width = np.full(sdf.shape, 1e-6, np.float32)
    for axis in range(3):
        if sdf.shape[axis] < 2:
            continue
        step = np.diff(sdf, axis=axis)
        # Beyond a crease or an empty region a difference says nothing about the width of the edge.
        np.square(step, out=step)
        head = [slice(None)] * 3
        head[axis] = slice(0, -1)
        width[tuple(head)] += step
        last, before = [slice(None)] * 3, [slice(None)] * 3
        last[axis], before[axis] = slice(-1, None), slice(-1, None)
        width[tuple(last)] += step[tuple(before)]
    np.sqrt(width, out=width)
    np.divide(sdf, width, out=width)
    np.subtract(0.5, width, out=width)
    return np.clip(width, 0.0, 1.0, out=width)


class Space:
    """The voxel grid seen from inside the patient.

    Attributes:
        shape: Voxels along i, j, k.
        affine: (4, 4) float64, voxel index to RAS+ mm.
        x: Body coordinate toward the patient's right, (I, J, K), warped; 0 in the spine.
        y: Toward anterior.
        z: Toward superior; 0 between the first and second lumbar vertebrae.
    """

    def __init__(
        self,
        affine: npt.NDArray[np.float64],
        shape: tuple[int, int, int],
        proportions: tuple[float, float, float],
        seed: int,
        patient: int,
        warp_mm: float = 3.5,
    ) -> None:
        self.shape = shape
        self.affine = affine
        self._proportions = np.asarray(proportions)
        self._seed = seed
        self._patient = patient
        self._warp_mm = warp_mm
        self._spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        self._inverse = np.linalg.inv(affine)
        self._coefficients: dict[str, FloatArray] = {}
        self._strides = self._steps(_COARSE_STEP_MM)
        wide = self._steps(_WARP_STEP_MM)
        wide_nodes = self._nodes(wide)
        warped = [
            axis + self._warp(wide_nodes, name)
            for axis, name in zip(wide_nodes, "xyz", strict=True)
        ]
        self.coarse = [_interpolate(axis, wide, self._indices(self._strides)) for axis in warped]
        voxels = self._indices(None)
        self.x, self.y, self.z = (_interpolate(axis, wide, voxels) for axis in warped)

    def _steps(self, step_mm: float) -> tuple[int, int, int]:
        steps = [max(1, int(step_mm / spacing)) for spacing in self._spacing]
        return steps[0], steps[1], steps[2]

    def _indices(self, strides: tuple[int, int, int] | None) -> list[npt.NDArray[np.float64]]:
        """Voxel indices of nodes that overhang the scan by one node; of the voxels if None."""
        if strides is None:
            return [np.arange(size, dtype=np.float64) for size in self.shape]
        return [
            np.arange(-stride, size - 1 + 2 * stride, stride, dtype=np.float64)
            for size, stride in zip(self.shape, strides, strict=True)
        ]

    def _nodes(self, strides: tuple[int, int, int] | None) -> list[FloatArray]:
        """Unwarped body coordinates of ``_indices``."""
        axes = self._indices(strides)
        matrix = self.affine[:3, :3] / self._proportions[:, None]
        origin = self.affine[:3, 3] / self._proportions
        i, j, k = np.meshgrid(*axes, indexing="ij", sparse=True)
        return [
            (matrix[row, 0] * i + matrix[row, 1] * j + matrix[row, 2] * k + origin[row]).astype(
                np.float32
            )
            for row in range(3)
        ]

    def _warp(self, nodes: list[FloatArray], name: str) -> FloatArray:
        wide = self._spline(nodes, f"warp-{name}", 55.0) * self._warp_mm
        return (wide + self._spline(nodes, f"ripple-{name}", 22.0) * 0.9).astype(np.float32)

    def _spline(self, points: list[FloatArray], name: str, lattice_mm: float) -> FloatArray:
        """A unit-variance field with features of about ``lattice_mm``, at body coordinates."""
        if name not in self._coefficients:
            rng = stream(self._seed, self._patient, f"field-{name}")
            self._coefficients[name] = rng.standard_normal((_LATTICE_NODES,) * 3, dtype=np.float32)
        coefficients = self._coefficients[name]
        scaled = np.stack([axis / np.float32(lattice_mm) for axis in points])
        field = map_coordinates(
            coefficients, scaled, order=3, mode="grid-wrap", prefilter=False, output=np.float32
        )
        return field / np.float32(_SPLINE_STD)

    def upsample(self, coarse: FloatArray) -> FloatArray:
        """Bring an array on the nodes of ``coarse`` to the voxels by separable cubic steps."""
        return _interpolate(coarse, self._strides, self._indices(None))

    def field(self, name: str, lattice_mm: float) -> FloatArray:
        """A smooth unit-variance random field over all voxels, fixed to the patient.

        Args:
            name: Names the field; another name is another field.
            lattice_mm: Size of its features.

        Returns:
            (I, J, K), mean about 0, standard deviation about 1.
        """
        strides = self._steps(lattice_mm / 2.5)
        is_dense = strides == (1, 1, 1)
        points = self._nodes(None if is_dense else strides)
        rng = stream(self._seed, self._patient, f"field-{name}")
        nodes = rng.standard_normal((_FIELD_NODES,) * 3, dtype=np.float32)
        nodes = gaussian_filter(nodes, _FIELD_SMOOTH, mode="wrap", truncate=3.0)
        nodes /= nodes.std() * np.float32(0.9)
        scaled = np.stack([axis / np.float32(lattice_mm * _FIELD_PITCH) for axis in points])
        field = map_coordinates(
            nodes, scaled, order=1, mode="grid-wrap", prefilter=False, output=np.float32
        )
        return field if is_dense else _interpolate(field, strides, self._indices(None))

    def box(self, low: Point, high: Point, margin: float = 4.0) -> Box | None:
        """Voxels that can lie between two corners in body coordinates; None if there are none."""
        reach = margin + 3.2 * self._warp_mm
        return self.boxes(np.array([low]), np.array([high]), np.array([reach]))[0]

    def boxes(self, a: FloatArray, b: FloatArray, reach: FloatArray) -> list[Box | None]:
        """Voxels around many segments.

        Args:
            a: (N, 3) body coordinates before the warp, as ``unwarp`` gives them.
            b: (N, 3) the other ends.
            reach: (N,) mm to add on all sides.

        Returns:
            A box for each segment, None where it lies outside the scan.
        """
        matrix = self._inverse[:3, :3] * self._proportions
        centre = (a + b) / 2 @ matrix.T + self._inverse[:3, 3]
        half = (np.abs(b - a) / 2 + np.asarray(reach)[:, None]) @ np.abs(matrix).T
        start = np.maximum(np.floor(centre - half).astype(int), 0)
        stop = np.minimum(np.ceil(centre + half).astype(int) + 1, self.shape)
        empty = np.any(stop <= start, axis=1)
        return [
            None if nothing else (slice(s[0], e[0]), slice(s[1], e[1]), slice(s[2], e[2]))
            for s, e, nothing in zip(start.tolist(), stop.tolist(), empty.tolist(), strict=True)
        ]

    def unwarp(self, points: FloatArray) -> npt.NDArray[np.float64]:
        """Where body coordinates (N, 3) lie before the warp, to a fraction of a mm."""
        raw = points.astype(np.float64)
        for _ in range(3):
            columns = [raw[:, axis].astype(np.float32) for axis in range(3)]
            shift = np.stack([self._warp(columns, name) for name in "xyz"], axis=1)
            raw = points - shift
        return raw

    def at(self, box: Box) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Body coordinates of the voxels of a box."""
        return self.x[box], self.y[box], self.z[box]

    def mm(self, point: Point) -> npt.NDArray[np.float64]:
        """Where a body coordinate lies in RAS+ mm."""
        position: npt.NDArray[np.float64] = (
            self.unwarp(np.asarray([point], dtype=np.float64))[0] * self._proportions
        )
        return position


def _interpolate(
    coarse: FloatArray, strides: tuple[int, int, int], indices: list[npt.NDArray[np.float64]]
) -> FloatArray:
    """Values at voxel indices (a grid) from nodes that begin one stride before voxel 0."""
    wi, wj, wk = (
        _cubic_weights(index / stride + 1.0, nodes)
        for index, stride, nodes in zip(indices, strides, coarse.shape, strict=True)
    )
    rows = np.matmul(wj, coarse @ wk.T)
    flat = wi @ rows.reshape(rows.shape[0], -1)
    values: FloatArray = flat.reshape(len(wi), len(wj), len(wk))
    return values


def _cubic_weights(position: npt.NDArray[np.float64], nodes: int) -> FloatArray:
    """Catmull-Rom weights (len(position), nodes) of nodes 0, 1, 2, ... at fractional positions."""
    weights = np.zeros((len(position), nodes), np.float32)
    base = np.clip(np.floor(position).astype(int), 0, nodes - 2)
    t = position - base
    cubic = (
        -0.5 * t + t**2 - 0.5 * t**3,
        1.0 - 2.5 * t**2 + 1.5 * t**3,
        0.5 * t + 2.0 * t**2 - 1.5 * t**3,
        -0.5 * t**2 + 0.5 * t**3,
    )
    rows = np.arange(len(position))
    for offset, weight in zip((-1, 0, 1, 2), cubic, strict=True):
        np.add.at(weights, (rows, np.clip(base + offset, 0, nodes - 1)), weight)
    return weights
