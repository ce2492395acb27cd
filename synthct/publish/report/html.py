"""The template of the page, and its inputs: pictures, scripts and styles."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined

from synthct.dataset.tiles import Rgb
from synthct.publish.report.pictures import data_uri

#: Width of a picture on a wide page, in pixels.
_WIDTH = 180


class Picture(NamedTuple):
    """A picture in several windows, one of which is visible.

    Attributes:
        name: Caption.
        images: CSS class of the window to data URI.
        width: In pixels.
        height: In pixels.
        notes: Lines below the caption.
    """

    name: str
    images: Mapping[str, str]
    width: int
    height: int
    notes: Sequence[str] = ()


def pictured(
    name: str, pictures: Mapping[str, Rgb], size_mm: tuple[float, float], notes: Sequence[str] = ()
) -> Picture:
    """A picture of height and width ``size_mm``, from arrays by window."""
    height, width = size_mm
    uris = {key: data_uri(picture) for key, picture in pictures.items()}
    return Picture(name, uris, _WIDTH, round(_WIDTH * height / width), notes)


def fill_template(values: Mapping[str, Any]) -> str:
    """Render ``page.html``; all values are escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["count"] = "{:,}".format
    return environment.from_string(asset("page.html")).render(values).lstrip()


def asset(name: str) -> str:
    """A text file of this package."""
    return files("synthct.publish.report").joinpath(*name.split("/")).read_text(encoding="utf-8")


def hashed(source: str) -> str:
    """The hash of a script or style for a content security policy."""
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
