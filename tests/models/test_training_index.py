"""The privacy index beside a checkpoint's weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_tiny_checkpoint

from synthct.errors import CheckpointError
from synthct.metrics.region_key import HASH_BYTES, KEY_BYTES
from synthct.models import training_index
from synthct.models.checkpoint import find_checkpoint
from synthct.models.folder import TRAINING_INDEX, write_sums
from synthct.models.training_index import SCHEMA, keys_of, make_index, read_index, write_index


def row(number, **changes):
    key = np.random.default_rng(number).bytes(KEY_BYTES)
    known: dict[str, Any] = {
        "key": key,
        "sha256": key[:HASH_BYTES],
        "label": None,
        "source": "scans",
    }
    known |= {"side_px": 20, "grid_mm": [0.0] * 9}
    return {**known, "case_id": str(number), "patient_id": "p", "fingerprint": None, **changes}


@pytest.fixture
def folder(tmp_path):
    return write_tiny_checkpoint(tmp_path / "base")


def test_what_is_written_is_read_and_does_not_change_the_id(folder):
    before = find_checkpoint(str(folder))
    assert read_index(before) is None
    table = make_index([row(1), row(2, label="kidney", fingerprint="f")], None, seed=0)
    write_index(table, folder)
    write_sums(folder)
    files = find_checkpoint(str(folder))
    assert files.checkpoint_id == before.checkpoint_id
    again = read_index(files)
    assert again.to_pylist() == table.to_pylist()
    assert keys_of(again)[1].tobytes() == row(2)["key"]


def test_a_damaged_or_lost_index_is_refused(folder):
    write_index(make_index([row(1)], None, seed=0), folder)
    write_sums(folder)
    path = folder / TRAINING_INDEX
    data = path.read_bytes()
    path.write_bytes(data[:50] + b"x" + data[51:])
    with pytest.raises(CheckpointError, match="not what SHA256SUMS says"):
        find_checkpoint(str(folder))
    path.unlink()
    with pytest.raises(CheckpointError, match=r"lacks training_index\.parquet"):
        find_checkpoint(str(folder))


@pytest.mark.parametrize("fault", ["cut", "columns", "null", "version"])
def test_an_index_of_another_form_is_refused(fault, folder):
    path = folder / TRAINING_INDEX
    table = pa.Table.from_pylist([row(1, patient_id=None if fault == "null" else "p")], SCHEMA)
    if fault == "columns":
        table = table.drop_columns(["source"])
    if fault == "version":
        table = table.replace_schema_metadata({b"synthct.training_index": b"1"})
    pq.write_table(table, path)
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    write_sums(folder)
    with pytest.raises(CheckpointError, match="damaged or of another version"):
        read_index(find_checkpoint(str(folder)))


def test_regions_of_the_checkpoint_before_stay_and_too_many_are_drawn(monkeypatch):
    base = make_index([row(n, label="liver") for n in range(6)], None, seed=0)
    both = make_index([row(n) for n in range(6, 10)], base, seed=0)
    assert both["case_id"].to_pylist() == [str(n) for n in range(10)]
    assert both["label"].to_pylist() == ["liver"] * 6 + [None] * 4
    monkeypatch.setattr(training_index, "LIMIT", 5)
    few = make_index([row(n) for n in range(6, 10)], base, seed=0)
    assert len(few) == 5
    assert few.equals(make_index([row(n) for n in range(6, 10)], base, seed=0))
    assert not few.equals(make_index([row(n) for n in range(6, 10)], base, seed=1))
