"""The template of the page, and its inputs: pictures, scripts and styles."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jinja2 import DictLoader, Environment, StrictUndefined
from PIL import Image

from synthct.dataset.tiles import Rgb
from synthct.publish.report.pictures import data_uri, rim_picture

_HERE = "synthct.publish.report"
#: Of what all pages share.
PAGES = "synthct.publish.pages"

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
        rim: Data URI of the mask's outline, which lies over the picture and can be switched off.
    """

    name: str
    images: Mapping[str, str]
    width: int
    height: int
    notes: Sequence[str] = ()
    rim: str | None = None


def pictured(
    name: str,
    pictures: Mapping[str, Rgb],
    size_mm: tuple[float, float],
    notes: Sequence[str] = (),
    *,
    mask: npt.NDArray[np.bool_] | None = None,
) -> Picture:
    """A picture of height and width ``size_mm``, from arrays by window.

    Args:
        name: Caption.
        pictures: CSS class of the window to picture.
        size_mm: Height and width.
        notes: Lines below the caption.
        mask: What the outline is around; None for no outline.
    """
    height, width = size_mm
    uris = {key: data_uri(_in_proportion(picture, size_mm)) for key, picture in pictures.items()}
    rim = None if mask is None else data_uri(_in_proportion(rim_picture(mask), size_mm))
    return Picture(name, uris, _WIDTH, round(_WIDTH * height / width), notes, rim)


def _in_proportion(picture: Rgb, size_mm: tuple[float, float]) -> Rgb:
    """A picture with square pixels: browsers go by the pixels of a file, not by millimetres.

    Of two sizes of a pixel the smaller one is kept, and the other is repeated.
    """
    rows, columns = picture.shape[:2]
    pixel_mm = min(size_mm[0] / rows, size_mm[1] / columns)
    height, width = (round(length / pixel_mm) for length in size_mm)
    if (height, width) == (rows, columns):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST))


def fill_template(values: Mapping[str, Any], package: str = _HERE) -> str:
    """Render the ``page.html`` of a package, which extends ``pages/base.html``.

    All values are escaped. Those of the base are ``title``, ``style``, ``policy``, and ``script``,
    which may be empty.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=DictLoader({"base.html": asset("base.html", PAGES)}),
    )
    environment.filters["count"] = "{:,}".format
    return environment.from_string(asset("page.html", package)).render(values).lstrip()


def asset(name: str, package: str = _HERE) -> str:
    """A text file of a package."""
    return files(package).joinpath(*name.split("/")).read_text(encoding="utf-8")


def policy_of(style: str, *scripts: str) -> str:
    """A content security policy: this style, these scripts, pictures in the page, nothing else."""
    allowed = f"default-src 'none'; img-src data:; style-src {_hashed(style)}"
    if scripts:
        allowed += f"; script-src {' '.join(map(_hashed, scripts))}"
    return f"{allowed}; base-uri 'none'; form-action 'none'"


def _hashed(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
