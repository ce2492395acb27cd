"""``synthct privacy``: whether the paintings of a dataset are copies of training patients."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from synthct import seeds
from synthct.dataset.lockfile import Lock, read_lock
from synthct.dataset.privacy.results import (
    Flag,
    How,
    Power,
    PrivacyCheck,
    RegionResult,
    Share,
    Threshold,
)
from synthct.dataset.privacy.words import sentence
from synthct.errors import CheckpointError, SynthCTError
from synthct.evaluate.stream import Dataset, HostScans
from synthct.metrics.region_match import Query, correlation
from synthct.models.checkpoint import find_checkpoint
from synthct.models.network import CheckpointFiles
from synthct.models.training_index import read_index
from synthct.privacy.field import Anatomy
from synthct.privacy.nearest import Nearest, TrainingRegions, key_of, likeness
from synthct.privacy.power import measure_power
from synthct.privacy.regions import PaintedRegion, Piece, painted_regions
from synthct.privacy.shapes import DonorShapes
from synthct.privacy.statistics import LEAST_PATIENTS, fit_threshold, reuse, share
from synthct.sources import CaseEntry, download, index_sources
from synthct.training.recipe import load_training_recipe
from synthct.version import __version__

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Options of a privacy check.

    Attributes:
        checkpoint: Folder or name of the checkpoint; None for the one that the recipe names.
        training: The recipe that it was trained with, for its scans; None to compare keys only.
        roots: Source name to folder, of the dataset's recipe and of that of the training.
        seed: Of what is drawn: copies that are planted, regions of equal number.
    """

    checkpoint: str | None = None
    training: Path | None = None
    roots: Mapping[str, Path] | None = None
    seed: int = 0


def check_privacy(folder: Path, options: Options, *, cache_dir: Path) -> PrivacyCheck:
    """Compare the painted regions of a finished dataset with those of the training.

    Raises:
        SynthCTError: If the dataset, the checkpoint's index or a scan is damaged, or a checkpoint
            or scan is not the one that was used.
    """
    notes: list[str] = []
    dataset, lock = Dataset(folder), read_lock(folder)
    files = _checkpoint(folder, lock, options, notes)
    training = _training(files, options, cache_dir, notes)
    hosts = _hosts(dataset, lock, options, cache_dir, notes)
    roots = {name: path for name, path in (options.roots or {}).items() if name in lock.sources}
    shapes = DonorShapes(folder, roots, cache_dir)
    regions = list(painted_regions(dataset, hosts, shapes, Anatomy.of(lock.labels)))
    near = training.nearest([one.painted for one in regions]) if training else []
    held_out = _held_out(regions)
    real = [piece for _, piece in held_out]
    before = training.nearest(real) if training else []
    thresholds = _thresholds(before, [patient for patient, _ in held_out], training)
    results = [
        _result(one, near[n] if near else None, training, thresholds)
        for n, one in enumerate(regions)
    ]
    flagged = sum(bool(one.flags) for one in results)
    release = dataset.manifest.release
    rng = seeds.generator(options.seed, "privacy", release.content_id)
    assessed = _weakest(results)
    limits = {one.measure: one.value for one in thresholds}
    power: tuple[Power, ...] = ()
    if training is not None and real:
        by_key = {"train_key": limits["train_key"]}
        power = measure_power(real, training, by_key if assessed == "key" else limits, rng)
    elif training is not None:
        notes.append(
            "what the check could have seen was not measured: no real tissue of patients who were "
            "not trained on is at hand; give --source hosts=FOLDER, or build with keep_original"
        )
    shares = [one.real_voxel_fraction for one in results]
    real_share = float(np.mean(shares)) if shares else 1.0
    copies = share(flagged, len(results)) if training is not None and results else None
    return PrivacyCheck(
        package_version=__version__,
        dataset=release.name,
        version=release.version,
        content_id=release.content_id,
        checkpoint=files.name if files else None,
        checkpoint_id=files.checkpoint_id if files else None,
        training_regions=len(training.index) if training else None,
        training_patients=len(training.patients) if training else None,
        training_scans=len(training.cases) if training else None,
        scans_at_hand=len(training.entries) if training else 0,
        assessed=assessed,
        copies=copies,
        nearer_to_training=_nearer(regions, held_out, training, rng) if training else None,
        variant_diversity=_diversity(regions),
        reuse=reuse([one.facts.patient_id for one in regions]),
        thresholds=thresholds,
        power=power,
        regions=tuple(results),
        notes=tuple(notes),
        sentence=sentence(assessed, copies, power, real_share),
    )


