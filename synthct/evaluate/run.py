"""``synthct evaluate``: results from a dataset, its control arms and its scans."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from synthct.dataset.sample import Sample
from synthct.errors import RecipeError, SynthCTError, counted
from synthct.evaluate.collect import FeatureJob, FeatureSet, PictureKind, collect
from synthct.evaluate.pictures import Extractor, Hu
from synthct.evaluate.results import (
    Arm,
    ArmKind,
    Evaluation,
    Features,
    Group,
    Scope,
    Score,
    Spread,
)
from synthct.evaluate.scores import Halving, make_halvings, score_arm, score_floor
from synthct.evaluate.segmenter import user_adherence
from synthct.evaluate.stack import SliceJumps
from synthct.evaluate.stream import Dataset, HostScans
from synthct.metrics.table import MEASURES
from synthct.version import __version__

logger = logging.getLogger(__name__)

PAINTED: Final = "painted"
NEIGHBOUR, FLOOR = "neighbouring slice", "real halves"
ALL, ANYTHING = "all", "whatever fits"

#: Least number of real masks for a comparison of a label.
LEAST_MASKS = 8


@dataclass(frozen=True)
class Options:
    """Options of an evaluation.

    Attributes:
        arms: Control datasets by name: the same recipe, painted by another method.
        real: A dataset whose originals are the real set, such as real tumours where the dataset's
            own originals are healthy; None for the dataset's own.
        roots: Source name to folder, for the neighbouring slices.
        scopes: Crops around the mask, whole slices, or both.
        by_label: Also compare the samples of each label alone.
        segmenter: The user's command, see ``segmenter.user_adherence``; None for none.
        segmenter_values: Label to its values in that command's label maps.
        progress: Show a progress bar.
    """

    arms: Mapping[str, Path]
    real: Path | None = None
    roots: Mapping[str, Path] | None = None
    scopes: Sequence[Scope] = ("crop", "slice")
    by_label: bool = True
    segmenter: str | None = None
    segmenter_values: Mapping[str, frozenset[int]] = field(default_factory=dict)
    progress: bool = False


@dataclass(frozen=True, eq=False)
class _Measured:
    """A dataset with all of its features.

    Attributes:
        dataset: The dataset.
        rows: Its flat columns.
        features: By picture kind, extractor key and scope.
        extra: Further measures by name: label and value for each sample or pair of slices.
    """

    dataset: Dataset
    rows: list[dict[str, Any]]
    features: Mapping[tuple[PictureKind, str, Scope], FeatureSet]
    extra: dict[str, list[tuple[str, float]]]


@dataclass(frozen=True, eq=False)
class _Sides:
    """What is compared.

    Attributes:
        painted: The dataset.
        controls: Its control arms by name.
        reference: The dataset whose originals are the real set; often ``painted`` itself.
        has_neighbours: Whether the slices next to the masks are a set, too.
    """

    painted: _Measured
    controls: Mapping[str, _Measured]
    reference: _Measured
    has_neighbours: bool

    @property
    def made(self) -> dict[str, _Measured]:
        """The dataset and its controls by name."""
        return {PAINTED: self.painted, **self.controls}

    @cached_property
    def label_of(self) -> dict[str, str]:
        """Mask id to label."""
        return {row["mask_id"]: row["label"] or ANYTHING for row in self._rows()}

    @cached_property
    def patient_of(self) -> dict[str, str]:
        """Mask id to patient id."""
        return {row["mask_id"]: row["patient_id"] for row in self._rows()}

    def masks(self, side: _Measured, group: str) -> list[str]:
        """Ids of the masks of a group."""
        masks = dict.fromkeys(row["mask_id"] for row in side.rows)
        return [mask for mask in masks if group in (ALL, self.label_of[mask])]

    def keep(self, features: FeatureSet, group: str) -> FeatureSet:
        """The pictures of a group."""
        if group == ALL:
            return features
        in_group = [self.label_of[str(mask)] == group for mask in features.mask_ids]
        return features.subset(np.array(in_group, dtype=bool))

    def _rows(self) -> list[dict[str, Any]]:
        return [row for side in (*self.made.values(), self.reference) for row in side.rows]


def evaluate(
    folder: Path, extractors: Sequence[Extractor], options: Options, *, cache_dir: Path
) -> Evaluation:
    """Compare a finished dataset with real scans.

    Raises:
        SynthCTError: If a dataset is damaged, or there is nothing real to compare with.
    """
    notes: list[str] = []
    main = Dataset(folder)
    arms = {name: Dataset(path) for name, path in options.arms.items()}
    if reserved := {PAINTED, NEIGHBOUR, FLOOR} & arms.keys():
        raise RecipeError(f"--arm {min(reserved)}=...: this name is reserved; choose another")
    other = Dataset(options.real) if options.real else None
    if other is not None and not other.keeps_original:
        raise RecipeError(
            f"--real {options.real}: it does not keep its originals; give a dataset built with "
            "keep_original: true"
        )
    scans = _scans(main, options, cache_dir, notes)
    if other is None and scans is None and not main.keeps_original:
        raise RecipeError(
            f"{folder} does not keep the originals, so there is nothing real to compare with; "
            "give --source hosts=FOLDER, or --real with another dataset, or build with "
            "keep_original: true"
        )
    jobs = [
        (extractor, scope)
        for extractor in extractors
        for scope in (options.scopes if extractor.sees_slices else ("mask",))
    ]
    with _bar([main, *arms.values(), *([other] if other else [])], options) as bar:

        def extract(
            dataset: Dataset, kinds: Sequence[PictureKind], scans: HostScans | None
        ) -> _Measured:
            return _extract(dataset, kinds, jobs, scans, cache_dir, bar)

        kinds: list[PictureKind] = [PAINTED]
        kinds += ["original"] if other is None else []
        kinds += ["neighbour"] if scans else []
        painted = extract(main, kinds, scans)
        controls = {name: extract(arm, [PAINTED], None) for name, arm in arms.items()}
        reference = extract(other, ["original"], None) if other else painted
    if options.segmenter is not None:
        with _bar([main], options) as bar:
            painted.extra["user_adherence"] = user_adherence(
                main, options.segmenter, options.segmenter_values, advance=bar.update
            )
    sides = _Sides(painted, controls, reference, has_neighbours=scans is not None)
    notes += _missing_masks(sides)
    if main.of_volumes:
        notes += _dimensions(extractors)
    return _results(sides, jobs, notes, by_label=options.by_label)


def _scans(
    dataset: Dataset, options: Options, cache_dir: Path, notes: list[str]
) -> HostScans | None:
    """The hosts, if they are available; else None and a note about what is missing."""
    try:
        return HostScans(dataset, options.roots or {}, cache_dir)
    except SynthCTError as err:
        if options.roots:
            raise
        notes.append(
            f"no neighbouring slices: the hosts are not available ({err}); "
            "give --source hosts=FOLDER"
        )
        return None


def _bar(datasets: Sequence[Dataset], options: Options) -> Any:
    from tqdm import tqdm

    total = sum(dataset.manifest.release.rows for dataset in datasets)
    return tqdm(total=total, unit="sample", disable=None if options.progress else True)


def _extract(
    dataset: Dataset,
    kinds: Sequence[PictureKind],
    jobs: Sequence[tuple[Extractor, Scope]],
    scans: HostScans | None,
    cache_dir: Path,
    bar: Any,
) -> _Measured:
    """All features of a dataset, and the jumps between its slices; those of volumes are columns."""
    feature_jobs = [
        FeatureJob(kind, extractor, scope) for kind in kinds for extractor, scope in jobs
    ]
    jumps = SliceJumps()

    def visit(sample: Sample, original: Hu | None) -> None:
        if original is not None and not dataset.of_volumes:
            jumps.add(sample, original)

    feature_sets = collect(
        dataset, feature_jobs, scans=scans, cache_dir=cache_dir, advance=bar.update, visit=visit
    )
    features = {
        (job.kind, job.extractor.key, job.scope): one
        for job, one in zip(feature_jobs, feature_sets, strict=True)
    }
    extra = {} if dataset.of_volumes else {"z_jump_ratio": jumps.ratios}
    return _Measured(dataset, dataset.rows(), features, extra)


def _missing_masks(sides: _Sides) -> Iterator[str]:
    """Notes on control arms that lack masks of the dataset."""
    masks = {row["mask_id"] for row in sides.painted.rows}
    for name, side in sides.controls.items():
        shared = len(masks & {row["mask_id"] for row in side.rows})
        if shared < len(masks):
            yield f"arm '{name}' has {shared} of the dataset's {counted(len(masks), 'mask')}"


def _results(
    sides: _Sides,
    jobs: Sequence[tuple[Extractor, Scope]],
    notes: list[str],
    *,
    by_label: bool,
) -> Evaluation:
    painted, reference = sides.painted, sides.reference
    groups: list[Group] = []
    scores: list[Score] = []
    notes += _unlike_real(sides)
    names = [ALL, *dict.fromkeys(sides.label_of[row["mask_id"]] for row in painted.rows)]
    for name in names if by_label and len(names) > 2 else [ALL]:
        real_masks = sides.masks(reference, name)
        made_masks = [m for side in sides.made.values() for m in sides.masks(side, name)]
        if len(real_masks) < LEAST_MASKS:
            notes.append(f"'{name}' has {len(real_masks)} real masks, too few for a comparison")
            continue
        halving = make_halvings(real_masks, made_masks, sides.patient_of)
        patients = {sides.patient_of[mask] for mask in real_masks}
        groups.append(
            Group(name=name, masks=len(real_masks), patients=len(patients), halves=halving.by)
        )
        for extractor, scope in jobs:
            logger.debug("%s: %s of %ss", name, extractor.name, scope)
            scores += _scores(sides, name, halving, extractor, scope)
    release = painted.dataset.manifest.release
    extractors = dict.fromkeys(extractor for extractor, _ in jobs)
    return Evaluation(
        package_version=__version__,
        dataset=release.name,
        version=release.version,
        content_id=release.content_id,
        real=reference.dataset.content_id,
        rows=len(painted.rows),
        rejected=painted.dataset.rejected(),
        in_training=sum(row["host_in_training"] is True for row in painted.rows),
        arms=tuple(_arms(sides)),
        extractors=tuple(Features(name=e.name, key=e.key, dim=e.dim) for e in extractors),
        groups=tuple(groups),
        scores=tuple(scores),
        measures=tuple(_spreads(sides, [group.name for group in groups])),
        notes=tuple(notes),
    )


def _scores(
    sides: _Sides, group: str, halving: Halving, extractor: Extractor, scope: Scope
) -> Iterator[Score]:
    """How far each arm is from the real set of a group, and two halves of that from each other."""
    key, scale = (extractor.key, scope), extractor.name == "radiomics"  # which has several units
    real = sides.keep(sides.reference.features["original", *key], group)
    made = {name: side.features[PAINTED, *key] for name, side in sides.made.items()}
    if sides.has_neighbours:
        made[NEIGHBOUR] = sides.painted.features["neighbour", *key]
    numbers = {
        arm: score_arm(real, sides.keep(features, group), halving, scale=scale)
        for arm, features in made.items()
    }
    numbers[FLOOR] = score_floor(real, halving, scale=scale)
    for arm, values in numbers.items():
        yield Score(
            group=group, arm=arm, extractor=extractor.name, scope=scope, dim=extractor.dim,
            **dict(values),
        )  # fmt: skip


def _unlike_real(sides: _Sides) -> Iterator[str]:
    """Notes on labels that are compared with the tissue they replaced, which is something else."""
    if sides.reference is not sides.painted:
        return
    for label in dict.fromkeys(sides.label_of.values()):
        rows = [row for row in sides.painted.rows if sides.label_of[row["mask_id"]] == label]
        if rows and all(row.get("mae_hu") is None for row in rows):
            yield (
                f"'{label}' was painted over other tissue, and is compared with that tissue; "
                "give --real with a dataset whose originals show it"
            )


def _dimensions(extractors: Sequence[Extractor]) -> Iterator[str]:
    """Notes on what of volumes was looked at."""
    for is_3d, what in ((True, "whole, in 3D"), (False, "as the slices that show their masks")):
        names = [one.name for one in extractors if one.sees_volumes is is_3d]
        if names:
            yield f"volumes are compared {what}, by {' and '.join(names)}"


def _arms(sides: _Sides) -> Iterator[Arm]:
    def arm(name: str, kind: ArmKind, side: _Measured) -> Arm:
        return Arm(name=name, kind=kind, content_id=side.dataset.content_id, samples=len(side.rows))

    yield arm(PAINTED, "painted", sides.painted)
    yield from (arm(name, "control", side) for name, side in sides.controls.items())
    if sides.has_neighbours:
        masks = len(sides.masks(sides.painted, ALL))
        yield Arm(name=NEIGHBOUR, kind="neighbour", content_id=None, samples=masks)
    masks = len(sides.masks(sides.reference, ALL))
    yield Arm(name=FLOOR, kind="floor", content_id=None, samples=masks)


def _spreads(sides: _Sides, groups: Sequence[str]) -> Iterator[Spread]:
    """The distribution of every measure, in each group and arm."""
    for group in groups:
        for arm, side in sides.made.items():
            rows = [row for row in side.rows if group in (ALL, sides.label_of[row["mask_id"]])]
            values_of: dict[str, list[Any]] = {
                name: [row.get(name) for row in rows] for name in MEASURES
            }
            for name, pairs in side.extra.items():
                values_of[name] = [value for label, value in pairs if group in (ALL, label)]
            for measure, values in values_of.items():
                defined = [v for v in values if v is not None and np.isfinite(v)]
                if defined:
                    quantiles = np.percentile(defined, [5, 25, 50, 75, 95])
                    yield Spread(
                        group=group, arm=arm, measure=measure, count=len(defined),
                        undefined=len(values) - len(defined),
                        quantiles=tuple(float(q) for q in quantiles),
                    )  # fmt: skip
