"""Rows, shards, the journal, and what datasets makes of them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import oblique_affine
from dataset_rows import FACTS, PROVENANCE, make_sample, make_test_row

from synthct.dataset.digest import canonical_json
from synthct.dataset.png import decode_hu, decode_labels, decode_mask
from synthct.dataset.rows import decode, encode
from synthct.dataset.schema import Facts, arrow_schema, columns, features
from synthct.dataset.writer import (
    read_shard,
    shard_bytes,
    shard_name,
    write_shard,
)
from synthct.errors import ResourceError, VerifyError
from synthct.metrics.table import MEASURES
from synthct.volume.intensity import SOFT_TISSUE
from synthct.volume.views import from_picture

SCHEMA = arrow_schema(keep_original=False)


def test_row_holds_the_voxels_exactly() -> None:
    sample = make_sample()
    assert sample.original is not None
    row = encode(sample, keep_original=True)
    stored = {name: row[name]["bytes"] for name in ("image", "mask", "label_map", "original")}
    assert np.array_equal(from_picture(decode_hu(stored["image"]), "axial"), sample.image)
    assert np.array_equal(from_picture(decode_mask(stored["mask"]), "axial"), sample.mask)
    assert np.array_equal(from_picture(decode_labels(stored["label_map"]), "axial"), sample.labels)
    assert np.array_equal(from_picture(decode_hu(stored["original"]), "axial"), sample.original)


@pytest.mark.parametrize("shape", [(21, 17, 1), (21, 1, 17), (1, 21, 17)])
@pytest.mark.parametrize("keep_original", [True, False])
def test_reading_a_row_gives_the_sample_back(
    shape: tuple[int, int, int], keep_original: bool
) -> None:
    view = {2: "axial", 1: "coronal", 0: "sagittal"}[shape.index(1)]
    sample = make_sample(shape=shape, view=view)
    row = encode(sample, keep_original=keep_original)
    again = decode(row)
    assert again.facts == sample.facts
    assert again.window == sample.window
    assert np.allclose(again.affine, sample.affine, rtol=0, atol=1e-9)
    for name in ("image", "mask", "labels"):
        assert np.array_equal(getattr(again, name), getattr(sample, name))
    assert (again.original is None) != keep_original


def test_spacing_follows_the_picture() -> None:
    sample = make_sample(shape=(1, 9, 7), view="sagittal")
    row = encode(replace(sample, affine=oblique_affine((0.7, 0.9, 2.5))))
    assert row["spacing_mm"] == pytest.approx([2.5, 0.9])


def test_change_outside_of_the_mask_is_refused() -> None:
    sample = make_sample()
    assert sample.original is not None
    original = sample.original.copy()
    original[0, 0, 0] ^= 1
    assert not sample.mask[0, 0, 0]
    with pytest.raises(ValueError, match="outside of the mask"):
        replace(sample, original=original)


def test_arrays_of_another_shape_or_type_are_refused() -> None:
    sample = make_sample()
    with pytest.raises(ValueError, match="int16, bool and int16"):
        replace(sample, mask=sample.mask.astype(np.uint8) * 255)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="labels is"):
        replace(sample, labels=sample.labels[:-1])


@pytest.mark.parametrize("keep_original", [False, True])
def test_schema_is_what_datasets_makes_of_its_features(keep_original: bool) -> None:
    schema = arrow_schema(keep_original)
    ours = features(keep_original)
    assert list(ours) == schema.names
    assert ours.arrow_schema.equals(schema)
    assert ours.arrow_schema.metadata == schema.metadata
    assert ("original" in ours) == keep_original


def test_every_fact_and_measure_is_a_column() -> None:
    names = {*(field.name for field in fields(Facts)), *MEASURES}
    assert names == names & set(columns(keep_original=False, volume=True))
    of_volumes = {name for name, measure in MEASURES.items() if measure.of_volumes}
    assert names & set(columns(keep_original=False)) == names - of_volumes
    row = make_test_row(keep_original=True)
    assert set(row) == set(columns(keep_original=True))


def test_undefined_measure_is_null() -> None:
    assert make_test_row()["texture_ratio"] is None


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    rows = [make_test_row(n) for n in range(70)]
    one = write_shard(tmp_path, "data/a.parquet", rows, split="train", schema=SCHEMA)
    two = write_shard(tmp_path, "data/b.parquet", rows, split="train", schema=SCHEMA)
    assert one.sha256 == two.sha256
    assert (tmp_path / one.path).read_bytes() == (tmp_path / two.path).read_bytes()
    assert (tmp_path / one.path).stat().st_size == one.bytes
    assert one.rows == 70


def test_order_of_rows_is_kept(tmp_path: Path) -> None:
    rows = [make_test_row(n) for n in (3, 1, 2)]
    record = write_shard(tmp_path, "a.parquet", rows, split="train", schema=SCHEMA)
    found = read_shard(tmp_path / record.path, ["sample_id", "provenance"]).to_pylist()
    assert [row["sample_id"] for row in found] == [row["sample_id"] for row in rows]
    facts = replace(FACTS, sample_id=rows[0]["sample_id"])
    text = canonical_json({**PROVENANCE, **asdict(facts), "preview": SOFT_TISSUE.model_dump()})
    assert found[0]["provenance"] == text


def test_empty_shard_can_be_read(tmp_path: Path) -> None:
    record = write_shard(tmp_path, "a.parquet", [], split="train", schema=SCHEMA)
    assert read_shard(tmp_path / record.path).num_rows == 0


def test_row_groups_have_a_fixed_size_and_all_pages_a_checksum(tmp_path: Path) -> None:
    data = shard_bytes([make_test_row(n) for n in range(130)], SCHEMA)
    path = tmp_path / "a.parquet"
    path.write_bytes(data)
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [64, 64, 2]
    chunk = metadata.row_group(0).column(metadata.row_group(0).num_columns - 1)
    assert chunk.compression == "ZSTD"


def test_flips_inside_of_pages_are_found(tmp_path: Path) -> None:
    record = write_shard(
        tmp_path, "a.parquet", [make_test_row(n) for n in range(8)], split="t", schema=SCHEMA
    )
    path = tmp_path / record.path
    data = path.read_bytes()
    whole = read_shard(path)
    metadata = pq.read_metadata(path)
    end = max(
        c.data_page_offset + c.total_compressed_size
        for g in range(metadata.num_row_groups)
        for c in [metadata.row_group(g).column(n) for n in range(metadata.num_columns)]
    )
    rng = np.random.default_rng(0)
    silent = 0
    for _ in range(200):
        flipped = bytearray(data)
        flipped[int(rng.integers(4, min(end, len(data))))] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            silent += not read_shard(path).equals(whole)
        except VerifyError:
            continue
    assert silent == 0


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"gone\.parquet"):
        read_shard(tmp_path / "gone.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(VerifyError, match=r"bad\.parquet: damaged"):
        read_shard(tmp_path / "bad.parquet")


def test_shard_names_are_those_of_the_hub() -> None:
    assert shard_name("train", 3, 12) == "data/train-00003-of-00012.parquet"


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from synthct.storage import files

    folder, calls = Path(sys.argv[1]), ["write", "fsync", "replace", "close", "open"]

    def killing(name, when):
        real, count = getattr(os, name), 0
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == when:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        return call

    for trial, (name, when) in enumerate((n, w) for n in calls for w in range(1, 4)):
        place = folder / f"{trial:02d}-{name}-{when}"
        place.mkdir()
        child = os.fork()
        if child == 0:
            setattr(os, name, killing(name, when))
            files.atomic_write(place / "shard", b"x" * 100_000)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        (place / "status").write_text(str(os.WIFSIGNALED(status)))
"""


def test_killed_writer_leaves_a_whole_file_or_none(tmp_path: Path) -> None:
    script = textwrap.dedent(KILLED)
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    kills = 0
    for place in sorted(tmp_path.iterdir()):
        shard = place / "shard"
        killed = (place / "status").read_text() == "True"
        kills += killed
        assert shard.exists() or killed
        if shard.exists():
            assert shard.read_bytes() == b"x" * 100_000
    assert kills >= 8
    assert not (tmp_path / "06-replace-1" / "shard").exists()
