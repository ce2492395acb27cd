"""The page of a review: served to this machine alone, or as one file that needs no server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synthct.dataset.verdicts import COMMENT_CHARS
from synthct.publish.pages.server import Site
from synthct.publish.pages.template import PAGES, asset, fill_template, policy_of
from synthct.publish.review.table import Reviewed
from synthct.storage.files import atomic_write, make_folder

_HERE = "synthct.publish.review"

_WINDOW_NAMES = {"soft": "soft tissue", "lung": "lung", "bone": "bone"}


def site(reviewed: Reviewed) -> Site:
    """The page that asks the server for every sample and tells it every decision."""
    html, policy = _rendered(reviewed, None)
    return Site(html, policy, reviewed.item, reviewed.decide)


def write_page(
    reviewed: Reviewed, path: Path, *, advance: Callable[[], object] = lambda: None
) -> None:
    """Write a page with all samples in it, which saves the table as a download.

    Raises:
        VerifyError: If the dataset is damaged.
        ResourceError: If the file cannot be written.
    """
    items = []
    for number in range(len(reviewed.rows)):
        items.append(json.dumps(reviewed.item(number)))
        advance()
    make_folder(path.parent)
    atomic_write(path, _rendered(reviewed, items)[0].encode())


def _rendered(reviewed: Reviewed, items: list[str] | None) -> tuple[str, str]:
    """The page and its policy; ``items`` is None where they are served."""
    style, script = asset("page.css", PAGES), asset("page.js", _HERE)
    policy = policy_of(style, script) + ("; connect-src 'self'" if items is None else "")
    release = reviewed.release
    verdicts = [reviewed.verdict(n) for n in range(len(reviewed.rows))]
    start: dict[str, Any] = {
        "is_served": items is None,
        "table": reviewed.table.name,
        "decisions": [one.decision if one else "" for one in verdicts],
    }
    values = {
        "title": f"review of {release.name} {release.version}",
        "policy": policy,
        "style": style,
        "script": script,
        "start": json.dumps(start),
        "items": items or [],
        "windows": _WINDOW_NAMES,
        "comment_chars": COMMENT_CHARS,
        "table": reviewed.table.name,
        "is_served": items is None,
    }
    return fill_template(values, _HERE), policy
