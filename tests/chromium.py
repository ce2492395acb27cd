"""A real browser; tests that import this are skipped where there is no Chromium or playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

#: Set by ``.ci/run``, where these tests must run.
IS_NEEDED = "SYNTHCT_NEEDS_BROWSER" in os.environ

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if IS_NEEDED:
    assert CHROMIUM, "there is no Chromium, and SYNTHCT_NEEDS_BROWSER is set"
    from playwright import sync_api
else:
    sync_api = pytest.importorskip("playwright.sync_api")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@contextmanager
def started(*switches: str) -> Iterator[Any]:
    """A browser without a window."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *switches]
        )
        yield browser
        browser.close()


@contextmanager
def watched(browser: Any, address: str) -> Iterator[Any]:
    """An open page, which must have complained of nothing in the end and asked nobody else."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    told: list[str] = []
    page.on("request", lambda request: told.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
    page.goto(address)
    yield page
    own = ("data:image/png", "blob:", address)
    outside = [line for line in told if not line.startswith(own)]
    context.close()
    assert outside == []