def _checkpoint(
    folder: Path, lock: Lock, options: Options, notes: list[str]
) -> CheckpointFiles | None:
    """The checkpoint that painted the dataset; None if none did, or it is not at hand."""
    if lock.checkpoint is None:
        notes.append("no checkpoint painted this dataset, so there is no training to compare with")
        return None
    revision = None
    name = options.checkpoint
    if name is None:
        name, revision = lock.checkpoint.name, lock.checkpoint.revision
        if revision is None and not name.startswith("package:"):
            notes.append(
                f"the checkpoint '{name}' is not at hand: give --checkpoint with its folder"
            )
            return None
    files = find_checkpoint(name, revision=revision)
    if files.checkpoint_id != lock.checkpoint.id:
        raise CheckpointError(
            f"checkpoint '{files.name}' has the id {files.checkpoint_id[:12]}, but {folder} was "
            f"painted by {lock.checkpoint.id[:12]}; give --checkpoint with that one"
        )
    return files


def _training(
    files: CheckpointFiles | None, options: Options, cache_dir: Path, notes: list[str]
) -> TrainingRegions | None:
    """The index of the checkpoint with the scans that are at hand; None without an index."""
    index = read_index(files) if files is not None else None
    if files is None or index is None:
        if files is not None:
            notes.append(f"checkpoint '{files.name}' has no privacy index: not assessed")
        return None
    if options.training is None:
        notes.append("by key only: give --training with the recipe that the checkpoint comes from")
        return TrainingRegions(index)
    recipe = load_training_recipe(options.training)
    roots = {name: path for name, path in (options.roots or {}).items() if name in recipe.sources}
    recipe = load_training_recipe(options.training, sources=roots)
    named = set(index["source"].to_pylist())
    sources = {name: one for name, one in recipe.sources.items() if name in named}
    found = index_sources(download(sources, cache_dir), (), cache_dir=cache_dir)
    known = TrainingRegions(index).cases
    entries: dict[str, CaseEntry] = {
        key: entry
        for name in sources
        for entry in found.entries(name)
        for key in (entry.fingerprint, f"{name}/{entry.case_id}")
        if key in known and key is not None
    }
    if len(entries) < len(known):
        notes.append(
            f"{len(known) - len(entries)} of {len(known)} training scans are not at hand; "
            "paintings are compared with them by key only"
        )
    if unplaced := index["grid_mm"].null_count:
        notes.append(
            f"of {unplaced:,} of {len(index):,} training regions the index does not say where they "
            "lie; whole slices of their scans are searched, not flipped and at their own scale"
        )
    return TrainingRegions(index, entries)


def _hosts(
    dataset: Dataset, lock: Lock, options: Options, cache_dir: Path, notes: list[str]
) -> HostScans | None:
    """The hosts, if they are available and needed."""
    if dataset.keeps_original:
        return None
    roots = {name: path for name, path in (options.roots or {}).items() if name in lock.sources}
    try:
        return HostScans(dataset, roots, cache_dir)
    except SynthCTError as err:
        if roots:
            raise
        notes.append(
            f"the hosts are not at hand ({err}); give --source hosts=FOLDER to compare paintings "
            "with what was there before, and to fit thresholds to patients not trained on"
        )
        return None


def _thresholds(
    before: Sequence[Nearest], patients: Sequence[str], training: TrainingRegions | None
) -> tuple[Threshold, ...]:
    """Those of the key and, where scans are at hand, of the correlation."""
    if training is None:
        return ()
    found = [fit_threshold("train_key", [one.key_similarity for one in before], patients)]
    if training.entries:
        compared = [
            (one.ncc, one.z, patient)
            for one, patient in zip(before, patients, strict=True)
            if one.ncc is not None and one.z is not None
        ]
        who = [patient for _, _, patient in compared]
        found.append(fit_threshold("train_nn_ncc", [ncc for ncc, _, _ in compared], who))
        found.append(fit_threshold("train_nn_z", [z for _, z, _ in compared], who))
    return tuple(found)


