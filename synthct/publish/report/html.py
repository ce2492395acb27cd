"""Pieces of HTML that both the page and its viewer are made of."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from importlib.resources import files

from synthct.dataset.tiles import Rgb
from synthct.publish.report.pictures import data_uri

#: Width of a picture on a wide page, in pixels.
_WIDTH = 180


def text(words: str) -> str:
    """Text that is shown and does nothing, nor turns the direction of what is beside it."""
    return f"<bdi>{escape(words)}</bdi>"


def pictured(
    name: str, pictures: Mapping[str, Rgb], size_mm: tuple[float, float], more: str = ""
) -> str:
    """Pictures of the same in several windows, one of which is shown.

    Args:
        name: What they show.
        pictures: By the class of their window.
        size_mm: Height and width.
        more: HTML beneath the name.
    """
    height, width = size_mm
    size = f'width="{_WIDTH}" height="{round(_WIDTH * height / width)}"'
    images = "".join(
        f'<img class="{key}" {size} alt="{escape(name)}" src="{data_uri(picture)}">'
        for key, picture in pictures.items()
    )
    caption = f"{escape(name)}{f'<br>{more}' if more else ''}"
    return f"<figure>{images}<figcaption>{caption}</figcaption></figure>"


def asset(name: str) -> str:
    """A text file that comes with this package."""
    return files("synthct.publish.report").joinpath(*name.split("/")).read_text(encoding="utf-8")


def hashed(source: str) -> str:
    """A script or style as a content security policy names it."""
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
