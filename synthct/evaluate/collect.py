"""Features of all pictures of a dataset, in one pass over it, cached by content id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from synthct.dataset.sample import Sample
from synthct.dataset.stack import unstack
from synthct.evaluate.pictures import Crop, Extracted, Extractor, Hu, crop_to_mask
from synthct.evaluate.results import Scope
from synthct.evaluate.stream import Dataset, HostScans, painted_slice
from synthct.storage.cache import load_arrays, save_arrays
from synthct.storage.keys import cache_key

PictureKind = Literal["painted", "original", "neighbour"]

#: Crops per batch: few, so that feature maps stay in a CPU's cache.
_BATCH = 8


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The features of one set of pictures.

    Attributes:
        features: (N, D).
        probabilities: (N, C); None if the extractor has no classes.
        mask_ids: (N,), the mask of each picture.
    """

    features: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32] | None
    mask_ids: npt.NDArray[np.str_]

    def subset(self, chosen: npt.NDArray[np.bool_]) -> FeatureSet:
        """The pictures where ``chosen`` (N,) is true."""
        chances = None if self.probabilities is None else self.probabilities[chosen]
        return FeatureSet(self.features[chosen], chances, self.mask_ids[chosen])


@dataclass(frozen=True, eq=False)
class FeatureJob:
    """A set of features to extract.

    Attributes:
        kind: Painted slices, the same slices before painting, or real neighbouring slices.
        extractor: The feature extractor.
        scope: The mask, a crop around it, or the whole slice.
    """

    kind: PictureKind
    extractor: Extractor
    scope: Scope


@dataclass(eq=False)
class _Queue:
    """The pictures of a job that wait for a full batch, and the features of the others."""

    job: FeatureJob
    waiting: list[Crop] = field(default_factory=list)
    done: list[Extracted] = field(default_factory=list)
    mask_ids: list[str] = field(default_factory=list)

    def add(self, whole: Crop, mask_id: str) -> None:
        self.waiting.append(whole if self.job.scope == "slice" else crop_to_mask(whole))
        self.mask_ids.append(mask_id)
        if len(self.waiting) == _BATCH:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            self.done.append(self.job.extractor.extract(self.waiting))
            self.waiting.clear()

    def result(self) -> FeatureSet:
        self.flush()
        dim = self.job.extractor.dim
        features = [one.features for one in self.done] or [np.zeros((0, dim), np.float32)]
        chances = [one.probabilities for one in self.done if one.probabilities is not None]
        return FeatureSet(
            np.concatenate(features),
            np.concatenate(chances) if chances else None,
            np.array(self.mask_ids, dtype=np.str_),
        )


def collect(
    dataset: Dataset,
    jobs: Sequence[FeatureJob],
    *,
    scans: HostScans | None,
    cache_dir: Path,
    advance: Callable[[], object],
    visit: Callable[[Sample, Hu | None], object],
) -> list[FeatureSet]:
    """The features of every job: from the cache, or in one pass over the dataset.

    Real pictures are taken once per mask, painted ones for every variant. A volume is taken as it
    is by extractors that see volumes, and slice by slice by the others.

    Args:
        dataset: The dataset.
        jobs: The sets of features.
        scans: The hosts; needed for neighbours, and for originals that the dataset does not keep.
        cache_dir: Folder of the cache.
        advance: Called once per row.
        visit: Called with each slice or volume and its original, if there is one.

    Raises:
        SynthCTError: If the dataset is damaged or a scan is missing.
    """
    paths = [_path(cache_dir, dataset, job) for job in jobs]
    results = [_load(path) for path in paths]
    queues = {n: _Queue(job) for n, job in enumerate(jobs) if results[n] is None}
    seen: set[tuple[str, str, int]] = set()

    def take(sample: Sample, takers: Sequence[_Queue]) -> None:
        facts, whole = sample.facts, painted_slice(sample)
        place = facts.mask_id, facts.view, facts.slice_index
        first = place not in seen
        seen.add(place)
        original = _original(sample, scans)
        visit(sample, original)
        pictures = {"painted": whole.hu, "original": original if first else None}
        if first and scans is not None and any(one.job.kind == "neighbour" for one in takers):
            pictures["neighbour"] = scans.neighbour(sample)
        for queue in takers:
            hu = pictures.get(queue.job.kind)
            if hu is not None:
                queue.add(replace(whole, hu=hu), facts.mask_id)

    of_volumes = [one for one in queues.values() if one.job.extractor.sees_volumes]
    of_slices = [one for one in queues.values() if not one.job.extractor.sees_volumes]
    for row in dataset.samples():
        if row.view != "volume":
            take(row, list(queues.values()))
        else:
            take(row, of_volumes)
            for sample in unstack(row) if of_slices else ():
                take(sample, of_slices)
        advance()
    for n, queue in queues.items():
        results[n] = extracted = queue.result()
        _save(paths[n], extracted)
    return [features for features in results if features is not None]


def _original(sample: Sample, scans: HostScans | None) -> Hu | None:
    if sample.original is not None or scans is None:
        return sample.pictures.get("original")
    return scans.original(sample)


def _path(cache_dir: Path, dataset: Dataset, job: FeatureJob) -> Path:
    key = cache_key(
        __name__,
        type(job.extractor).__module__,
        dataset=dataset.content_id,
        extractor=job.extractor.key,
        which=job.kind,
        scope=job.scope,
    )
    return cache_dir / "features" / f"{key}.npz"


def _load(path: Path) -> FeatureSet | None:
    arrays = load_arrays(path)
    if arrays is None:
        return None
    chances = arrays["probabilities"]
    return FeatureSet(arrays["features"], chances if chances.size else None, arrays["masks"])


def _save(path: Path, features: FeatureSet) -> None:
    none = np.zeros((0, 0), np.float32)
    chances = none if features.probabilities is None else features.probabilities
    save_arrays(
        path, {"features": features.features, "probabilities": chances, "masks": features.mask_ids}
    )