def _held_out(regions: Sequence[PaintedRegion]) -> list[tuple[str, Piece]]:
    """Patient and real tissue of each mask whose host was not trained on."""
    masks = {
        (one.facts.mask_id, one.facts.slice_index): (one.facts.patient_id, one.original)
        for one in regions
        if one.facts.host_in_training is False
    }
    return [(patient, piece) for patient, piece in masks.values() if piece is not None]


def _weakest(results: Sequence[RegionResult]) -> How:
    """The weakest way in which a region was assessed."""
    order: tuple[How, ...] = ("not assessed", "key", "correlation")
    return min((one.assessed for one in results), key=order.index, default="not assessed")


def _nearer(
    regions: Sequence[PaintedRegion],
    held_out: Sequence[tuple[str, Piece]],
    training: TrainingRegions,
    rng: np.random.Generator,
) -> Share | None:
    """Regions whose key is nearer to training regions than to as many held-out ones.

    Those of a host are not compared with the host itself. None with too few held-out patients.
    """
    patients = np.array([patient for patient, _ in held_out])
    if len(set(patients)) < LEAST_PATIENTS:
        return None
    keys = np.stack([key_of(piece) for _, piece in held_out])
    count = 0
    for host in sorted({one.facts.patient_id for one in regions}):
        others, known = keys[patients != host], training.keys
        mine = [one.painted for one in regions if one.facts.patient_id == host]
        size = min(len(others), len(known))
        to_others, to_known = (
            likeness(mine, some[rng.permutation(len(some))[:size]]) for some in (others, known)
        )
        count += int((to_known > to_others).sum())
    return share(count, len(regions))


def _diversity(regions: Sequence[PaintedRegion]) -> float | None:
    """1 - median correlation of the variants of a mask."""
    variants: dict[tuple[str, int], list[Query]] = defaultdict(list)
    for one in regions:
        piece = one.painted
        variants[one.facts.mask_id, one.facts.slice_index].append(Query.of(piece.hu, piece.mask))
    pairs = [correlation(a, b) for group in variants.values() for a, b in combinations(group, 2)]
    return 1 - float(np.median(pairs)) if pairs else None


def _result(
    region: PaintedRegion,
    near: Nearest | None,
    training: TrainingRegions | None,
    thresholds: Sequence[Threshold],
) -> RegionResult:
    """The measures of one region, and which limits it breaks."""
    facts, limits = region.facts, {one.measure: one.value for one in thresholds}
    known: dict[str, object] = {}
    flags: list[Flag] = []
    how: How = "not assessed"
    if near is not None and training is not None:
        how = "correlation" if near.is_compared else "key"
        row = near.row
        if near.ncc is not None and near.ncc > limits["train_nn_ncc"]:
            flags.append("training_ncc")
        if near.z is not None and near.z > limits["train_nn_z"]:
            flags.append("training_z")
        if near.key_similarity > limits["train_key"]:
            row = row if flags else near.key_row
            flags.append("training_key")
        if near.block_copy:
            flags.append("block_copy")
        known = {
            "train_key": near.key_similarity,
            "train_nn_ncc": near.ncc,
            "train_nn_z": near.z,
            "train_nn_ncc_3d": near.ncc_3d,
            "nearest_patient": training.patient(row),
            "nearest_case": training.case(row),
            "block_copy": near.block_copy,
        }
    return RegionResult(
        sample_id=facts.sample_id,
        patient_id=facts.patient_id,
        host_in_training=facts.host_in_training,
        real_voxel_fraction=region.real_voxel_fraction,
        recognisable=region.recognisable,
        assessed=how,
        self_recon_ncc=region.self_recon_ncc,
        donor_shape_dice=region.donor_shape_dice,
        flags=tuple(flags),
        **known,
    )
