"""Masks for a recipe that make more of the lesions that a segmenter of real scans misses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from synthct.build.check import check
from synthct.dataset.records import yaml_text
from synthct.errors import RecipeError, SynthCTError
from synthct.masks.transplant import Transplant
from synthct.recipe.recipe import Recipe
from synthct.studies.downstream.arms import Run
from synthct.studies.downstream.judge import USUAL, Judged, Lesion
from synthct.studies.downstream.recipe import Study
from synthct.studies.downstream.statistics import SIZES

#: Diameters end here in a recipe.
_LARGEST_MM = 500.0

#: Names of sections are not longer.
_NAME = 40

#: Places in an organ by the share of a lesion's surface that does not border on it.
DEPTHS = {"within": (0.0, 0.35), "at-surface": (0.35, 1.0)}

#: Halves of a scan by the axis of a lesion's place: below and above the middle.
_HALVES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))


def suggestion(study: Study, judged: Mapping[Run, Sequence[Judged]], cache_dir: Path) -> str:
    """The section ``masks`` of a recipe, as YAML, with how many lesions were missed as comments.

    For each organ, place in it and size of missed lesions, the section of the dataset's recipe that
    carries lesions into that organ, weighted by how many the segmenters of real scans have missed.

    Args:
        study: The study.
        judged: The test scans by segmenter.
        cache_dir: Of indexes and phantoms.

    Raises:
        RecipeError: If the study has no arm ``real``, or there is nothing to suggest.
    """
    own = [scans for run, scans in judged.items() if run.arm == "real" and run.share == 1]
    if not own:
        raise study.error(("arms",), "a suggestion needs the arm 'real' at share 1")
    lesions = [lesion for scans in own for one in scans for lesion in one.lesions]
    sections = [one for one in study.recipe.masks if isinstance(one, Transplant)]
    masks: list[dict[str, Any]] = []
    notes: list[str] = []
    for organ in dict.fromkeys(one.organ for one in lesions):
        inside = [one for one in sections if organ in (one.into, None)] or sections[:1]
        for depth, place in DEPTHS.items():
            for size, limits in SIZES.items():
                missed, _ = _missed(
                    [
                        one
                        for one in lesions
                        if one.organ == organ
                        and place[0] <= one.exophytic_share < place[1] + (place[1] == 1)
                        and limits[0] <= one.diameter_mm < limits[1]
                    ]
                )
                for section in inside if missed else ():
                    name = "-".join(
                        part.replace(" ", "-")
                        for part in (section.name, organ or section.into, depth, size)
                    )
                    fields, lacking = _possible(study, section, organ, place, limits, cache_dir)
                    name = name if len(name) <= _NAME else f"{section.name[:30]}-{len(masks)}"
                    masks.append({"name": name, **fields, "weight": missed})
                    notes += [f"  {name}: {lacking}"] if lacking else []
    if not masks:
        raise RecipeError(
            f"{study.name}: nothing to suggest: no lesion was missed, or no mask is a transplant"
        )
    lines = [*_said(lesions), *notes]
    return "".join(f"# {line}\n" for line in lines) + yaml_text({"masks": masks})


def _possible(
    study: Study,
    section: Transplant,
    organ: str | None,
    place: tuple[float, float],
    limits: tuple[float, float],
    cache_dir: Path,
) -> tuple[dict[str, Any], str]:
    """A section that some donor has lesions for, and what of the wish it leaves out."""
    plain = section.model_dump(mode="json", exclude_defaults=True)
    plain = {k: v for k, v in plain.items() if k not in ("name", "weight")}
    plain = {"kind": section.kind, **plain, "into": organ or section.into}
    size = {"diameter_mm": [limits[0], min(limits[1], _LARGEST_MM)]}
    seat = {"exophytic_share": list(place)}
    wishes: tuple[tuple[dict[str, Any], str | None, str], ...] = (
        ({**size, **seat}, "matched", ""),
        (size, None, "no donor has one at that place, so the place is as in the recipe"),
        (seat, "matched", "no donor has one of that size, so others are scaled"),
        ({}, None, "no donor has one like that"),
    )
    for query, placement, lacking in wishes:
        fields = {**plain, "query": {**plain.get("query", {}), **query}}
        fields |= {"placement": placement} if placement else {}
        if _is_accepted(study, fields, cache_dir):
            return fields, lacking
    return {**plain, "into": section.into}, "the recipe's own section"


def _is_accepted(study: Study, fields: Mapping[str, Any], cache_dir: Path) -> bool:
    """Whether ``synthct check`` takes the dataset's recipe with one section of masks."""
    content = {**study.recipe.model_dump(), "masks": [{"name": "suggested", **fields}]}
    try:
        check(Recipe.model_validate(content), cache_dir=cache_dir)
    except (SynthCTError, ValidationError):
        return False
    return True


def _said(lesions: Sequence[Lesion]) -> Iterator[str]:
    """What was missed, by size, organ and place."""
    yield "Lesions of test patients that segmenters of real scans missed, of all:"
    for name, (low, high) in SIZES.items():
        yield _line(name, [one for one in lesions if low <= one.diameter_mm < high])
    for organ in dict.fromkeys(one.organ for one in lesions):
        yield _line(f"in {organ or 'no labelled organ'}", [o for o in lesions if o.organ == organ])
    for axis, names in enumerate(_HALVES):
        for half, name in enumerate(names):
            here = [one for one in lesions if (one.place[axis] >= 0.5) == bool(half)]
            yield _line(f"{name} half of the scan", here)
    yield "Judge what comes of it on other patients: these have chosen it."


def _line(name: str, lesions: Sequence[Lesion]) -> str:
    missed, count = _missed(lesions)
    return f"  {name}: {missed} of {count}"


def _missed(lesions: Sequence[Lesion]) -> tuple[int, int]:
    return sum(one.score < USUAL for one in lesions), len(lesions)
