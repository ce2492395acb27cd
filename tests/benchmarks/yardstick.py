"""The masks of the yardstick: ellipses in soft tissue, and in organs, of scans kept for measuring.

``starter.py`` paints them; ``falsifiers.py`` alters what is real in them. The masks of a scan are
the same whatever is measured, and the first of many are those of few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synthct.models.region import axis_last
from synthct.seeds import generator
from synthct.volume import Box, Volume, read_ct, read_labels
from synthct.volume.intensity import SOFT_TISSUE, window_for
from synthct.volume.views import VIEW_AXIS, Plane

SEED = 0
RANGE_HU = SOFT_TISSUE.range_hu
RADIUS_MM = (10.0, 20.0)
#: Least share of a mask that is soft tissue, so that no mask lies in air, lung or bone.
TISSUE_SHARE = 0.95
#: Least share of an ellipse that lies within the organ; the mask is that part of it.
ORGAN_SHARE = 0.5
#: Centres of a mask and of the random real patch are at least so far apart.
APART_MM = 2 * RADIUS_MM[1]
#: An organ may be too small for another place so far away; then the next best one counts.
_ATTEMPTS = 2000
#: Pixels between a mask's centre and the edge of the slice.
_MARGIN = 32

#: Scans kept for measuring, and the organ in each that is painted as a label.
SCANS = ("s0003", "y1", "y2")
ORGANS = {
    "s0002": ("spleen", ("spleen",)),  # trained on
    "s0003": ("kidney", ("kidney_left", "kidney_right")),
    "y1_abdomen": ("liver", ("liver",)),
    "y2_chest": ("lung", ("lung",)),
}

Values = npt.NDArray[np.float64]
Region = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Task:
    """One mask to paint.

    Attributes:
        index: Number of the mask, which names its random streams.
        ct: The slice, (I, J, 1).
        region: The mask on the same grid.
        next_values: HU of the same place one slice further.
        other_values: HU of another place of the scan.
        label: What is painted; None for whatever fits.
        range_hu: The range that it is measured in.
    """

    index: int
    ct: Volume
    region: Volume
    next_values: Values
    other_values: Values
    label: str | None = None
    range_hu: tuple[float, float] = RANGE_HU


def find_scan(data: Path, name: str) -> Path:
    """The folder of a scan: a case of TotalSegmentator, a yardstick, or one of ``free``."""
    places = ("totalsegmentator_v2", "yardsticks", "free")
    found = [folder for place in places for folder in sorted((data / place).glob(f"{name}*"))]
    exact = [folder for folder in found if folder.name == name] or found
    if not exact:
        raise SystemExit(f"no scan '{name}' in {', '.join(places)} below {data}")
    return exact[0]


def read_tasks(
    folder: Path, count: int, view: Plane = "axial"
) -> Iterator[tuple[str, Volume, Region | None, list[Task]]]:
    """Name, scan, organ and masks: of whatever fits, then of the scan's organ if one is known.

    In another view the scan is turned, so that its slices of that view are the last axis.
    """
    ct = _turned(read_ct(folder / "ct.nii.gz"), view)
    yield folder.name, ct, None, draw_tasks(ct, folder.name, count)
    if folder.name in ORGANS:
        label, files = ORGANS[folder.name]
        parts = [read_labels(folder / "segmentations" / f"{file}.nii.gz") for file in files]
        organ = np.any([_turned(part, view).array > 0 for part in parts], axis=0)
        tasks = draw_organ_tasks(ct, organ, label, folder.name, count)
        yield f"{folder.name} {label}", ct, organ, tasks


def _turned(volume: Volume, view: Plane) -> Volume:
    """A volume whose slices of a view lie along its last axis."""
    axis = VIEW_AXIS[view]
    affine = np.diag([*axis_last(volume.spacing_mm, axis), 1.0])
    return Volume(np.moveaxis(volume.array, axis, 2), affine)


def ellipse(
    shape: tuple[int, int],
    spacing_mm: tuple[float, float],
    center: tuple[float, float],
    radii_mm: tuple[float, float],
    angle: float,
) -> Region:
    """A filled ellipse (I, J); the centre in voxels, the angle in radians."""
    i, j = np.ogrid[: shape[0], : shape[1]]
    x, y = (i - center[0]) * spacing_mm[0], (j - center[1]) * spacing_mm[1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    inside: Region = (along / radii_mm[0]) ** 2 + (across / radii_mm[1]) ** 2 <= 1
    return inside


def soft_tissue(hu: npt.NDArray[np.int16]) -> Region:
    """Boolean (I, J, K): voxels of the soft-tissue window inside the body, without the table."""
    from scipy import ndimage

    in_plane = ndimage.generate_binary_structure(2, 1)[:, :, None]
    solid = ndimage.binary_opening(hu > -300, in_plane, iterations=4)
    parts, _ = ndimage.label(solid)
    body = parts == np.argmax(np.bincount(parts[parts > 0]))
    tissue: Region = body & (hu >= RANGE_HU[0]) & (hu <= RANGE_HU[1])
    return tissue


def draw_tasks(ct: Volume, scan: str, count: int) -> list[Task]:
    """``count`` ellipses in soft tissue."""
    tissue = soft_tissue(ct.array)
    return [draw_task(ct, tissue, scan, index) for index in range(count)]


def draw_task(ct: Volume, tissue: Region, scan: str, index: int) -> Task:
    """One ellipse, and another place that would hold it too."""
    rng = generator(SEED, "starter-benchmark", scan, str(index))
    shape, spacing = ct.shape[:2], ct.spacing_mm[:2]
    radii = (rng.uniform(*RADIUS_MM), rng.uniform(*RADIUS_MM))
    angle = rng.uniform(0, np.pi)

    def draw_place(last_slice: int) -> tuple[Region, tuple[int, int], int]:
        while True:
            k = int(rng.integers(last_slice + 1))
            candidates = np.argwhere(tissue[:, :, k])
            if not len(candidates):
                continue
            i, j = candidates[rng.integers(len(candidates))]
            region = ellipse(shape, spacing, (i, j), radii, angle)
            if _is_whole((i, j), shape) and tissue[:, :, k][region].mean() >= TISSUE_SHARE:
                return region, (int(i), int(j)), k

    region, center, k = draw_place(ct.shape[2] - 2)
    while True:
        other, place, other_k = draw_place(ct.shape[2] - 1)
        apart = np.hypot(*(np.subtract(place, center) * spacing))
        if apart >= APART_MM:
            break
    # The same integer centre offset gives the same voxels, so the values correspond in order.
    return _task(ct, region, k, ct.array[:, :, other_k][other], index)


def draw_organ_tasks(ct: Volume, organ: Region, label: str, scan: str, count: int) -> list[Task]:
    """``count`` parts of an organ, each within an ellipse: up to 40 mm across."""
    rng = generator(SEED, "starter-benchmark", scan, label)
    shape, spacing = ct.shape[:2], ct.spacing_mm[:2]
    window = window_for(label, None)
    voxels = np.argwhere(organ[:, :, :-1])
    tasks: list[Task] = []
    while len(tasks) < count:
        radii = (rng.uniform(*RADIUS_MM), rng.uniform(*RADIUS_MM))
        angle = rng.uniform(0, np.pi)
        i, j, k = voxels[rng.integers(len(voxels))]
        whole = ellipse(shape, spacing, (i, j), radii, angle)
        if not _is_whole((i, j), shape) or organ[:, :, k][whole].mean() < ORGAN_SHARE:
            continue
        region = whole & organ[:, :, k]
        others = _elsewhere(organ, np.argwhere(region) - (i, j), (i, j, k), spacing, rng)
        tasks.append(
            _task(ct, region, int(k), ct.array[others], len(tasks), label, window.range_hu)
        )
    return tasks


def _elsewhere(
    organ: Region,
    offsets: npt.NDArray[np.int64],
    center: tuple[int, int, int],
    spacing: tuple[float, ...],
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], ...]:
    """Indices of the same shape at another place of the organ, which holds most of it."""
    voxels = np.argwhere(organ)
    best, best_share = None, -1.0
    for _ in range(_ATTEMPTS):
        i, j, k = voxels[rng.integers(len(voxels))]
        place = np.add(offsets, (i, j))
        if np.hypot(*(np.subtract((i, j), center[:2]) * spacing)) < APART_MM and k == center[2]:
            continue
        if (place < 0).any() or (place >= organ.shape[:2]).any():
            continue
        index = (place[:, 0], place[:, 1], np.full(len(place), k))
        share = float(organ[index].mean())
        if share > best_share:
            best, best_share = index, share
        if share >= TISSUE_SHARE:
            break
    assert best is not None
    return best


def _is_whole(center: tuple[int, int], shape: tuple[int, int]) -> bool:
    return all(_MARGIN < c < n - _MARGIN for c, n in zip(center, shape, strict=True))


def _task(
    ct: Volume,
    region: Region,
    k: int,
    other_values: npt.NDArray[np.int16],
    index: int,
    label: str | None = None,
    range_hu: tuple[float, float] = RANGE_HU,
) -> Task:
    layer = ct.crop(Box((0, 0, k), (*ct.shape[:2], k + 1)))
    return Task(
        index=index,
        ct=layer,
        region=Volume(region[:, :, None], layer.affine),
        next_values=ct.array[:, :, k + 1][region].astype(np.float64),
        other_values=other_values.astype(np.float64),
        label=label,
        range_hu=range_hu,
    )


def pasted(task: Task, values: Values) -> Volume:
    """The slice with ``values`` inside the mask, in the mask's voxel order, rounded to int16."""
    full = np.zeros(task.ct.shape)
    full[task.region.array] = values
    return task.ct.paste(full, where=task.region.array)
