"""Lesions in the report's viewer, in a real browser that draws by software."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import needs_chromium, started, watched
from hostile import HOSTILE
from lesion_rows import make_host, slices_of, write_lesions
from PIL import Image

from synthct.dataset.tiles import windowed
from synthct.publish.report.pictures import rim
from synthct.publish.report.run import write_report
from synthct.volume.intensity import BONE, LUNG, SOFT_TISSUE, Window
from synthct.volume.views import VIEW_AXIS, Plane, to_picture

pytestmark = [needs_chromium, pytest.mark.long]

HOST = make_host(variants=1)

#: Size of the pixels of a picture, along rows' and along columns' index.
SPACING: dict[Plane, tuple[float, float]] = {
    "axial": (0.8, 0.8), "coronal": (2.5, 0.8), "sagittal": (2.5, 0.8),
}  # fmt: skip

SOFTWARE = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def write_page(folder: Path, view: Plane = "axial") -> Path:
    """A report of one lesion, named by somebody who means ill."""
    dataset = write_lesions(
        folder / "d/1.0.0", [HOST], view, lesion_id=HOSTILE, label=HOSTILE, keep_original=False
    )
    return write_report(dataset, folder / "out")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("viewer"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started(*SOFTWARE) as browser:
        yield browser


@contextmanager
def opened(browser: Any, report: Path) -> Iterator[Any]:
    """A page with its lesion opened; in the end it has fetched and complained of nothing."""
    with watched(browser, report.as_uri()) as page:
        page.click(".lesion button")
        page.locator("output:has-text('slice')").wait_for()
        yield page


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    with opened(browser, report) as page:
        yield page


def voxels(page: Any, view: Plane = "axial") -> np.ndarray:
    """What the canvas shows at the centre of each voxel of the slice: RGB, (rows, columns, 3)."""
    page.wait_for_timeout(50)
    shown = page.locator("canvas").screenshot()
    canvas = np.asarray(Image.open(io.BytesIO(shown)).convert("RGB")).astype(int)
    rows, columns = to_picture(HOST.lesion.take([0], VIEW_AXIS[view]), view).shape
    tall, wide = (n * s for n, s in zip((rows, columns), SPACING[view], strict=True))
    height, width = canvas.shape[:2]
    scale = min(height / tall, width / wide)
    y = (height - scale * tall) / 2 + scale * tall * (np.arange(rows) + 0.5) / rows
    x = (width - scale * wide) / 2 + scale * wide * (np.arange(columns) + 0.5) / columns
    return canvas[y.astype(int)][:, x.astype(int)]


def expected(view: Plane, index: int, window: Window = SOFT_TISSUE) -> np.ndarray:
    """The slice that is shown, in a window, as the flat pictures have it."""
    hu = to_picture(HOST.painted[0].take([index], VIEW_AXIS[view]), view)
    return windowed(hu, window)[..., 0].astype(int)


def likeness(shown: np.ndarray, truth: np.ndarray) -> float:
    """Correlation of greys."""
    return float(np.corrcoef(shown.mean(axis=-1).ravel(), truth.ravel())[0, 1])


@pytest.mark.parametrize("view", ["axial", "coronal", "sagittal"])
def test_slices_lie_as_radiologists_have_them(browser: Any, view: Plane, tmp_path: Path) -> None:
    with opened(browser, write_page(tmp_path, view)) as page:
        page.uncheck(".overlay")
        slices = slices_of(HOST, view)
        for number in (1, len(slices) - 2):
            page.fill(".slice", str(number))
            shown, truth = voxels(page, view), expected(view, slices[number])
            assert likeness(shown, truth) > 0.98
            assert max(likeness(shown[::-1], truth), likeness(shown[:, ::-1], truth)) < 0.95
            assert page.inner_text("output").startswith(f"slice {number + 1} of {len(slices)};")
        assert likeness(voxels(page, view), expected(view, slices[1])) < 0.98


def test_the_mask_is_outlined_and_nothing_in_it_is_covered(page: Any) -> None:
    middle = slices_of(HOST, "axial")[3]
    page.fill(".slice", "3")
    with_rim = voxels(page)
    page.uncheck(".overlay")
    without = voxels(page)
    page.check(".overlay")
    assert np.array_equal(voxels(page), with_rim)
    changed = np.abs(with_rim - without).max(axis=-1) > 40
    mask = to_picture(HOST.lesion[:, :, [middle]], "axial")
    assert np.count_nonzero(changed & rim(mask)) > 0.9 * np.count_nonzero(rim(mask))
    assert not (changed & ~rim(mask)).any()
    red, _, blue = with_rim[changed].T
    assert (red > blue).all()


def test_wheel_and_planes_scroll_and_a_click_tells_the_hu(page: Any) -> None:
    canvas = page.locator("canvas")
    before, top = voxels(page), page.evaluate("window.scrollY")
    canvas.hover(position={"x": 320, "y": 240})
    page.mouse.wheel(0, 100)
    assert not np.array_equal(voxels(page), before)
    assert page.evaluate("window.scrollY") == top
    canvas.click(position={"x": 320, "y": 240})
    assert "HU where you clicked" in page.inner_text("output")
    page.select_option(".plane", "coronal")
    assert page.inner_text("output").partition(";")[0].endswith("of 40")
    page.select_option(".plane", "all")
    assert len(np.unique(voxels(page))) > 20


def test_it_is_shown_in_the_window_of_the_page(page: Any) -> None:
    index = slices_of(HOST, "axial")[1]
    page.fill(".slice", "1")
    outside = ~to_picture(HOST.lesion[:, :, [index]], "axial")
    outside &= ~rim(~outside)
    for key, window in {
        "soft": SOFT_TISSUE,
        "lung": LUNG,
        "bone": BONE,
        "soft ": SOFT_TISSUE,
    }.items():
        page.check(f"#w-{key.strip()}")
        off = np.abs(voxels(page).mean(axis=-1) - expected("axial", index, window))[outside]
        assert np.median(off) <= 2, key


def test_names_stay_text(page: Any) -> None:
    assert page.locator(".lesion h3 bdi").first.inner_text().startswith(HOSTILE[:60])
    assert page.locator("script").count() == 3  # those of the page, and the viewer's library
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert len(np.unique(voxels(page))) > 20


def test_without_webgl_the_page_says_so_and_shows_pictures(browser: Any, report: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(report.as_uri())
    page.click(".lesion button")
    assert "no WebGL 2" in page.inner_text(".message")
    assert not page.locator("canvas").is_visible()
    pictures = page.locator(".lesion img.soft")
    assert pictures.count() == 6
    assert all(picture.is_visible() for picture in pictures.all())
    context.close()


def test_before_after_and_difference_are_shown_in_turn(browser: Any, tmp_path: Path) -> None:
    dataset = write_lesions(tmp_path / "d/1.0.0", [HOST], "axial", keep_original=True)
    index = slices_of(HOST, "axial")[2]
    with opened(browser, write_report(dataset, tmp_path / "out")) as page:
        page.uncheck(".overlay")
        page.fill(".slice", "2")
        after = voxels(page)
        page.select_option(".shown", "before")
        real = to_picture(HOST.case.scan().array[:, :, [index]], "axial")
        before = voxels(page)
        assert likeness(before, windowed(real, SOFT_TISSUE)[..., 0]) > 0.98
        page.check(".overlay")
        coloured = np.ptp(voxels(page), axis=-1) > 20
        outline = rim(to_picture(HOST.lesion[:, :, [index]], "axial"))
        assert coloured[outline].any()
        assert not (coloured & ~outline).any()
        page.uncheck(".overlay")
        page.select_option(".shown", "difference")
        outside = ~to_picture(HOST.lesion[:, :, [index]], "axial")
        outside &= ~rim(~outside)
        grey = voxels(page)[outside]
        assert np.ptp(grey) <= 4  # nothing has changed there
        page.select_option(".shown", "image")
        assert np.array_equal(voxels(page), after)
        assert not np.array_equal(before, after)
