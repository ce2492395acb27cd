"""Which pictures a study shows: painted ones of a dataset, and for each a real one like it.

The real one shows a structure of the same label in a scan of the sources, as large as the painted
one as can be had; where a mask has no label, the place of another mask before it was painted. No
place is shown both painted and real: a reader would tell the two apart by comparing them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.dataset.manifest import require_todays_recipe
from synthct.dataset.records import RECIPE
from synthct.dataset.rows import decode
from synthct.dataset.sample import Sample
from synthct.errors import RecipeError
from synthct.publish.pages.painted import PaintedRows
from synthct.recipe.recipe import load_recipe
from synthct.recipe.roots import require_roots
from synthct.sources import CaseEntry, download, index_sources, label_table, read_case
from synthct.studies.readers.views import Looks, before, most_alike, painted, png, real
from synthct.volume.intensity import Window, window_for
from synthct.volume.views import View

#: Name of masks without a label.
ANYTHING = "whatever fits"
#: Places with less between them look alike.
APART_MM = 5.0


@dataclass(frozen=True)
class Picture:
    """A picture of a study with its truth.

    Attributes:
        png: The file.
        is_painted: The truth.
        label: What it shows.
        origin: The painted sample, or the real case.
    """

    png: bytes
    is_painted: bool
    label: str
    origin: str


@dataclass(frozen=True, eq=False)
class _Target:
    """A painted sample that a real picture is wanted for."""

    sample: Sample
    looks: Looks
    window: Window

    def picture(self, looks: Looks, is_painted: bool, origin: str) -> Picture:
        """A picture of the size and window of this one."""
        sides = [look.side_mm for look in self.looks]
        label = self.sample.facts.label or ANYTHING
        return Picture(png(looks, sides, self.window), is_painted, label, origin)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a mask is.

    Attributes:
        case_id: Its scan.
        low_mm: Least world coordinates (3,) of its voxels' centres.
        high_mm: Greatest ones.
    """

    case_id: str
    low_mm: npt.NDArray[np.float64]
    high_mm: npt.NDArray[np.float64]

    @classmethod
    def of(cls, sample: Sample) -> _Place:
        """The place of a sample's mask."""
        points = np.argwhere(sample.mask) @ sample.affine[:3, :3].T + sample.affine[:3, 3]
        return cls(sample.facts.case_id, points.min(axis=0), points.max(axis=0))

    def touches(self, other: _Place) -> bool:
        """Whether both are of one scan, with less than ``APART_MM`` between their boxes."""
        gap = np.maximum(self.low_mm - other.high_mm, other.low_mm - self.high_mm)
        return self.case_id == other.case_id and bool((gap < APART_MM).all())


def choose_pictures(
    folder: Path,
    pairs: int,
    rng: np.random.Generator,
    *,
    roots: Mapping[str, Path],
    cache_dir: Path,
    other: Path | None = None,
    advance: Callable[[], object] = lambda: None,
) -> list[Picture]:
    """Painted pictures and as many real ones, mixed.

    Args:
        folder: The folder of a version.
        pairs: Number of painted pictures, fewer if the dataset has not so many.
        rng: Decides everything.
        roots: Source name to folder; phantoms need none.
        cache_dir: Folder of cached indexes and phantoms.
        other: A version whose slices before painting are the real ones; None for those of the
            dataset's own sources.
        advance: Called once per picture.

    Raises:
        RecipeError: If the dataset's scans are needed and not given, or there is nothing real.
        SynthCTError: If the dataset or a scan is damaged.
    """
    rows = PaintedRows(folder)
    targets = []
    for number in _choose(rows.facts, pairs, rng, spare=() if other else (None,)):
        sample = decode(rows.columns(number))
        # By what is painted: replaced tissue is not known of a real structure.
        hu = float(sample.image[sample.mask].mean())
        targets.append(_Target(sample, painted(sample), window_for(sample.facts.label, hu)))
    if not targets:
        raise RecipeError(f"{folder} holds no painted sample, so there is nothing to be told apart")
    pictures = []
    for target in targets:
        pictures.append(target.picture(target.looks, True, target.sample.sample_id))
        advance()
    labelled = [target for target in targets if target.sample.facts.label is not None]
    others = [target for target in targets if target.sample.facts.label is None]
    found = (
        [_of_sources(folder, labelled, roots, cache_dir, rng), _of_dataset(folder, others)]
        if other is None
        else [_of_dataset(other, targets)]
    )
    for one in chain.from_iterable(found):
        pictures.append(one)
        advance()
    return [pictures[n] for n in rng.permutation(len(pictures))]


