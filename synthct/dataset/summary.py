"""Counts and quantiles of a dataset, read from the flat columns of its shards."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from synthct.dataset.manifest import FileEntry
from synthct.dataset.schema import flat_schema, is_of_volumes
from synthct.dataset.writer import Rejection, ShardRecord, read_shard
from synthct.metrics.table import MEASURES

FloatArray = npt.NDArray[np.float64]


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
        shards_id: From ``shards_id``.
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
    shards_id: str


def summarise(folder: Path, shards: Sequence[ShardRecord]) -> Summary:
    """Summarise a dataset from the shards on disk; no picture is read."""
    of_volumes = any(is_of_volumes(pq.read_schema(folder / shard.path)) for shard in shards)
    names = flat_schema(volume=of_volumes).names
    splits: Counter[str] = Counter()
    by_mask: dict[tuple[str, str, str | None], Counter[str]] = {}
    by_case: Counter[str] = Counter()
    hosts, donors, masks = set(), set(), set()
    real = in_training = 0
    values: dict[str, list[FloatArray]] = {name: [] for name in names if name in MEASURES}
    for shard in shards:  # one at a time: there may be millions of rows
        table = read_shard(folder / shard.path, names)
        for name, arrays in values.items():
            column = table[name].cast(pa.float64()).drop_null()
            arrays.append(column.to_numpy())
        for row in table.drop_columns(list(values)).to_pylist():
            splits[shard.split] += 1
            key = row["mask_name"], row["mask_kind"], row["label"]
            by_mask.setdefault(key, Counter())[shard.split] += 1
            by_case[row["case_id"]] += 1
            hosts.add(row["patient_id"])
            donors.add(row["donor_patient_id"])
            masks.add(row["mask_id"])
            real += not row["is_painted"]
            in_training += row["host_in_training"] is True
    measures = {name: _spread(np.concatenate(arrays)) for name, arrays in values.items() if arrays}
    rejected = Counter(reason.reason for shard in shards for reason in shard.rejected)
    return Summary(
        samples=sum(splits.values()),
        real=real,
        splits=splits,
        by_mask=by_mask,
        by_case=by_case,
        hosts=len(hosts),
        donors=len(donors - {None}),
        masks=len(masks),
        in_training=in_training,
        measures={name: spread for name, spread in measures.items() if spread},
        rejected=dict(rejected.most_common()),
        shards_id=shards_id(shards),
    )


def shards_id(shards: Iterable[ShardRecord | FileEntry]) -> str:
    """A hash over the hashes of all shards, in hex: it names their columns and values too."""
    lines = "".join(f"{shard.sha256}  {shard.path}\n" for shard in shards)
    return hashlib.sha256(lines.encode()).hexdigest()


def rejections(shards: Sequence[ShardRecord]) -> list[Rejection]:
    """All rejected samples, in the order of the plan."""
    return [rejection for shard in shards for rejection in shard.rejected]


def _spread(defined: FloatArray) -> Spread | None:
    if not len(defined):
        return None
    low, median, high = (float(q) for q in np.percentile(defined, [5, 50, 95]))
    return Spread(low, median, high, len(defined))
