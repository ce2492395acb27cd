"""Deformations never fold, and their bounds hold."""

import json

import numpy as np
import pytest

from synthct.masks.deform import Velocity, draw_velocity, flow, jacobian_range
from synthct.masks.shape import Waves, WavyShape, draw_rotation, draw_waves, rotation_matrix


def grid(size: int, step: float) -> np.ndarray:
    axis = (np.arange(size) - size // 2) * step
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


def test_deformations_do_not_fold_and_keep_their_bound():
    rng = np.random.default_rng(11)
    for _ in range(80):
        radius = float(rng.uniform(4, 30))
        limit = float(rng.uniform(1, 20))
        drawn = draw_velocity(rng, radius, 1.4 * radius, limit)
        assert drawn is not None
        _, bend = drawn
        assert 0 < bend.jacobian_min <= 1 <= bend.jacobian_max
        assert np.linalg.norm(bend.field_mm, axis=-1).max() <= min(limit, radius / 3) + 1e-3


def test_flow_is_undone_by_the_opposite_flow():
    drawn = draw_velocity(np.random.default_rng(2), 20, 30, 6)
    assert drawn is not None
    velocity, bend = drawn
    back = flow(velocity.scaled(-1), 30)
    points = grid(9, 3.0)
    moved = np.linalg.norm(bend.move(points) - points, axis=-1)
    assert np.linalg.norm(back.move(bend.move(points)) - points, axis=-1).max() < 0.1 * moved.max()


def test_constant_velocity_is_a_shift():
    velocity = Velocity(np.zeros((1, 3)), np.array([np.pi / 2]), np.array([[1.0, -2.0, 0.5]]))
    bend = flow(velocity, 20.0)
    assert np.allclose(bend.move(np.zeros((1, 3))), [[1.0, -2.0, 0.5]])
    assert bend.jacobian_min == pytest.approx(1)
    assert bend.jacobian_max == pytest.approx(1)


def test_jacobian_of_a_stretch_is_its_factor_and_a_fold_is_negative():
    points = grid(7, 2.0)
    assert jacobian_range(points * [0.5, 0, 0], 2.0) == pytest.approx((1.5, 1.5))
    assert jacobian_range(points * [0.5, 1, -0.5], 2.0) == pytest.approx((1.5, 1.5))
    assert jacobian_range(points * [-2.0, 0, 0], 2.0)[0] == pytest.approx(-1)
    folded = np.zeros_like(points)
    folded[3, 3, 3] = (5.0, 0, 0)
    assert jacobian_range(folded, 2.0)[0] < 0


def test_velocity_survives_json_and_none_is_drawn_without_displacement():
    drawn = draw_velocity(np.random.default_rng(0), 10, 14, 6)
    assert drawn is not None
    velocity, _ = drawn
    again = Velocity.from_json(json.loads(json.dumps(velocity.as_json())))
    assert np.array_equal(velocity.at(grid(3, 2.0)), again.at(grid(3, 2.0)))
    assert draw_velocity(np.random.default_rng(0), 10, 14, 0) is None


def test_rotations_stay_within_their_angle_and_are_uniform_at_180():
    rng = np.random.default_rng(0)
    for limit in (0.0, 20.0, 90.0):
        turns = [rotation_matrix(draw_rotation(rng, limit)) for _ in range(100)]
        angles = [np.degrees(np.arccos(np.clip((np.trace(t) - 1) / 2, -1, 1))) for t in turns]
        assert max(angles) <= limit + 0.01
        assert all(np.linalg.det(t) == pytest.approx(1) for t in turns)
    everywhere = np.array([rotation_matrix(draw_rotation(rng, 180)) for _ in range(3000)])
    assert np.abs(everywhere.mean(axis=0)).max() < 0.05


def test_wavy_shape_keeps_to_its_box_and_survives_json():
    rng = np.random.default_rng(1)
    for _ in range(20):
        waves = draw_waves(rng, 12.0, 0.3)
        shape = WavyShape((3.0, -2.0, 5.0), (12.0, 9.0, 7.0), draw_rotation(rng, 180), waves)
        points = grid(41, 1.0) + np.array([3.0, -2.0, 5.0])
        inside = shape.contains(points)
        away = np.linalg.norm(points - [3.0, -2.0, 5.0], axis=-1)
        low, high = shape.corners_mm().min(axis=0), shape.corners_mm().max(axis=0)
        assert ((points[inside] >= low) & (points[inside] <= high)).all()
        assert (high - low <= 2 * 12 * 1.3001).all()
        assert inside[away < 7 * 0.69].all()
        again = WavyShape.from_json(json.loads(json.dumps(shape.as_json())))
        assert np.array_equal(again.contains(points), inside)


def test_shape_without_waves_is_an_ellipsoid():
    shape = WavyShape((0.0, 0.0, 0.0), (6.0, 4.0, 3.0), (1.0, 0.0, 0.0, 0.0), Waves())
    points = grid(15, 1.0)
    expected = ((points / [6.0, 4.0, 3.0]) ** 2).sum(axis=-1) <= 1
    assert np.array_equal(shape.contains(points), expected)
