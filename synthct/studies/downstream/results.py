"""The results of a study: ``results.json``, from which its tables and its page are made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from synthct.storage.files import atomic_write
from synthct.studies.downstream.arms import Run
from synthct.studies.downstream.judge import THRESHOLDS, TOLERANCE_MM, Judged
from synthct.studies.downstream.page import page
from synthct.studies.downstream.recipe import Arm, Study
from synthct.studies.downstream.statistics import (
    ALARMS,
    MEASURES,
    Counts,
    by_size,
    difference,
    froc,
    mean_of,
    number,
)
from synthct.studies.downstream.tables import markdown
from synthct.version import __version__

#: Which arms are compared, the first of all with pasted lesions.
_PAIRS: tuple[tuple[Arm, Arm], ...] = (
    ("painted", "copy_paste"),
    ("pairs", "copy_paste"),
    ("painted", "real"),
    ("pairs", "real"),
    ("pairs", "painted"),
    ("painted", "noise_fill"),
    ("copy_paste", "real"),
    ("noise_fill", "real"),
    ("painted_only", "real"),
)

_OVERLAPS = ("dice", "jaccard", "surface_dice")


def write_documents(
    folder: Path,
    study: Study,
    judged: Mapping[Run, Sequence[Judged]],
    real_scans: int,
    looks: Mapping[str, Mapping[str, float | None]],
    classified: Mapping[str, Any] | None,
) -> None:
    """Write ``results.json``, ``results.md`` and ``index.html``.

    Args:
        folder: Of the study.
        study: The study.
        judged: The test scans by segmenter.
        real_scans: Number of real training scans at share 1.
        looks: By method of painting what the lesions look like.
        classified: The results of classifiers, if there are any.
    """
    results = results_of(study, judged, real_scans)
    results["looks"] = {name: dict(one) for name, one in looks.items()}
    if classified is not None:
        results["classification"] = classified
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    for name, content in (
        ("results.json", text),
        ("results.md", markdown(results)),
        ("index.html", page(results)),
    ):
        atomic_write(folder / name, content.encode())


def results_of(
    study: Study, judged: Mapping[Run, Sequence[Judged]], real_scans: int
) -> dict[str, Any]:
    """All numbers of a study, as JSON."""
    groups: dict[tuple[float, float, Arm], list[Run]] = {}
    for run in judged:
        groups.setdefault((run.share, run.amount, run.arm), []).append(run)
    counts = {
        key: Counts.of([judged[r] for r in runs], study.lesion) for key, runs in groups.items()
    }
    some = next(iter(judged.values()))
    return {
        "study": study.name,
        "version": __version__,
        "lesion": study.lesion,
        "labels": list(study.classes),
        "seeds": list(study.seeds),
        "steps": study.trainer.steps,
        "tolerance_mm": TOLERANCE_MM,
        "thresholds": list(THRESHOLDS),
        "alarms": list(ALARMS),
        "training_scans": real_scans,
        "test": {
            "scans": len(some),
            "patients": len({one.patient_id for one in some}),
            "with_lesion": sum(bool(one.lesions) for one in some),
            "lesions": sum(len(one.lesions) for one in some),
        },
        "differences": _differences(counts),
        "arms": [
            _arm(study, key, {run: judged[run] for run in runs}, counts)
            for key, runs in groups.items()
        ],
    }


def _real_of(
    counts: Mapping[tuple[float, float, Arm], Counts], key: tuple[float, float, Arm]
) -> Counts:
    """The arm ``real`` at the share of another; that other itself if there is none."""
    return counts.get((key[0], 0.0, "real"), counts[key])


def _differences(counts: Mapping[tuple[float, float, Arm], Counts]) -> list[dict[str, Any]]:
    rows = []
    for one, other in _PAIRS:
        for share, amount, arm in counts:
            key = share, amount, arm
            against = (share, 0.0 if other == "real" else amount, other)
            if arm != one or against not in counts:
                continue
            for name, (measure, more_is_better) in MEASURES.items():
                found = difference(measure, counts[key], counts[against], _real_of(counts, key))
                if found is None:
                    continue
                rows.append(
                    {
                        "share": share,
                        "amount": amount,
                        "arm": arm,
                        "against": other,
                        "measure": name,
                        **asdict(found),
                        "verdict": _verdict(found.value > 0, more_is_better, found.is_shown),
                    }
                )
    return rows


def _verdict(is_more: bool, more_is_better: bool, is_shown: bool) -> str:
    if not is_shown:
        return "not shown"
    return "better" if is_more == more_is_better else "worse"


def _arm(
    study: Study,
    key: tuple[float, float, Arm],
    judged: Mapping[Run, Sequence[Judged]],
    counts: Mapping[tuple[float, float, Arm], Counts],
) -> dict[str, Any]:
    share, amount, arm = key
    real, own = _real_of(counts, key), counts[key]
    found = own.found.sum(0) / max(float(own.lesions.sum()), 1.0)
    alarms = own.alarms.sum(0) / own.scans.sum()
    scans = [one for some in judged.values() for one in some]
    each = {run: Counts.of([one], study.lesion) for run, one in judged.items()}
    return {
        "share": share,
        "amount": amount,
        "arm": arm,
        **{name: number(measure, own, real) for name, (measure, _) in MEASURES.items()},
        "by_seed": {
            str(run.seed): {
                name: number(measure, one, real) for name, (measure, _) in MEASURES.items()
            }
            for run, one in each.items()
        },
        **{
            name: {
                label: mean_of([getattr(one, name)[label] for one in scans])
                for label in study.classes
            }
            for name in _OVERLAPS
        },
        "by_size": by_size(list(judged.values())),
        "froc": [round(float(one), 4) for one in froc(alarms, found)],
        "curve": np.stack([alarms, found], axis=1).round(4).tolist(),
    }
