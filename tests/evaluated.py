"""Finished datasets with pictures of known quality, for the tests of the evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conftest import oblique_affine
from dataset_rows import FACTS, METRICS, complete
from scipy import ndimage

from synthct.dataset.journal import record_shard
from synthct.dataset.rows import encode
from synthct.dataset.sample import Sample
from synthct.dataset.schema import arrow_schema
from synthct.dataset.version import commit, open_staging
from synthct.dataset.writer import shard_name, write_shard
from synthct.metrics.measure import Measures

SHAPE = (56, 48, 1)
DISC = np.hypot(*(np.indices(SHAPE[:2]) - np.array([[[27.5]], [[23.5]]])))[:, :, None] < 13

Paint = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def tissue(rng: np.random.Generator, mean: float = 60.0) -> np.ndarray:
    """A slice of grainy tissue, of 20 HU."""
    noise = ndimage.gaussian_filter(rng.normal(size=SHAPE[:2]), 1.0)
    grainy: np.ndarray = mean + 20 * noise / noise.std()
    return grainy[:, :, None]


def same(original: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    del rng
    return original


def fresh(original: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    del original
    return tissue(rng, rng.normal(60, 4))


def blurred(original: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return ndimage.gaussian_filter(fresh(original, rng), (1.5, 1.5, 0))


def write_dataset(
    final: Path,
    paint: Paint = fresh,
    *,
    patients: int = 6,
    masks: int = 6,
    variants: int = 1,
    keep_original: bool = True,
    labels: tuple[str | None, str | None] = ("kidney", "liver"),
    prefix: str = "p",
    measures: Callable[[int], Measures] = lambda number: METRICS,
    **facts: Any,
) -> Path:
    """A version in which ``paint`` has painted discs into tissue.

    Args:
        final: Its folder.
        paint: What is inside of the mask.
        patients: How many patients.
        masks: Masks of each patient, of the two labels by turns.
        variants: Paintings of each mask.
        keep_original: Whether there is a column ``original``.
        labels: The two labels.
        prefix: What ids begin with.
        measures: Those of a row, by its number.
        facts: What all rows have in common.
    """
    staging = open_staging(final, "plan")
    rows: list[dict[str, Any]] = []
    for patient in range(patients):
        for mask in range(masks):
            rng = np.random.default_rng([patient, mask])
            original = np.rint(tissue(rng, rng.normal(60, 4))).astype(np.int16)
            for variant in range(variants):
                paint_rng = np.random.default_rng([patient, mask, variant, 7])
                painted = np.where(DISC, np.rint(paint(original, paint_rng)), original)
                mask_id = f"{prefix}{patient}.m{mask}"
                named = replace(
                    FACTS,
                    sample_id=f"{mask_id}.v{variant}",
                    mask_id=mask_id,
                    case_id=f"case{patient}",
                    patient_id=f"patient{patient}",
                    label=labels[mask % 2],
                    slice_index=mask,
                    variant=variant,
                    **facts,
                )
                sample = Sample(
                    facts=named,
                    affine=oblique_affine(),
                    original=original,
                    image=painted.astype(np.int16),
                    mask=DISC,
                    labels=DISC.astype(np.uint8),
                    metrics=measures(len(rows)),
                    provenance={"sample_id": named.sample_id},
                )
                rows.append(encode(sample, keep_original=keep_original))
    name = shard_name("train", 0, 1)
    schema = arrow_schema(keep_original)
    record = write_shard(staging.tree, name, rows, split="train", schema=schema)
    record_shard(staging.journal, record)
    return commit(staging, complete(staging, [record]))
