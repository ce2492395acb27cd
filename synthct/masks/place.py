"""The search for a lesion's place: all places on a coarse grid at once.

The lesion is correlated with the organ and with all obstacles, so the search covers every place and
knows which limit leaves none. The result is a proposal: ``placement.check_placement`` checks it on
the host's own voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthct.masks.accept import FIELD_OF_VIEW, OBSTACLES, Accept, Reason
from synthct.masks.lesion import TransformedLesion, grid_around
from synthct.masks.organ_site import OrganSite, Surroundings
from synthct.masks.shape import Point, Points
from synthct.volume.regions import Region

#: Bounds of the cell size, which is a tenth of the lesion's diameter.
STEP_RANGE_MM = (1.5, 5.0)

#: A place is drawn among at least BEST places, or all whose miss is below GOOD_ENOUGH.
BEST, GOOD_ENOUGH = 8, 1.0

#: Scales of the misses: deviations from the target that weigh the same.
SHARE_MISS, PLACE_MISS, DEPTH_MISS, SOFT_MISS, BAD_MISS = 0.08, 0.4, 0.15, 0.04, 0.02


@dataclass(frozen=True)
class PlacementTarget:
    """Properties that a lesion's place should have, as far as the limits allow.

    Attributes:
        exophytic_share: Share of the surface that does not border on the organ.
        place: Centre along the organ's axes (`Frame.place_of`); None for anywhere.
        depth_mm: Distance from the centre to the surface of lesion and organ together; None for
            any.
    """

    exophytic_share: float
    place: Point | None = None
    depth_mm: float | None = None


def find_place(
    site: OrganSite,
    transformed: TransformedLesion,
    target: PlacementTarget,
    rng: np.random.Generator,
) -> tuple[Points | None, Reason | None]:
    """Draw a legal place for the lesion's origin, among those closest to the target.

    Returns:
        RAS+ mm and None; or None and the reason why there is no place.
    """
    from scipy.ndimage import binary_dilation

    accept = site.accept
    step = float(np.clip(2 * transformed.radius_mm / 10, *STEP_RANGE_MM))
    box, affine = grid_around(transformed.corners_mm, step)
    solid = transformed.voxels(box, affine)
    cells = np.argwhere(solid)
    centre = np.rint(cells.mean(axis=0)).astype(int)
    field, start_mm = site.sampled(centre, np.asarray(solid.shape) - 1 - centre, step)
    shell = binary_dilation(solid) & ~solid
    beyond = field.codes == FIELD_OF_VIEW
    inside, bad, soft, cut = _overlaps(solid, [field.part, field.codes > 0, field.soft, beyond])
    (contact,) = _overlaps(shell, [field.part])
    ends = zip(centre, inside.shape, strict=True)
    window = tuple(slice(c, c + n) for c, n in ends)
    places, reason = _legal(accept, field, cells, field.part[window], (inside, bad, soft, cut))
    if reason is not None:
        return None, reason
    at = tuple(places.T)
    exophytic = 1 - contact[at] / np.count_nonzero(shell)
    misses = [
        (exophytic - target.exophytic_share) / SHARE_MISS,
        soft[at] / len(cells) / SOFT_MISS,
        bad[at] / len(cells) / BAD_MISS,
    ]
    if target.place is not None:
        positions = site.part.frame.place_of(start_mm + (places + centre) * step)
        off = np.linalg.norm(positions - np.asarray(target.place), axis=1)
        misses.append(off / PLACE_MISS)
    if target.depth_mm is not None:
        depth = _depth(field.part, step)[window][at]
        own = float(_depth(solid, step).max())
        scale = max(DEPTH_MISS * 2 * transformed.radius_mm, 1.0)
        misses.append((np.maximum(depth, own) - max(target.depth_mm, own)) / scale)
    miss = np.sqrt(sum(m**2 for m in misses))
    order = np.argsort(miss, kind="stable")
    good = max(BEST, int((miss < GOOD_ENOUGH).sum())) if target.place is None else BEST
    cell = places[order[rng.integers(min(good, len(order)))]]
    origin = cell - np.asarray(box.start_ijk) + rng.uniform(-0.5, 0.5, 3)
    return (start_mm + origin * step).round(3), None


def _legal(
    accept: Accept,
    field: Surroundings,
    cells: npt.NDArray[np.int64],
    centred: Region,
    overlaps: tuple[npt.NDArray[np.int64], ...],
) -> tuple[npt.NDArray[np.int64], Reason | None]:
    """The places (N, 3) that keep every limit on this grid; or the limit that leaves none."""
    none = np.zeros((0, 3), dtype=np.int64)
    inside, bad, soft, cut = overlaps
    size = len(cells)
    # A little stricter than the limit, since this grid is coarse.
    fits = centred & (inside >= min(accept.inside_fraction + 0.02, 1.0) * size)
    if not fits.any():
        return none, "inside_fraction"
    fits &= cut == 0
    if not fits.any():
        return none, "field_of_view"
    least = np.argwhere(fits)[bad[fits].argmin()]
    most = int(accept.clipped_fraction * size / 2)
    if bad[tuple(least)] > most:
        i, j, k = (cells + least).T
        hits = np.bincount(field.codes[i, j, k], minlength=len(OBSTACLES))[1:]
        reason: Reason = OBSTACLES[int(hits.argmax()) + 1]  # type: ignore[assignment]  # not free
        return none, reason
    fits &= bad <= most
    fits &= soft <= max(accept.soft_tissue_fraction - 0.02, 0) * size
    return (np.argwhere(fits), None) if fits.any() else (none, "soft_tissue")


def _depth(region: Region, step_mm: float) -> Points:
    """Distance in mm to the nearest cell outside of the region."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(region, step_mm))


def _overlaps(solid: Region, maps: list[Region]) -> list[npt.NDArray[np.int64]]:
    """For every place of ``solid`` within each map: the number of its cells that are in the map.

    Args:
        solid: Boolean (A, B, C).
        maps: Booleans (X, Y, Z), all of one shape.

    Returns:
        Counts (X - A + 1, Y - B + 1, Z - C + 1) for each map.
    """
    from scipy.fft import irfftn, next_fast_len, rfftn

    size = [next_fast_len(n, real=True) for n in maps[0].shape]
    valid = tuple(slice(0, n - m + 1) for n, m in zip(maps[0].shape, solid.shape, strict=True))
    kernel = np.conj(rfftn(solid.astype(np.float32), size))
    counts = []
    for one in maps:
        product = rfftn(one.astype(np.float32), size) * kernel
        counts.append(np.rint(irfftn(product, size)[valid]).astype(np.int64))
    return counts
