"""The documentation site: ``sphinx-build -W docs site``.

Sphinx with MyST (pages in Markdown) and Furo: the generator of Python's own documentation, released
several times a year, reads Google-style docstrings itself. The reference of the command line is
written from the commands each time.
"""

from pathlib import Path

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from synthct.cli import app
from synthct.version import __version__

project = "synthct"
author = "The synthct authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links of included files, which are right where they lie

html_theme = "furo"
html_title = "synthct"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what an argument is
autodoc_class_signature = "separated"
autodoc_default_options = {"exclude-members": "__init__, __new__, model_config"}
napoleon_use_ivar = True
default_role = "code"

command = get_command(app)
commands = get_docs_for_click(obj=command, ctx=typer.Context(command), name="synthct")
Path(__file__).with_name("reference").joinpath("commands.md").write_text(
    commands.replace("# `synthct`", "# Command line", 1), encoding="utf-8"
)
