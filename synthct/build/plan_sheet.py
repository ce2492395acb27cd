"""The contact sheet of planned masks: each in three views on its host, beside the recipe's limits.

For review before anything is painted: where the lesion lies in the body, what it borders on, and
how near it comes to the limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from synthct.build.draw import DrawnMask
from synthct.dataset.tiles import TEXT, Colour, Rgb, Span, captioned, contact_sheet, windowed
from synthct.masks.base import Mask
from synthct.masks.slicing import slice_of, widest_slice
from synthct.masks.transplant import Transplant
from synthct.volume import Array, Box, Index3, Volume, distances_mm, voxels_within
from synthct.volume.case import Case
from synthct.volume.intensity import Window, window_for
from synthct.volume.regions import seen_through
from synthct.volume.views import PICTURE_AXES, PLANES, VIEW_AXIS, Plane, View, plane_of, to_picture

#: Side of a panel in pixels, and masks per sheet.
PANEL, TILES = 230, 12

#: Close-ups show so much around a mask, and at least and at most so much.
AROUND_MM, LEAST_MM, MOST_MM = 25.0, 70.0, 260.0

MASK: Colour = (255, 196, 0)
ORGAN: Colour = (70, 190, 255)
AVOIDED: Colour = (255, 80, 80)
OTHER: Colour = (95, 125, 95)
MARK: Colour = (150, 150, 150)

#: Distances to what is kept clear of are looked for as far as this.
CLEARANCE_REACH_MM = 30.0

#: A number within so much of its limit is shown in the mask's colour.
NEAR_LIMIT = 0.1

#: Letters at the left and upper edge of a view: the patient's right, anterior and head.
EDGES: dict[Plane, tuple[str, str]] = {
    "axial": ("R", "A"),
    "coronal": ("R", "H"),
    "sagittal": ("A", "H"),
}


def plan_sheet(masks: Sequence[DrawnMask], view: View) -> bytes | None:
    """Masks on their hosts before anything is painted.

    Of each mask four panels: the whole slice, and close-ups in three views through one place of
    it. The mask is outlined in yellow (thinly, where only a part of it is painted), its organ in
    blue, what it keeps clear of in red, other structures in green. Ticks at the edges mark the
    slices that become samples. Beneath stand the case and donor, and the numbers of ``accept``
    with their limits, in yellow where near to them.

    Args:
        masks: What ``draw`` made.
        view: The plane of the samples.

    Returns:
        A PNG; None if there is no mask.
    """
    tiles = [
        captioned(np.hstack(list(_panels(mask, view))), _caption(mask)) for mask in masks[:TILES]
    ]
    return contact_sheet(tiles, columns=1 if len(tiles) < 4 else 2)


@dataclass(frozen=True, eq=False)
class _Square:
    """What of a slice a panel shows.

    Attributes:
        host: The scan.
        view: The plane of the slice.
        centre: Row and column, in pixels of the slice's picture, of the square's centre.
        side_mm: Side of the square.
    """

    host: Case
    view: Plane
    centre: tuple[float, float]
    side_mm: float

    @classmethod
    def whole(cls, host: Case, view: Plane) -> _Square:
        """All of a slice."""
        rows, columns = (host.labels.shape[axis] for axis in PICTURE_AXES[view][:2])
        rows_mm, columns_mm = _spacing(host, view)
        side_mm = max(rows * rows_mm, columns * columns_mm)
        return cls(host, view, ((rows - 1) / 2, (columns - 1) / 2), side_mm)

    def grid(self) -> npt.NDArray[np.float64]:
        """(2, PANEL, PANEL): where in the picture of the slice the panel's pixels lie."""
        offset_mm = ((np.arange(PANEL) + 0.5) / PANEL - 0.5) * self.side_mm
        rows_mm, columns_mm = _spacing(self.host, self.view)
        rows, columns = (
            self.centre[0] + offset_mm / rows_mm,
            self.centre[1] + offset_mm / columns_mm,
        )
        return np.stack(np.meshgrid(rows, columns, indexing="ij"))

    def at(self, place: Sequence[int]) -> tuple[float, float]:
        """Row and column in the panel of a voxel (i, j, k) of the slice."""
        pixel, spacing = _pixel(self.host, self.view, place), _spacing(self.host, self.view)
        row, column = (
            PANEL / 2 + (n - middle) * mm * PANEL / self.side_mm
            for n, middle, mm in zip(pixel, self.centre, spacing, strict=True)
        )
        return row, column


