"""The template of the page, and files and pictures in the form that it takes."""

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
    """The same in several windows, one of which is shown.

    Attributes:
        name: What it shows.
        images: Data URI by the class of its window.
        width: In pixels.
        height: In pixels.
        notes: Lines beneath the name.
    """

    name: str
    images: Mapping[str, str]
    width: int
    height: int
    notes: Sequence[str] = ()


def pictured(
    name: str, pictures: Mapping[str, Rgb], size_mm: tuple[float, float], notes: Sequence[str] = ()
) -> Picture:
    """A picture of height and width ``size_mm``, by the class of its window."""
    height, width = size_mm
    uris = {key: data_uri(picture) for key, picture in pictures.items()}
    return Picture(name, uris, _WIDTH, round(_WIDTH * height / width), notes)


def fill_template(values: Mapping[str, Any]) -> str:
    """``page.html`` with values, which are escaped wherever they stand."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["count"] = "{:,}".format
    return environment.from_string(asset("page.html")).render(values).lstrip()


def asset(name: str) -> str:
    """A text file that comes with this package."""
    return files("synthct.publish.report").joinpath(*name.split("/")).read_text(encoding="utf-8")


def hashed(source: str) -> str:
    """A script or style as a content security policy names it."""
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
