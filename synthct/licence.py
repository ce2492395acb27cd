"""Which licence follows from those of the sources: the strictest, where they can be combined.

A cautious reading, not legal advice. Hosts, donors (a shape counts) and the scans that the
checkpoint was trained on are all sources.
"""

from __future__ import annotations

from collections.abc import Iterable

from synthct.errors import PolicyError

#: From loosest to strictest; a work made from several takes the last of them.
_ORDER = (
    "CC0-1.0",
    "MIT",
    "Apache-2.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-NC-3.0",
    "CC-BY-NC-4.0",
    "CC-BY-NC-SA-4.0",
)

#: Licences that the Hub knows by an id of its own: SPDX in lower case.
_HUB_IDS = frozenset(
    {
        "apache-2.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-4.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "mit",
    }
)


def hub_fields(licence: str | None) -> dict[str, str]:
    """The licence in the YAML header of a card, as the Hub reads it."""
    if licence is None:
        return {"license": "unknown"}
    if licence.lower() in _HUB_IDS:
        return {"license": licence.lower()}
    return {"license": "other", "license_name": " ".join(licence.split())}


def licence_of(sources: Iterable[str | None], *, stated: str | None = None) -> str | None:
    """The licence of a dataset or checkpoint made from sources.

    Args:
        sources: SPDX ids; None where a source's licence is unknown.
        stated: What the recipe says; may be stricter, never looser.

    Returns:
        An SPDX id; None if a source's licence is unknown or unheard of and nothing is stated.

    Raises:
        PolicyError: If the recipe states a looser licence than its sources allow.
    """
    found = list(dict.fromkeys(sources))
    unknown = [name for name in found if name not in _ORDER]
    if unknown:
        return stated
    derived = max(found, key=_ORDER.index) if found else None
    if stated is None or derived is None:
        return stated or derived
    if stated in _ORDER and _ORDER.index(stated) < _ORDER.index(derived):
        raise PolicyError(
            f"licence: {stated} is looser than {derived}, which follows from the sources "
            f"({', '.join(str(name) for name in found)}); state {derived} or leave it out"
        )
    return stated