@dataclass(frozen=True, eq=False)
class _Scene:
    """A host with a mask, as the panels show it.

    Attributes:
        drawn: The mask.
        samples: The plane of the samples.
        flat: What is painted of the mask in the slice that the overview shows.
        layers: Values of the label map with their colour, the last on top.
        window: Of the HU.
        place: Voxel (i, j, k) through which the views go.
    """

    drawn: DrawnMask
    samples: Plane
    flat: Mask
    layers: Sequence[tuple[tuple[int, ...], Colour]]
    window: Window
    place: Index3

    def panel(self, square: _Square) -> Rgb:
        """A square of the slice through ``place``, outlined."""
        host, view, grid = square.host, square.view, square.grid()
        axis = VIEW_AXIS[view]
        index = self.place[axis]
        plane = Box.whole(host.labels.shape).slab(axis, index)
        picture = windowed(_sample(_slice(host.scan(), index, view), grid, 1), self.window)
        labels = _sample(_slice(host.labels, index, view), grid, 0)
        for values, colour in self.layers:
            picture[_edge(np.isin(labels, values))] = colour
        painted = self.flat if view == self.samples else self.drawn.mask
        for mask, is_thick in ((self.drawn.mask, False), (painted, True)):
            seen = to_picture(seen_through(plane, mask.region.array, mask.box), view)
            inside = _sample(seen.astype(np.float32), grid, 1) > 0.5
            edge = _edge(inside)
            picture[edge | _edge(inside & ~edge) if is_thick else edge] = MASK
        return picture

    def mark_close_up(self, panel: Rgb, square: _Square, close_mm: float) -> None:
        """Draw the outline of the close-up into the overview, in place."""
        y, x = square.at(self.place)
        half = close_mm * PANEL / square.side_mm / 2
        image = Image.fromarray(panel)
        ImageDraw.Draw(image).rectangle((x - half, y - half, x + half, y + half), outline=MARK)
        panel[:] = np.asarray(image)

    def mark_samples(self, panel: Rgb, square: _Square) -> None:
        """Mark at a panel's edges where the slices that become samples cross it, in place."""
        if square.view == self.samples:
            return
        axis, slices = VIEW_AXIS[self.samples], self.drawn.slices
        along_rows = PICTURE_AXES[square.view][0] == axis
        for one in slices if "slice_index" in slices[0] else ():
            marked = list(self.place)
            marked[axis] = int(one["slice_index"])
            pixel = int(square.at(marked)[0 if along_rows else 1])
            if 0 <= pixel < PANEL:
                for edge in (slice(0, 7), slice(PANEL - 7, PANEL)):
                    panel[(pixel, edge) if along_rows else (edge, pixel)] = (255, 255, 255)


def _panels(drawn: DrawnMask, of: View) -> Iterator[Rgb]:
    """The whole slice, and three close-ups around one place."""
    host = drawn.host
    view = plane_of(of, host.labels.spacing_mm)
    flats = [widest_slice(slice_of(drawn.mask, of, one), view) for one in drawn.slices]
    flat = max(flats, key=lambda one: int(np.count_nonzero(one.region.array)))
    scene = _Scene(drawn, view, flat, list(_layers(drawn)), _window(drawn), _middle(flat))
    spacing = host.labels.spacing_mm
    shown = drawn.mask if drawn.slices[0]["part"] is None else flat
    extent_mm = max(n * s for n, s in zip(shown.box.shape, spacing, strict=True))
    close_mm = float(np.clip(extent_mm + 2 * AROUND_MM, LEAST_MM, MOST_MM))
    whole = _Square.whole(host, view)
    overview = scene.panel(whole)
    scene.mark_close_up(overview, whole, close_mm)
    yield _bar(overview, whole.side_mm, 100)
    for one in PLANES:
        square = _Square(host, one, _pixel(host, one, scene.place), close_mm)
        panel = scene.panel(square)
        scene.mark_samples(panel, square)
        yield _bar(_lettered(panel, one), close_mm, 20)


