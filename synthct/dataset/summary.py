"""Counts and quantiles of a dataset, read from the flat columns of its shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from synthct.dataset.schema import Metrics, arrow_schema, flat_columns
from synthct.dataset.writer import Rejection, ShardRecord, read_shard


@dataclass(frozen=True)
class Spread:
    """The distribution of one measure.

    Attributes:
        low: 5th percentile.
        median: 50th percentile.
        high: 95th percentile.
        count: Number of samples for which it is defined.
    """

    low: float
    median: float
    high: float
    count: int


@dataclass(frozen=True)
class Summary:
    """What a dataset holds.

    Attributes:
        samples: Number of rows.
        real: Rows that were not painted: the hosts' own slices in pairs.
        splits: Samples by split, in the order of the plan.
        by_mask: Samples by (mask section, its kind, label or None) and split.
        by_case: Samples by host case.
        hosts: Number of host patients.
        donors: Number of donor patients.
        masks: Number of different masks.
        in_training: Samples whose host the checkpoint was trained on.
        measures: Distribution of every metric that is defined anywhere.
        rejected: Rejected samples by reason.
    """

    samples: int
    real: int
    splits: Mapping[str, int]
    by_mask: Mapping[tuple[str, str, str | None], Mapping[str, int]]
    by_case: Mapping[str, int]
    hosts: int
    donors: int
    masks: int
    in_training: int
    measures: Mapping[str, Spread]
    rejected: Mapping[str, int]


def summarise(folder: Path, shards: Sequence[ShardRecord]) -> Summary:
    """Summarise a dataset from the shards on disk; no picture is read.

    Args:
        folder: The dataset's folder.
        shards: All of them, in the order of the plan.
    """
    names = flat_columns(arrow_schema(keep_original=False))
    rows: list[dict[str, Any]] = []
    splits: dict[str, int] = {}
    for shard in shards:
        found = read_shard(folder / shard.path, names).to_pylist()
        rows += [{**row, "split": shard.split} for row in found]
        splits[shard.split] = splits.get(shard.split, 0) + len(found)
    by_mask: dict[tuple[str, str, str | None], Counter[str]] = {}
    for row in rows:
        key = row["mask_name"], row["mask_kind"], row["label"]
        by_mask.setdefault(key, Counter())[row["split"]] += 1
    donors = {row["donor_patient_id"] for row in rows} - {None}
    measures = {f.name: _spread([row[f.name] for row in rows]) for f in fields(Metrics)}
    rejected = Counter(reason.reason for shard in shards for reason in shard.rejected)
    return Summary(
        samples=len(rows),
        real=sum(not row["is_painted"] for row in rows),
        splits=splits,
        by_mask=by_mask,
        by_case=Counter(row["case_id"] for row in rows),
        hosts=len({row["patient_id"] for row in rows}),
        donors=len(donors),
        masks=len({row["mask_id"] for row in rows}),
        in_training=sum(row["host_in_training"] is True for row in rows),
        measures={name: spread for name, spread in measures.items() if spread},
        rejected=dict(rejected.most_common()),
    )


def rejections(shards: Sequence[ShardRecord]) -> list[Rejection]:
    """All rejected samples, in the order of the plan."""
    return [rejection for shard in shards for rejection in shard.rejected]


def _spread(values: Sequence[float | None]) -> Spread | None:
    defined = [value for value in values if value is not None]
    if not defined:
        return None
    low, median, high = (float(q) for q in np.percentile(defined, [5, 50, 95]))
    return Spread(low, median, high, len(defined))
