from __future__ import annotations

import pytest

from synthct.errors import PolicyError
from synthct.licence import licence_of


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["CC0-1.0"], "CC0-1.0"),
        (["CC0-1.0", "CC-BY-4.0"], "CC-BY-4.0"),
        (["CC-BY-NC-SA-4.0", "CC-BY-4.0", "CC0-1.0"], "CC-BY-NC-SA-4.0"),
        (["CC-BY-4.0", None], None),
        (["CC-BY-4.0", "Some-Hospital-1.0"], None),
        ([], None),
    ],
)
def test_the_strictest_source_decides(sources: list[str | None], expected: str | None) -> None:
    assert licence_of(sources) == expected
    assert licence_of(reversed(sources)) == expected


def test_one_may_be_stricter_than_the_sources() -> None:
    assert licence_of(["CC-BY-4.0"], stated="CC-BY-NC-SA-4.0") == "CC-BY-NC-SA-4.0"
    assert licence_of(["CC-BY-4.0"], stated="CC-BY-4.0") == "CC-BY-4.0"


def test_one_may_not_be_looser_than_the_sources() -> None:
    with pytest.raises(PolicyError, match=r"CC-BY-4\.0 is looser than CC-BY-NC-SA-4\.0") as err:
        licence_of(["CC-BY-NC-SA-4.0", "CC0-1.0"], stated="CC-BY-4.0")
    assert err.value.exit_code == 9


def test_what_is_stated_stands_where_a_source_is_unknown() -> None:
    assert licence_of([None], stated="CC-BY-4.0") == "CC-BY-4.0"
