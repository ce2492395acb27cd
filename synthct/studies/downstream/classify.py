"""Classifiers of a study: is there a lesion in a crop, and have they learned the paint instead?

Beside each painted lesion a classifier needs a crop without one. If that shows the host as it was,
all that is painted has a lesion, and the paint alone gives the answer away; the arm ``pairs`` shows
the same place painted as the organ. All arms are asked to tell healthy tissue that was painted in
the test scans from the same tissue as it was: who can has learned the paint.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthct.build.draw import CaseReader
from synthct.masks.transplant import Transplant
from synthct.sources import CaseEntry
from synthct.storage.cache import read_kept, write_kept
from synthct.storage.keys import cache_key
from synthct.studies.downstream.arms import (
    COUNTERPART,
    TEST_COUNTERPART,
    build_method,
    lesions_of_all,
    roots_of,
)
from synthct.studies.downstream.auc import Separation, area
from synthct.studies.downstream.classifier import scores, train_classifier
from synthct.studies.downstream.context import StudyContext
from synthct.studies.downstream.crops import Crop, Cutter
from synthct.studies.downstream.recipe import Trainer

logger = logging.getLogger(__name__)

#: What a classifier is trained on: real crops alone, and with painted or pasted lesions beside
#: their places as they were, or (``pairs``) painted as the organ.
ARMS = ("real", "painted", "pairs", "copy_paste")

#: Which of them are compared.
_PAIRS = (
    ("painted", "copy_paste"),
    ("pairs", "copy_paste"),
    ("painted", "real"),
    ("pairs", "real"),
    ("pairs", "painted"),
    ("copy_paste", "real"),
)

#: The groups of test crops: real ones with and without a lesion, and healthy tissue that was
#: painted and as it was before.
_GROUPS = ("ill", "well", "painted", "before")


@dataclass(frozen=True, eq=False)
class _Crops:
    """All crops of a study.

    Attributes:
        training: By arm those with a lesion, and those without.
        test: By the names of ``_GROUPS``.
    """

    training: Mapping[str, tuple[Sequence[Crop], Sequence[Crop]]]
    test: Mapping[str, Sequence[Crop]]


def classify(
    context: StudyContext, test: Sequence[CaseEntry], reader: CaseReader
) -> dict[str, Any]:
    """Train and judge the classifiers that are not there yet.

    Args:
        context: A study with a section ``classification``.
        test: The test scans.
        reader: Reads them.

    Returns:
        The results, as JSON.
    """
    from tqdm import tqdm

    study, device, settings = context.study, context.device, context.study.classification
    assert settings is not None, "asked for only where there is one"
    crops = _crops(context, test, reader)
    trainer = study.trainer.model_copy(update={"steps": settings.steps})
    runs = [(arm, seed) for seed in study.seeds for arm in crops.training]
    scored: dict[str, list[dict[str, list[float]]]] = {}
    with tqdm(total=len(runs) * settings.steps, unit="step", disable=not context.progress) as bar:
        for arm, seed in runs:
            bar.set_description(f"classifier {arm}, seed {seed}")
            path = context.folder / "classifiers" / f"{arm}-seed{seed}.scored"
            key = _key(trainer, crops, arm, seed)
            kept = read_kept(path)
            stored: dict[str, Any] = {} if kept is None else json.loads(kept)
            if stored.get("key") != key:
                net = train_classifier(
                    *crops.training[arm], trainer, seed, device=device, on_step=bar.update
                )
                found = {
                    name: [round(float(s), 5) for s in scores(net, some, trainer, device)]
                    for name, some in crops.test.items()
                }
                stored = {"key": key, "scores": found}
                write_kept(path, json.dumps(stored).encode())
                logger.info("classifier %s, seed %d", arm, seed)
            else:
                bar.update(settings.steps)
            scored.setdefault(arm, []).append(stored["scores"])
    return _results(crops, scored)


def _crops(context: StudyContext, test: Sequence[CaseEntry], reader: CaseReader) -> _Crops:
    """Build the datasets that are missing and cut all crops."""
    study, index, cache_dir = context.study, context.index, context.cache_dir
    section = study.recipe.masks[0]
    assert isinstance(section, Transplant), "load_study sees to it"
    cutter = Cutter(study, section.into)
    everybody = frozenset(e.patient_id for cases in index.sources.values() for e in cases)
    methods = ["painted", COUNTERPART, TEST_COUNTERPART]
    methods += ["copy_paste"] if "copy_paste" in study.methods else []
    datasets = {method: build_method(context, method, everybody) for method in methods}
    in_test = cutter.painted(
        datasets.pop(TEST_COUNTERPART), roots_of({"hosts": study.test}), cache_dir
    )
    common = lesions_of_all(datasets.values())
    roots = roots_of(study.recipe.sources)
    first = cutter.painted(datasets["painted"], roots, cache_dir, common)
    others = {
        method: cutter.painted(dataset, roots, cache_dir, common, first.places)
        for method, dataset in datasets.items()
        if method != "painted"
    }
    hosts = [entry for entry in index.entries("hosts") if entry.image is not None]
    ill, well = cutter.real(hosts, CaseReader(context.label_names, keep=1))
    training = {
        "real": (ill, well),
        "painted": (ill + _all(first.painted), well + _all(first.before)),
        "pairs": (ill + _all(first.painted), well + _all(others[COUNTERPART].painted)),
    }
    if "copy_paste" in others:
        pasted = others["copy_paste"]
        training["copy_paste"] = (ill + _all(pasted.painted), well + _all(pasted.before))
    for arm, groups in list(training.items()):
        if not all(groups):
            logger.warning("no classifier '%s': there are no crops with, or none without", arm)
            del training[arm]
    test_ill, test_well = cutter.real(test, reader)
    in_groups = test_ill, test_well, _all(in_test.painted), _all(in_test.before)
    return _Crops(training, dict(zip(_GROUPS, in_groups, strict=True)))


def _all(crops: Mapping[str, Sequence[Crop]]) -> list[Crop]:
    return [one for some in crops.values() for one in some]


def _key(trainer: Trainer, crops: _Crops, arm: str, seed: int) -> str:
    """The key of all that the scores of a classifier depend on."""
    return cache_key(
        train_classifier.__module__,
        seed=seed,
        trainer=trainer,
        training=crops.training[arm],
        test=crops.test,
    )


def _results(
    crops: _Crops, scored: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]
) -> dict[str, Any]:
    who = {name: [one.patient_id for one in some] for name, some in crops.test.items()}
    patients = sorted({one for some in who.values() for one in some})

    def separation(arm: str, high: str, low: str) -> Separation:
        both = ((who[name], [one[name] for one in scored[arm]]) for name in (high, low))
        return Separation.of(patients, *both)

    lesions = {arm: separation(arm, "ill", "well") for arm in scored}
    rows = []
    for arm in scored:
        row: dict[str, Any] = {"arm": arm, "crops": [len(some) for some in crops.training[arm]]}
        for name, found in (
            ("lesion", area(lesions[arm])),
            ("paint", area(separation(arm, "painted", "before"))),
        ):
            row[name] = None if found is None else [found.value, found.low, found.high]
        row["verdict"] = _verdict(row["paint"])
        rows.append(row)
    differences = []
    for one, other in _PAIRS:
        if one in lesions and other in lesions:
            gap = area(lesions[one], lesions[other])
            if gap is not None:
                verdict = ("better" if gap.value > 0 else "worse") if gap.is_shown else "not shown"
                differences.append(
                    {"arm": one, "against": other, "value": gap.value, "low": gap.low,
                     "high": gap.high, "verdict": verdict}
                )  # fmt: skip
    return {
        "test": {name: len(some) for name, some in crops.test.items()},
        "arms": rows,
        "differences": differences,
    }


def _verdict(paint: Sequence[float] | None) -> str:
    """What an area of painted against untouched healthy tissue means."""
    if paint is None:
        return "not known"
    if paint[1] > 0.5:
        return "has learned the paint"
    if paint[2] < 0.5:
        return "takes paint for health"
    return "not shown to have learned the paint"
