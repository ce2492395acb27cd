"""What a picture of a study shows: a region of a scan in one plane, or in three.

Painted and real are cut by the same rule, to the same size in millimetres, and nothing is drawn on
them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from synthct.dataset.sample import Sample
from synthct.dataset.stack import three_planes
from synthct.publish.report.pictures import CONTEXT, LEAST_MM, around
from synthct.volume import Box, Volume
from synthct.volume.intensity import Window
from synthct.volume.regions import components
from synthct.volume.views import PLANES, VIEW_AXIS, Plane, View, picture_affine, to_picture

#: Side of a plane in a picture, and the gap between two, in pixels.
SIDE, GAP = 320, 8

#: Fewest pixels of a part in a slice; most slices of a scan and parts of each that are looked at.
_LEAST_PIXELS, _SLICES, _PARTS = 12, 32, 8

Hu = npt.NDArray[np.int16]
Region = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Look:
    """A region in one slice.

    Attributes:
        hu: The slice as a picture (rows, columns).
        region: Boolean (rows, columns): what is in the middle.
        pixel_mm: Size of a pixel along rows' and columns' index.
    """

    hu: Hu
    region: Region
    pixel_mm: tuple[float, ...]

    @property
    def extent_mm(self) -> float:
        """The larger side of the region's box."""
        sides = ((b - a) * s for (a, b), s in zip(self._bounds(), self.pixel_mm, strict=True))
        return float(max(sides))

    @property
    def side_mm(self) -> float:
        """Side of the square to be shown, as far as the slice goes."""
        within = (n * s for n, s in zip(self.hu.shape, self.pixel_mm, strict=True))
        return float(min(max(LEAST_MM, CONTEXT * self.extent_mm), *within))

    def cut(self, side_mm: float, window: Window) -> npt.NDArray[np.uint8]:
        """The square around the region as grey values (SIDE, SIDE)."""
        part = tuple(
            around((a + b - 1) // 2, round(side_mm / s), n)
            for (a, b), s, n in zip(self._bounds(), self.pixel_mm, self.hu.shape, strict=True)
        )
        grey = np.rint((window.encode(self.hu[part]) + 1) * 127.5).astype(np.uint8)
        return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC))

    def _bounds(self) -> list[tuple[int, int]]:
        hits = [np.flatnonzero(self.region.any(axis=1 - axis)) for axis in (0, 1)]
        return [(int(hit[0]), int(hit[-1]) + 1) for hit in hits]


#: One plane, or three.
Looks = tuple[Look, ...]


def painted(sample: Sample) -> Looks:
    """What is painted in a sample."""
    return _of_sample(sample, "image")


def before(sample: Sample) -> Looks:
    """The same place before it was painted; for datasets that keep it."""
    return _of_sample(sample, "original")


def real(scan: Volume, region: Region, view: View, rng: np.random.Generator) -> list[Looks]:
    """Some parts of a structure in a scan: in slices of a plane, or whole ones in three planes.

    Args:
        scan: int16 HU.
        region: Boolean (I, J, K): the structure, of at least one voxel.
        view: The plane, or ``volume``.
        rng: Chooses among many slices.
    """
    parts = list(_parts(scan, region, view, rng))
    large = [looks for looks in parts if np.count_nonzero(looks[0].region) >= _LEAST_PIXELS]
    return large or parts  # specks are noise of the label map, unless there is nothing else


def _parts(scan: Volume, region: Region, view: View, rng: np.random.Generator) -> Iterator[Looks]:
    if view == "volume":
        parts, counts = components(region)
        for number in range(1, 1 + len(counts[:_PARTS])):
            part = parts == number
            yield tuple(_widest(scan, part, plane) for plane in PLANES)
        return
    indices = np.flatnonzero(_areas(region, VIEW_AXIS[view]))
    for index in rng.permutation(indices)[:_SLICES]:
        flat = _slice(scan, region, view, int(index))
        flat_parts, count = ndimage.label(flat.region)
        for number in range(1, min(count, _PARTS) + 1):
            yield (Look(flat.hu, flat_parts == number, flat.pixel_mm),)


def most_alike(candidates: Sequence[Looks], to: Looks) -> int:
    """Which of the candidates is nearest in size, in the plane where the two differ most."""

    def apart(one: Looks) -> float:
        pairs = zip(one, to, strict=True)
        return max(abs(math.log(a.extent_mm / b.extent_mm)) for a, b in pairs)

    return min(range(len(candidates)), key=lambda n: apart(candidates[n]))


def png(looks: Looks, sides_mm: Sequence[float], window: Window) -> bytes:
    """The picture of a region: its planes side by side, as PNG without any other word in it."""
    whole = np.zeros((SIDE, len(looks) * (SIDE + GAP) - GAP), np.uint8)
    for number, (look, side_mm) in enumerate(zip(looks, sides_mm, strict=True)):
        left = number * (SIDE + GAP)
        whole[:, left : left + SIDE] = look.cut(side_mm, window)
    buffer = io.BytesIO()
    Image.fromarray(whole).save(buffer, "PNG")
    return buffer.getvalue()


def _of_sample(sample: Sample, name: str) -> Looks:
    return tuple(
        Look(flat.pictures[name], flat.pictures["mask"], flat.pixel_mm)
        for flat in three_planes(sample)
    )


def _widest(scan: Volume, region: Region, plane: Plane) -> Look:
    return _slice(scan, region, plane, int(np.argmax(_areas(region, VIEW_AXIS[plane]))))


def _slice(scan: Volume, region: Region, plane: Plane, index: int) -> Look:
    axis = VIEW_AXIS[plane]
    thin = Box.whole(scan.shape).slab(axis, index)
    flat = scan.crop(thin)
    affine = picture_affine(flat.affine, flat.shape, plane)
    rows_mm, columns_mm = np.linalg.norm(affine[:3, :2], axis=0)
    return Look(
        to_picture(flat.array, plane),
        to_picture(region[thin.slices], plane),
        (float(rows_mm), float(columns_mm)),
    )


def _areas(region: Region, axis: int) -> npt.NDArray[np.int64]:
    across = tuple(n for n in range(3) if n != axis)
    return np.asarray(np.count_nonzero(region, axis=across), dtype=np.int64)
