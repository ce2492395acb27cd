"""What pages are made of: the base template, files of a package, and a policy of what may load."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined

#: The package of what all pages share.
PAGES = "synthct.publish.pages"


def fill_template(values: Mapping[str, Any], package: str) -> str:
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


def asset(name: str, package: str) -> str:
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
