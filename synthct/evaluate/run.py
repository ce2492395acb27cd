"""``synthct evaluate``: a dataset, its control arms and its scans in, one file of results out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from synthct.dataset.sample import Sample
from synthct.errors import RecipeError, SynthCTError
from synthct.evaluate.collect import FeatureSet, Job, Which, collect
from synthct.evaluate.pictures import Extractor, Hu
from synthct.evaluate.results import (
    Arm,
    ArmKind,
    Evaluation,
    Features,
    Group,
    Numbers,
    Scope,
    Score,
    Spread,
)
from synthct.evaluate.scores import Halving, make_halvings, score_arm, score_floor
from synthct.evaluate.segmenter import user_adherence
from synthct.evaluate.stack import Stacks
from synthct.evaluate.stream import Dataset, Scans
from synthct.metrics.table import MEASURES
from synthct.version import __version__

logger = logging.getLogger(__name__)

PAINTED: Final = "painted"
NEIGHBOUR, FLOOR = "neighbouring slice", "real halves"
ALL, ANYTHING = "all", "whatever fits"

#: Masks without whom a label has no table row of its own.
LEAST_MASKS = 8


@dataclass(frozen=True)
class Options:
    """What is evaluated, and how.

    Attributes:
        arms: Control datasets by name, of the same recipe but for how they are painted.
        real: A dataset whose originals are the real set, such as real tumours where healthy
            tissue was painted over; None for the dataset's own.
        roots: Where the dataset's sources are, for the neighbouring slices.
        scopes: Crops around the mask, whole slices, or both.
        segmenter: The user's command, see ``segmenter.user_adherence``; None for none.
        segmenter_values: Label to its values in that command's label maps.
        progress: Show a progress bar.
    """

    arms: Mapping[str, Path]
    real: Path | None = None
    roots: Mapping[str, Path] | None = None
    scopes: Sequence[Scope] = ("crop", "slice")
    segmenter: str | None = None
    segmenter_values: Mapping[str, frozenset[int]] = field(default_factory=dict)
    progress: bool = False


@dataclass(frozen=True, eq=False)
class _Side:
    """One dataset with all features that were taken of it.

    Attributes:
        dataset: The dataset.
        rows: Its flat columns.
        features: By what they are of, extractor and scope.
        extra: Further measures by name: the label and the value of each.
    """

    dataset: Dataset
    rows: list[dict[str, Any]]
    features: Mapping[tuple[Which, str, Scope], FeatureSet]
    extra: dict[str, list[tuple[str, float]]]


def evaluate(
    folder: Path, extractors: Sequence[Extractor], options: Options, *, cache_dir: Path
) -> Evaluation:
    """Measure a finished dataset against real scans.

    Args:
        folder: The folder of a version.
        extractors: What the distances are taken by.
        options: The rest.
        cache_dir: Where features, indexes and phantoms are kept.

    Raises:
        SynthCTError: If a dataset is damaged, or has nothing real to be compared with.
    """
    notes: list[str] = []
    main = Dataset(folder)
    arms = {name: Dataset(path) for name, path in options.arms.items()}
    if taken := {PAINTED, NEIGHBOUR, FLOOR} & arms.keys():
        raise RecipeError(f"--arm {min(taken)}=...: the name is taken; choose another")
    other = Dataset(options.real) if options.real else None
    if other is not None and not other.keeps_original:
        raise RecipeError(f"--real {options.real}: it does not keep its originals; give another")
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

        def take(dataset: Dataset, kinds: Sequence[Which], scans: Scans | None) -> _Side:
            return _take(dataset, kinds, jobs, scans, cache_dir, bar)

        kinds: list[Which] = [PAINTED]
        kinds += ["original"] if other is None else []
        kinds += ["neighbour"] if scans else []
        painted = take(main, kinds, scans)
        controls = {name: take(arm, [PAINTED], None) for name, arm in arms.items()}
        reference = take(other, ["original"], None) if other else painted
    if options.segmenter is not None:
        with _bar([main], options) as bar:
            painted.extra["user_adherence"] = user_adherence(
                main, options.segmenter, options.segmenter_values, advance=bar.update
            )
    _compare_masks(painted, controls, notes)
    return _results(painted, controls, reference, jobs, scans is not None, notes)


def _scans(dataset: Dataset, options: Options, cache_dir: Path, notes: list[str]) -> Scans | None:
    """The hosts, if they are at hand; else a note of what is missing without them."""
    try:
        return Scans(dataset, options.roots or {}, cache_dir)
    except SynthCTError as err:
        if options.roots:
            raise
        notes.append(
            f"no neighbouring slices: the hosts are not at hand ({err}); give --source hosts=FOLDER"
        )
        return None


def _bar(datasets: Sequence[Dataset], options: Options) -> Any:
    from tqdm import tqdm

    total = sum(dataset.manifest.release.rows for dataset in datasets)
    return tqdm(total=total, unit="sample", disable=None if options.progress else True)


def _take(
    dataset: Dataset,
    kinds: Sequence[Which],
    jobs: Sequence[tuple[Extractor, Scope]],
    scans: Scans | None,
    cache_dir: Path,
    bar: Any,
) -> _Side:
    """All features of a dataset, and what only a pass over its pictures shows."""
    wanted = [Job(kind, extractor, scope) for kind in kinds for extractor, scope in jobs]
    stacks = Stacks()

    def visit(sample: Sample, original: Hu | None) -> None:
        if original is not None:
            stacks.add(sample, original)

    found = collect(
        dataset, wanted, scans=scans, cache_dir=cache_dir, advance=bar.update, visit=visit
    )
    features = {
        (job.which, job.extractor.key, job.scope): one
        for job, one in zip(wanted, found, strict=True)
    }
    return _Side(dataset, dataset.rows(), features, {"z_jump_ratio": stacks.jumps})


def _compare_masks(painted: _Side, controls: Mapping[str, _Side], notes: list[str]) -> None:
    """Note where a control arm has not the masks of the dataset."""
    masks = {row["mask_id"] for row in painted.rows}
    for name, side in controls.items():
        shared = len(masks & {row["mask_id"] for row in side.rows})
        if shared < len(masks):
            notes.append(f"arm '{name}' has {shared} of the dataset's {len(masks)} masks")


def _results(
    painted: _Side,
    controls: Mapping[str, _Side],
    reference: _Side,
    jobs: Sequence[tuple[Extractor, Scope]],
    has_neighbours: bool,
    notes: list[str],
) -> Evaluation:
    sides = {PAINTED: painted, **controls}
    label_of, patient_of = _columns([*sides.values(), reference])
    groups, halvings = [], {}
    scores: list[Score] = []
    notes += _unlike_real(painted, reference, label_of)
    names = [ALL, *dict.fromkeys(label_of[row["mask_id"]] for row in painted.rows)]
    for name in names if len(names) > 2 else [ALL]:
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
            for arm, found in _scored(real, made, keep, halving, extractor.name == "radiomics"):
                scores.append(
                    Score(
                        group=group.name, arm=arm, extractor=extractor.name, scope=scope,
                        dim=extractor.dim, **dict(found),
                    )
                )  # fmt: skip
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


def _scored(
    real: FeatureSet,
    made: Mapping[str, FeatureSet],
    keep: Any,
    halving: Halving,
    scale: bool,
) -> Iterator[tuple[str, Numbers]]:
    for arm, found in made.items():
        yield arm, score_arm(real, keep(found), halving, scale=scale)
    yield FLOOR, score_floor(real, halving, scale=scale)


def _columns(sides: Sequence[_Side]) -> tuple[dict[str, str], dict[str, str]]:
    """Mask to label, and mask to patient."""
    rows = [row for side in sides for row in side.rows]
    labels = {row["mask_id"]: row["label"] or ANYTHING for row in rows}
    return labels, {row["mask_id"]: row["patient_id"] for row in rows}


def _unlike_real(painted: _Side, reference: _Side, label_of: Mapping[str, str]) -> Iterator[str]:
    """Notes of labels that were painted where they were not, and are compared with what was."""
    if reference is not painted:
        return
    for label in dict.fromkeys(label_of.values()):
        rows = [row for row in painted.rows if label_of[row["mask_id"]] == label]
        if rows and all(row.get("mae_hu") is None for row in rows):
            yield (
                f"'{label}' was painted where it was not, and is compared with what was there; "
                "give --real with a dataset whose originals show it"
            )


def _masks(side: _Side, label_of: Mapping[str, str], group: str) -> list[str]:
    masks = dict.fromkeys(row["mask_id"] for row in side.rows)
    return [mask for mask in masks if group in (ALL, label_of[mask])]


def _keeper(label_of: Mapping[str, str], group: str) -> Any:
    """Picks the pictures of a group from a set."""

    def keep(found: FeatureSet) -> FeatureSet:
        if group == ALL:
            return found
        mine = np.array([label_of[str(mask)] == group for mask in found.mask_ids], dtype=bool)
        return found.of(mine)

    return keep


def _arms(
    painted: _Side, controls: Mapping[str, _Side], reference: _Side, has_neighbours: bool
) -> Iterator[Arm]:
    def arm(name: str, kind: ArmKind, side: _Side) -> Arm:
        return Arm(name=name, kind=kind, content_id=side.dataset.content_id, samples=len(side.rows))

    yield arm(PAINTED, "painted", painted)
    yield from (arm(name, "control", side) for name, side in controls.items())
    if has_neighbours:
        masks = len({row["mask_id"] for row in painted.rows})
        yield Arm(name=NEIGHBOUR, kind="neighbour", content_id=None, samples=masks)
    masks = len({row["mask_id"] for row in reference.rows})
    yield Arm(name=FLOOR, kind="floor", content_id=None, samples=masks)


def _spreads(
    sides: Mapping[str, _Side], label_of: Mapping[str, str], groups: Sequence[str]
) -> Iterator[Spread]:
    """How every measure per sample is distributed, in each group and arm."""
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
