"""Plans of made-up cases: no file behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthct.recipe.plan import Plan, plan_samples
from synthct.recipe.recipe import Recipe
from synthct.sources import CaseEntry, Index, LabelStats
from synthct.volume import Box

STATS = LabelStats(8, 0.1, Box((0, 0, 0), (2, 2, 2)))
TUMOR: dict[str, Any] = {"name": "tumors", "kind": "transplant", "label": "tumor", "into": "kidney"}


def entry(
    case_id: str,
    labels: Sequence[str] = ("kidney",),
    *,
    patient: str | None = None,
    source: str = "hosts",
    image: bool = True,
    split: str | None = None,
) -> CaseEntry:
    return CaseEntry(
        source=source,
        layout="kits23",
        case_id=case_id,
        patient_id=patient or case_id,
        image=Path("ct.nii.gz") if image else None,
        label_files={},
        label_values={},
        shape=(8, 8, 8),
        affine=np.eye(4),
        labels=dict.fromkeys(labels, STATS),
        available=("kidney", "tumor", "cyst", "liver"),
        unions={},
        image_sha256=None,
        voxel_sha256=None,
        label_sha256="0",
        split=split,
        licence=None,
    )


def recipe(masks: Sequence[Mapping[str, Any]], **fields: Any) -> Recipe:
    sources = {"hosts": {"layout": "phantom"}, "donors": {"layout": "phantom", "seed": 1}}
    data = {"name": "a", "version": "1.0.0", "sources": sources, "masks": masks, **fields}
    return Recipe.model_validate(data)


def plan(
    masks: Sequence[Mapping[str, Any]],
    hosts: Sequence[CaseEntry],
    donors: Sequence[CaseEntry] = (),
    **fields: Any,
) -> Plan:
    index = Index({"hosts": tuple(hosts), "donors": tuple(donors)})
    return plan_samples(recipe(masks, **fields), index)


def cases(count: int, prefix: str = "case", **fields: Any) -> list[CaseEntry]:
    return [entry(f"{prefix}_{n:03d}", **fields) for n in range(count)]
