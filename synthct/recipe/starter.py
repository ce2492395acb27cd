"""A first recipe for a folder of scans: what ``synthct init`` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthct.errors import SourceError, counted
from synthct.models.checkpoint import find_checkpoint
from synthct.models.methods import Diffusion
from synthct.recipe.recipe import Recipe
from synthct.sources import CaseEntry, index_sources
from synthct.sources.detect import Detected, detect, names_of_drawn

#: So many cases are read to see which structures there are.
LOOKED_AT = 8

#: Lesions, which are painted into an organ and not as an organ.
_LESIONS = ("tumor", "cyst", "nodule", "metastasis")
#: Organs that are larger than what the starter checkpoint paints well: a part of them is painted.
_LARGE = ("liver", "lung", "spleen")
_PART_MM = 80


def starter_recipe(folder: Path, *, cache_dir: Path, progress: bool = False) -> str:
    """The text of a commented recipe for the scans in a folder.

    Its layout follows from its files, and some of its cases are read for their structures.

    Args:
        folder: The folder.
        cache_dir: Where the index is kept.
        progress: Show a progress bar.

    Raises:
        SourceError: If there is no scan in the folder, or none can be read.
    """
    found, labels = detect(folder), _paintable()
    source = _section(found)
    cases = source.select(source.find(cache_dir)).cases
    known = tuple(source.native_labels()) or tuple(found.section.get("structures", ()))
    drawn = {} if known else names_of_drawn({n for case in cases for n in case.label_files}, labels)
    if found.section["layout"] == "dicom" and drawn:
        named = {**found.section, "label_names": drawn}
        found, known = replace(found, section=named), tuple(drawn)
        source = _section(found)
    ids = [case.case_id for case in cases if case.image]
    if not ids:
        raise SourceError(
            f"{folder}: {counted(len(cases), 'case')} of layout {source.layout}, and no scan to "
            f"paint into. {getattr(source, 'obtain', '')}".strip()
        )
    some = ids[:: max(1, -(-len(ids) // LOOKED_AT))]
    wanted = tuple(dict.fromkeys([*labels, *found.section.get("unions", ()), *known]))
    index = index_sources(
        {"hosts": source.model_copy(update={"cases": tuple(some)})},
        wanted,
        cache_dir=cache_dir,
        on_bad_case="skip",
        progress=progress,
    )
    entries = [entry for entry in index.entries("hosts") if entry.image is not None]
    skipped = [f"{one.case_id}: {one.reason}" for one in index.skipped]
    return "\n".join(_lines(folder, found, len(ids), entries, labels, known, skipped)) + "\n"


def _section(found: Detected) -> Any:
    recipe = {
        "name": "x", "version": "1.0.0", "sources": {"hosts": found.section},
        "masks": [{"name": "x", "kind": "blob", "radius_mm": [5, 15]}],
    }  # fmt: skip
    return Recipe.model_validate_json(json.dumps(recipe)).sources["hosts"]


def _paintable() -> tuple[str, ...]:
    """What the checkpoint that ships with synthct can paint."""
    settings = Diffusion()
    files = find_checkpoint(settings.checkpoint)
    return tuple(files.network.rules(files, settings, (None,)).labels)


def _lines(
    folder: Path,
    found: Detected,
    cases: int,
    entries: Sequence[CaseEntry],
    labels: Sequence[str],
    known: Sequence[str],
    skipped: Sequence[str],
) -> Iterator[str]:
    there: dict[str, int] = {}
    for entry in entries:
        for label in entry.labels:
            there[label] = there.get(label, 0) + 1
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")[:60] or "mine"
    read = counted(len(entries), "of them was", "of them were")
    yield f"# {counted(cases, 'scan')}; {read} read to see what can be painted."
    yield "# Next: synthct check THIS_FILE, then synthct build THIS_FILE --limit 8"
    yield ""
    yield f"name: {name}"
    yield "version: 1.0.0               # of the data: raise it when anything below changes"
    yield "seed: 0                      # every random decision follows from it"
    yield ""
    yield "sources:"
    yield "  hosts:                     # the scans that are painted into"
    for key, value in found.section.items():
        if key != "structures" and key != "label_names":
            yield f"    {key}: {_flow(value)}"
            continue
        yield f"    {key}:"
        yield from (f"      {_flow(name)}: {_flow(called)}" for name, called in value.items())
    yield "    # licence: CC-BY-4.0     # of your scans; without it nothing can be published"
    if "patients" not in found.section:
        yield "    # patients: {case_1: anna, case_2: anna}   # where one person has several scans"
    if found.section["layout"] == "nifti":
        yield "    # scans are called as your files, and the dataset tells these names: they should"
        yield "    # not say who a patient is"
    for remark in found.remarks:
        yield f"    # {remark}"
    if skipped:
        yield "on_bad_case: skip            # some cannot be used, and are listed by check:"
        yield from (f"# {line}" for reason in skipped[:5] for line in reason.splitlines())
    yield ""
    yield "masks_per_case: 4            # masks drawn in each scan, shared out below by weight"
    yield "masks:"
    yield from _masks(there, len(entries), labels, {*known, *there})
    yield ""
    yield "inpaint:"
    yield "  checkpoint: package:starter-2d   # ships with synthct; or a folder, or a Hub id"
    yield ""
    yield "keep_original: true          # rows also hold the slice as it was"
    yield "splits: {train: 0.8, validation: 0.1, test: 0.1}   # by patient"


def _masks(
    there: Mapping[str, int], total: int, labels: Sequence[str], numbered: Collection[str]
) -> Iterator[str]:
    """Sections for what the scans show, the checkpoint's own labels first.

    Args:
        there: Structure to the number of scans that show it.
        total: Number of scans that were read.
        labels: What the checkpoint paints by name.
        numbered: Structures that have a value in the label maps.
    """
    organs = [label for label in labels if label in there and label not in _LESIONS]
    others = [label for label in there if label not in labels]
    for label in organs:
        size = f"max_extent_mm: {_PART_MM}" if label in _LARGE else "margin_mm: 3"
        yield (
            f"  - {{name: {_slug(label)}, kind: organ, label: {label}, {size}}}"
            f"   # in {there[label]} of {total}"
        )
    if organs and "tumor" in labels:
        ignored = "" if "tumor" in numbered else ", label_map: ignore"
        yield f"  - {{name: tumors, kind: ellipsoid, label: tumor, into: {organs[0]}{ignored}}}"
    # Scans without such an organ would lend nothing.
    if there.get("tumor", 0) > max((there[organ] for organ in organs), default=0):
        seen = f"in {there['tumor']} of {total}"
        yield f"  - {{name: tumor, kind: organ, label: tumor, margin_mm: 3}}   # {seen}"
    if not organs and "tumor" not in there:
        for label in others[:3]:
            where = f"around: {_flow(label)}, margin_mm: [3, 10], max_extent_mm: {_PART_MM}"
            seen = f"in {there[label]} of {total}"
            yield f"  - {{name: around-{_slug(label)}, kind: box, {where}}}   # {seen}"
        if not others:
            yield "  - {name: blobs, kind: blob, radius_mm: [5, 15]}   # anywhere in the body"
    if others:
        shown = ", ".join(f"{label} ({there[label]})" for label in others[:40])
        yield f"  # what else they show, in how many: {shown}"
        yield f"  # the checkpoint paints {', '.join(labels)} by name, and whatever fits in a box:"
        yield f"  # - {{name: boxes, kind: box, around: {_flow(others[0])}, margin_mm: [3, 10]}}"


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") or "structure"


def _flow(value: Any) -> str:
    """A value as YAML on one line; JSON is YAML, and plain words need no quotes."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_/.][\w/.-]*", value):
        return value
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
