"""The licence that follows from the licences of the sources, and combinations that are impossible.

A cautious reading, not legal advice. Hosts, donors (their shapes) and the scans that the checkpoint
was trained on are all sources, and a painted scan is an adaptation of each of them: share-alike
applies to it, no-derivatives forbids it, and two different share-alike licences exclude each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from synthct.errors import PolicyError


class Origin(NamedTuple):
    """A source of a dataset or checkpoint.

    Attributes:
        name: Name for messages, such as ``source 'donors'``.
        licence: SPDX id; None if unknown.
    """

    name: str
    licence: str | None


class Terms(NamedTuple):
    """Conditions of a licence for sharing an adaptation.

    Attributes:
        version: Version of a Creative Commons licence; 0 for others.
        attribution: The authors must be named.
        non_commercial: Commercial use is forbidden.
        share_alike: The adaptation must have the same licence, or a later version of it.
        no_derivatives: Adaptations must not be shared.
    """

    version: float = 0.0
    attribution: bool = False
    non_commercial: bool = False
    share_alike: bool = False
    no_derivatives: bool = False


#: SPDX ids of the licences that require attribution at most, from loosest to strictest.
_LOOSEST_FIRST = ("CC0-1.0", "PDDL-1.0", "MIT", "BSD-3-Clause", "Apache-2.0")

#: Their conditions; SPDX ids are compared in upper case.
_PERMISSIVE = {
    name.upper(): Terms(attribution=name not in ("CC0-1.0", "PDDL-1.0")) for name in _LOOSEST_FIRST
}

_TEXTS = {
    "APACHE-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "BSD-3-CLAUSE": "https://opensource.org/license/bsd-3-clause",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "MIT": "https://opensource.org/license/mit",
    "PDDL-1.0": "https://opendatacommons.org/licenses/pddl/1-0/",
}

_CREATIVE_COMMONS = re.compile(r"CC-BY(-NC)?(-SA|-ND)?-(2\.0|2\.5|3\.0|4\.0)")

#: Licences with an id on the Hub: SPDX in lower case.
_HUB_IDS = {
    "apache-2.0", "bsd-3-clause", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc0-1.0", "mit", "pddl",
}  # fmt: skip


def hub_fields(licence: str | None) -> dict[str, str]:
    """The licence fields for the YAML header of a card."""
    if licence is None:
        return {"license": "unknown"}
    lower = "pddl" if licence == "PDDL-1.0" else licence.lower()
    if lower in _HUB_IDS:
        return {"license": lower}
    return {"license": "other", "license_name": " ".join(licence.split())}


def licence_url(licence: str | None) -> str | None:
    """URL of a licence's text; None if unknown."""
    match = _CREATIVE_COMMONS.fullmatch((licence or "").upper())
    if match is not None and licence is not None:
        kind = licence.lower().removeprefix("cc-").rpartition("-")[0]
        return f"https://creativecommons.org/licenses/{kind}/{match[3]}/"
    return _TEXTS.get((licence or "").upper())


def terms_of(licence: str | None) -> Terms | None:
    """The conditions of a licence, by its SPDX id; None if it is not a known one."""
    name = (licence or "").upper()
    if name in _PERMISSIVE:
        return _PERMISSIVE[name]
    match = _CREATIVE_COMMONS.fullmatch(name)
    if match is None:
        return None
    non_commercial, kind, version = match.groups()
    return Terms(float(version), True, bool(non_commercial), kind == "-SA", kind == "-ND")


def licence_of(origins: Iterable[Origin], *, stated: str | None = None) -> str | None:
    """The licence of a dataset or checkpoint that is made from several sources.

    Args:
        origins: All sources.
        stated: The licence in the recipe; it may be stricter, never looser.

    Returns:
        An SPDX id; None if nothing is stated and a source's licence is unknown.

    Raises:
        PolicyError: If no licence allows the combination, or the recipe states a looser one than
            its sources allow.
    """
    chain = list(origins)
    known = [origin for origin in chain if terms_of(origin.licence) is not None]
    derived = _combined(known)
    if stated is None:
        return derived if len(known) == len(chain) else None
    if derived is not None and not _is_as_strict(stated, derived):
        raise PolicyError(
            f"licence: {stated} is looser than {derived}, which follows from the sources "
            f"({_spelt(chain)}), or cannot be compared with it; state {derived} or leave it out"
        )
    return stated


def _combined(origins: Sequence[Origin]) -> str | None:
    """The loosest licence that all origins allow; None without origins.

    Raises:
        PolicyError: If there is no such licence.
    """
    conditions = [(origin, terms) for origin in origins if (terms := terms_of(origin.licence))]
    for origin, terms in conditions:
        if terms.no_derivatives:
            raise PolicyError(
                f"licence: {origin.name} is {origin.licence}, which allows no derivatives, and a "
                f"painted scan is one; use another source ({_spelt(origins)})"
            )
    alike = [(origin, terms) for origin, terms in conditions if terms.share_alike]
    for origin, terms in alike:
        for other, others in conditions:
            if others.non_commercial and not terms.non_commercial:
                raise PolicyError(
                    f"licence: {origin.name} ({origin.licence}) and {other.name} "
                    f"({other.licence}) cannot be combined: the first requires its own licence, "
                    f"which allows commercial use, the second forbids that; leave one out "
                    f"({_spelt(origins)})"
                )
    if not conditions:
        return None
    version = max(terms.version for _, terms in conditions)
    if not version:
        names = {str(origin.licence).upper() for origin, _ in conditions}
        return next(name for name in reversed(_LOOSEST_FIRST) if name.upper() in names)
    non_commercial = "-NC" if any(terms.non_commercial for _, terms in conditions) else ""
    return f"CC-BY{non_commercial}{'-SA' if alike else ''}-{version:.1f}"


def _is_as_strict(stated: str, derived: str) -> bool:
    """Whether ``stated`` keeps all conditions of ``derived``; False if that is unknown."""
    mine, least = terms_of(stated), terms_of(derived)
    assert least is not None
    if mine is None:
        return least == Terms()
    if least.share_alike:
        same = mine._replace(version=0) == least._replace(version=0)
        return same and mine.version >= least.version
    if mine.non_commercial < least.non_commercial or mine.attribution < least.attribution:
        return False
    return mine.version >= least.version


def _spelt(origins: Iterable[Origin]) -> str:
    """The sources, each with its licence."""
    return ", ".join(f"{origin.name}: {origin.licence or 'unknown'}" for origin in origins)
