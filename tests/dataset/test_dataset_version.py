"""Manifests, versions, and the files beside the shards."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from dataset_rows import PROVENANCE, complete, make_sample, make_test_row, stage
from ruamel.yaml import YAML

from synthct.dataset.digest import merkle_root, sample_digest
from synthct.dataset.journal import record_shard
from synthct.dataset.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    Release,
    SplitSize,
    read_manifest,
    release_of,
    write_manifest,
)
from synthct.dataset.png import decode_hu
from synthct.dataset.records import write_recipe
from synthct.dataset.schema import arrow_schema
from synthct.dataset.summary import summarise
from synthct.dataset.version import commit, discard, find_release, open_staging
from synthct.dataset.writer import read_shard, shard_name, write_shard
from synthct.errors import ConflictError, VerifyError


def test_version_appears_whole_and_lists_every_file(tmp_path: Path) -> None:
    final = tmp_path / "tiny" / "1.0.0"
    staging, records = stage(final)
    manifest = complete(staging, records)
    assert not final.exists()
    assert find_release(final) is None
    commit(staging, manifest)
    assert list(final.parent.iterdir()) == [final]
    assert read_manifest(final) == manifest
    assert find_release(final) == manifest.release
    found = {p.relative_to(final).as_posix() for p in final.rglob("*") if p.is_file()}
    assert found == {entry.path for entry in manifest.files} | {MANIFEST}
    for entry in manifest.files:
        assert (final / entry.path).stat().st_size == entry.bytes
    assert [(s.name, s.rows, s.shards) for s in manifest.release.splits] == [
        ("train", 4, 2),
        ("validation", 2, 1),
    ]
    assert manifest.release.rows == 6


def test_content_id_is_the_root_of_the_samples_in_plan_order(tmp_path: Path) -> None:
    staging, records = stage(tmp_path / "1.0.0")
    manifest = complete(staging, records)
    rows = [make_test_row(n) for n in range(6)]
    assert manifest.release.content_id == merkle_root(row["sample_digest"] for row in rows)
    assert manifest.release.label == f"1.0.0+{manifest.release.content_id[:12]}"


def test_two_builds_have_the_same_bytes(tmp_path: Path) -> None:
    ids = []
    for place in ("one", "two"):
        staging, records = stage(tmp_path / place / "1.0.0")
        complete(staging, records)
        ids.append((staging.tree / MANIFEST).read_bytes())
    assert ids[0] == ids[1]


def test_digest_can_be_recomputed_from_a_stored_row() -> None:
    row, sample = make_test_row(3), make_sample(3)
    stored = json.loads(row["provenance"])
    assert stored["mask"] == PROVENANCE["mask"]
    digest = sample_digest(
        decode_hu(row["image"]["bytes"]),
        sample.pictures["mask"],
        sample.pictures["labels"],
        np.array(row["affine"]).reshape(4, 4),
        stored,
    )
    assert digest == row["sample_digest"]


def test_same_content_again_is_no_change(tmp_path: Path) -> None:
    final = tmp_path / "1.0.0"
    for _ in range(2):
        staging, records = stage(final)
        commit(staging, complete(staging, records))
        assert [p.name for p in tmp_path.iterdir()] == ["1.0.0"]


def test_other_content_is_refused_with_both_ids(tmp_path: Path) -> None:
    final = tmp_path / "1.0.0"
    staging, records = stage(final)
    first = complete(staging, records)
    commit(staging, first)
    before = {p: p.read_bytes() for p in final.rglob("*") if p.is_file()}
    staging, records = stage(final, range(1, 7))
    second = complete(staging, records)
    with pytest.raises(ConflictError) as caught:
        commit(staging, second)
    assert first.release.content_id[:12] in str(caught.value)
    assert second.release.content_id[:12] in str(caught.value)
    assert {p: p.read_bytes() for p in final.rglob("*") if p.is_file()} == before


def test_interrupted_build_goes_on_with_what_is_intact(tmp_path: Path) -> None:
    final = tmp_path / "1.0.0"
    staging, records = stage(final)
    (staging.tree / "data" / ".x.00000000.part").write_bytes(b"half")
    again = open_staging(final, "plan-a")
    assert again.finished() == {record.path: record for record in records}
    assert not list(again.tree.rglob(".*"))
    manifest = complete(again, list(again.finished().values()))
    rejected = pq.read_table(again.tree / "rejected.parquet").to_pylist()
    assert [r["sample_id"] for r in rejected] == ["r.train.0", "r.train.1", "r.validation.0"]
    commit(again, manifest)
    assert find_release(final) == manifest.release


class Killed(BaseException):
    """Stands for the end of the process."""


def build(final: Path) -> None:
    staging, plan = open_staging(final, "plan-a"), ("train", "validation")
    finished = staging.finished()
    for number, split in enumerate(plan):
        path = shard_name(split, 0, 1)
        if path not in finished:
            rows = [make_test_row(number)]
            record = write_shard(staging.tree, path, rows, split=split, schema=arrow_schema(False))
            record_shard(staging.journal, record)
            finished[path] = record
    commit(staging, complete(staging, [finished[shard_name(split, 0, 1)] for split in plan]))


@pytest.mark.parametrize("name", ["fsync", "replace", "rename", "write"])
def test_build_stopped_anywhere_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    build(tmp_path / "whole" / "1.0.0")
    wanted, real, point = contents(tmp_path / "whole"), getattr(os, name), 0
    while True:
        point += 1
        calls = itertools.count(1)

        def stopping(*args: Any, calls: Any = calls, point: int = point) -> Any:
            if next(calls) == point:
                raise Killed
            return real(*args)

        final = tmp_path / f"{point}" / "1.0.0"
        monkeypatch.setattr(os, name, stopping)
        try:
            build(final)
        except Killed:
            assert not final.exists() or find_release(final)
            monkeypatch.setattr(os, name, real)
            build(final)
            assert contents(final.parent) == wanted
        else:
            break
    assert point > 1


def test_interrupted_build_of_another_plan_is_a_conflict(tmp_path: Path) -> None:
    staging, _ = stage(tmp_path / "1.0.0")
    with pytest.raises(ConflictError, match=r"plan-a.*plan-b"):
        open_staging(tmp_path / "1.0.0", "plan-b")
    discard(staging)
    open_staging(tmp_path / "1.0.0", "plan-b")


def test_foreign_folder_is_not_overwritten(tmp_path: Path) -> None:
    final = tmp_path / "1.0.0"
    staging, records = stage(final)
    manifest = complete(staging, records)
    final.mkdir()
    assert find_release(final) is None
    (final / "thesis.tex").write_text("mine")
    with pytest.raises(ConflictError, match="no finished dataset"):
        commit(staging, manifest)
    assert (final / "thesis.tex").read_text() == "mine"


def test_winner_of_a_race_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "1.0.0"
    staging, records = stage(final)
    manifest = complete(staging, records)
    real = Path.rename

    def beaten(self: Path, target: Path) -> Path:
        other, theirs = stage(tmp_path / "other", range(1, 7))
        complete(other, theirs)
        real(other.tree, target)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", beaten)
    with pytest.raises(ConflictError, match="yours is"):
        commit(staging, manifest)


def test_manifest_needs_every_shard_and_plain_files(tmp_path: Path) -> None:
    staging, records = stage(tmp_path / "1.0.0")
    release = release_of(staging.tree, name="t", version="1.0.0", plan_id="p", shards=records)
    link = staging.tree / "link"
    link.symlink_to("/dev/null")
    with pytest.raises(VerifyError, match="no plain file"):
        write_manifest(staging.tree, release, records)
    link.unlink()
    (staging.tree / records[0].path).unlink()
    with pytest.raises(VerifyError, match="missing"):
        write_manifest(staging.tree, release, records)


def tiny_manifest() -> Manifest:
    release = Release(
        name="n",
        version="1.0.0",
        content_id="0" * 64,
        plan_id="p",
        splits=(SplitSize(name="train", rows=1, shards=1),),
    )
    return Manifest.of(release, [FileEntry(path="a", bytes=1, sha256="0" * 64)])


def test_manifest_is_read_back(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(tiny_manifest().text())
    assert read_manifest(tmp_path) == tiny_manifest()


def test_no_bit_of_a_manifest_can_change_unseen(tmp_path: Path) -> None:
    text = tiny_manifest().text().encode()
    for place in range(len(text)):
        changed = bytearray(text)
        changed[place] ^= 1 << place % 8
        (tmp_path / MANIFEST).write_bytes(changed)
        with pytest.raises(VerifyError):
            read_manifest(tmp_path)
    for other in (text.replace(b"\n", b"\r\n"), text + b"\n", text.replace(b" ", b"")):
        (tmp_path / MANIFEST).write_bytes(other)
        with pytest.raises(VerifyError, match="damaged"):
            read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["files"][0].update(path="../../etc/passwd"), "inside of the dataset"),
        (lambda c: c["files"][0].update(path="/etc/passwd"), "inside of the dataset"),
        (lambda c: c["files"][0].update(path="a\nb"), "inside of the dataset"),
        (lambda c: c["files"][0].update(sha256="0"), "sha256"),
        (lambda c: c["files"][0].update(bytes=-1), "bytes"),
        (lambda c: c["files"][0].update(bytes="1"), "bytes"),
        (lambda c: c.update(extra=1), "extra"),
        (lambda c: c.pop("release"), "release"),
        (lambda c: c["release"].update(format_version="2.0.0"), "or newer, which wrote it"),
    ],
)
def test_manifest_that_is_not_ours_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    content = json.loads(tiny_manifest().text())
    change(content)
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(VerifyError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_manifest_that_is_no_manifest_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(text)
    with pytest.raises(VerifyError, match="damaged"):
        read_manifest(tmp_path)


def test_a_recipe_is_written_as_plain_values(tmp_path: Path) -> None:
    recipe = {"name": "ä: #1", "version": "1.0.0", "b": {"z": (1, 2.5), "a": None}, "on": True}
    write_recipe(tmp_path, recipe)
    text = (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    back = YAML(typ="safe").load(text)
    assert back == {**recipe, "b": {"z": [1, 2.5], "a": None}}
    assert list(back) == list(recipe)
    assert list(back["b"]) == ["z", "a"]


def test_summary_counts_what_is_in_the_shards(tmp_path: Path) -> None:
    staging, records = stage(tmp_path / "1.0.0")
    summary = summarise(staging.tree, records)
    assert summary.samples == 6
    assert summary.splits == {"train": 4, "validation": 2}
    assert summary.by_mask == {("boxes", "box", None): {"train": 4, "validation": 2}}
    assert summary.by_case == {"host": 6}
    assert (summary.hosts, summary.donors, summary.in_training) == (1, 0, 0)
    assert summary.measures["painted_mean_hu"].median == 41.5
    assert summary.measures["painted_mean_hu"].count == 6
    assert "texture_ratio" not in summary.measures
    assert summary.rejected == {"seam | too <b>high</b>": 3}


def test_shards_hold_no_trace_of_place_and_time(tmp_path: Path) -> None:
    staging, records = stage(tmp_path / "1.0.0")
    complete(staging, records)
    for path in staging.tree.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes()
    metadata = read_shard(staging.tree / records[0].path).schema.metadata
    assert list(metadata) == [b"huggingface"]
