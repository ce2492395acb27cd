"""Structures of SEG and RTSTRUCT files as label maps on the grid of the series they are drawn on.

A frame of a SEG must lie on the grid, by a whole number of voxels; a contour, on one of its slices,
unless the recipe asks for the slices between contours. Nothing else is resampled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from synthct.errors import SourceError
from synthct.volume.dicom.files import Drawn, joint_sha256, open_hashed, understood
from synthct.volume.dicom.kinds import RTSTRUCT_CLASS
from synthct.volume.dicom.scan import grid_of
from synthct.volume.dicom.slices import LPS_TO_RAS, tolerance
from synthct.volume.grid import GRID_TOLERANCE, spacing_of
from synthct.volume.volume import Array, Volume
from synthct.volume.voxels import Stored

if TYPE_CHECKING:
    from pydicom import Dataset

#: A voxel belongs to a fractional segment from this share on.
_FRACTION = 0.5
#: Contours farther apart than so many times their usual distance have nothing between them.
_GAP = 1.5
#: So near to a contour, in voxels, a centre is on it: positions are rounded.
_ON_CONTOUR = 1e-3

Points = npt.NDArray[np.float64]


def read_drawn(
    drawn: Drawn, *, sha256: str | None = None, remarks: list[str] | None = None
) -> Volume:
    """Read a structure as a canonical volume of uint8: 1 inside.

    Args:
        drawn: The structure.
        sha256: What ``joint_sha256`` of its files must be, if that is known.
        remarks: Gets a sentence for each choice that was made.

    Raises:
        SourceError: If a file is damaged, or lies off the grid of the series.
    """
    remarks = [] if remarks is None else remarks
    stored, _ = grid_of(drawn.series)
    out, inside, affine = stored.canonical_array(np.uint8)
    digests = []
    for path, numbers in drawn.parts:
        data, digest = open_hashed(path)
        digests.append(digest)
        with understood(path):
            if data.SOPClassUID == RTSTRUCT_CLASS:
                how = drawn.interpolates
                _fill_contours(path, data, numbers, stored, inside, remarks, interpolate=how)
            else:
                _fill_segments(path, data, numbers, stored, inside, remarks)
    if sha256 is not None and joint_sha256(iter(digests)) != sha256:
        raise SourceError(
            f"{drawn.name}: is not the file that was indexed; run the command again. If it says so "
            "again, the file is damaged: fetch it again"
        )
    return Volume(out, affine)


def _fill_segments(
    path: Path,
    data: Dataset,
    numbers: Sequence[int],
    stored: Stored,
    inside: Array,
    remarks: list[str],
) -> None:
    """Add segments of a SEG file to ``inside``, which is in the orientation of ``stored``."""
    from pydicom.pixels.utils import iter_pixels

    kind = str(data.SegmentationType)
    frames = [
        (index, place)
        for index, (number, place) in enumerate(_places(path, data, stored))
        if number is None or number in numbers
    ]
    threshold = 1.0
    if kind == "FRACTIONAL":
        threshold = _FRACTION * float(data.MaximumFractionalValue)
        remarks.append(f"fractional segments are taken from a share of {_FRACTION:g} on")
    decoded = iter_pixels(data, indices=[index for index, _ in frames]) if frames else ()
    for (_, place), pixels in zip(frames, decoded, strict=True):
        region = np.isin(pixels, numbers) if kind == "LABELMAP" else pixels >= threshold
        rows, columns = np.nonzero(region)
        i, j, k = place @ np.stack([columns, rows, np.ones_like(rows)])
        inside[i, j, k] = 1


def _places(path: Path, data: Dataset, stored: Stored) -> Iterator[tuple[int | None, Array]]:
    """Of each frame, the number of its segment (None in a label map) and where its pixels are.

    The latter is a matrix (3, 3) of whole numbers from column, row and 1 to voxel.

    Raises:
        SourceError: If the pixels of a frame are not voxels of the grid.
    """
    to_voxel = np.linalg.inv(stored.affine) @ LPS_TO_RAS
    shared = tuple(data.get("SharedFunctionalGroupsSequence") or ())
    columns, rows = int(data.Columns) - 1, int(data.Rows) - 1
    corners = np.array([[0, columns, 0, columns], [0, 0, rows, rows], [1, 1, 1, 1]])
    for count, frame in enumerate(data.PerFrameFunctionalGroupsSequence, start=1):
        where = f"{path}: frame {count}"
        position = _field(where, "PlanePosition", "ImagePositionPatient", frame, *shared)
        directions = _field(where, "PlaneOrientation", "ImageOrientationPatient", frame, *shared)
        down, across = _field(where, "PixelMeasures", "PixelSpacing", frame, *shared)
        steps = np.column_stack([directions[:3] * across, directions[3:] * down, position])
        place = to_voxel[:3, :3] @ steps
        place[:, 2] += to_voxel[:3, 3]
        whole = np.rint(place).astype(int)
        ends = whole @ corners
        off = np.abs(place @ corners - ends).max(axis=1)
        if (
            (off > tolerance(stored.affine)).any()
            or ends.min() < 0
            or (ends.max(axis=1) >= stored.shape).any()
        ):
            raise SourceError(
                f"{where} does not lie on the grid of its series in {stored.path} ({off.max():.2f} "
                f"voxels off, at most {GRID_TOLERANCE:g}, or beyond it); resample it, or use the "
                "series that it was drawn on"
            )
        named = frame.get("SegmentIdentificationSequence")
        yield int(named[0].ReferencedSegmentNumber) if named else None, whole


def _field(where: str, group: str, keyword: str, *items: Dataset) -> Points:
    """Numbers of a functional group, which is that of a frame or shared by all."""
    for item in items:
        if groups := item.get(f"{group}Sequence"):
            return np.array(groups[0][keyword].value, dtype=np.float64)
    raise SourceError(f"{where} has no {keyword}; repair or remove the file")


def _fill_contours(
    path: Path,
    data: Dataset,
    numbers: Sequence[int],
    stored: Stored,
    inside: Array,
    remarks: list[str],
    *,
    interpolate: bool,
) -> None:
    """Add regions of an RTSTRUCT file to ``inside``, which is in the orientation of ``stored``."""
    columns, rows, _ = stored.shape
    for region in data.get("ROIContourSequence") or ():
        if int(region.ReferencedROINumber) not in numbers:
            continue
        planes: dict[float, list[Points]] = {}
        for contour in region.get("ContourSequence") or ():
            placed = _placed(path, contour, stored, remarks, between=interpolate)
            if placed is not None:
                planes.setdefault(placed[0], []).append(placed[1])
        drawn = {k: fill_even_odd(planes[k], (columns, rows)) for k in sorted(planes)}
        spacing_mm = spacing_of(stored.affine)[:2]
        slices = dict(interpolated(drawn, spacing_mm)) if interpolate else drawn
        if slices.keys() - drawn.keys():
            remarks.append("slices between the contours of a structure are interpolated")
        for k, filled in slices.items():
            if 0 <= k < stored.shape[2]:
                inside[:, :, int(k)] |= filled
        if slices and len(slices) <= max(slices) - min(slices):
            remarks.append(
                "slices without a contour lie between others of a structure; they are left empty, "
                "not interpolated"
            )


def interpolated(
    planes: Mapping[float, npt.NDArray[np.bool_]], spacing_mm: tuple[float, float]
) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """The slices of a structure from planes that lie anywhere between or on them.

    Between two planes the signed distances to the outlines are averaged (Raya and Udupa, 1990).
    Planes that are farther apart than the structure's own are, by half, belong to parts that are
    apart. A structure that reaches no slice at all goes to the nearest one of each plane.

    Args:
        planes: Rising place, counted in slices, to boolean (I, J).
        spacing_mm: Size of a voxel along i and j.
    """
    places = list(planes)
    gaps = np.diff(places)
    widest = _GAP * float(np.median(gaps)) if len(gaps) else 0.0
    found: dict[int, npt.NDArray[np.bool_]] = {
        int(k): planes[k] for k in places if float(k).is_integer()
    }
    for low, high in pairwise(places):
        if high - low > widest:
            continue
        ends = [_signed_mm(planes[place], spacing_mm) for place in (low, high)]
        for k in range(math.floor(low) + 1, math.ceil(high)):
            share = (k - low) / (high - low)
            found[k] = (1 - share) * ends[0] + share * ends[1] > 0
    yield from found.items() if found else ((round(k), planes[k]) for k in places)


def _signed_mm(region: npt.NDArray[np.bool_], spacing_mm: tuple[float, float]) -> Points:
    """Distance to the outline: positive inside, negative outside; no region is outside of all."""
    from scipy.ndimage import distance_transform_edt

    if not region.any():
        return np.full(region.shape, -np.inf)
    within = distance_transform_edt(np.pad(region, 1), sampling=spacing_mm)[1:-1, 1:-1]
    beyond = distance_transform_edt(~region, sampling=spacing_mm)
    return np.asarray(within - beyond, dtype=np.float64)


def _placed(
    path: Path, contour: Dataset, stored: Stored, remarks: list[str], *, between: bool
) -> tuple[float, Points] | None:
    """The slice of a contour and its points (N, 2), as voxel indices; None if it has no inside.

    Args:
        path: The file.
        contour: One of its contours.
        stored: The grid.
        remarks: Gets what was left out.
        between: Whether a contour may lie between two slices.

    Raises:
        SourceError: If it is not on a slice.
    """
    kind = str(contour.get("ContourGeometricType", ""))
    if kind not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
        remarks.append(
            "points and open lines of an RTSTRUCT are left out, since they have no inside"
        )
        return None
    # As bytes, which is five times faster than number by number through pydicom.
    numbers = contour.get_item("ContourData").value
    numbers = numbers.split(b"\\") if isinstance(numbers, bytes) else numbers
    points = np.array(numbers, dtype=np.float64).reshape(-1, 3)
    to_voxel = np.linalg.inv(stored.affine) @ LPS_TO_RAS
    found = points @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    limit, where = tolerance(stored.affine)[2], float(np.median(found[:, 2]))
    nearest = int(np.rint(where))
    place = nearest if abs(where - nearest) <= limit or not between else round(where, 3)
    off = float(np.abs(found[:, 2] - place).max())
    is_beyond = not -1 < place < stored.shape[2] if between else not 0 <= place < stored.shape[2]
    if off > limit or is_beyond:
        hint = "use the series that it was drawn on"
        if not between and np.ptp(found[:, 2]) <= 2 * limit and -1 < where < stored.shape[2]:
            hint += (
                ", or say 'contours: interpolate' in the source, if it was meant to be drawn "
                "between two slices"
            )
        raise SourceError(
            f"{path}: a contour at {points[0].tolist()} mm lies on no slice of its series in "
            f"{stored.path} ({off:.2f} slices off, at most {GRID_TOLERANCE:g}, or beyond it); "
            f"{hint}"
        )
    return place, found[:, :2]


def fill_even_odd(contours: Sequence[Points], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Boolean (I, J): voxels whose centres lie inside an odd number of closed contours, or on one.

    A contour within another one is a hole in it, and so is a hole that is reached by a keyhole.
    Those on a contour count since programs draw through the centres of the outermost voxels.

    Args:
        contours: Each (N, 2), as voxel indices along i and j.
        shape: Voxels along i and j.
    """
    columns, rows = shape
    # A voxel's centre is inside if an odd number of edges cross its row before it.
    crossings = np.zeros((columns + 1, rows), dtype=np.int32)
    on = np.zeros(shape, dtype=np.bool_)
    for points in contours:
        row, x = _crossed(points, rows)
        np.add.at(crossings, (np.clip(np.ceil(x), 0, columns).astype(int), row), 1)
        row, x = _crossed(points, rows, reach=_ON_CONTOUR)
        column, is_on = _whole(x, columns)
        on[column[is_on], row[is_on]] = True
        column, y = _crossed(points[:, ::-1], columns, reach=_ON_CONTOUR)
        row, is_on = _whole(y, rows)
        on[column[is_on], row[is_on]] = True
    return np.asarray((np.cumsum(crossings, axis=0)[:-1] % 2 == 1) | on)


def _crossed(points: Points, rows: int, *, reach: float = 0.0) -> tuple[Array, Points]:
    """Which rows the edges of a closed contour cross, and where.

    Args:
        points: (N, 2).
        rows: Number of rows.
        reach: How far an edge goes beyond both ends; without it the upper end does not count, so
            that no row is crossed twice where two edges meet.
    """
    (x1, y1), (x2, y2) = points.T, np.roll(points, -1, axis=0).T
    low, high = np.minimum(y1, y2) - reach, np.maximum(y1, y2) + reach
    first = np.clip(np.ceil(low), 0, rows).astype(int)
    counts = np.clip(np.ceil(high), 0, rows).astype(int) - first
    edge = np.repeat(np.arange(len(points)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    rise = (y2 - y1)[edge]
    share = np.divide(row - y1[edge], rise, out=np.zeros(len(edge)), where=np.abs(rise) > reach)
    return row, x1[edge] + share * (x2 - x1)[edge]


def _whole(places: Points, end: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The nearest whole numbers, and which places are such a number from 0 to ``end``."""
    nearest = np.rint(places)
    is_whole = (np.abs(places - nearest) <= _ON_CONTOUR) & (nearest >= 0) & (nearest < end)
    return nearest.astype(int), is_whole
