"""The contact sheet of planned masks: what is where in its panels, and the numbers beneath."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from conftest import TINY_LABELS, make_tiny_case
from PIL import Image
from planned import entry

from synthct.build.draw import DrawnMask
from synthct.build.plan_sheet import (
    AROUND_MM,
    AVOIDED,
    LEAST_MM,
    MASK,
    ORGAN,
    PANEL,
    TILES,
    clearance_mm,
    plan_sheet,
)
from synthct.masks.organ import Organ
from synthct.masks.slicing import draw_slices, slice_of
from synthct.masks.transplant import Transplant
from synthct.recipe.plan import SampleSpec
from synthct.volume.case import Case
from synthct.volume.views import PLANES, VIEW_AXIS, Plane

SPACING = (0.8, 0.8, 2.5)
TUMORS = Transplant(
    name="tumors", label="tumor", into="kidney", accept={"inside_fraction": 0.5, "clearance_mm": 0}
)
KIDNEY = Organ(name="kidneys", label="kidney", slices="largest")


def drawn_of(section: Any, view: Plane = "axial", host: Case | None = None) -> DrawnMask:
    host = host or make_tiny_case("host")
    donor = make_tiny_case("donor", noise_seed=1) if section.needs_donor else None
    rng = np.random.default_rng(0)
    params = section.draw(host, donor, rng)
    mask = section.build(host, donor, params)
    slices = draw_slices(mask, view, section.slices, section.max_extent_mm, rng)
    spec = SampleSpec("train", entry("host"), section, 0, 0, 0)
    return DrawnMask((spec,), section, host, donor, None, mask, params, tuple(slices))


def panels_of(drawn: DrawnMask, view: Plane = "axial") -> list[np.ndarray]:
    """The overview and the three close-ups of a sheet of one mask."""
    picture = picture_of(plan_sheet([drawn], view))
    return [picture[:PANEL, n * PANEL : (n + 1) * PANEL] for n in range(4)]


def picture_of(png: bytes | None) -> np.ndarray:
    assert png is not None
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def like(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.asarray((picture == colour).all(axis=2))


def close_mm(drawn: DrawnMask) -> float:
    """Side of a close-up."""
    sizes = [n * s for n, s in zip(drawn.mask.box.shape, SPACING, strict=True)]
    return float(max(LEAST_MM, max(sizes) + 2 * AROUND_MM))


def extents(found: np.ndarray) -> tuple[int, int]:
    """Number of rows and of columns from the first to the last true one."""
    rows, columns = (np.ptp(indices) + 1 for indices in np.nonzero(found))
    return int(rows), int(columns)


def extent_mm(found: np.ndarray, side_mm: float) -> tuple[float, float]:
    """Extent of true pixels of a panel along rows and columns."""
    per_pixel = side_mm / PANEL
    rows, columns = extents(found)
    return rows * per_pixel, columns * per_pixel


@pytest.mark.parametrize("view", PLANES)
def test_close_ups_show_the_mask_at_its_size_in_all_three_views(view: Plane) -> None:
    drawn = drawn_of(KIDNEY, view)
    (chosen,) = drawn.slices
    flat = slice_of(drawn.mask, view, chosen)
    side_mm = close_mm(drawn)
    whole = drawn.mask.in_host(drawn.host.labels.shape)
    middle = np.argwhere(flat.region.array).mean(axis=0) + flat.box.start_ijk
    for one, panel in zip(PLANES, panels_of(drawn, view)[1:], strict=True):
        axis = VIEW_AXIS[one]
        seen = np.take(whole, round(float(middle[axis])), axis=axis)
        first, second = (s for a, s in enumerate(SPACING) if a != axis)
        rows, columns = extents(seen)
        found = extent_mm(like(panel, MASK), side_mm)
        # A picture's rows are the second axis of the slice. Half a voxel fades out at either end.
        assert found[0] == pytest.approx(columns * second, abs=second + 1)
        assert found[1] == pytest.approx(rows * first, abs=first + 1)


def test_the_overview_shows_the_same_mask_on_the_whole_slice() -> None:
    drawn = drawn_of(KIDNEY)
    overview, close, *_ = panels_of(drawn)
    sides = 48 * 0.8, close_mm(drawn)
    sizes = [extent_mm(like(p, MASK), s) for p, s in zip((overview, close), sides, strict=True)]
    assert sizes[0] == pytest.approx(sizes[1], abs=0.8)


def test_organs_and_what_is_kept_clear_of_have_their_colours() -> None:
    host = make_tiny_case("host")
    panels = panels_of(drawn_of(TUMORS, host=host))
    assert all(like(panel, ORGAN).sum() > 20 for panel in panels)
    assert all(like(panel, MASK).sum() > 20 for panel in panels)
    assert any(like(panel, AVOIDED).sum() > 5 for panel in panels)


@pytest.mark.parametrize("slices", ["largest", "all"])
def test_ticks_mark_the_slices_that_become_samples(slices: Any) -> None:
    drawn = drawn_of(KIDNEY.model_copy(update={"slices": slices}))
    _, axial, coronal, sagittal = panels_of(drawn)
    white = (255, 255, 255)
    for panel in (coronal, sagittal):
        assert int(like(panel, white)[:, 2].sum()) == len(drawn.slices)
    assert not like(axial, white)[:, 2].any()
    assert (len(drawn.slices) > 1) == (slices == "all")


def test_a_part_that_is_painted_is_outlined_thickly_within_the_thin_mask() -> None:
    panel = panels_of(drawn_of(KIDNEY.model_copy(update={"max_extent_mm": 6.0})))[1]
    row = like(panel, MASK)[PANEL // 2].astype(int)
    starts, stops = np.flatnonzero(np.diff(row) == 1), np.flatnonzero(np.diff(row) == -1)
    outer, *inner, last = (stops - starts).tolist()
    assert (outer, last) == (1, 1)
    assert len(inner) == 2
    assert min(inner) >= 2


def test_clearance_is_the_distance_to_what_is_avoided() -> None:
    host = make_tiny_case("host")
    drawn = drawn_of(TUMORS, host=host)
    mask = np.argwhere(drawn.mask.in_host(host.labels.shape)) * SPACING
    tumor = np.argwhere(host.labels.array == TINY_LABELS["tumor"]) * SPACING
    nearest = np.sqrt(((mask[:, None] - tumor[None]) ** 2).sum(axis=2)).min()
    assert clearance_mm(drawn) == pytest.approx(nearest)
    host.labels.array[host.labels.array == TINY_LABELS["tumor"]] = 0
    assert clearance_mm(drawn) is None


@pytest.mark.long
def test_a_sheet_holds_so_many_masks_and_no_more() -> None:
    drawn = drawn_of(KIDNEY)
    one, two, many = (picture_of(plan_sheet([drawn] * n, "axial")).shape for n in (1, 2, 99))
    full = picture_of(plan_sheet([drawn] * TILES, "axial")).shape
    assert one[1] == two[1]
    assert two[0] == 2 * one[0]
    assert many == full
    assert many[1] == 2 * one[1]
    assert plan_sheet([], "axial") is None
