"""What a build says of how good its samples are."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from evaluated import fresh, write_dataset

from synthct.build.grades import grade_samples, grades_in_words, tell_grades
from synthct.dataset.manifest import read_manifest
from synthct.metrics.table import MEASURES
from synthct.recipe.quality import Limits, Quality, Standard

#: By number of the sample: seam ratios that are good, doubtful and poor.
SEAMS = (1.0, 1.7, 2.5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graded")
    return write_dataset(
        folder / "dataset/1.0.0",
        fresh,
        patients=2,
        masks=3,
        measures=lambda number: {**dict.fromkeys(MEASURES), "seam_ratio": SEAMS[number % 3]},
    )


@pytest.fixture(scope="module")
def standards(dataset: Path) -> dict[str, Standard]:
    standard = Standard(Quality(seam_ratio=Limits(max=2)), is_default=True, rejects=False)
    return dict.fromkeys(("boxes", "kidneys", "tumors", "masks", "blobs", "organ"), standard)


def test_samples_are_counted_by_grade(dataset: Path, standards: dict[str, Standard]) -> None:
    manifest = read_manifest(dataset)
    assert manifest is not None
    graded = grade_samples(dataset, [shard.path for shard in manifest.shards], standards)
    assert grades_in_words(one.grade for one in graded) == "2 good, 2 doubtful, 2 poor"


def test_the_worst_samples_are_named_with_their_pictures(
    dataset: Path, standards: dict[str, Standard], caplog: pytest.LogCaptureFixture
) -> None:
    manifest = read_manifest(dataset)
    assert manifest is not None
    caplog.set_level(logging.INFO, "synthct")
    tell_grades(dataset, standards)
    said = [record.getMessage() for record in caplog.records]
    assert "2 good, 2 doubtful, 2 poor" in said[0]
    assert [line.split()[0] for line in said[1:]] == ["poor", "poor", "doubtful", "doubtful"]
    for line in said[1:]:
        assert Path(line.split()[1]).read_bytes().startswith(b"\x89PNG")
    assert read_manifest(dataset) == manifest  # the version itself is unchanged


def test_nothing_is_said_where_no_limit_applies(
    dataset: Path, standards: dict[str, Standard], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "synthct")
    tell_grades(dataset, dict.fromkeys(standards, Standard(Quality())))
    assert not caplog.records