def _middle(flat: Mask) -> Index3:
    """The voxel of a mask that lies nearest to its centre."""
    voxels = np.argwhere(flat.region.array)
    nearest = voxels[int(np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1)))]
    i, j, k = (int(n) + o for n, o in zip(nearest, flat.box.start_ijk, strict=True))
    return i, j, k


def _layers(drawn: DrawnMask) -> Iterator[tuple[tuple[int, ...], Colour]]:
    """Label values to outline, and their colour; the last lie on top."""
    host, section = drawn.host, drawn.section
    organ = _values(host, section.required_labels() or section.painted_labels())
    avoided = _values(host, _avoided(drawn))
    named = set(host.label_names.values())
    yield tuple(named - {*organ, *avoided}), OTHER
    yield avoided, AVOIDED
    yield organ, ORGAN


def _avoided(drawn: DrawnMask) -> tuple[str, ...]:
    section = drawn.section
    if not isinstance(section, Transplant):
        return ()
    return tuple(name for name in (section.label, *section.accept.avoid) if name != section.into)


def _values(host: Case, names: Sequence[str]) -> tuple[int, ...]:
    known = [n for n in dict.fromkeys(names) if n in host.label_names or n in host.unions]
    return tuple(value for name in known for value in host.values_of(name))


def _window(drawn: DrawnMask) -> Window:
    under = drawn.host.scan().array[drawn.mask.box.slices][drawn.mask.region.array]
    return window_for(drawn.mask.label, float(under.mean()))


def _caption(drawn: DrawnMask) -> list[list[Span]]:
    """Whose mask it is, and its numbers beside the limits of the recipe."""
    spec, facts, section = drawn.specs[0], drawn.mask.facts, drawn.section
    donor = f" <- {drawn.donor.case_id}" if drawn.donor is not None else ""
    label = drawn.mask.label or section.unnamed_paint
    into = f" in {section.into}" if isinstance(section, Transplant) else ""
    slices = f", {len(drawn.slices)} slices" if len(drawn.slices) > 1 else ""
    extent = " x ".join(f"{e:.0f}" for e in facts["extent_mm"])
    title = f"{spec.lesion_id}{donor}: {label}{into}, {facts['volume_ml']:.3g} ml"
    lines: list[list[Span]] = [[(f"{title}, {extent} mm{slices}", (255, 255, 255))]]
    if isinstance(section, Transplant):
        accept = section.accept
        clearance = clearance_mm(drawn)
        lines.append(
            [
                _number("inside", facts["inside_fraction"], least=accept.inside_fraction),
                _number("of organ", facts["organ_fraction"], most=accept.organ_fraction),
                _number("clearance", clearance, least=accept.clearance_mm, unit=" mm"),
                _number("soft tissue", facts["soft_tissue_fraction"],
                        most=accept.soft_tissue_fraction),
                _number("cut off", facts["clipped_fraction"], most=accept.clipped_fraction),
            ]
        )  # fmt: skip
        seat = facts["donor_lesion"]["seat"]
        was = f" (donor {seat['exophytic_share']:.2f})" if seat else ""
        bent = f"{facts['jacobian_min']:.2f} to {facts['jacobian_max']:.2f}"
        rest = f"outside the organ {facts['exophytic_share']:.2f}{was}   Jacobian {bent}   "
        scale, attempt = drawn.params["scale"], f"{facts['attempt']} of {section.tries}"
        lines.append([(f"{rest}scale {scale:.2f}   try {attempt}", TEXT)])
    return lines


