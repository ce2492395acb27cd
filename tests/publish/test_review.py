"""The table and the server of a review."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from evaluated import fresh, write_dataset
from lesion_rows import make_host, write_lesions, write_volumes
from typer.testing import CliRunner

from synthct.cli import app
from synthct.dataset.verdicts import read_verdicts
from synthct.errors import RecipeError
from synthct.publish.pages.server import serving
from synthct.publish.review.page import site
from synthct.publish.review.table import Reviewed


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review")
    return write_dataset(folder / "d/1.0.0", fresh, patients=2, masks=2)


@pytest.fixture
def reviewed(dataset: Path, tmp_path: Path) -> Reviewed:
    return Reviewed(dataset, tmp_path / "table.csv")


@pytest.fixture
def address(reviewed: Reviewed) -> Iterator[str]:
    with serving(site(reviewed)) as address:
        yield address


def asked(address: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, Any]:
    """Status, body and headers of the answer; ``path`` is relative to the secret one."""
    parts = urlsplit(address)
    line = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    full = path if path.startswith("/") else f"{parts.path}{path}"
    kind = {} if body is None else {"Content-Type": "application/json"}
    data = None if body is None else json.dumps(body)
    line.request("GET" if body is None else "POST", full, data, {**kind, **headers})
    answer = line.getresponse()
    return answer.status, answer.read(), answer.headers


def test_decisions_are_written_at_once_and_taken_up_again(
    reviewed: Reviewed, dataset: Path
) -> None:
    reviewed.decide({"number": 2, "decision": "reject", "comment": 'a seam,\n "left"'})
    reviewed.decide({"number": 0, "decision": "accept", "comment": ""})
    verdicts = read_verdicts(reviewed.table)
    assert [(one.decision, one.comment) for one in verdicts.values()] == [
        ("accept", ""), ("reject", 'a seam, "left"'),
    ]  # fmt: skip
    again = Reviewed(dataset, reviewed.table)
    assert again.item(2)["decision"] == "reject"
    assert again.item(2)["comment"] == 'a seam, "left"'
    assert again.counts() == {"accept": 1, "reject": 1, "undecided": 2}
    again.decide({"number": 2, "decision": "", "comment": "x"})
    assert list(read_verdicts(reviewed.table)) == [again.rows.facts[0]["sample_id"]]


def test_a_decision_on_another_painting_does_not_count(reviewed: Reviewed) -> None:
    reviewed.decide({"number": 0, "decision": "accept", "comment": ""})
    text = reviewed.table.read_text().replace(reviewed.rows.facts[0]["sample_digest"], "0" * 64)
    reviewed.table.write_text(text)
    again = Reviewed(reviewed.rows.dataset.folder, reviewed.table)
    assert again.verdict(0) is None


def test_the_table_lies_beside_the_version(dataset: Path) -> None:
    assert Reviewed(dataset).table == dataset.with_name("1.0.0.review.csv")


def test_a_slice_is_shown_before_and_after_and_a_volume_in_three_planes(
    reviewed: Reviewed, tmp_path: Path
) -> None:
    assert [one["name"] for one in reviewed.item(0)["figures"]] == [
        "axial, painted", "axial, before",
    ]  # fmt: skip
    assert set(reviewed.item(0)["figures"][0]["images"]) == {"soft", "lung", "bone"}
    volumes = write_volumes(tmp_path / "d/1.0.0", [make_host(variants=1)], keep_original=False)
    assert Reviewed(volumes).counts()["undecided"] == 1  # one decision for all of it
    assert [one["name"] for one in Reviewed(volumes).item(0)["figures"]] == [
        "axial, painted", "coronal, painted", "sagittal, painted",
    ]  # fmt: skip


def test_rows_that_nobody_painted_are_not_shown(tmp_path: Path) -> None:
    host = make_host(variants=1)
    dataset = write_lesions(tmp_path / "d/1.0.0", [host], real=True)
    ids = [row["sample_id"] for row in Reviewed(dataset).rows.facts]
    assert ids
    assert all(name.endswith(".v0") for name in ids)


def test_the_server_gives_page_and_items_and_takes_answers(
    reviewed: Reviewed, address: str
) -> None:
    status, page, headers = asked(address, "")
    assert (status, b"<title>review of" in page) == (200, True)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    status, body, _ = asked(address, "items/1")
    assert json.loads(body)["sample_id"] == reviewed.rows.facts[1]["sample_id"]
    answer = {"number": 1, "decision": "accept", "comment": "fine"}
    assert asked(address, "answers", answer)[0] == 200
    assert [one.comment for one in read_verdicts(reviewed.table).values()] == ["fine"]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/", None, {}, 404),
        ("/guess/", None, {}, 404),
        ("/guess/items/0", None, {}, 404),
        ("/guess/answers", {}, {}, 404),
        ("", None, {"Host": "example.org"}, 404),
        ("items/99", None, {}, 404),
        ("items/-1", None, {}, 404),
        ("../etc", None, {}, 404),
        ("answers", {"number": 0}, {}, 400),
        ("answers", {"number": -1, "decision": "accept", "comment": ""}, {}, 400),
        ("answers", {"number": 0, "decision": "maybe", "comment": ""}, {}, 400),
        ("answers", {"number": 0, "decision": "accept", "comment": "x" * 2001}, {}, 400),
        ("answers", [], {}, 400),
        ("answers", {"number": 0, "decision": "accept", "comment": ""},
         {"Origin": "https://example.org"}, 400),
        ("answers", {"number": 0, "decision": "accept", "comment": ""},
         {"Content-Type": "text/plain"}, 400),
        ("answers", "x" * 70_000, {}, 400),
    ],
)  # fmt: skip
def test_the_server_refuses_whatever_else(
    reviewed: Reviewed, address: str, path: str, body: Any, headers: dict[str, str], status: int
) -> None:
    assert asked(address, path, body, **headers)[0] == status
    assert not reviewed.table.exists()


def test_the_command_writes_one_file(dataset: Path, tmp_path: Path) -> None:
    page = tmp_path / "new/review.html"
    done = CliRunner().invoke(app, ["review", str(dataset), "--page", str(page)])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == str(page)
    text = page.read_text(encoding="utf-8")
    assert "connect-src" not in text
    assert text.count('<template id="item-') == 4


def test_the_command_serves_until_it_is_interrupted(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Somebody decides, then presses Ctrl-C."""
    from synthct.cli import readers

    def decide() -> None:
        address = capsys.readouterr().out.splitlines()[0]
        answer = {"number": 0, "decision": "reject", "comment": ""}
        assert asked(address, "answers", answer)[0] == 200
        raise KeyboardInterrupt

    monkeypatch.setattr(readers, "wait_for_ever", decide)
    readers.review(dataset, table=tmp_path / "table.csv")
    said = capsys.readouterr().out
    assert "of 4 samples: 0 accept, 1 reject, 3 undecided" in said
    assert said.splitlines()[-1] == str(tmp_path / "table.csv")


def test_a_table_of_something_else_is_not_written_over(dataset: Path, tmp_path: Path) -> None:
    table = tmp_path / "other.csv"
    table.write_text("name,age\n")
    with pytest.raises(RecipeError, match="has no column 'sample_id'"):
        Reviewed(dataset, table)
