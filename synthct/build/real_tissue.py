"""Real tissue pasted over real tissue: how far one is from the other by the measures of paint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct import seeds
from synthct.errors import MaskError
from synthct.metrics.grain import grain_ratio
from synthct.metrics.seam import seam_ratio
from synthct.metrics.spectrum import spectrum_distance
from synthct.metrics.texture import texture_ratio
from synthct.volume.case import Case
from synthct.volume.intensity import SOFT_TISSUE, Codec, window_for
from synthct.volume.regions import structure
from synthct.volume.views import VIEW_AXIS, Plane

#: Radii of the compared discs: those of most masks.
RADIUS_MM = (6.0, 15.0)

#: Least share of a disc that is soft tissue, or within the label.
_SOFT_SHARE, _LABEL_SHARE = 0.95, 0.5

#: Tries for each place.
_TRIES = 200

Pairs = npt.NDArray[np.float64]


def compare_real(
    case: Case, label: str | None, view: Plane, codec: Codec | None, count: int
) -> Pairs:
    """Real tissue pasted over real tissue, in up to ``count`` places of a scan; deterministic.

    Args:
        case: The scan.
        label: The structure to look in; None for soft tissue.
        view: The plane of the slices.
        codec: What a model would paint it in; None without one.
        count: Number of places.

    Returns:
        (N, 2, 4): for each place, of the neighbouring slice and of another place, the texture
        ratio, the distance of the spectra, the seam ratio and the grain ratio; NaN where one cannot
        be computed.
    """
    axis = VIEW_AXIS[view]
    scan = case.scan()
    hu = np.moveaxis(scan.array, axis, 0)
    spacing_mm = np.delete(scan.spacing_mm, axis)
    try:
        inside, start = _inside(case, label, axis)
    except MaskError:  # no voxel of the label
        return np.empty((0, 2, 4))
    rng = seeds.generator(0, "real tissue", label or "", view)
    share = _SOFT_SHARE if label is None else _LABEL_SHARE
    pairs = []
    for _ in range(count):
        disc = _disc(rng.uniform(*RADIUS_MM), spacing_mm)
        place, other = (_place(inside, disc, share, rng) for _ in range(2))
        if place is None or other is None or start[0] + place[0] + 1 >= len(hu):
            continue
        mask = disc & inside[_window(place, disc)] if label is not None else disc
        here = _crop(hu, place, start, disc)
        under_hu = float(here[mask].mean())
        range_hu = window_for(label, under_hu, codec).range_hu
        above = (place[0] + 1, *place[1:])
        row = []
        for real in (_crop(hu, above, start, disc), _crop(hu, other, start, disc)):
            pasted = np.where(mask, real, here)
            row.append(
                (
                    texture_ratio(here, pasted, mask, range_hu),
                    spectrum_distance(here, pasted, mask, range_hu),
                    seam_ratio(here, pasted, mask, range_hu),
                    grain_ratio(*_in_its_slice(hu, place, start, mask, pasted), range_hu),
                )
            )
        pairs.append(row)
    return np.array(pairs, dtype=np.float64).reshape(-1, 2, 4)


def _inside(case: Case, label: str | None, axis: int) -> tuple[npt.NDArray[np.bool_], list[int]]:
    """The tissue, slices first, within its box; and where that begins."""
    if label is None:
        array = case.scan().array
        low, high = SOFT_TISSUE.range_hu
        return np.moveaxis((array >= low) & (array <= high), axis, 0), [0, 0, 0]
    region, box = structure(case, [label])
    start = [box.start_ijk[axis], *(s for a, s in enumerate(box.start_ijk) if a != axis)]
    return np.moveaxis(region, axis, 0), start


def _disc(radius_mm: float, spacing_mm: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Boolean (R, C) of a disc and a pixel around it."""
    reach = [int(radius_mm / s) + 1 for s in spacing_mm]
    grid = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    distance = sum(np.square(axis * s) for axis, s in zip(grid, spacing_mm, strict=True))
    disc: npt.NDArray[np.bool_] = distance <= radius_mm**2
    return disc


def _place(
    inside: npt.NDArray[np.bool_],
    disc: npt.NDArray[np.bool_],
    share: float,
    rng: np.random.Generator,
) -> tuple[int, int, int] | None:
    """Slice, row and column of the first pixel of a disc in the tissue; None if none was found."""
    free = [n - d for n, d in zip(inside.shape[1:], disc.shape, strict=True)]
    if min(free) < 0:
        return None
    for _ in range(_TRIES):
        place = tuple(int(rng.integers(n)) for n in (len(inside), free[0] + 1, free[1] + 1))
        centre = tuple(p + d // 2 for p, d in zip(place[1:], disc.shape, strict=True))
        if inside[place[0]][centre] and inside[_window(place, disc)][disc].mean() >= share:
            return place[0], place[1], place[2]
    return None


def _in_its_slice(
    hu: npt.NDArray[Any],
    place: tuple[int, ...],
    start: Sequence[int],
    mask: npt.NDArray[np.bool_],
    pasted: npt.NDArray[Any],
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """The whole slice with what is pasted into a crop of it, and the mask in it."""
    index, *window = _window([p + s for p, s in zip(place, start, strict=True)], mask)
    picture = hu[index].copy()
    region = np.zeros(picture.shape, dtype=bool)
    picture[tuple(window)], region[tuple(window)] = pasted, mask
    return picture, region


def _window(place: Sequence[int], disc: npt.NDArray[np.bool_]) -> tuple[int | slice, ...]:
    return place[0], *(slice(p, p + d) for p, d in zip(place[1:], disc.shape, strict=True))


def _crop(
    hu: npt.NDArray[Any], place: tuple[int, ...], start: Sequence[int], disc: npt.NDArray[np.bool_]
) -> npt.NDArray[Any]:
    where = tuple(p + s for p, s in zip(place, start, strict=True))
    crop: npt.NDArray[Any] = hu[_window(where, disc)]
    return crop
