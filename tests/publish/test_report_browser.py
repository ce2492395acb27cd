"""The report in a real browser: skipped where there is no Chromium or no playwright."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import needs_chromium, started, watched
from evaluated import fresh, write_dataset
from hostile import HOSTILE

from synthct.publish.report.run import write_report

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    dataset = write_dataset(
        folder / "hostile/1.0.0", fresh, patients=2, masks=2, donor_case_id=HOSTILE,
        labels=(HOSTILE, HOSTILE[::-1]), prefix=HOSTILE,
    )  # fmt: skip
    return write_report(dataset, folder / "out")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The page, which must have fetched nothing and complained of nothing at the end."""
    with watched(browser, report.as_uri()) as page:
        yield page


def test_names_are_shown_and_nothing_of_them_runs(page: Any) -> None:
    for details in page.locator(".mask details").all():
        details.locator("summary").click()
    assert HOSTILE[:25] in page.locator("pre").first.inner_text()
    assert page.locator(".mask h3 bdi").first.inner_text().startswith(HOSTILE[:60])
    assert page.locator("img:not(.row img)").count() == 0
    assert page.locator("script").count() == 1


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_window(page: Any, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    for details in page.locator(".mask details").all():
        details.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = page.evaluate(
        "[...document.images].filter(i => i.checkVisibility()).every(i => i.naturalWidth > 0)"
    )
    assert shown


def test_windows_are_switched(page: Any) -> None:
    for key in ("lung", "bone", "soft"):
        page.check(f"#w-{key}")
        for other in ("soft", "lung", "bone"):
            assert page.locator(f"img.{other}").first.is_visible() is (other == key)


def test_the_outline_is_switched_off(page: Any) -> None:
    rim, picture = page.locator("img.rim").first, page.locator("figure:has(img.rim)").first
    assert rim.is_visible()
    assert rim.bounding_box() == picture.locator("img.soft").bounding_box()
    page.uncheck("#outline")
    assert not rim.is_visible()
    page.check("#outline")


def test_the_worst_come_first_on_demand(page: Any) -> None:
    masks = page.locator(".mask h3")
    before = masks.all_text_contents()
    values = [
        page.evaluate("e => JSON.parse(e.dataset.bad)", mask)
        for mask in page.query_selector_all(".mask")
    ]
    measure = next(iter(values[0]))
    # All rows of this dataset have the same measures, so one is made worse than the others.
    page.evaluate(
        "m => { const all = [...document.querySelectorAll('.mask')]; "
        "bad.set(all.at(-1), {[m]: 1e6}); }",
        measure,
    )
    page.select_option("#order", measure)
    assert masks.all_text_contents() == [before[-1], *before[:-1]]
    page.select_option("#order", "")
    assert masks.all_text_contents() == before


@pytest.mark.long
def test_the_policy_stops_what_is_put_into_the_page(browser: Any, report: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(report.as_uri())
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1'; "
        "document.body.append(s); const d = document.createElement('div'); "
        "d.innerHTML = '<img src=x onerror=\"window.ran = 1\">'; document.body.append(d); }"
    )
    page.wait_for_timeout(100)
    assert page.evaluate("window.ran === undefined")
    context.close()
