"""Features of all pictures of a dataset, in one pass over it, kept by the content's id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from synthct.dataset.sample import Sample
from synthct.evaluate.pictures import Crop, Extracted, Extractor, Hu, around_mask
from synthct.evaluate.results import Scope
from synthct.evaluate.stream import Dataset, Scans, crop_of
from synthct.storage.cache import load_arrays, save_arrays
from synthct.storage.keys import cache_key

Which = Literal["painted", "original", "neighbour"]

#: Crops that an extractor gets at once: few, so that their maps stay in a CPU's cache.
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

    def of(self, chosen: npt.NDArray[np.bool_]) -> FeatureSet:
        """The part of the set where ``chosen`` (N,) is true."""
        some = None if self.probabilities is None else self.probabilities[chosen]
        return FeatureSet(self.features[chosen], some, self.mask_ids[chosen])


@dataclass(frozen=True, eq=False)
class Job:
    """A set of features to be had.

    Attributes:
        which: What was painted, what was there before, or the real slice beside it.
        extractor: What extracts.
        scope: Of what.
    """

    which: Which
    extractor: Extractor
    scope: Scope


@dataclass(eq=False)
class _Queue:
    """The pictures of a job that wait for a full batch, and what became of the others."""

    job: Job
    waiting: list[Crop] = field(default_factory=list)
    done: list[Extracted] = field(default_factory=list)
    mask_ids: list[str] = field(default_factory=list)

    def add(self, whole: Crop, mask_id: str) -> None:
        self.waiting.append(whole if self.job.scope == "slice" else around_mask(whole))
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
    jobs: Sequence[Job],
    *,
    scans: Scans | None,
    cache_dir: Path,
    advance: Callable[[], object],
    visit: Callable[[Sample, Hu | None], object],
) -> list[FeatureSet]:
    """The features of every job: from the cache, or in one pass over the dataset.

    Real pictures are taken once per mask, painted ones of every variant.

    Args:
        dataset: The dataset.
        jobs: What is wanted.
        scans: The hosts; needed for neighbours, and for originals that the dataset does not keep.
        cache_dir: Where features are kept.
        advance: Called once per row.
        visit: Called with each sample and its original, if there is one.

    Raises:
        SynthCTError: If the dataset is damaged or a scan is not there.
    """
    paths = [_path(cache_dir, dataset, job) for job in jobs]
    found = [_load(path) for path in paths]
    queues = {n: _Queue(job) for n, job in enumerate(jobs) if found[n] is None}
    seen: set[str] = set()
    for sample in dataset.samples():
        mask_id, whole = sample.facts.mask_id, crop_of(sample)
        first = mask_id not in seen
        seen.add(mask_id)
        original = _original(sample, scans)
        visit(sample, original)
        pictures = {"painted": whole.hu, "original": original if first else None}
        if first and scans is not None and any(q.job.which == "neighbour" for q in queues.values()):
            pictures["neighbour"] = scans.neighbour(sample)
        for queue in queues.values():
            hu = pictures.get(queue.job.which)
            if hu is not None:
                queue.add(replace(whole, hu=hu), mask_id)
        advance()
    results = []
    for n, kept in enumerate(found):
        if kept is None:
            kept = queues[n].result()
            _save(paths[n], kept)
        results.append(kept)
    return results


def _original(sample: Sample, scans: Scans | None) -> Hu | None:
    if sample.original is not None or scans is None:
        return sample.pictures.get("original")
    return scans.original(sample)


def _path(cache_dir: Path, dataset: Dataset, job: Job) -> Path:
    key = cache_key(
        __name__,
        type(job.extractor).__module__,
        dataset=dataset.content_id,
        extractor=job.extractor.key,
        which=job.which,
        scope=job.scope,
    )
    return cache_dir / "features" / f"{key}.npz"


def _load(path: Path) -> FeatureSet | None:
    kept = load_arrays(path)
    if kept is None:
        return None
    chances = kept["probabilities"]
    return FeatureSet(kept["features"], chances if chances.size else None, kept["masks"])


def _save(path: Path, found: FeatureSet) -> None:
    none = np.zeros((0, 0), np.float32)
    chances = none if found.probabilities is None else found.probabilities
    save_arrays(
        path, {"features": found.features, "probabilities": chances, "masks": found.mask_ids}
    )
