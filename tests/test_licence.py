from __future__ import annotations

import itertools

import pytest

from synthct.errors import PolicyError
from synthct.licence import Origin, hub_fields, licence_of, terms_of

LICENCES = (
    "CC0-1.0",
    "Apache-2.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC-BY-NC-3.0",
    "CC-BY-NC-4.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-ND-4.0",
    "CC-BY-NC-ND-4.0",
)

#: By rows and columns of ``LICENCES`` what two of them come to; "-" is no licence at all.
TABLE = """
0    AP   B3   B4   SA   N3   N4   NS   -    -
AP   AP   B3   B4   SA   N3   N4   NS   -    -
B3   B3   B3   B4   SA   N3   N4   NS   -    -
B4   B4   B4   B4   SA   N4   N4   NS   -    -
SA   SA   SA   SA   SA   -    -    -    -    -
N3   N3   N3   N4   -    N3   N4   NS   -    -
N4   N4   N4   N4   -    N4   N4   NS   -    -
NS   NS   NS   NS   -    NS   NS   NS   -    -
-    -    -    -    -    -    -    -    -    -
-    -    -    -    -    -    -    -    -    -
"""
SHORT = dict(zip(TABLE.split()[:8], LICENCES, strict=False))


def origins(*licences: str | None) -> list[Origin]:
    return [Origin(f"source '{n}'", licence) for n, licence in enumerate(licences)]


def derived(*licences: str | None, stated: str | None = None) -> str | None:
    try:
        return licence_of(origins(*licences), stated=stated)
    except PolicyError:
        return "-"


def test_every_pair_of_licences_comes_to_what_the_table_says() -> None:
    cells = [line.split() for line in TABLE.strip().splitlines()]
    for (i, one), (j, other) in itertools.product(enumerate(LICENCES), repeat=2):
        assert derived(one, other) == SHORT.get(cells[i][j], "-"), f"{one} with {other}"


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["CC0-1.0"], "CC0-1.0"),
        (["MIT", "Apache-2.0", "CC0-1.0"], "Apache-2.0"),
        (["cc-by-nc-sa-4.0", "CC-BY-4.0", "CC0-1.0"], "CC-BY-NC-SA-4.0"),
        (["CC-BY-4.0", None], None),
        (["CC-BY-4.0", "Some-Hospital-1.0"], None),
        ([], None),
    ],
)
def test_the_strictest_source_decides(sources: list[str | None], expected: str | None) -> None:
    assert derived(*sources) == expected
    assert derived(*reversed(sources)) == expected


@pytest.mark.parametrize(
    ("sources", "stated"),
    [
        (["CC-BY-4.0"], "CC-BY-NC-SA-4.0"),
        (["CC-BY-4.0"], "CC-BY-4.0"),
        (["CC0-1.0"], "Some-Hospital-1.0"),
        ([None], "CC-BY-4.0"),
        (["Some-Hospital-1.0", "CC-BY-4.0"], "CC-BY-NC-4.0"),
    ],
)
def test_one_may_be_stricter_than_the_sources(sources: list[str | None], stated: str) -> None:
    assert derived(*sources, stated=stated) == stated


@pytest.mark.parametrize(
    ("sources", "stated"),
    [
        (["CC-BY-NC-SA-4.0", "CC0-1.0"], "CC-BY-4.0"),
        (["CC-BY-NC-SA-4.0"], "CC-BY-NC-4.0"),
        (["CC-BY-NC-SA-4.0"], "CC-BY-NC-ND-4.0"),
        (["CC-BY-NC-4.0"], "CC-BY-SA-4.0"),
        (["CC-BY-4.0"], "CC0-1.0"),
        (["CC-BY-4.0"], "Apache-2.0"),
        # a source that nobody knows does not launder one that everybody knows
        (["CC-BY-NC-SA-4.0", None], "CC-BY-4.0"),
        (["CC-BY-NC-SA-4.0"], "My-Free-Licence"),
    ],
)
def test_one_may_not_be_looser_than_the_sources(sources: list[str | None], stated: str) -> None:
    with pytest.raises(PolicyError, match=f"{stated} is looser than") as err:
        licence_of(origins(*sources), stated=stated)
    for origin in origins(*sources):
        assert f"{origin.name}: {origin.licence or 'unknown'}" in str(err.value)


def test_what_cannot_be_combined_is_refused_with_the_chain_of_sources() -> None:
    chain = [
        Origin("source 'hosts'", "CC-BY-SA-4.0"),
        Origin("source 'donors'", "CC0-1.0"),
        Origin("the training data of checkpoint 'x'", "CC-BY-NC-SA-4.0"),
    ]
    with pytest.raises(PolicyError, match=r"source 'hosts'.*checkpoint 'x'.*cannot be comb") as err:
        licence_of(chain, stated="CC-BY-NC-SA-4.0")
    assert "source 'donors': CC0-1.0" in str(err.value)
    assert err.value.exit_code == 9


def test_the_hub_knows_the_licences_that_follow() -> None:
    for licence in LICENCES:
        assert terms_of(licence) is not None
        assert hub_fields(licence) == {"license": licence.lower()}
    assert hub_fields("Some  Hospital") == {"license": "other", "license_name": "Some Hospital"}
    assert hub_fields(None) == {"license": "unknown"}
