"""Lesions that neighbouring slices of a dataset show in 3D: which are shown, and their voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthct.dataset.stack import neighbours, stack
from synthct.publish.report.pictures import CONTEXT, around
from synthct.volume import Box, Volume
from synthct.volume.views import VIEW_AXIS, View

#: A lesion is worth scrolling through from so many slices on; so many lesions are shown.
LEAST_SLICES, MOST = 3, 6

#: It is shown with so much around it, unless that would be so many voxels, which a page must hold.
_SIDE_MM, _VOXELS = 120.0, 600_000


@dataclass(frozen=True, eq=False)
class Lesion:
    """One painting of a lesion with its surroundings.

    Attributes:
        image: int16 HU (I, J, K), as thick along the view's axis as there are slices.
        mask: Boolean (I, J, K).
        columns: Of the first of its slices.
    """

    image: Volume
    mask: Volume
    columns: Mapping[str, Any]

    @property
    def view(self) -> View:
        """The plane of the slices."""
        view: View = self.columns["view"]
        return view


def choose_lesions(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Lesions from all over a dataset, of each the painting that has most neighbouring slices.

    Args:
        rows: Flat columns of all painted rows.

    Returns:
        The ids of the samples of each, in the order of the slices.
    """
    thickest: dict[str, list[Mapping[str, Any]]] = {}
    for run in neighbours(rows):
        lesion = str(run[0]["lesion_id"])
        if len(run) >= max(LEAST_SLICES, len(thickest.get(lesion, ())) + 1):
            thickest[lesion] = run
    found = list(thickest.values())
    some = min(MOST, len(found))
    chosen = [found[n * len(found) // some] for n in range(some)]
    return [[str(row["sample_id"]) for row in run] for run in chosen]


def bring_together(rows: Sequence[Mapping[str, Any]]) -> Lesion:
    """The voxels around a lesion.

    Args:
        rows: Stored rows of its slices, of one painting, in any order.

    Raises:
        VerifyError: If one is damaged, or they are not on one grid.
    """
    in_order = sorted(rows, key=lambda row: int(row["slice_index"]))
    whole = stack(in_order)
    box = _surroundings(whole.mask, in_order[0]["view"])
    return Lesion(whole.image.crop(box), whole.mask.crop(box), in_order[0])


def _surroundings(mask: Volume, view: View) -> Box:
    """A box around a mask, square in the plane of the view as far as the slices go."""
    tight = Box.around(mask.array) or Box((0, 0, 0), mask.shape)
    across = [axis for axis in range(3) if axis != VIEW_AXIS[view]]
    extent_mm = max(tight.shape[axis] * mask.spacing_mm[axis] for axis in across)
    pixel_mm2 = float(np.prod([mask.spacing_mm[axis] for axis in across]))
    affordable_mm = float(np.sqrt(_VOXELS / mask.shape[VIEW_AXIS[view]] * pixel_mm2))
    side_mm = max(CONTEXT * extent_mm, min(_SIDE_MM, affordable_mm))
    start, stop = [0, 0, 0], list(mask.shape)
    for axis in across:
        centre = (tight.start_ijk[axis] + tight.stop_ijk[axis] - 1) // 2
        part = around(centre, round(side_mm / mask.spacing_mm[axis]), mask.shape[axis])
        start[axis], stop[axis] = part.start, part.stop
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def middle(lesion: Lesion) -> tuple[int, int, int]:
    """The voxel to look at first: in the slice with the largest area, amid the mask."""
    axis = VIEW_AXIS[lesion.view]
    across = tuple(n for n in range(3) if n != axis)
    index = int(np.argmax(np.count_nonzero(lesion.mask.array, axis=across)))
    inside = np.argwhere(lesion.mask.array.take([index], axis=axis))
    i, j, k = (int(n) for n in np.median(inside, axis=0)) if len(inside) else (0, 0, 0)
    place = [i, j, k]
    place[axis] = index
    return place[0], place[1], place[2]
