"""The journal: what it says is done is done."""

from __future__ import annotations

from pathlib import Path

import pytest
from dataset_rows import make_test_row

from synthct.dataset.journal import finished_shards, record_shard, recorded_shards, start_journal
from synthct.dataset.schema import arrow_schema
from synthct.dataset.writer import Rejection, ShardRecord, shard_name, write_shard
from synthct.errors import ConflictError, VerifyError


def write(folder: Path, number: int, rejected: tuple[Rejection, ...] = ()) -> ShardRecord:
    return write_shard(
        folder,
        shard_name("train", number, 3),
        [make_test_row(number)],
        split="train",
        schema=arrow_schema(keep_original=False),
        rejected=rejected,
    )


def test_journal_gives_back_what_is_intact(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = tmp_path / "journal"
    start_journal(journal, "plan-a")
    rejected = (Rejection("x", "folded", "jacobian_min", -0.25), Rejection("y", "no place"))
    records = [write(tmp_path, n, rejected) for n in range(3)]
    for record in records:
        record_shard(journal, record)
    assert finished_shards(journal, tmp_path) == {record.path: record for record in records}
    start_journal(journal, "plan-a")  # a second run of the same plan

    flipped = bytearray((tmp_path / records[0].path).read_bytes())
    flipped[len(flipped) // 2] ^= 4
    (tmp_path / records[0].path).write_bytes(flipped)
    (tmp_path / records[1].path).unlink()
    assert not caplog.records
    assert list(finished_shards(journal, tmp_path)) == [records[2].path]
    told = [one.getMessage() for one in caplog.records]
    assert [text.split(" is damaged")[0] for text in told] == [
        str(tmp_path / record.path) for record in records[:2]
    ]
    caplog.clear()
    assert list(recorded_shards(journal)) == [record.path for record in records]


def test_damaged_entry_counts_for_nothing_and_can_be_written_again(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    start_journal(journal, "plan-a")
    one, two = write(tmp_path, 0), write(tmp_path, 1, (Rejection("x", "folded"),))
    record_shard(journal, one)
    record_shard(journal, two)
    entry = next(path for path in journal.iterdir() if path.name.startswith("train-00001"))
    whole = entry.read_bytes()
    for place in range(len(whole)):
        entry.write_bytes(whole[:place])
        assert list(finished_shards(journal, tmp_path)) == [one.path]
        entry.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert list(finished_shards(journal, tmp_path)) == [one.path]
    record_shard(journal, two)
    assert list(finished_shards(journal, tmp_path)) == [one.path, two.path]


def test_journal_of_another_plan_is_a_conflict(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    start_journal(journal, "plan-a")
    with pytest.raises(ConflictError, match=r"plan-a.*plan-b"):
        start_journal(journal, "plan-b")
    (journal / "plan").write_bytes(b"nonsense")
    with pytest.raises(VerifyError, match=r"journal/plan is damaged .* delete"):
        start_journal(journal, "plan-a")
