"""``synthct evaluate``: results from a dataset, its control arms and its scans."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from synthct.dataset.sample import Sample
from synthct.errors import RecipeError, SynthCTError
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
from synthct.evaluate.scores import make_halvings, score_arm, score_floor
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
    _compare_masks(painted, controls, notes)
    if main.of_volumes:
        notes += _dimensions(extractors)
    return _results(
        painted, controls, reference, jobs, scans is not None, notes, by_label=options.by_label
    )


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


def _compare_masks(painted: _Measured, controls: Mapping[str, _Measured], notes: list[str]) -> None:
    """Note control arms that lack masks of the dataset."""
    masks = {row["mask_id"] for row in painted.rows}
    for name, side in controls.items():
        shared = len(masks & {row["mask_id"] for row in side.rows})
        if shared < len(masks):
            notes.append(f"arm '{name}' has {shared} of the dataset's {len(masks)} masks")


def _results(
    painted: _Measured,
    controls: Mapping[str, _Measured],
    reference: _Measured,
    jobs: Sequence[tuple[Extractor, Scope]],
    has_neighbours: bool,
    notes: list[str],
    *,
    by_label: bool,
) -> Evaluation:
    sides = {PAINTED: painted, **controls}
    label_of, patient_of = _columns([*sides.values(), reference])
    groups, halvings = [], {}
    scores: list[Score] = []
    notes += _unlike_real(painted, reference, label_of)
    names = [ALL, *dict.fromkeys(label_of[row["mask_id"]] for row in painted.rows)]
    for name in names if by_label and len(names) > 2 else [ALL]:
        real_masks = _masks(reference, label_of, name)
        made_masks = [m for side in sides.values() for m in _masks(side, label_of, name)]
        if len(real_masks) < LEAST_MASKS:
            notes.append(f"'{name}' has {len(real_masks)} real masks, too few for a comparison")
            continue
        halving = make_halvings(real_masks, made_masks, patient_of)
        patients = {patient_of[mask] for mask in real_masks}
        groups.append(
            Group(name=name, masks=len(real_masks), patients=len(patients), halves=halving.by)
        )
        halvings[name] = halving
    for group in groups:
        keep = _keeper(label_of, group.name)
        for extractor, scope in jobs:
            key = extractor.key, scope
            real = keep(reference.features["original", *key])
            made = {name: side.features[PAINTED, *key] for name, side in sides.items()}
            if has_neighbours:
                made[NEIGHBOUR] = painted.features["neighbour", *key]
            halving = halvings[group.name]
            logger.debug("%s: %s of %ss", group.name, extractor.name, scope)
            scale = extractor.name == "radiomics"  # its features have units of their own
            numbers = {
                arm: score_arm(real, keep(features), halving, scale=scale)
                for arm, features in made.items()
            }
            numbers[FLOOR] = score_floor(real, halving, scale=scale)
            scores += [
                Score(
                    group=group.name, arm=arm, extractor=extractor.name, scope=scope,
                    dim=extractor.dim, **dict(values),
                )
                for arm, values in numbers.items()
            ]  # fmt: skip
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
        arms=tuple(_arms(painted, controls, reference, has_neighbours)),
        extractors=tuple(Features(name=e.name, key=e.key, dim=e.dim) for e in extractors),
        groups=tuple(groups),
        scores=tuple(scores),
        measures=tuple(_spreads(sides, label_of, [group.name for group in groups])),
        notes=tuple(notes),
    )


def _columns(sides: Sequence[_Measured]) -> tuple[dict[str, str], dict[str, str]]:
    """Mask id to label, and mask id to patient id."""
    rows = [row for side in sides for row in side.rows]
    labels = {row["mask_id"]: row["label"] or ANYTHING for row in rows}
    return labels, {row["mask_id"]: row["patient_id"] for row in rows}


def _unlike_real(
    painted: _Measured, reference: _Measured, label_of: Mapping[str, str]
) -> Iterator[str]:
    """Notes on labels that are compared with the tissue they replaced, which is something else."""
    if reference is not painted:
        return
    for label in dict.fromkeys(label_of.values()):
        rows = [row for row in painted.rows if label_of[row["mask_id"]] == label]
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


def _masks(side: _Measured, label_of: Mapping[str, str], group: str) -> list[str]:
    masks = dict.fromkeys(row["mask_id"] for row in side.rows)
    return [mask for mask in masks if group in (ALL, label_of[mask])]


def _keeper(label_of: Mapping[str, str], group: str) -> Any:
    """A function that selects the pictures of a group from a feature set."""

    def keep(features: FeatureSet) -> FeatureSet:
        if group == ALL:
            return features
        in_group = [label_of[str(mask)] == group for mask in features.mask_ids]
        return features.subset(np.array(in_group, dtype=bool))

    return keep


def _arms(
    painted: _Measured,
    controls: Mapping[str, _Measured],
    reference: _Measured,
    has_neighbours: bool,
) -> Iterator[Arm]:
    def arm(name: str, kind: ArmKind, side: _Measured) -> Arm:
        return Arm(name=name, kind=kind, content_id=side.dataset.content_id, samples=len(side.rows))

    yield arm(PAINTED, "painted", painted)
    yield from (arm(name, "control", side) for name, side in controls.items())
    if has_neighbours:
        masks = len({row["mask_id"] for row in painted.rows})
        yield Arm(name=NEIGHBOUR, kind="neighbour", content_id=None, samples=masks)
    masks = len({row["mask_id"] for row in reference.rows})
    yield Arm(name=FLOOR, kind="floor", content_id=None, samples=masks)


def _spreads(
    sides: Mapping[str, _Measured], label_of: Mapping[str, str], groups: Sequence[str]
) -> Iterator[Spread]:
    """The distribution of every measure, in each group and arm."""
    for group in groups:
        for arm, side in sides.items():
            rows = [row for row in side.rows if group in (ALL, label_of[row["mask_id"]])]
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