def _number(
    name: str,
    value: float | None,
    *,
    least: float | None = None,
    most: float | None = None,
    unit: str = "",
) -> Span:
    """A number with its limit, in the mask's colour where it is near to it."""
    shown = f"> {CLEARANCE_REACH_MM:.0f}" if value is None else f"{value:.2f}"
    shown += unit
    limit = f"at least {least:g}" if least is not None else f"at most {most:g}"
    near = value is not None and (
        (least is not None and value < least * (1 + NEAR_LIMIT))
        or (most is not None and value > most * (1 - NEAR_LIMIT) and value > 0)
    )
    return f"{name} {shown} ({limit})   ", MASK if near else TEXT


def clearance_mm(drawn: DrawnMask) -> float | None:
    """Distance from the mask to the nearest voxel of what it keeps clear of; None if far."""
    host, mask = drawn.host, drawn.mask
    organ = _values(host, drawn.section.required_labels())
    values = [v for v in _values(host, _avoided(drawn)) if v not in organ]
    affine = host.labels.affine
    wide = mask.box.grow(voxels_within(CLEARANCE_REACH_MM, affine)).clip(host.labels.shape)
    near = np.isin(host.labels.array[wide.slices], values)
    if not near.any():
        return None
    inside = seen_through(wide, mask.region.array, mask.box)
    away_mm = distances_mm(~near, affine, reach_mm=CLEARANCE_REACH_MM)
    least_mm = float(away_mm[inside].min())
    return least_mm if least_mm <= CLEARANCE_REACH_MM else None


def _spacing(host: Case, view: Plane) -> tuple[float, float]:
    """Size in mm of a pixel of the picture along rows and columns."""
    row, column, _ = PICTURE_AXES[view]
    spacing = host.labels.spacing_mm
    return spacing[row], spacing[column]


def _slice(volume: Volume, index: int, view: Plane) -> Array:
    """A slice of a canonical volume as a picture (rows, columns)."""
    return to_picture(volume.slab(VIEW_AXIS[view], index).array, view)


def _pixel(host: Case, view: Plane, place: Sequence[int]) -> tuple[float, float]:
    """Row and column of a voxel in the picture of its slice."""
    last = [n - 1 for n in host.labels.shape]
    row, column, _ = PICTURE_AXES[view]
    return float(last[row] - place[row]), float(last[column] - place[column])


def _sample(picture: Array, grid: npt.NDArray[np.float64], order: Literal[0, 1]) -> Array:
    """Values of a picture at the places of a grid; outside is black, or nothing."""
    from scipy.ndimage import map_coordinates

    outside = -9999 if picture.dtype == np.int16 else 0
    return np.asarray(map_coordinates(picture, grid, order=order, cval=outside))


def _edge(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The inner edge of a region; not where the panel cuts it off."""
    from scipy.ndimage import binary_erosion

    return region & ~binary_erosion(region, border_value=1)


def _lettered(panel: Rgb, view: Plane) -> Rgb:
    """With letters for the patient's directions at the left and upper edge."""
    image = Image.fromarray(panel)
    draw = ImageDraw.Draw(image)
    left, top = EDGES[view]
    draw.text((10, PANEL / 2 - 6), left, fill=TEXT)
    draw.text((PANEL / 2 - 3, 9), top, fill=TEXT)
    return np.array(image)


def _bar(panel: Rgb, side_mm: float, length_mm: int) -> Rgb:
    """With a scale bar at the lower left."""
    image = Image.fromarray(panel)
    draw = ImageDraw.Draw(image)
    end = 6 + length_mm * PANEL / side_mm
    draw.line((6, PANEL - 6, end, PANEL - 6), fill=(255, 255, 255), width=2)
    draw.text((6, PANEL - 20), f"{length_mm} mm", fill=(255, 255, 255))
    return np.array(image)
