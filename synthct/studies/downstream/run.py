"""Runs a study: builds, trains, judges; run again to go on with the next segmenter."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.build.check import Checked, check
from synthct.build.draw import CaseReader
from synthct.errors import SourceError
from synthct.processes.device import choose_device
from synthct.sources import CaseEntry, download, index_sources, label_table, read_case
from synthct.storage.cache import read_kept, write_kept
from synthct.storage.defaults import default_cache_dir
from synthct.storage.files import atomic_write, make_folder, require_writable
from synthct.storage.keys import cache_key
from synthct.storage.lock import version_lock
from synthct.studies.downstream.arms import (
    Known,
    Run,
    labels_missing,
    make_known,
    patients_known,
    recipe_for,
    runs_of,
)
from synthct.studies.downstream.context import StudyContext
from synthct.studies.downstream.judge import Judged, judge
from synthct.studies.downstream.kind import SegmenterKind
from synthct.studies.downstream.leaks import require_no_leaks
from synthct.studies.downstream.nnunet import NnUnet
from synthct.studies.downstream.recipe import TEST, Study
from synthct.studies.downstream.results import write_documents
from synthct.studies.downstream.slices import classes_of
from synthct.studies.downstream.suggest import suggestion

SUGGESTION = "suggestion.yaml"

logger = logging.getLogger(__name__)


class _TestSet:
    """The real test scans, read one after the other."""

    def __init__(self, study: Study, cache_dir: Path, progress: bool) -> None:
        sources = download({TEST: study.test}, cache_dir)
        index = index_sources(sources, study.classes, cache_dir=cache_dir, progress=progress)
        self.entries: Sequence[CaseEntry] = index.entries(TEST)
        for entry in self.entries:
            if entry.image is None:
                raise SourceError(f"source '{TEST}': case {entry.case_id} has no image; exclude it")
        self.reader = CaseReader(label_table(sources, study.classes), keep=1)
        self._names = study.classes

    def of(self, patient_id: str) -> _TestSet:
        """The scans of one patient."""
        part = copy.copy(self)
        part.entries = [entry for entry in self.entries if entry.patient_id == patient_id]
        return part

    @property
    def facts(self) -> list[list[str | None]]:
        """The scans by hash."""
        return [[entry.voxel_sha256, entry.label_sha256] for entry in self.entries]

    def scans(self) -> Iterator[tuple[CaseEntry, npt.NDArray[np.int16]]]:
        """The scans, one after the other."""
        for entry in self.entries:
            yield entry, self.reader.read(entry).scan().array

    def judge(self, probabilities: Iterable[npt.NDArray[np.float32]]) -> list[Judged]:
        """What a segmenter's predictions of all scans are worth."""
        judged = []
        for entry, probability in zip(self.entries, probabilities, strict=True):
            case = self.reader.read(entry)
            truth = classes_of(case, case.labels.array, self._names)
            who = entry.case_id, entry.patient_id
            judged.append(judge(who, truth, probability, entry.affine, self._names))
        return judged


def run_study(
    study: Study,
    output: Path,
    *,
    nnunet: Path | None = None,
    configuration: str = "2d",
    suggest: bool = False,
    cache_dir: Path | None = None,
    device: str | None = None,
    progress: bool = False,
) -> Path:
    """Train and judge all segmenters of a study that are not there yet.

    Args:
        study: From ``load_study``.
        output: Folder below which ``<name>`` is made.
        nnunet: Python of an environment with nnunetv2, which then takes the small U-Net's place.
        configuration: Of nnU-Net: ``2d`` or ``3d_fullres``.
        suggest: Also write ``suggestion.yaml``, masks that make more of what ``real`` misses.
        cache_dir: Of indexes and phantoms; by default the user's cache folder.
        device: Where networks run; by default a GPU if there is one.
        progress: Show progress bars.

    Returns:
        The folder of the study, with ``results.json``, ``results.md`` and ``index.html``.

    Raises:
        PolicyError: If a test patient has a part in what is trained on.
        SynthCTError: If a recipe, a source or a checkpoint has a problem.
    """
    cache_dir, folder = cache_dir or default_cache_dir(), output / study.name
    make_folder(folder)
    require_writable(folder)
    with version_lock(folder):
        checked = check(study.recipe, cache_dir=cache_dir, progress=progress)
        test = _TestSet(study, cache_dir, progress)
        _require_labels(study, checked, test)
        known = [entry for cases in checked.index.sources.values() for entry in cases]
        everybody = frozenset(entry.patient_id for entry in known)
        folds = [_Fold(test, everybody)]
        if study.leave_one_out:
            left_out = sorted({entry.patient_id for entry in test.entries})
            folds = [_Fold(test.of(who), everybody - {who}, f"-without-{who}") for who in left_out]
        for fold in folds:
            require_no_leaks(
                fold.test.entries,
                [entry for entry in known if entry.patient_id in fold.patients],
                checked.checkpoint,
                allow_unknown=study.unknown_training == "allow",
            )
            for method in study.methods:  # before anything is painted
                check(recipe_for(study, method, checked.index, fold.patients), cache_dir=cache_dir)
        context = StudyContext(
            study, checked.index, checked.label_names, folder, cache_dir, choose_device(device),
            progress,
        )  # fmt: skip
        kind = _kind(study, nnunet, configuration, context.device)
        results: dict[Run, list[Judged]] = {}
        for fold in folds:
            runs = _Runs(context, kind, fold)
            for run, judged in runs.all().items():
                results.setdefault(run, []).extend(judged)
        classified = None
        if study.classification is not None:
            from synthct.studies.downstream.classify import classify

            classified = classify(context, test.entries, test.reader)
        hosts = checked.index.entries("hosts")
        real_scans = min(sum(e.patient_id in fold.patients for e in hosts) for fold in folds)
        write_documents(folder, study, results, real_scans, runs.looks, classified)
        shutil.rmtree(folder / "scans", ignore_errors=True)
        if suggest:
            atomic_write(folder / SUGGESTION, suggestion(study, results, cache_dir).encode())
    return folder


