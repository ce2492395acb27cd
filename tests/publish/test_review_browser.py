"""The review in a real browser: skipped where there is no Chromium or no playwright."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import needs_chromium, started, watched
from evaluated import fresh, write_dataset
from hostile import HOSTILE

from synthct.dataset.verdicts import read_verdicts
from synthct.publish.pages.server import serving
from synthct.publish.review.page import site, write_page
from synthct.publish.review.table import Reviewed

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review-browser")
    return write_dataset(folder / "d/1.0.0", fresh, patients=1, masks=3,
                         labels=(HOSTILE, "kidney"), prefix=HOSTILE)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as browser:
        yield browser


def progress(page: Any, text: str) -> None:
    page.locator(f"#progress:has-text('{text}')").wait_for(timeout=5000)


def test_every_sample_is_decided_on_by_keyboard(
    browser: Any, dataset: Path, tmp_path: Path
) -> None:
    reviewed = Reviewed(dataset, tmp_path / "table.csv")
    with serving(site(reviewed)) as address, watched(browser, address) as page:
        progress(page, "sample 1 of 3; 0 accepted, 0 rejected, 3 undecided")
        assert page.inner_text("#name") == reviewed.rows.facts[0]["sample_id"]
        page.keyboard.press("a")
        progress(page, "sample 2 of 3; 1 accepted")
        page.keyboard.press("c")
        page.keyboard.type("a seam, left")  # letters are text here, no commands
        page.keyboard.press("Enter")
        page.keyboard.press("r")
        progress(page, "sample 3 of 3; 1 accepted, 1 rejected, 1 undecided")
        page.keyboard.press("ArrowLeft")
        progress(page, "sample 2 of 3")
        page.locator("#comment").evaluate("e => new Promise(r => setTimeout(r, 100))")
        assert page.input_value("#comment") == "a seam, left"
        assert page.get_attribute("#reject", "aria-pressed") == "true"
        page.keyboard.press("u")
        progress(page, "1 accepted, 0 rejected, 2 undecided")
        page.keyboard.press("r")
        progress(page, "sample 3 of 3; 1 accepted, 1 rejected")
    verdicts = list(read_verdicts(reviewed.table).values())
    assert [(one.decision, one.comment) for one in verdicts] == [
        ("accept", ""), ("reject", "a seam, left"),
    ]  # fmt: skip
    again = Reviewed(dataset, reviewed.table)
    with serving(site(again)) as address, watched(browser, address) as page:
        progress(page, "sample 3 of 3; 1 accepted, 1 rejected, 1 undecided")


def test_windows_and_outline_are_switched(browser: Any, dataset: Path, tmp_path: Path) -> None:
    with (
        serving(site(Reviewed(dataset, tmp_path / "table.csv"))) as address,
        watched(browser, address) as page,
    ):
        page.locator("#pictures img.soft").first.wait_for()
        for key, css in {"2": "lung", "3": "bone", "1": "soft"}.items():
            page.keyboard.press(key)
            assert page.locator(f"#pictures img.{css}").first.is_visible()
            assert page.locator("#pictures img:visible:not(.rim)").count() == 2  # after, before
        assert page.locator("img.rim").first.is_visible()
        page.keyboard.press("o")
        assert not page.locator("img.rim").first.is_visible()
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("script").count() == 1  # names with tags in them stay text


def test_a_page_without_a_server_saves_the_table(
    browser: Any, dataset: Path, tmp_path: Path
) -> None:
    path = tmp_path / "review.html"
    reviewed = Reviewed(dataset, tmp_path / "none.csv")
    write_page(reviewed, path)
    with watched(browser, path.as_uri()) as page:
        page.keyboard.press("c")
        page.keyboard.type('said "no", twice')
        page.keyboard.press("Escape")
        page.keyboard.press("r")
        progress(page, "sample 2 of 3; 0 accepted, 1 rejected")
        page.keyboard.press("a")
        progress(page, "sample 3 of 3; 1 accepted, 1 rejected")
        with page.expect_download() as saved:
            page.keyboard.press("s")
        assert saved.value.suggested_filename == "none.csv"
        saved.value.save_as(reviewed.table)
    verdicts = [Reviewed(dataset, reviewed.table).verdict(n) for n in range(3)]
    assert [one and (one.decision, one.comment) for one in verdicts] == [
        ("reject", 'said "no", twice'), ("accept", ""), None,
    ]  # fmt: skip


@pytest.mark.long
def test_the_page_says_when_a_decision_cannot_be_written(
    browser: Any, dataset: Path, tmp_path: Path
) -> None:
    reviewed = Reviewed(dataset, tmp_path / "gone/table.csv")
    with serving(site(reviewed)) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        progress(page, "sample 1 of 3")
        page.locator("#pictures img").first.wait_for()
        page.keyboard.press("a")
        page.locator("#problem:has-text('table.csv')").wait_for(timeout=5000)
        progress(page, "sample 1 of 3; 0 accepted")
        context.close()
