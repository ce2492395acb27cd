"""Masks for a recipe that make more of the lesions that a segmenter of real scans misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from synthct.dataset.records import yaml_text
from synthct.errors import RecipeError
from synthct.masks.transplant import Transplant
from synthct.studies.downstream.arms import Run
from synthct.studies.downstream.judge import USUAL, Judged, Lesion
from synthct.studies.downstream.recipe import Study
from synthct.studies.downstream.statistics import SIZES

#: Diameters end here in a recipe.
_LARGEST_MM = 500.0

#: Halves of a scan by the axis of a lesion's place: below and above the middle.
_HALVES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))


def suggestion(study: Study, judged: Mapping[Run, Sequence[Judged]]) -> str:
    """The section ``masks`` of a recipe, as YAML, with how many lesions were missed as comments.

    Each section of the dataset's recipe that carries lesions over is divided by size, weighted by
    how many lesions of that size the segmenters of real scans have missed.

    Args:
        study: The study.
        judged: The test scans by segmenter.

    Raises:
        RecipeError: If the study has no arm ``real``.
    """
    own = [scans for run, scans in judged.items() if run.arm == "real" and run.share == 1]
    if not own:
        raise study.error(("arms",), "a suggestion needs the arm 'real' at share 1")
    lesions = [lesion for scans in own for one in scans for lesion in one.lesions]
    sections = [section for section in study.recipe.masks if isinstance(section, Transplant)]
    masks = []
    for section in sections:
        for name, (low, high) in SIZES.items():
            missed = _missed([one for one in lesions if low <= one.diameter_mm < high])
            if not missed[0]:
                continue
            plain = section.model_dump(mode="json", exclude_defaults=True)
            query = {**plain.get("query", {}), "diameter_mm": [low, min(high, _LARGEST_MM)]}
            slug = name.replace(" ", "-")
            masks.append(
                {
                    "name": f"{section.name}-{slug}",
                    "kind": section.kind,
                    **{k: v for k, v in plain.items() if k not in ("name", "kind", "weight")},
                    "query": query,
                    "weight": missed[0],
                }
            )
    if not masks:
        raise RecipeError(
            f"{study.name}: nothing to suggest: no lesion was missed, or no mask is a transplant"
        )
    return "".join(f"# {line}\n" for line in _said(lesions)) + yaml_text({"masks": masks})


def _said(lesions: Sequence[Lesion]) -> list[str]:
    """What was missed, by size and place."""
    lines = ["Lesions of test patients that segmenters of real scans missed, of all:"]
    for name, (low, high) in SIZES.items():
        lines.append(_line(name, [one for one in lesions if low <= one.diameter_mm < high]))
    for axis, names in enumerate(_HALVES):
        for half, name in enumerate(names):
            here = [one for one in lesions if (one.place[axis] >= 0.5) == bool(half)]
            lines.append(_line(f"{name} half of the scan", here))
    lines.append("Judge what comes of it on other patients: these have chosen it.")
    return lines


def _line(name: str, lesions: Sequence[Lesion]) -> str:
    missed, count = _missed(lesions)
    return f"  {name}: {missed} of {count}"


def _missed(lesions: Sequence[Lesion]) -> tuple[int, int]:
    return sum(one.score < USUAL for one in lesions), len(lesions)
