"""What real tissue of a label looks like, learned from the sources' scans before painting.

For each painted label: the distribution of its HU, and pixels to train a segmenter on that judges
whether paint looks like the label. Both are cached per scan, so a second build reads no scan.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.errors import MaskError, counted
from synthct.metrics.adherence import Segmenter, local_features, near
from synthct.metrics.distribution import Quantiles, hu_quantiles
from synthct.sources import CaseEntry, Index, read_case
from synthct.sources.keys import case_facts
from synthct.storage.cache import load_arrays, save_arrays
from synthct.storage.keys import cache_key
from synthct.volume.case import Case
from synthct.volume.regions import structure
from synthct.volume.views import VIEW_AXIS, Plane

#: Most patients to learn a label from, and slices and pixels of each.
PATIENTS, SLICES, PIXELS = 8, 6, 4000

#: Fewest other patients to train a segmenter on: from one alone it would learn the contrast phase.
LEAST_PATIENTS = 2

#: Millimetres around a structure that the features of its pixels depend on.
_CONTEXT_MM = 26.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Tissue:
    """What is learned about a label from one patient.

    Attributes:
        patient_id: Whose scan it is.
        quantiles: Of the label's HU.
        features: (N, F) of pixels inside and near the label.
        inside: Boolean (N,), which of them belong to it.
    """

    patient_id: str
    quantiles: Quantiles
    features: npt.NDArray[np.float32]
    inside: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Reference:
    """Real tissue that a painting of a label is compared with; None where nothing is known.

    Attributes:
        quantiles: Of the HU of real tissue.
        segmenter: Trained on patients other than the host's.
    """

    quantiles: Quantiles | None = None
    segmenter: Segmenter | None = None


class References:
    """The real tissue of every label.

    Args:
        tissue: By label, one item per patient.
        quantiles: By label, HU that are known without any patient.
    """

    def __init__(
        self,
        tissue: Mapping[str, Sequence[Tissue]],
        quantiles: Mapping[str, Quantiles] | None = None,
    ) -> None:
        self._tissue, self._quantiles = tissue, dict(quantiles or {})
        self._segmenters: dict[tuple[str, frozenset[str]], Segmenter] = {}

    def of(self, label: str | None, patient_id: str) -> Reference:
        """The reference for paintings of ``label`` in scans of a patient, learned from others."""
        if label is None:
            return Reference()
        return Reference(self._quantiles_of(label), self._segmenter_of(label, patient_id))

    def _quantiles_of(self, label: str) -> Quantiles | None:
        """HU of all patients together, each with the same weight."""
        tissue = self._tissue.get(label, ())
        if label not in self._quantiles and tissue:
            self._quantiles[label] = hu_quantiles(np.concatenate([t.quantiles for t in tissue]))
        return self._quantiles.get(label)

    def _segmenter_of(self, label: str, patient_id: str) -> Segmenter | None:
        others = [t for t in self._tissue.get(label, ()) if t.patient_id != patient_id]
        if len(others) < LEAST_PATIENTS:
            return None
        key = label, frozenset(t.patient_id for t in others)
        if key not in self._segmenters:
            self._segmenters[key] = Segmenter.fit(
                np.concatenate([t.features for t in others]),
                np.concatenate([t.inside for t in others]),
            )
        return self._segmenters[key]


def learn_references(
    index: Index,
    labels: Iterable[str],
    label_names: Mapping[str, int],
    view: Plane,
    *,
    cache_dir: Path,
    progress: bool = False,
) -> References:
    """Learn how labels look from the sources' scans, up to ``PATIENTS`` patients each.

    Real scans come before phantoms; the HU of phantoms' tissue ship with the package.

    Args:
        index: The cases of all sources.
        labels: The labels that are painted.
        label_names: Structure to value, dataset-wide.
        view: The plane of the slices that are judged.
        cache_dir: Where what was learned is cached.
        progress: Show a progress bar.

    Raises:
        SourceError: If a scan is missing or damaged.
    """
    from tqdm import tqdm

    scans = {label: _scans_with(index, label) for label in dict.fromkeys(labels)}
    tissue: dict[str, list[Tissue]] = {label: [] for label in scans}
    folder = cache_dir / "tissue"
    wanted = {
        (entry, label): folder / f"{_key(entry, label_names, label, view)}.npz"
        for entry in dict.fromkeys(entry for chosen in scans.values() for entry in chosen)
        for label, chosen in scans.items()
        if entry in chosen
    }
    known = {which: load_arrays(path) for which, path in wanted.items()}
    new = dict.fromkeys(entry for (entry, _), arrays in known.items() if arrays is None)
    if new and not progress:
        _log.info("learning how real %s looks from %s", ", ".join(scans), counted(len(new), "scan"))
    for entry in tqdm(
        new, desc="learning real tissue", unit="scan", leave=False, disable=not progress
    ):
        case = read_case(entry, label_names)
        for label in (label for of, label in wanted if of == entry and known[of, label] is None):
            try:
                arrays = learn_tissue(case, label, view)
            except MaskError:  # no source numbers the label
                continue
            save_arrays(wanted[entry, label], arrays)
            known[entry, label] = arrays
    for (entry, label), learned in known.items():
        if learned is not None:
            tissue[label].append(Tissue(entry.patient_id, **learned))
    layouts = {entry.layout for cases in index.sources.values() for entry in cases}
    shipped = shipped_quantiles() if layouts == {"phantom"} else {}
    return References(tissue, {name: shipped[name] for name in scans if name in shipped})


def learn_tissue(case: Case, label: str, view: Plane) -> dict[str, npt.NDArray[Any]]:
    """What is learned about a label from one case: the arrays of ``Tissue``; deterministic.

    Raises:
        MaskError: If the case has no image or no voxel of the label.
    """
    region, box = structure(case, [label])
    scan = case.scan()
    quantiles = hu_quantiles(scan.array[box.slices][region])
    axis = VIEW_AXIS[view]
    spacing = [s for a, s in enumerate(scan.spacing_mm) if a != axis]
    margin = [
        0 if a == axis else int(np.ceil(_CONTEXT_MM / s)) for a, s in enumerate(scan.spacing_mm)
    ]
    wide = box.grow((margin[0], margin[1], margin[2])).clip(scan.shape)
    hu = np.moveaxis(scan.array[wide.slices], axis, 0)
    inside = np.zeros(wide.shape, dtype=bool)
    inside[tuple(slice(a - b, c - b) for a, b, c in zip(
        box.start_ijk, wide.start_ijk, box.stop_ijk, strict=True))] = region  # fmt: skip
    inside = np.moveaxis(inside, axis, 0)
    area = inside.sum(axis=(1, 2))
    large = np.flatnonzero(area >= area.max() / 4)
    features, belongs = [], []
    for k in large[_evenly(len(large), SLICES)]:
        judged = near(inside[k], spacing)
        features.append(local_features(hu[k], spacing)[judged])
        belongs.append(inside[k][judged])
    pixels, truth = np.concatenate(features), np.concatenate(belongs)
    chosen = np.concatenate(
        [hit[_evenly(len(hit), PIXELS)] for hit in (np.flatnonzero(truth), np.flatnonzero(~truth))]
    )
    return {"quantiles": quantiles, "features": pixels[chosen], "inside": truth[chosen]}


@cache
def shipped_quantiles() -> dict[str, Quantiles]:
    """HU of the tissues of procedural phantoms, by label; made by tests/benchmarks/phantoms.py."""
    text = (files("synthct.build") / "phantom_tissue.json").read_text(encoding="utf-8")
    return {label: np.array(hu, dtype=np.float64) for label, hu in json.loads(text).items()}


def _scans_with(index: Index, label: str) -> list[CaseEntry]:
    """One scan of each of some patients that have the label, evenly over all of them."""
    by_patient: dict[str, CaseEntry] = {}
    for entry in (e for cases in index.sources.values() for e in cases):
        if entry.image is not None and label in entry.labels:
            by_patient.setdefault(entry.patient_id, entry)
    scans = list(by_patient.values())
    scans = [e for e in scans if e.layout != "phantom"] or scans
    return [scans[n] for n in _evenly(len(scans), PATIENTS)]


def _evenly(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most ``most`` of 0..count-1, evenly spread."""
    return np.arange(min(count, most)) * count // max(1, min(count, most))


def _key(entry: CaseEntry, label_names: Mapping[str, int], label: str, view: Plane) -> str:
    """The key of what a case teaches of a label, whatever its source is called."""
    case = case_facts(replace(entry, source="", lesions={}))
    return cache_key(__name__, case=case, label_names=label_names, label=label, view=view)
