"""Format 1.0.0, as the first datasets were written, read as today's.

Format 1.1.0 added columns (``added``), the sample's names in its provenance, ``files_id`` and roots
in the manifest, and sources, licence and labels in the lock. Here is all else that knows of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from synthct.errors import VerifyError

FIRST_FORMAT = "1.0.0"

#: Masks of this kind are files of the host's own case, whom the columns do not call a donor.
_OWN = "own"


def is_first(facts: Mapping[str, Any]) -> bool:
    """Whether a row's provenance is of format 1.0.0."""
    return bool(facts["versions"]["format"] == FIRST_FORMAT)


def first_row_problems(
    columns: Mapping[str, Any], facts: Mapping[str, Any], split: str
) -> Iterator[str]:
    """What a row's columns say otherwise than its provenance; holds for every format."""
    host, donor = facts["host"], facts["donor"] or {"case": None, "patient": None}
    stated = {
        "sample_id": facts["sample_id"],
        "case_id": host["case"],
        "patient_id": host["patient"],
        "donor_case_id": donor["case"],
        "donor_patient_id": donor["patient"],
        "mask_name": facts["mask"]["name"],
    }
    if facts["mask"].get("kind") == _OWN:
        del stated["donor_case_id"], stated["donor_patient_id"]
    for name, value in stated.items():
        if columns[name] != value:
            yield f"column '{name}' is not what the provenance says"
    if facts["split"] != split:
        yield f"belongs to split '{facts['split']}', not to '{split}'"


def lock_of(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The lock of a dataset in today's fields; what it lacks stands in the recipe and the card.

    Raises:
        VerifyError: If recipe or card are not those of format 1.0.0.
    """
    try:
        sections = _recipe(folder)["sources"]
        sources = {
            name: {key: sections[name][key] for key in ("layout", "licence", "attribution")}
            | {"cases": cases}
            for name, cases in content["sources"].items()
        }
        card = (folder / "README.md").read_text(encoding="utf-8")
        licence = re.search(r"^Licence of this dataset: \[(.+?)\]\(", card, re.M)
        labels = re.findall(r"^\| (\d+) \| `(.+)` \|$", card, re.M)
    except (OSError, KeyError, TypeError, ValueError) as err:
        raise VerifyError(f"{folder} is damaged ({err!r}); take it from its source") from err
    unknown: dict[str, Any] = {"licence": None, "licences": [], "attributions": [], "cases": 0}
    return {
        **{key: value for key, value in content.items() if key != "plan_id"},
        "plan": {"id": content["plan_id"], "limit": None, "notes": []},
        "licence": licence[1] if licence else None,
        "labels": {name: int(value) for value, name in labels},
        "sources": sources,
        "left_out": [],
        "checkpoint": content["checkpoint"] | unknown | {"range_hu": [-1024.0, 3071.0]},
    }


def recipe_id(folder: Path) -> str:
    """Hash of a stored recipe of format 1.0.0, whose keys today's recipes need not have."""
    text = json.dumps(_recipe(folder), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _recipe(folder: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        recipe = YAML(typ="safe", pure=True).load((folder / "recipe.yaml").read_text("utf-8"))
    except YAMLError as err:
        raise VerifyError(f"{folder / 'recipe.yaml'} is no YAML ({err})") from err
    return dict(recipe)
