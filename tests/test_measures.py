"""No list of measures leaves one out, and a new measure is one row and one name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import measure_lists
import pytest

from synthct.metrics.table import MEASURES

PLACES = [
    "columns", "patch columns", "columns of volumes", "limits", "summary", "card", "croissant",
    "report's charts", "report's orders", "report's samples", "evaluation", "export",
]  # fmt: skip

#: A measure as somebody would add it, before anything that lists measures is loaded.
ADDED = """
import sys
from pathlib import Path

import numpy as np

from synthct.metrics.measure import Measure
from synthct.metrics.table import MEASURES

MEASURES["edge_count"] = Measure(
    name="edge_count",
    text="steps of more than 100 HU inside",
    unit="pixels",
    of=lambda painting: float((np.abs(np.diff(painting.image, axis=0)) > 100).sum()),
    worse="higher",
)

from measure_lists import all_lists

for place, (expected, listed) in all_lists(Path(sys.argv[1])).items():
    assert "edge_count" in expected, place
    assert listed == expected, (place, listed ^ expected)
print("listed everywhere")
"""


#: The page for users that lists all measures.
PAGE = Path(__file__).parents[1] / "docs/reference/measures.md"


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[set[str], set[str]]]:
    return measure_lists.all_lists(tmp_path_factory.mktemp("measures"))


@pytest.mark.parametrize("place", PLACES)
def test_no_list_leaves_a_measure_out(
    lists: dict[str, tuple[set[str], set[str]]], place: str
) -> None:
    expected, listed = lists[place]
    assert listed == expected


def test_no_place_is_forgotten(lists: dict[str, tuple[set[str], set[str]]]) -> None:
    assert list(lists) == PLACES
    assert len(MEASURES) == 29


@pytest.mark.long
def test_a_new_measure_shows_up_everywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ADDED, str(tmp_path)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "listed everywhere" in done.stdout


def test_the_page_for_users_lists_every_measure() -> None:
    rows = [
        f"| `{name}` | {one.text} | {one.unit} | {one.worse or ''} | "
        f"{'yes' if one.has_limits else 'no'} |"
        for name, one in MEASURES.items()
    ]
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("| `")] == rows
