"""Rows for the tests of the dataset and its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conftest import oblique_affine

from synthct.dataset.journal import record_shard
from synthct.dataset.lockfile import Lock, write_lock
from synthct.dataset.manifest import Manifest, release_of, write_manifest
from synthct.dataset.records import write_recipe, write_rejected
from synthct.dataset.rows import encode
from synthct.dataset.sample import Sample
from synthct.dataset.schema import Facts, arrow_schema
from synthct.dataset.summary import rejections
from synthct.dataset.version import Staging, open_staging
from synthct.dataset.writer import Rejection, ShardRecord, shard_name, write_shard
from synthct.metrics.measure import Measures

FACTS = Facts(
    sample_id="host.boxes.d000.s0.v0",
    mask_id="host.boxes.d000.s0",
    lesion_id="host.boxes.d000",
    case_id="host",
    patient_id="patient",
    donor_case_id=None,
    donor_patient_id=None,
    pair_id=None,
    is_painted=True,
    has_lesion=None,
    mask_name="boxes",
    mask_kind="box",
    label=None,
    view="axial",
    slice_index=7,
    variant=0,
    host_in_training=False,
)
METRICS: Measures = {
    "outside_max_abs_diff": 0,
    "painted_mean_hu": 41.5,
    "painted_std_hu": 12.25,
    "replaced_mean_hu": 40.0,
    "replaced_std_hu": 11.0,
    "seam_ratio": 1.02,
    "seam_overshoot": -0.5,
    "texture_ratio": float("nan"),
    "spectrum_distance": 2.5,
    "grain_ratio": 1.125,
    "hu_wasserstein": 7.25,
    "mask_adherence": 0.875,
    "variant_diversity": None,
    "mae_hu": None,
    "psnr_db": float("inf"),
    "ssim": None,
    "clipped_fraction": 0.0,
    "mask_area_mm2": 120.5,
    "painted_fraction": 0.03,
}
PROVENANCE: dict[str, Any] = {
    "host": {"case": "host", "slice": 7},
    "mask": {"kind": "box", "margin_mm": [10.5, 0.1], "mirror": True},
    "noise_seed": 2**63 - 1,
    "versions": {"torch": "2.13.0"},
}

LOCK = Lock.model_validate(
    {
        "recipe_id": "recipe-a",
        "plan": {"id": "plan-a", "limit": None, "notes": ()},
        "left_out": (),
        "licence": "CC-BY-NC-SA-4.0",
        "labels": {"tumor": 2, "kidney": 1},
        "sources": {
            "hosts": {
                "layout": "kits23",
                "licence": "CC-BY-NC-SA-4.0",
                "attribution": "KiTS23",
                "cases": (
                    {
                        "case": "host",
                        "patient": "patient",
                        "image_sha256": "1" * 64,
                        "voxel_sha256": "2" * 64,
                        "label_sha256": "3" * 64,
                    },
                ),
            }
        },
        "checkpoint": {
            "name": "tiny",
            "id": "4" * 64,
            "revision": None,
            "files": {"unet/config.json": "5" * 64},
            "licence": "CC-BY-4.0",
            "licences": ("CC-BY-4.0", "CC0-1.0"),
            "attributions": (),
            "cases": 2,
            "range_hu": (-150.0, 250.0),
        },
        "versions": {"synthct": "0.1.0"},
        "numerics": {"device": "cpu", "threads": 1},
        "writer": {"codec": "zstd"},
    }
)


def make_sample(seed: int = 0, shape: tuple[int, int, int] = (21, 17, 1), **facts: Any) -> Sample:
    """Random HU over the whole range, a small mask, and labels; ``facts`` differ from ``FACTS``."""
    rng = np.random.default_rng(seed)
    original = rng.integers(-1024, 3072, shape, dtype=np.int16)
    mask = np.zeros(shape, dtype=bool)
    middle = tuple(slice(n // 3, n // 3 + max(1, n // 4)) for n in shape)
    mask[middle] = True
    painted = np.where(mask, rng.integers(-1024, 3072, shape, dtype=np.int16), original)
    labels = rng.integers(0, 4, shape).astype(np.uint8)
    return Sample(
        facts=replace(FACTS, **facts),
        affine=oblique_affine(),
        original=original,
        image=painted,
        mask=mask,
        labels=labels,
        metrics=METRICS,
        provenance=PROVENANCE,
    )


def make_test_row(number: int = 0, *, keep_original: bool = False, **facts: Any) -> dict[str, Any]:
    """The row of sample ``number``, its facts changed by ``facts``."""
    named = {"sample_id": f"host.boxes.d{number:03d}.s0.v0", **facts}
    return encode(make_sample(number, **named), keep_original=keep_original)


def stage(
    final: Path, numbers: Sequence[int] = range(6), *, plan_id: str = "plan-a"
) -> tuple[Staging, list[ShardRecord]]:
    """Start a build and write its shards: a third of the samples for validation."""
    staging = open_staging(final, plan_id)
    cut = len(numbers) * 2 // 3
    middle = cut // 2
    parts = [("train", 0, 2, numbers[:middle]), ("train", 1, 2, numbers[middle:cut])]
    parts.append(("validation", 0, 1, numbers[cut:]))
    records = []
    for split, index, count, part in parts:
        record = write_shard(
            staging.tree,
            shard_name(split, index, count),
            [make_test_row(n, keep_original=True) for n in part],
            split=split,
            schema=arrow_schema(keep_original=True),
            rejected=[Rejection(f"r.{split}.{index}", "seam | too <b>high</b>", "seam_ratio", 1.5)],
        )
        record_shard(staging.journal, record)
        records.append(record)
    return staging, records


def complete(staging: Staging, records: list[ShardRecord], *, version: str = "1.0.0") -> Manifest:
    """Write the files beside the shards and the manifest."""
    write_recipe(staging.tree, {"name": "tiny", "seed": 7, "splits": {"train": 0.7}})
    write_lock(staging.tree, LOCK)
    write_rejected(staging.tree, rejections(records))
    release = release_of(
        staging.tree, name="tiny", version=version, plan_id="plan-a", shards=records
    )
    return write_manifest(staging.tree, release, records)