def _choose(
    rows: Sequence[Mapping[str, Any]],
    count: int,
    rng: np.random.Generator,
    *,
    spare: Collection[str | None],
) -> list[int]:
    """Numbers of rows, labels by turns, and no mask twice before each was there once.

    Of the labels in ``spare`` half of the masks are left for the real pictures.
    """
    by_label: dict[Any, dict[str, list[int]]] = {}
    for number, row in enumerate(rows):
        by_label.setdefault(row["label"], {}).setdefault(row["mask_id"], []).append(number)
    queues = []
    for label, masks in by_label.items():
        shuffled = [rng.permutation(numbers).tolist() for numbers in masks.values()]
        order = [shuffled[n] for n in rng.permutation(len(shuffled))]
        if label in spare:
            order = order[: math.ceil(len(order) / 2)]
        deepest = max(map(len, order))
        queues.append([mask[n] for n in range(deepest) for mask in order if n < len(mask)])
    chosen: list[int] = []
    for turn in range(max(map(len, queues), default=0)):
        chosen += [queue[turn] for queue in queues if turn < len(queue)]
    return chosen[:count]


def _of_sources(
    folder: Path,
    targets: Sequence[_Target],
    roots: Mapping[str, Path],
    cache_dir: Path,
    rng: np.random.Generator,
) -> Iterator[Picture]:
    """A real structure for each painted one, from as many scans as there are."""
    if not targets:
        return
    require_todays_recipe(folder)
    require_roots(folder / RECIPE, roots)
    recipe = load_recipe(folder / RECIPE, sources=roots)
    sources = download(recipe.sources, cache_dir)
    labels = list(dict.fromkeys(str(target.sample.facts.label) for target in targets))
    index = index_sources(sources, labels, cache_dir=cache_dir, on_bad_case=recipe.on_bad_case)
    names = label_table(sources, labels)
    by_hash = {
        entry.voxel_sha256: entry  # a scan that is in two sources counts once
        for entries in index.sources.values()
        for entry in entries
        if entry.image is not None
    }
    plan: dict[tuple[str | None, str], list[_Target]] = {}
    for label in labels:
        scans = [entry for entry in by_hash.values() if label in entry.labels]
        if not scans:
            raise RecipeError(
                f"no scan of the sources shows a real '{label}' to compare the painted ones with; "
                "give --real with a dataset of some, whose masks lie on them (kind: organ, label: "
                f"{label}, keep_original: true)"
            )
        order = rng.permutation(len(scans))
        wanted = [target for target in targets if target.sample.facts.label == label]
        for n, target in enumerate(wanted):
            plan.setdefault((scans[order[n % len(scans)]].voxel_sha256, label), []).append(target)
    for (voxel_sha256, label), wanted in plan.items():
        yield from _of_scan(by_hash[voxel_sha256], label, names, wanted, rng)


def _of_scan(
    entry: CaseEntry,
    label: str,
    names: Mapping[str, int],
    targets: Sequence[_Target],
    rng: np.random.Generator,
) -> Iterator[Picture]:
    case = read_case(entry, names)
    candidates = real(case.scan(), case.region(label), targets[0].sample.view, rng)
    left = list(candidates)
    for target in targets:
        left = left or list(candidates)
        looks = left.pop(most_alike(left, target.looks))
        yield target.picture(looks, False, entry.case_id)


def _of_dataset(folder: Path, targets: Sequence[_Target]) -> Iterator[Picture]:
    """For each painted picture what a dataset had at another place before that was painted over."""
    if not targets:
        return
    rows = PaintedRows(folder)
    if not rows.dataset.keeps_original:
        raise RecipeError(
            f"{folder}: does not keep its originals, which are the real pictures of this study; "
            "build it with keep_original: true"
        )
    shown = [_Place.of(target.sample) for target in targets]
    by_label: dict[tuple[str | None, View], dict[str, Looks]] = {}
    for number in range(len(rows)):
        sample = decode(rows.columns(number))
        place = _Place.of(sample)
        if not any(place.touches(other) for other in shown):
            key = sample.facts.label, sample.view
            by_label.setdefault(key, {})[sample.facts.mask_id] = before(sample)
    for key, wanted in groupby(
        sorted(targets, key=lambda one: str(_label_and_view(one))), key=_label_and_view
    ):
        known = by_label.get(key)
        if known is None:
            raise RecipeError(
                f"{folder}: has no mask of '{key[0] or ANYTHING}' in view {key[1]} whose place is "
                "not already shown painted; ask for fewer pairs, or give --real with a dataset of "
                "such masks"
            )
        left = dict(known)
        for target in wanted:
            left = left or dict(known)
            names = list(left)
            name = names[most_alike([left[one] for one in names], target.looks)]
            yield target.picture(left.pop(name), False, name)


def _label_and_view(target: _Target) -> tuple[str | None, View]:
    return target.sample.facts.label, target.sample.view
