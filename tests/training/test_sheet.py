"""Columns of the sample strip that were damaged are left out of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthct.training.sheet import _column


def test_a_damaged_column_is_told_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    column = np.random.default_rng(0).integers(0, 256, (24, 12), dtype=np.uint8)
    path = tmp_path / "step-00000001.png"
    Image.fromarray(column).save(path)
    good = path.read_bytes()
    for place in range(len(good)):
        for damaged in (good[:place], good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :]):
            path.write_bytes(damaged)
            caplog.clear()
            found = _column(path, column)
            assert found is None or np.array_equal(found, column)
            assert found is not None or "left out of the strip" in caplog.text
    path.write_bytes(good)
    assert _column(path, column) is not None
    assert _column(path, column[:12]) is None
