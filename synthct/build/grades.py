"""Says how good the samples of a finished dataset are, and shows the worst."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from synthct.dataset.manifest import Release, read_manifest, require_manifest
from synthct.dataset.schema import measures_of
from synthct.dataset.verdicts import REJECTED_BY_REVIEW, Verdict, verdict_on
from synthct.dataset.writer import read_shard
from synthct.errors import counted
from synthct.recipe.quality import GRADES, Grade, Standard
from synthct.storage.files import atomic_write, beside, make_folder

#: Most pictures of samples that are shown.
WORST = 6

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Graded:
    """A sample with its grade.

    Attributes:
        sample_id: Of the sample.
        shard: Its file, relative to the dataset's folder.
        row: Its row there.
        grade: How good it is.
        strain: See ``Standard.strain``.
    """

    sample_id: str
    shard: str
    row: int
    grade: Grade
    strain: float


def grade_samples(
    folder: Path, shards: Iterable[str], standards: Mapping[str, Standard]
) -> list[Graded]:
    """The painted samples to which any limit applies, in order.

    Args:
        folder: The folder of the version.
        shards: Its shards, relative to it.
        standards: By the name of the section of masks, from ``Recipe.standards``.
    """
    # Only what is limited: datasets of slices have no column of what applies to volumes only.
    limited = {name for standard in standards.values() for name in standard.limits.limits}
    names = ["sample_id", "mask_name", "is_painted", *sorted(limited)]
    graded = []
    for shard in shards:
        for number, row in enumerate(read_shard(folder / shard, names).to_pylist()):
            standard, measures = standards[row["mask_name"]], measures_of(row)
            strain, grade = standard.strain(measures), standard.grade(measures)
            if row["is_painted"] and strain is not None and grade is not None:
                graded.append(Graded(row["sample_id"], shard, number, grade, strain))
    return graded


def grades_in_words(grades: Iterable[Grade]) -> str:
    """``61 good, 20 doubtful, 3 poor``; empty if there is no sample."""
    counts = Counter(grades)
    return ", ".join(f"{counts[grade]:,} {grade}" for grade in GRADES) if counts else ""


def tell_grades(final: Path, standards: Mapping[str, Standard]) -> None:
    """Log how many samples are good, doubtful and poor; write pictures of the worst.

    The pictures go to ``1.0.0.worst`` beside the version.

    Args:
        final: The folder of the finished version.
        standards: What its samples are judged by.
    """
    manifest = read_manifest(final)
    assert manifest is not None, "the version is finished"
    graded = grade_samples(final, [shard.path for shard in manifest.shards], standards)
    if not graded:
        return
    counts = grades_in_words(one.grade for one in graded)
    learned = any(standard.is_default for standard in standards.values())
    by = "how real tissue of the hosts differs" if learned else "the recipe's limits"
    logger.info(
        "quality by %s: %s, %d rejected", by, counts, sum(manifest.release.rejected.values())
    )
    worst = sorted((one for one in graded if one.grade != "good"), key=lambda one: -one.strain)
    for place in _write_pictures(final, worst[:WORST]):
        logger.info("  %s", place)


def tell_review(release: Release, final: Path, verdicts: Mapping[str, Verdict]) -> None:
    """Log how many verdicts counted, and how many did not, since they are about other paintings."""
    if not verdicts:
        return
    manifest = require_manifest(final)
    rejected = release.rejected.get(REJECTED_BY_REVIEW, 0)
    accepted = sum(
        verdict_on(row, verdicts) is not None
        for shard in manifest.shards
        for row in read_shard(final / shard.path, ["sample_id", "sample_digest"]).to_pylist()
    )
    logger.info("review: %s accepted, %d rejected", counted(accepted, "sample"), rejected)
    if unused := len(verdicts) - accepted - rejected:
        logger.warning(
            "note: review: %d of %d verdicts are about samples that are not painted here, or "
            "painted otherwise, and were not used",
            unused, len(verdicts),
        )  # fmt: skip


def _write_pictures(final: Path, samples: list[Graded]) -> list[str]:
    """A PNG of each sample; its path with its grade."""
    folder = beside(final, "worst")
    lines = []
    for one in samples:
        make_folder(folder)
        preview = read_shard(final / one.shard, ["preview"])["preview"][one.row].as_py()
        if preview is None or not preview["bytes"]:  # a patch-only release has no pictures
            continue
        path = folder / f"{one.sample_id}.png"
        atomic_write(path, preview["bytes"])
        lines.append(f"{one.grade} {path}")
    return lines
