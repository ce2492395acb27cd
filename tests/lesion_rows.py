"""Datasets of 3D lesions in a host of known voxels: several slices of each, in any view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from conftest import ellipsoid, make_tiny_case
from dataset_rows import FACTS, METRICS, complete

from synthct.dataset.journal import record_shard
from synthct.dataset.rows import encode
from synthct.dataset.sample import Sample
from synthct.dataset.schema import arrow_schema
from synthct.dataset.version import commit, open_staging
from synthct.dataset.writer import shard_name, write_shard
from synthct.metrics.table import MEASURES
from synthct.volume import Box
from synthct.volume.case import Case
from synthct.volume.views import VIEW_AXIS, Plane

#: The lesion lies in the tumour of ``make_tiny_case`` and beyond; its label value.
LESION_MM, RADII_MM, LESION_VALUE = (28.0, 18.0, 30.0), (5.0, 4.0, 9.0), 2


@dataclass(frozen=True, eq=False)
class Host:
    """A case, a lesion in it, and the scan with each variant of its paint.

    Attributes:
        case: The host.
        lesion: Boolean (I, J, K).
        painted: The whole scan with the lesion in it, by variant; None is the host as it is.
        labels: The label map, by the same.
    """

    case: Case
    lesion: np.ndarray
    painted: dict[int | None, np.ndarray]
    labels: dict[int | None, np.ndarray]


def make_host(case_id: str = "host", variants: int = 2) -> Host:
    case = make_tiny_case(case_id)
    scan, spacing = case.scan(), (0.8, 0.8, 2.5)
    lesion = ellipsoid(scan.shape, spacing, LESION_MM, RADII_MM)
    painted: dict[int | None, np.ndarray] = {None: scan.array}
    labels: dict[int | None, np.ndarray] = {None: case.labels.array}
    for variant in range(variants):
        rng = np.random.default_rng(variant)
        paint = rng.integers(-1024, 3072, scan.shape, dtype=np.int16)
        painted[variant] = np.where(lesion, paint, scan.array)
        labels[variant] = np.where(lesion, LESION_VALUE, case.labels.array).astype(np.uint8)
    return Host(case, lesion, painted, labels)


def slices_of(host: Host, view: Plane) -> list[int]:
    """The slices that the lesion is on."""
    axis = VIEW_AXIS[view]
    across = tuple(n for n in range(3) if n != axis)
    return [int(n) for n in np.flatnonzero(host.lesion.any(axis=across))]


def lesion_row(
    host: Host, view: Plane, index: int, variant: int | None, *, keep_original: bool, **facts: Any
) -> dict[str, Any]:
    """One slice of one painting of a host's lesion."""
    plane = host.case.scan().slab(VIEW_AXIS[view], index)
    thin = Box.whole(host.case.scan().shape).slab(VIEW_AXIS[view], index).slices
    name = host.case.case_id
    lesion_id = f"{name}.tumors.d000"
    named = replace(
        FACTS,
        case_id=name, patient_id=name, lesion_id=lesion_id, mask_id=f"{lesion_id}.s{index}",
        sample_id=f"{lesion_id}.s{index}.{'real' if variant is None else f'v{variant}'}",
        view=view, slice_index=index, variant=variant, is_painted=variant is not None,
        label="tumor", mask_name="tumors", mask_kind="transplant",
    )  # fmt: skip
    told = {"sample_id": named.sample_id, "mask": {"label_value": LESION_VALUE}}
    sample = Sample(
        facts=replace(named, **facts),
        affine=plane.affine,
        original=plane.array,
        image=host.painted[variant][thin],
        mask=host.lesion[thin],
        labels=host.labels[variant][thin],
        metrics=METRICS,
        provenance=told,
    )
    return encode(sample, keep_original=keep_original)


def write_lesions(
    final: Path,
    hosts: Sequence[Host],
    view: Plane = "axial",
    *,
    left_out: Sequence[int] = (),
    keep_original: bool = True,
    real: bool = False,
    **facts: Any,
) -> Path:
    """A version with every slice of the lesion of each host, the last host in its test split.

    Args:
        final: Its folder.
        hosts: The hosts.
        view: The plane of the slices.
        left_out: Slices that are not in it, by index.
        keep_original: Whether there is a column ``original``.
        real: Whether the hosts' own slices are beside the paintings.
        facts: What all rows have in common.
    """
    staging = open_staging(final, "plan")
    records = []
    schema = arrow_schema(keep_original)
    splits = {"train": hosts[:-1], "test": hosts[-1:]} if len(hosts) > 1 else {"train": hosts}
    for split, part in splits.items():
        rows = [
            lesion_row(host, view, index, variant, keep_original=keep_original, **facts)
            for host in part
            for index in slices_of(host, view)
            if index not in left_out
            for variant in host.painted
            if real or variant is not None
        ]
        name = shard_name(split, 0, 1)
        records.append(write_shard(staging.tree, name, rows, split=split, schema=schema))
        record_shard(staging.journal, records[-1])
    return commit(staging, complete(staging, records))


def write_volumes(final: Path, hosts: Sequence[Host], *, keep_original: bool = True) -> Path:
    """A version with the lesion of each host as a volume, 4 mm of the host around it."""
    staging, rows = open_staging(final, "plan"), []
    for host in hosts:
        box = Box.around(host.lesion)
        assert box is not None
        scan, name = host.case.scan(), host.case.case_id
        box = box.grow((5, 5, 2)).clip(scan.shape)
        for variant in (variant for variant in host.painted if variant is not None):
            named = replace(
                FACTS,
                case_id=name, patient_id=name, lesion_id=f"{name}.tumors.d000",
                mask_id=f"{name}.tumors.d000", sample_id=f"{name}.tumors.d000.v{variant}",
                view="volume", slice_index=box.start_ijk[2], variant=variant, label="tumor",
                mask_name="tumors", mask_kind="transplant",
            )  # fmt: skip
            sample = Sample(
                facts=named,
                affine=scan.crop(box).affine,
                original=scan.array[box.slices],
                image=host.painted[variant][box.slices],
                mask=host.lesion[box.slices],
                labels=host.labels[variant][box.slices],
                metrics={**dict.fromkeys(MEASURES), **METRICS},
                provenance={
                    "mask": {"label_value": LESION_VALUE},
                    "host": {"box": [list(box.start_ijk), list(box.stop_ijk)]},
                },
            )
            rows.append(encode(sample, keep_original=keep_original))
    schema = arrow_schema(keep_original, volume=True)
    record = write_shard(
        staging.tree, shard_name("train", 0, 1), rows, split="train", schema=schema
    )
    record_shard(staging.journal, record)
    return commit(staging, complete(staging, [record]))
