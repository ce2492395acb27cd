"""Where the scans of a recipe's sources are on this machine."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from synthct.errors import RecipeError
from synthct.recipe.yaml_errors import did_you_mean
from synthct.recipe.yaml_model import Document, read_yaml


def root_variable(source: str) -> str:
    """The variable for a source's root in a resolved recipe."""
    return f"${{{source.upper().replace('-', '_')}_ROOT}}"


def replace_roots(document: Document, roots: Mapping[str, Path]) -> None:
    """Put the roots of the command line into the document.

    Raises:
        RecipeError: If it has no such source, or one without a root.
    """
    written = document.value.get("sources")
    sections = written if isinstance(written, dict) else {}
    for name, root in roots.items():
        if name not in sections:
            hint = did_you_mean(name, list(sections))
            raise RecipeError(f"--source {name}={root}: the recipe has no source '{name}'{hint}")
        section = sections[name]
        if not isinstance(section, dict) or section.keys().isdisjoint({"root", "repo"}):
            message = f"--source {name}={root}: sources.{name} has no root that could be replaced"
            raise document.error(("sources", name), message, at_key=True)
        if "root" not in section:
            section.pop("repo")
            section.pop("revision", None)
        section["root"] = str(root)


def require_roots(path: Path, given: Collection[str]) -> None:
    """Check that what a dataset's own recipe leaves open is stated: where its scans are.

    Args:
        path: The resolved recipe, whose roots are variables such as ``${HOSTS_ROOT}``.
        given: Names of the sources whose roots are given otherwise.

    Raises:
        RecipeError: If the root of a source is neither given nor a variable of the environment.
    """
    sections = read_yaml(path).value.get("sources")
    missing = [
        name
        for name, section in (sections.items() if isinstance(sections, dict) else ())
        if name not in given
        and isinstance(section, dict)
        and section.get("root") == root_variable(name)
        and root_variable(name)[2:-1] not in os.environ
    ]
    if missing:
        options = " ".join(f"--source {name}=FOLDER" for name in missing)
        raise RecipeError(f"this needs the scans that the dataset was made from; give {options}")
