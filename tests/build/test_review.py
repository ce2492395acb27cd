"""Verdicts of an earlier version as a filter of the next one."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tiny_recipe import write_data, write_recipe

from synthct.build.check import check
from synthct.build.preview import facts_of
from synthct.build.run import build
from synthct.build.verify.run import Originals, verify
from synthct.dataset.lockfile import read_lock
from synthct.dataset.manifest import require_manifest
from synthct.dataset.records import RECIPE, read_rejected
from synthct.dataset.verdicts import (
    NOT_REVIEWED,
    REJECTED_BY_REVIEW,
    Verdict,
    read_verdicts,
    write_verdicts,
)
from synthct.dataset.writer import read_shard
from synthct.errors import ConflictError, RecipeError, ResourceError
from synthct.recipe.recipe import load_recipe

#: Two masks in each of two hosts, painted twice, without a network.
SMALL: dict[str, Any] = {
    "inpaint": {"method": "noise_fill"},
    "masks": [{"name": "blob", "kind": "blob", "radius_mm": [3, 6]}],
    "masks_per_case": 2,
}

NAMES = ["sample_id", "sample_digest", "provenance"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reviewed")
    write_data(folder / "data")
    make(folder, version="1.0.0")
    return folder


def make(world: Path, **changes: Any) -> Path:
    return build(loaded(world, **changes), world / "out", cache_dir=world / "cache", workers=0)


def loaded(world: Path, **changes: Any) -> Any:
    settings = {**SMALL, **changes}
    return load_recipe(write_recipe(world / "recipe.yaml", world / "data", Path(), **settings))


def rows(dataset: Path) -> list[dict[str, Any]]:
    shards = require_manifest(dataset).shards
    return [row for one in shards for row in read_shard(dataset / one.path, NAMES).to_pylist()]


def decided(path: Path, *decisions: tuple[dict[str, Any], Any]) -> str:
    write_verdicts(
        path,
        [Verdict(row["sample_id"], what, "", row["sample_digest"]) for row, what in decisions],
    )
    return str(path)


@pytest.mark.long
def test_the_next_version_leaves_out_what_was_rejected(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = rows(world / "out/tiny/1.0.0")
    other = {**first[3], "sample_digest": "0" * 64}  # painted otherwise since
    table = decided(tmp_path / "seen.csv",
                    (first[0], "accept"), (first[1], "reject"), (other, "reject"))  # fmt: skip
    recipe = loaded(world, version="1.1.0", review={"table": table})
    facts = facts_of(check(recipe, cache_dir=world / "cache"))
    assert "review: seen.csv accepts 1 sample and rejects 2" in facts["notes"][-1]
    caplog.set_level(logging.INFO, "synthct")
    final = make(world, version="1.1.0", review={"table": table})
    said = [record.getMessage() for record in caplog.records]
    assert "review: 1 sample accepted, 1 rejected" in said
    assert any("1 of 3 verdicts" in line for line in said)

    kept = rows(final)
    assert [row["sample_digest"] for row in kept] == [
        row["sample_digest"] for row in first if row is not first[1]
    ]
    told = [json.loads(row["provenance"]).get("review") for row in kept]
    assert told == ["accept", *[None] * (len(kept) - 1)]
    (gone,) = read_rejected(final)
    assert (gone.sample_id, gone.reason) == (first[1]["sample_id"], REJECTED_BY_REVIEW)
    assert gone.measure is None

    stored = (final / RECIPE).read_text()
    assert "table: ./seen.csv" in stored
    assert str(tmp_path) not in stored
    locked = read_lock(final).review
    assert locked is not None
    assert (locked.accepted, locked.rejected) == (1, 2)
    assert locked.sha256 in stored
    roots = {name: world / "data" / name for name in ("hosts", "donors")}
    Path(table).unlink()  # the dataset stands without it
    report = verify(final, level=2, originals=Originals(sources=roots, cache_dir=world / "cache"))
    assert report.findings == ()


def test_what_nobody_has_seen_may_be_left_out(world: Path, tmp_path: Path) -> None:
    first = rows(world / "out/tiny/1.0.0")
    table = decided(tmp_path / "seen.csv", (first[0], "accept"), (first[1], "reject"))
    section = {"table": table, "unreviewed": "reject"}
    final = make(world, version="1.2.0", review=section)
    assert [row["sample_id"] for row in rows(final)] == [first[0]["sample_id"]]
    reasons = [one.reason for one in read_rejected(final)]
    assert reasons.count(REJECTED_BY_REVIEW) == 1
    assert reasons.count(NOT_REVIEWED) == len(first) - 2
    decided(tmp_path / "seen.csv", (first[0], "accept"))
    with pytest.raises(ConflictError):  # another table is another version
        make(world, version="1.2.0", review=section)


def test_a_recipe_without_a_review_has_the_identity_that_it_had(world: Path) -> None:
    assert "review" not in loaded(world).resolved()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sample_id,decision\n", "has no column 'comment'"),
        ("sample_id,decision,comment,sample_digest\na,perhaps,,b\n", ":2: the decision on 'a'"),
        ("sample_id,decision,comment,sample_digest\na,accept,,b\na,reject,,b\n", ":3: sample 'a'"),
        ("\xff", "no UTF-8"),
    ],
)
def test_a_damaged_table_is_told_before_any_scan_is_read(
    world: Path, tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecipeError, match=said):
        make(world, version="1.3.0", review={"table": str(path)})


def test_a_missing_or_another_table_is_told(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"no\.csv"):
        make(world, version="1.3.0", review={"table": str(tmp_path / "no.csv")})
    table = decided(tmp_path / "seen.csv")
    with pytest.raises(RecipeError, match="the recipe says 0000"):
        make(world, version="1.3.0", review={"table": table, "sha256": "0" * 64})


def test_spreadsheets_may_have_saved_the_table(tmp_path: Path) -> None:
    row = {"sample_id": "a", "sample_digest": "b"}
    table = Path(decided(tmp_path / "seen.csv", (row, "reject")))
    text = table.read_text().replace("\n", "\r\n")
    table.write_bytes(b"\xef\xbb\xbf" + text.encode() + b",,,\r\n")
    assert read_verdicts(table) == {"a": Verdict("a", "reject", "", "b")}
