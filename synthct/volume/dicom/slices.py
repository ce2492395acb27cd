"""Where the slices of a series lie: one grid for all of them, or the reason why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from synthct.errors import SourceError, counted
from synthct.volume.dicom.files import Series
from synthct.volume.dicom.kinds import CT_CLASSES, HU_TYPES
from synthct.volume.grid import GRID_TOLERANCE, Affine, spacing_of
from synthct.volume.header import MAX_VOXELS
from synthct.volume.voxels import Stored

if TYPE_CHECKING:
    from pydicom import Dataset

#: From DICOM's LPS+ to RAS+.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: How the values of a slice are scaled, in DICOM's words.
_SCALING = ("RescaleSlope", "RescaleIntercept")
#: How far directions and spacings of slices may differ; of directions, a twentieth of a voxel in
#: 512 of them.
_DIRECTION_TOLERANCE, _SPACING_TOLERANCE = 1e-4, 1e-3
#: Slices nearer than this share of the usual distance lie in one place.
_SAME_PLACE = 0.05
_MOST_SPACING_MM = 100.0
#: Positions are often written with one decimal.
_ROUNDING_MM = 0.051


@dataclass(frozen=True)
class Slice:
    """A slice by the header of its file.

    Attributes:
        path: The file.
        frame: Which of its frames, from 0.
        shape: Columns and rows.
        position: Of the first pixel's centre, LPS+ in mm.
        directions: Unit vectors along a row and down a column, LPS+.
        spacing: Distance in mm from column to column and from row to row.
        slope: What stored values are multiplied by.
        intercept: What is added to them then.
        acquisition: Number of the acquisition, if it has one.
        instance: UID of the file.
    """

    path: Path
    frame: int
    shape: tuple[int, int]
    position: tuple[float, ...]
    directions: tuple[float, ...]
    spacing: tuple[float, float]
    slope: float
    intercept: float
    acquisition: str
    instance: str

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """Unit vector across the slice, LPS+."""
        return np.cross(self.directions[:3], self.directions[3:])

    @property
    def name(self) -> str:
        """For messages."""
        name = f"'{self.path.name}'"
        return name if self.frame == 0 else f"{name} (frame {self.frame + 1})"


def slices_of(path: Path, header: Dataset) -> list[Slice]:
    """The slices in a CT file, without localizers.

    Raises:
        SourceError: If a header does not say where a slice lies, or how it is scaled.
    """
    if str(header.SOPClassUID) not in CT_CLASSES:
        raise SourceError(f"{path}: is no CT image (any more); run the command again")
    return [one for frame, items in _frames(header) if (one := _slice(path, header, frame, items))]


def _frames(header: Dataset) -> Iterator[tuple[int, tuple[Dataset, ...]]]:
    """Number of each frame, with the data sets that may hold its fields."""
    shared = tuple(header.get("SharedFunctionalGroupsSequence") or ())
    frames = tuple(header.get("PerFrameFunctionalGroupsSequence") or ())
    if not frames:
        yield 0, (header,)
        return
    for number, frame in enumerate(frames):
        groups = [
            item
            for outer in (frame, *shared)
            for element in outer
            if element.VR == "SQ"
            for item in element.value[:1]
        ]
        yield number, (*groups, header)


def _slice(path: Path, header: Dataset, frame: int, items: Sequence[Dataset]) -> Slice | None:
    """One slice; None if it is a localizer."""

    def numbers(keyword: str, count: int) -> tuple[float, ...]:
        value = next((item[keyword].value for item in items if item.get(keyword) is not None), None)
        found = () if value is None else tuple(np.atleast_1d(np.asarray(value, dtype=np.float64)))
        if len(found) != count or not np.isfinite(found).all():
            raise SourceError(
                f"{path}: has no {keyword} of {count} numbers (but {value}), without which a slice "
                "has no place or no HU; repair or remove the series"
            )
        return tuple(float(one) for one in found)

    kinds = next((item.FrameType for item in items if "FrameType" in item), ())
    if "LOCALIZER" in kinds:
        return None
    directions = numbers("ImageOrientationPatient", 6)
    row, column = np.array(directions[:3]), np.array(directions[3:])
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    if not np.allclose([*lengths, 1 + row @ column], 1, atol=1e-3):
        raise SourceError(
            f"{path}: its ImageOrientationPatient {list(directions)} is not two directions at "
            "right angles; repair the header"
        )
    down, across = numbers("PixelSpacing", 2)
    if not 0 < min(down, across) <= max(down, across) < _MOST_SPACING_MM:
        raise SourceError(f"{path}: PixelSpacing {down:g} x {across:g} mm is not of a CT")
    if int(header.get("SamplesPerPixel", 1)) != 1:
        raise SourceError(f"{path}: is a picture in colours; remove it from the series")
    values = str(next((i.RescaleType for i in items if i.get("RescaleType")), "")).upper()
    if values not in HU_TYPES:
        raise SourceError(
            f"{path}: its values are of the type {values}, not HU; exclude the series"
        )
    slope, intercept = numbers("RescaleSlope", 1)[0], numbers("RescaleIntercept", 1)[0]
    if slope == 0:
        raise SourceError(f"{path}: RescaleSlope is 0; repair the header")
    return Slice(
        path=path,
        frame=frame,
        shape=(int(header.Columns), int(header.Rows)),
        position=numbers("ImagePositionPatient", 3),
        directions=directions,
        spacing=(across, down),
        slope=slope,
        intercept=intercept,
        acquisition=str(header.get("AcquisitionNumber") or ""),
        instance=str(header.get("SOPInstanceUID") or ""),
    )


def arranged(series: Series, slices: Sequence[Slice]) -> tuple[Stored, list[Slice]]:
    """The grid of a series, its k axis across the slices, and the slices along it.

    Slices that are shifted against each other by the same step, as with a tilted gantry, make a
    sheared grid.

    Raises:
        SourceError: If the slices are of several kinds, some are missing or double, or they are
            not evenly spaced.
    """
    if len(slices) < 2:
        raise SourceError(
            f"{series.folder}: the series has {len(slices) or 'no'} CT slice, and a scan needs two "
            "or more; exclude it, or fetch the series again"
        )
    _of_one_kind(series, slices)
    first = slices[0]
    depths = [float(np.dot(first.normal, one.position)) for one in slices]
    order = sorted(range(len(slices)), key=lambda n: (depths[n], slices[n].path, slices[n].frame))
    slices, depths = [slices[n] for n in order], [depths[n] for n in order]
    _complete(series, slices, np.diff(depths))
    affine = _affine(slices)
    positions = np.array([one.position for one in slices]).T
    found = (np.linalg.inv(affine) @ LPS_TO_RAS @ np.vstack([positions, np.ones(len(slices))]))[:3]
    off = np.abs(found - np.outer([0, 0, 1], np.arange(len(slices))))
    if (off > tolerance(affine)[:, None]).any():
        worst = int(off.max(axis=0).argmax())
        raise SourceError(
            f"{series.folder}: the slices are not evenly spaced: {slices[worst].name} lies "
            f"{off[:, worst].max():.2f} voxels from where it should (at most "
            f"{GRID_TOLERANCE:.0%} of a voxel); resample the series first"
        )
    columns, rows = first.shape
    if columns * rows * len(slices) > MAX_VOXELS:
        raise SourceError(
            f"{series.folder}: {columns} x {rows} x {len(slices)} voxels are more than the "
            f"{MAX_VOXELS} that are allowed"
        )
    return Stored(series.folder, (columns, rows, len(slices)), affine, _SCALING), slices


def tolerance(affine: Affine) -> npt.NDArray[np.float64]:
    """How far along i, j and k something may lie off a grid, in voxels.

    A twentieth, or what the rounding of positions to a tenth of a millimetre comes to.
    """
    return np.maximum(GRID_TOLERANCE, _ROUNDING_MM / np.array(spacing_of(affine)))


def _affine(slices: Sequence[Slice]) -> Affine:
    """From column, row and slice to RAS+ mm."""
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.directions[:3]) * first.spacing[0]
    affine[:3, 1] = np.array(first.directions[3:]) * first.spacing[1]
    affine[:3, 2] = np.subtract(last.position, first.position) / (len(slices) - 1)
    affine[:3, 3] = first.position
    return np.asarray(LPS_TO_RAS @ affine)


def _of_one_kind(series: Series, slices: Sequence[Slice]) -> None:
    """Refuse slices that differ in size, direction or spacing."""
    first = slices[0]
    for one in slices:
        same = (
            one.shape == first.shape
            and np.allclose(one.directions, first.directions, atol=_DIRECTION_TOLERANCE)
            and np.allclose(one.spacing, first.spacing, rtol=_SPACING_TOLERANCE, atol=0)
        )
        if not same:
            raise SourceError(
                f"{series.folder}: slices of one series differ: {first.name} has {_facts(first)}, "
                f"{one.name} has {_facts(one)}; remove those that are not "
                "of the scan"
            )


def _complete(series: Series, slices: Sequence[Slice], steps: npt.NDArray[np.float64]) -> None:
    """Refuse a series in which slices are double or missing.

    Args:
        series: The series.
        slices: Its slices in order.
        steps: Distances in mm from each to the next.
    """
    apart = steps[steps > 1e-3]
    usual = float(np.median(apart)) if apart.size else 0.0
    double = np.flatnonzero(steps <= max(1e-3, _SAME_PLACE * usual))
    if double.size:
        one, two = slices[int(double[0])], slices[int(double[0]) + 1]
        numbers = Counter(slice_.acquisition for slice_ in slices)
        several = (
            "; they are of several acquisitions: AcquisitionNumber "
            + ", ".join(f"{name or 'none'} ({count})" for name, count in sorted(numbers.items()))
            if len(numbers) > 1
            else ""
        )
        copies = double.size + 1 if not apart.size else double.size
        raise SourceError(
            f"{series.folder}: {counted(copies, 'slice lies', 'slices lie')} "
            f"where another one does, the first are {one.name} and {two.name}{several}; remove "
            "the copies, or the files of all acquisitions but one"
        )
    gaps = np.flatnonzero(steps > 1.5 * usual)
    if gaps.size:
        one, two = slices[int(gaps[0])], slices[int(gaps[0]) + 1]
        missing = int(np.rint(steps[gaps] / usual - 1).sum())
        are = counted(missing, "slice is", "slices are")
        raise SourceError(
            f"{series.folder}: {are} missing, the first between {one.name} and "
            f"{two.name} ({steps[gaps[0]]:g} mm apart, others {usual:g} mm); fetch the series "
            "again, or resample it if it has slices of several thicknesses"
        )


def _facts(one: Slice) -> str:
    columns, rows = one.shape
    directions = ", ".join(f"{x:g}" for x in one.directions)
    across, down = one.spacing
    return f"{columns} x {rows} pixels of {across:g} x {down:g} mm, directions ({directions})"