def _require_labels(study: Study, checked: Checked, test: _TestSet) -> None:
    """See that the labels are known in the training and in the test scans.

    Raises:
        RecipeError: If one is not.
    """
    for where, entries in (
        ("hosts of the dataset", checked.index.entries("hosts")),
        ("test scans", test.entries),
    ):
        if missing := labels_missing(study.classes, entries):
            field = "lesion" if missing[0] == study.lesion else "labels"
            known = sorted({name for entry in entries for name in entry.available})
            raise study.error(
                (field,), f"the {where} know no '{missing[0]}' (known: {', '.join(known)})"
            )


def _kind(study: Study, nnunet: Path | None, configuration: str, device: str) -> SegmenterKind[Any]:
    if nnunet is not None:
        return NnUnet(study, nnunet, configuration, device)
    from synthct.studies.downstream.segmenter import SmallUnet

    return SmallUnet(study, device)


@dataclass(frozen=True, eq=False)
class _Fold:
    """Some test scans, and who may be known to the segmenters that are judged on them.

    Attributes:
        test: The scans.
        patients: Who may be known.
        suffix: Of the files of the segmenters.
    """

    test: _TestSet
    patients: frozenset[str]
    suffix: str = ""


class _Runs:
    """Trains what is missing; a finished segmenter is a file with what it was judged."""

    def __init__(self, context: StudyContext, kind: SegmenterKind[Any], fold: _Fold) -> None:
        self._context, self._kind, self._fold = context, kind, fold
        self._study, self._test, self._folder = context.study, fold.test, context.folder
        self._known: tuple[frozenset[str], Known[Any]] | None = None
        self.looks: Mapping[str, Mapping[str, float | None]] = {}

    def all(self) -> dict[Run, list[Judged]]:
        """All segmenters of the study, judged."""
        from tqdm import tqdm

        runs, steps = runs_of(self._study), self._study.trainer.steps
        results = {}
        total = len(runs) * steps
        with tqdm(total=total, unit="step", disable=not self._context.progress) as bar:
            for number, run in enumerate(runs, 1):
                known = self._known_at(run)
                scans = known.scans(run)
                key = self._key(run, scans, known.digests)
                name = f"{run.name}{self._fold.suffix}"
                path = self._folder / "segmenters" / f"{name}.judged"
                judged = _read(path, key)
                bar.set_description(name)
                if judged is None:
                    judged = self._make(run, scans, bar.update)
                    content = {"key": key, "cases": [one.as_json() for one in judged]}
                    write_kept(path, json.dumps(content).encode())
                    logger.info("%d of %d segmenters: %s", number, len(runs), name)
                else:  # its time does not count for the time that is left
                    total -= steps
                    bar.total = total
                    bar.refresh()
                results[run] = judged
        return results

    def _make(self, run: Run, scans: Sequence[Any], on_step: Callable[[], object]) -> list[Judged]:
        """Train a segmenter and judge it."""
        predicted = self._kind.probabilities(
            scans, run.seed, self._test.scans, self._folder, on_step
        )
        return self._test.judge(predicted)

    def _known_at(self, run: Run) -> Known[Any]:
        """The training scans of a share; the last ones are kept."""
        patients = patients_known(self._study, self._context.index, run.share, run.seed)
        patients &= self._fold.patients
        if self._known is None or self._known[0] != patients:
            made = make_known(self._context, self._kind, patients)
            self._known, self.looks = (patients, made), made.looks
        return self._known[1]

    def _key(self, run: Run, scans: Sequence[Any], digests: Mapping[str, str]) -> str:
        """The key of all that the numbers of a segmenter depend on."""
        return cache_key(
            *self._kind.modules,
            judge.__module__,
            classes_of.__module__,
            read_case.__module__,
            run=run.name,
            scans=[[scan.name, digests[scan.name]] for scan in scans],
            test=self._test.facts,
            classes=self._study.classes,
            segmenter=self._kind.facts,
        )


def _read(path: Path, key: str) -> list[Judged] | None:
    """What a segmenter was judged; None if it is not there, damaged (told), or of another study."""
    kept = read_kept(path)
    stored: Mapping[str, Any] = {} if kept is None else json.loads(kept)
    if stored.get("key") != key:
        return None
    return [Judged.from_json(one) for one in stored["cases"]]
