"""Distances in millimetres: exact on sheared grids, SciPy's on all others."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from scipy.spatial.distance import cdist

from synthct.volume import (
    distances_mm,
    is_sheared,
    nearest_outside,
    plane_spacing_mm,
    voxels_within,
)


def tilted(degrees: float, spacing: tuple[float, float, float]) -> np.ndarray:
    """The affine of a scan whose gantry was tilted about the left-right axis."""
    affine = np.diag([*spacing, 1.0])
    affine[1, 2] = spacing[2] * np.tan(np.radians(degrees))
    return affine


@pytest.mark.parametrize("degrees", [-25, 1, 20, 60])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 0.8, 5), (2, 0.5, 1.5)])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_distances_on_sheared_grids_are_those_of_all_pairs(
    degrees: float, spacing: tuple[float, float, float], share: float
) -> None:
    affine = tilted(degrees, spacing)
    affine[0, 1] += 0.2 * spacing[1]
    region = np.random.default_rng(3).random((9, 13, 8)) < share
    points = np.moveaxis(np.indices(region.shape), 0, -1) @ affine[:3, :3].T
    least = cdist(points[region], points[~region]).min(axis=1)
    distance = distances_mm(region, affine)
    np.testing.assert_allclose(distance[region], least, atol=1e-6)
    assert not distance[~region].any()
    near = distances_mm(region, affine, reach_mm=1.5)
    assert np.array_equal(near <= 1.5, distance <= 1.5)
    at = points[tuple(nearest_outside(region, affine))]
    np.testing.assert_allclose(np.linalg.norm(at - points, axis=-1), distance, atol=1e-5)


def test_grids_with_right_angles_have_the_distances_of_scipy_to_the_bit() -> None:
    region = np.random.default_rng(4).random((20, 16, 12)) < 0.9
    affine = np.diag([-0.7, 0.8, 3.1, 1])
    wanted = distance_transform_edt(region, (0.7, 0.8, 3.1))
    assert np.array_equal(distances_mm(region, affine), wanted)
    assert np.array_equal(
        distances_mm(region, affine, longest_step_mm=2),
        distance_transform_edt(region, (0.7, 0.8, 2)),
    )
    _, nearest = distance_transform_edt(region, (0.7, 0.8, 3.1), return_indices=True)
    assert np.array_equal(nearest_outside(region, affine), nearest)


def test_planes_of_a_tilted_scan_are_nearer_than_a_step_is_long() -> None:
    affine = tilted(20, (1, 1, 2.5))
    assert is_sheared(affine)
    assert plane_spacing_mm(affine) == pytest.approx((1, np.cos(np.radians(20)), 2.5))
    assert plane_spacing_mm(np.diag([-0.7, 0.8, 3.1, 1])) == (0.7, 0.8, 3.1)
    # A ball of 10 mm leaves no box that is grown by so many voxels.
    ball = np.moveaxis(np.indices((31, 31, 31)) - 15, 0, -1) @ affine[:3, :3].T
    reached = np.argwhere(np.linalg.norm(ball, axis=-1) <= 10) - 15
    assert tuple(np.abs(reached).max(axis=0)) <= voxels_within(10, affine)


def test_a_long_step_counts_as_a_neighbour_on_sheared_grids() -> None:
    region = np.ones((3, 3, 3), dtype=bool)
    region[1, 1, 1] = False
    distance = distances_mm(region, tilted(20, (1, 1, 5)), longest_step_mm=2)
    assert distance[1, 1, 2] == 2
    assert distance[1, 2, 1] == 1
