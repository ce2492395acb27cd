"""Which licence follows from those of the sources, and which combinations none allows.

A cautious reading, not legal advice. Hosts, donors (a shape counts) and the scans that the
checkpoint was trained on are all sources, and a painted scan is an adaptation of each of them: so
share-alike binds it, no-derivatives forbids it, and what two share-alike licences ask for cannot
both be done.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from synthct.errors import PolicyError


class Origin(NamedTuple):
    """One thing that a dataset or checkpoint is made from.

    Attributes:
        name: As a reader knows it, such as ``source 'donors'``.
        licence: SPDX id; None if unknown.
    """

    name: str
    licence: str | None


class Terms(NamedTuple):
    """What a licence asks of whoever passes an adaptation on.

    Attributes:
        version: Of a Creative Commons licence; 0 for others.
        attribution: The authors are to be named.
        non_commercial: No commercial use.
        share_alike: Under the same licence, or a later version of it.
        no_derivatives: Not at all.
    """

    version: float = 0.0
    attribution: bool = False
    non_commercial: bool = False
    share_alike: bool = False
    no_derivatives: bool = False


#: SPDX ids of the licences that ask for attribution at most, from loosest to strictest.
_LOOSEST_FIRST = ("CC0-1.0", "PDDL-1.0", "MIT", "BSD-3-Clause", "Apache-2.0")

#: SPDX ids are compared without regard to case.
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

#: Licences that the Hub knows by an id of its own: SPDX in lower case.
_HUB_IDS = frozenset(
    {
        "apache-2.0",
        "bsd-3-clause",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nd-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "mit",
        "pddl",
    }
)


def hub_fields(licence: str | None) -> dict[str, str]:
    """The licence in the YAML header of a card, as the Hub reads it."""
    if licence is None:
        return {"license": "unknown"}
    lower = "pddl" if licence == "PDDL-1.0" else licence.lower()
    if lower in _HUB_IDS:
        return {"license": lower}
    return {"license": "other", "license_name": " ".join(licence.split())}


def licence_url(licence: str | None) -> str | None:
    """Where a licence can be read; None if that is not known."""
    match = _CREATIVE_COMMONS.fullmatch((licence or "").upper())
    if match is not None and licence is not None:
        kind = licence.lower().removeprefix("cc-").rpartition("-")[0]
        return f"https://creativecommons.org/licenses/{kind}/{match[3]}/"
    return _TEXTS.get((licence or "").upper())


def terms_of(licence: str | None) -> Terms | None:
    """What a licence asks for, by its SPDX id; None if it is not one that is understood here."""
    name = (licence or "").upper()
    if name in _PERMISSIVE:
        return _PERMISSIVE[name]
    match = _CREATIVE_COMMONS.fullmatch(name)
    if match is None:
        return None
    non_commercial, kind, version = match.groups()
    return Terms(float(version), True, bool(non_commercial), kind == "-SA", kind == "-ND")


def licence_of(origins: Iterable[Origin], *, stated: str | None = None) -> str | None:
    """The licence of a dataset or checkpoint made from several things.

    Args:
        origins: Everything it is made from.
        stated: What the recipe says; may be stricter, never looser.

    Returns:
        An SPDX id; None if an origin's licence is unknown or unheard of and nothing is stated.

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
    """The loosest licence that all of the origins allow; None if there are none.

    Raises:
        PolicyError: If there is no such licence.
    """
    asked = [(origin, terms) for origin in origins if (terms := terms_of(origin.licence))]
    for origin, terms in asked:
        if terms.no_derivatives:
            raise PolicyError(
                f"licence: {origin.name} is {origin.licence}, which allows no derivatives, and a "
                f"painted scan is one; use another source ({_spelt(origins)})"
            )
    alike = [(origin, terms) for origin, terms in asked if terms.share_alike]
    for origin, terms in alike:
        for other, others in asked:
            if others.non_commercial and not terms.non_commercial:
                raise PolicyError(
                    f"licence: {origin.name} ({origin.licence}) and {other.name} "
                    f"({other.licence}) cannot be combined: the one asks for its own licence, "
                    f"which allows commercial use, the other forbids that; leave one out "
                    f"({_spelt(origins)})"
                )
    if not asked:
        return None
    version = max(terms.version for _, terms in asked)
    if not version:
        found = {str(origin.licence).upper() for origin, _ in asked}
        return next(name for name in reversed(_LOOSEST_FIRST) if name.upper() in found)
    non_commercial = "-NC" if any(terms.non_commercial for _, terms in asked) else ""
    return f"CC-BY{non_commercial}{'-SA' if alike else ''}-{version:.1f}"


def _is_as_strict(stated: str, derived: str) -> bool:
    """Whether ``stated`` keeps all that ``derived`` asks for; False if nobody can say."""
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
    """The chain of sources: each with its licence."""
    return ", ".join(f"{origin.name}: {origin.licence or 'unknown'}" for origin in origins)
