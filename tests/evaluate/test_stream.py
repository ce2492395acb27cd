"""A finished dataset, read row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dataset_rows import METRICS
from evaluated import fresh, write_dataset

from synthct.evaluate.stream import Dataset, painted_slice
from synthct.volume.intensity import LUNG, SOFT_TISSUE, Window


@pytest.mark.parametrize(
    ("label", "replaced_mean_hu", "window"),
    [
        ("kidney", 40.0, SOFT_TISSUE),
        ("tumor", -800.0, LUNG),
        ("lung", 40.0, LUNG),
        ("kidney", None, SOFT_TISSUE),  # a host's own slice, of soft tissue
    ],
)
def test_pictures_are_compared_in_the_window_of_what_was_painted_and_what_was_there(
    tmp_path: Path, label: str, replaced_mean_hu: float | None, window: Window
) -> None:
    measures: dict[str, Any] = {**METRICS, "replaced_mean_hu": replaced_mean_hu}
    folder = write_dataset(
        tmp_path / "d/1.0.0",
        fresh,
        patients=1,
        masks=1,
        labels=(label, label),
        measures=lambda number: measures,
    )
    assert [painted_slice(sample).window for sample in Dataset(folder).samples()] == [window]
