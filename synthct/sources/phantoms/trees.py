"""Branching vessels: trees that grow from a root to points in an organ, and their painting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthct.sources.phantoms.scene import Scene
from synthct.sources.phantoms.shapes import segment_distance
from synthct.sources.phantoms.space import FloatArray, coverage

_STEP_MM = 7.0
# Murray's law: flow divides, radius to this power adds up.
_MURRAY = 2.7


@dataclass(frozen=True)
class Tree:
    """Vessel segments in body coordinates.

    Attributes:
        start: (N, 3) where each segment begins.
        end: (N, 3) where it ends.
        radius: (N,) mm.
    """

    start: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]
    radius: npt.NDArray[np.float64]


def grow(
    root: npt.NDArray[np.float64],
    targets: npt.NDArray[np.float64],
    rng: np.random.Generator,
    *,
    leaf_mm: float,
    root_mm: float,
) -> Tree:
    """Grow a tree that reaches every target from its nearest branch.

    Args:
        root: (3,) where the trunk begins.
        targets: (N, 3) points to supply.
        rng: For the winding of the branches.
        leaf_mm: Radius of the last branches.
        root_mm: Largest radius.

    Returns:
        The segments of the tree.
    """
    order = np.argsort(np.linalg.norm(targets - root, axis=1))
    nodes = np.empty((len(targets) * 40 + 1, 3))
    parent = np.full(len(nodes), -1)
    path = np.zeros(len(nodes))
    nodes[0] = root
    count = 1
    for target in targets[order]:
        gap = np.linalg.norm(nodes[:count] - target, axis=1)
        # Preferring branches near the root makes forks acute, as in real trees.
        nearest = int(np.argmin(gap + 0.25 * path[:count]))
        length = float(gap[nearest])
        pieces = int(np.clip(round(length / _STEP_MM), 1, 38))
        share = np.arange(1, pieces + 1)[:, None] / pieces
        line = nodes[nearest] + (target - nodes[nearest]) * share
        sway = rng.normal(0, 0.07 * length, (2, 3))
        line += sway[0] * np.sin(np.pi * share) + 0.5 * sway[1] * np.sin(2 * np.pi * share)
        new = np.arange(count, count + pieces)
        nodes[new] = line
        parent[new] = np.concatenate([[nearest], new[:-1]])
        path[new] = path[nearest] + length * share[:, 0]
        count += pieces
    flow = np.ones(count)
    has_child = np.zeros(count, bool)
    has_child[parent[1:count]] = True
    flow[has_child] = 0.0
    for node in range(count - 1, 0, -1):
        flow[parent[node]] += flow[node]
    radius = np.minimum(leaf_mm * flow[1:count] ** (1 / _MURRAY), root_mm)
    return Tree(nodes[parent[1:count]], nodes[1:count], radius)


def paint_tree(scene: Scene, tree: Tree, hu: float, within: FloatArray) -> None:
    """Paint a tree where ``within`` (the coverage of its organ, over all voxels) allows it."""
    space = scene.space
    voxel = float(np.abs(np.linalg.det(space.affine[:3, :3])) ** (1 / 3))
    reach = tree.radius * 1.2 + voxel
    boxes = space.boxes(space.unwarp(tree.start), space.unwarp(tree.end), reach)
    for box, start, end, width in zip(boxes, tree.start, tree.end, tree.radius, strict=True):
        if box is None:
            continue
        radius = float(width)
        sdf = segment_distance(*space.at(box), start, end, radius, radius)
        if radius > voxel:
            alpha = coverage(sdf)
        else:
            # A vessel thinner than a voxel never fills it.
            alpha = np.clip(0.5 - sdf / np.float32(voxel), 0, 1)
            alpha *= np.float32(min(1.0, 1.6 * radius / voxel))
        region = scene.ct[box]
        region += alpha * within[box] * (hu - region)
