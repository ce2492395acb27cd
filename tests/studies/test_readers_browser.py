"""A reader in a real browser: skipped where there is no Chromium or no playwright."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import needs_chromium, started, watched
from evaluated import fresh, write_dataset

from synthct.publish.pages.server import serving
from synthct.studies.readers.page import site
from synthct.studies.readers.result import RESULT
from synthct.studies.readers.study import StudyFolder, open_study

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as browser:
        yield browser


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """Masks without a label, so that no scans are needed."""
    dataset = write_dataset(tmp_path / "d/1.0.0", fresh, patients=4, masks=1, labels=(None, None))
    return open_study(dataset, tmp_path / "study", pairs=2, seed=None, roots={}, cache_dir=tmp_path)


def progress(page: Any, text: str) -> None:
    page.locator(f"#progress:has-text('{text}')").wait_for(timeout=5000)


def test_a_reader_answers_by_keyboard_stops_and_goes_on(browser: Any, study: StudyFolder) -> None:
    with serving(site(study, "jane")) as address, watched(browser, address) as page:
        progress(page, "picture 1 of 4")
        page.keyboard.press("3")  # no guess yet, so this is no answer
        assert page.locator(".confidence").first.is_disabled()
        page.keyboard.press("r")
        page.keyboard.press("p")  # may be thought over until it is sent
        assert page.get_attribute("#painted", "aria-pressed") == "true"
        assert page.evaluate("document.querySelector('#picture').naturalWidth") > 0
        page.keyboard.press("4")
        progress(page, "picture 2 of 4")
        assert page.get_attribute("#painted", "aria-pressed") == "false"
        page.reload()
        progress(page, "picture 2 of 4")
        assert page.inner_text("#result") == ""
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert [one.rating for one in study.answers_of("jane").values()] == [4]
    assert not (study.folder / RESULT).exists()
    with serving(site(study, "jane")) as address, watched(browser, address) as page:
        for number in (2, 3, 4):
            progress(page, f"picture {number} of 4")
            page.click("#real")
            page.click(".confidence >> nth=0")
        progress(page, "all pictures are answered")
        assert not page.locator("#question").is_visible()
        assert "jane" in page.inner_text("#result")
    assert [one.rating for one in study.answers_of("jane").values()] == [4, -1, -1, -1]
    assert json.loads((study.folder / RESULT).read_text())["readers"].keys() == {"jane"}


@pytest.mark.long
def test_an_answer_that_was_given_elsewhere_meanwhile_stays(
    browser: Any, study: StudyFolder
) -> None:
    site_of_jane = site(study, "jane")
    with serving(site_of_jane) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        progress(page, "picture 1 of 4")
        site_of_jane.answer({"picture": "001", "guess": "real", "confidence": 5})
        page.keyboard.press("p")
        page.keyboard.press("1")
        page.locator("#problem:has-text('an answer stays')").wait_for(timeout=5000)
        context.close()
    assert study.answers_of("jane")["001"].rating == -5
