"""Selection of lesions with several neighbouring slices for the 3D viewer, and their voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synthct.dataset.sample import Sample
from synthct.dataset.stack import neighbours, stack
from synthct.publish.report.pictures import CONTEXT, around
from synthct.volume import Box, Index3, Volume
from synthct.volume.views import VIEW_AXIS, Plane

#: Least number of slices of a lesion for the viewer, and most lesions on a page.
LEAST_SLICES, MOST = 3, 6

#: Side of the shown surroundings, what is shown beyond a volume's mask across its slices, and most
#: voxels of a lesion in the page.
_SIDE_MM, _BEYOND_MM, _VOXELS = 120.0, 20.0, 600_000


def choose_lesions(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Lesions spread over a dataset; of each the painting with the most neighbouring slices.

    Returns:
        For each lesion its sample ids, in the order of the slices.
    """
    thickest: dict[str, list[Mapping[str, Any]]] = {}
    for run in neighbours(rows):
        lesion = str(run[0]["lesion_id"])
        is_volume = run[0].get("view") == "volume"
        if len(run) >= max(1 if is_volume else LEAST_SLICES, len(thickest.get(lesion, ())) + 1):
            thickest[lesion] = run
    runs = list(thickest.values())
    count = min(MOST, len(runs))
    chosen = [runs[n * len(runs) // count] for n in range(count)]
    return [[str(row["sample_id"]) for row in run] for run in chosen]


def stack_lesion(rows: Sequence[Mapping[str, Any]]) -> Sample:
    """One painting of a lesion with its surroundings, as a volume.

    Args:
        rows: Stored rows of the slices of one painting, in any order.

    Raises:
        VerifyError: If one is damaged, or their grids differ.
    """
    whole = stack(sorted(rows, key=lambda row: int(row["slice_index"])))
    return whole.crop(_surroundings(whole.volume("mask"), whole.plane))


def _surroundings(mask: Volume, view: Plane) -> Box:
    """A box around a mask, square in the plane of the view, within the slices.

    Across them it goes a little beyond the mask, where a volume does.
    """
    tight = Box.around(mask.array) or Box.whole(mask.shape)
    through = VIEW_AXIS[view]
    beyond = round(_BEYOND_MM / mask.spacing_mm[through])
    first = max(0, tight.start_ijk[through] - beyond)
    last = min(mask.shape[through], tight.stop_ijk[through] + beyond)
    across = [axis for axis in range(3) if axis != VIEW_AXIS[view]]
    extent_mm = max(tight.shape[axis] * mask.spacing_mm[axis] for axis in across)
    pixel_mm2 = float(np.prod([mask.spacing_mm[axis] for axis in across]))
    affordable_mm = float(np.sqrt(_VOXELS / (last - first) * pixel_mm2))
    side_mm = max(CONTEXT * extent_mm, min(_SIDE_MM, affordable_mm))
    start, stop = [0, 0, 0], list(mask.shape)
    start[through], stop[through] = first, last
    for axis in across:
        centre = (tight.start_ijk[axis] + tight.stop_ijk[axis] - 1) // 2
        part = around(centre, round(side_mm / mask.spacing_mm[axis]), mask.shape[axis])
        start[axis], stop[axis] = part.start, part.stop
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def middle(lesion: Sample) -> Index3:
    """The voxel to show first: the median of the mask in its largest slice."""
    axis = VIEW_AXIS[lesion.plane]
    across = tuple(n for n in range(3) if n != axis)
    index = int(np.argmax(np.count_nonzero(lesion.mask, axis=across)))
    inside = np.argwhere(lesion.volume("mask").slab(axis, index).array)
    place = [int(n) for n in np.median(inside, axis=0)] if len(inside) else [0, 0, 0]
    place[axis] = index
    return place[0], place[1], place[2]
