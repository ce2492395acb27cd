"""What each segmenter is trained on: real scans, and painted ones with equal masks in all arms."""

from __future__ import annotations

import logging
import math
import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from synthct.build.draw import CaseReader
from synthct.build.run import build
from synthct.dataset.manifest import require_manifest
from synthct.dataset.rows import Columns
from synthct.errors import PolicyError
from synthct.masks import MaskKind
from synthct.masks.counterpart import Counterpart
from synthct.models.methods import CopyPaste, Inpaint, NoiseFill
from synthct.publish.export.scans import PaintedScan, PaintedScans, rows_of_split
from synthct.recipe.recipe import Recipe
from synthct.recipe.shares import Splits
from synthct.recipe.yaml_errors import path_text
from synthct.seeds import derive_seed
from synthct.sources import CaseEntry, FolderSection, Index, Source
from synthct.storage.files import make_folder
from synthct.storage.keys import cache_key
from synthct.studies.downstream.context import StudyContext
from synthct.studies.downstream.kind import Scan, SegmenterKind
from synthct.studies.downstream.recipe import Arm, Study
from synthct.studies.downstream.slices import classes_of
from synthct.volume.case import Case

logger = logging.getLogger(__name__)

#: Measures that say what was painted: segmenters learn from it what a lesion is.
LOOKS = ("painted_mean_hu", "painted_std_hu", "replaced_mean_hu", "mask_adherence")

#: Masks of the painted arm, painted as the organ: in the hosts, and in the test scans.
COUNTERPART, TEST_COUNTERPART = "counterpart", "test_counterpart"

#: The controls that a study paints with beside the recipe's own method.
_CONTROLS: Mapping[str, Inpaint] = {"copy_paste": CopyPaste(), "noise_fill": NoiseFill()}


@dataclass(frozen=True)
class Run:
    """One segmenter.

    Attributes:
        arm: What it is trained on.
        share: Share of the real patients that are known.
        amount: Painted scans for each real one; 0 for real scans only.
        seed: Of its training.
    """

    arm: Arm
    share: float
    amount: float
    seed: int

    @property
    def method(self) -> str:
        """How its painted scans were painted."""
        return "painted" if self.arm in ("painted_only", "pairs") else self.arm

    @property
    def name(self) -> str:
        """Name of its file."""
        amount = f"-x{self.amount:g}" if self.amount else ""
        return f"{self.arm}{amount}-share{100 * self.share:g}-seed{self.seed}"


def runs_of(study: Study) -> list[Run]:
    """All segmenters of a study, in the order in which they are trained."""
    return [
        Run(arm, share, amount, seed)
        for share in study.shares
        for seed in study.seeds
        for arm in study.arms
        for amount in ((0.0,) if arm == "real" else study.amounts)
    ]


@dataclass(frozen=True, eq=False)
class Known(Generic[Scan]):
    """The patients that are known at a share, and what was made of them.

    Attributes:
        real: The real training scans.
        painted: By method the painted ones, equal masks in all of them, in the order in which
            smaller amounts take them.
        digests: By name of a scan the hash of its voxels and classes.
        looks: By method medians over the painted lesions of ``LOOKS``.
    """

    real: tuple[Scan, ...]
    painted: Mapping[str, tuple[Scan, ...]]
    digests: Mapping[str, str] = field(repr=False)
    looks: Mapping[str, Mapping[str, float | None]]

    def scans(self, run: Run) -> list[Scan]:
        """The training scans of a segmenter.

        Raises:
            PolicyError: If there are none.
        """
        wanted = math.ceil(run.amount * len(self.real))
        painted = self.painted.get(run.method, ())[:wanted]
        if len(painted) < wanted:
            logger.warning(
                "%s: %d painted for %d real scans, not %d; the other hosts have no mask that every "
                "arm could paint",
                run.name, len(painted), len(self.real), wanted,
            )  # fmt: skip
        scans = [*(() if run.arm == "painted_only" else self.real), *painted]
        if run.arm == "pairs":
            scans += self.painted[COUNTERPART][: len(painted)]
        if not scans:
            raise PolicyError(f"{run.name}: no mask could be painted, so there is no training scan")
        return scans


def patients_known(study: Study, index: Index, share: float, seed: int) -> frozenset[str]:
    """The patients that are known at a share, of those with and without the lesion alike.

    Everybody at share 1; else drawn for each seed.

    Args:
        study: With the seed of the draw.
        index: Of the dataset's sources.
        share: Of the patients.
        seed: Of the training.
    """
    entries = [entry for cases in index.sources.values() for entry in cases]
    everybody = {entry.patient_id for entry in entries}
    if share == 1:
        return frozenset(everybody)
    with_lesion = {entry.patient_id for entry in entries if study.lesion in entry.labels}
    chosen: set[str] = set()
    for group in (with_lesion, everybody - with_lesion):
        names = ("share", str(share), str(seed))
        ranked = sorted(group, key=lambda who: (derive_seed(study.seed, *names, who), who))
        chosen.update(ranked[: max(1, round(share * len(ranked)))])
    return frozenset(chosen)


def recipe_for(study: Study, method: str, index: Index, patients: frozenset[str]) -> Recipe:
    """The recipe of an arm's dataset: the study's own, with its patients and its paint.

    Args:
        study: The study.
        method: ``painted``, a control, or ``counterpart`` for the same masks painted as the organ;
            ``test_counterpart`` for such masks in the test scans.
        index: Of the dataset's sources.
        patients: Who is known.

    Raises:
        RecipeError: If the masks of the dataset are not for that paint.
    """
    base = study.recipe
    sources: dict[str, Source] = {
        name: section.model_copy(
            update={
                "cases": tuple(e.case_id for e in index.entries(name) if e.patient_id in patients),
                "exclude": (),
            }
        )
        for name, section in base.sources.items()
    }
    masks = base.masks
    if method in (COUNTERPART, TEST_COUNTERPART):
        masks = tuple(_counterpart(section) for section in base.masks)
    if method == TEST_COUNTERPART:
        sources["hosts"] = study.test
    tag = derive_seed(0, *sorted(patients)) % 16**6
    copy = base.model_copy(
        update={
            "name": f"{study.name}-{method.replace('_', '-')}-{tag:06x}",
            "sources": sources,
            "masks": masks,
            "inpaint": _CONTROLS.get(method, base.inpaint),
            "masks_per_case": math.ceil(max(study.amounts) * study.lesions_per_scan),
            "variants": 1,
            "splits": Splits(train=1.0),
            "keep_original": False,
        }
    )
    try:
        return Recipe.model_validate(copy.model_dump())
    except ValidationError as err:
        first = err.errors()[0]
        where = path_text(tuple(first["loc"]))
        message = f"{study.dataset}, arm {method}: {where}: {first['msg']}"
        raise study.error(("dataset",), message) from None


def _counterpart(section: MaskKind) -> Counterpart:
    """The section that paints the organ where another paints a lesion."""
    fields = section.model_dump(exclude={"kind", "label_map", "pair"})
    return Counterpart.model_validate(fields)


def roots_of(sources: Mapping[str, Source]) -> dict[str, Path]:
    """The folders of sources that have one."""
    return {
        name: section.root
        for name, section in sources.items()
        if isinstance(section, FolderSection) and section.root is not None
    }


def build_method(context: StudyContext, method: str, patients: frozenset[str]) -> Path:
    """The dataset of an arm, built if it is not there; arguments as in ``recipe_for``."""
    return build(
        recipe_for(context.study, method, context.index, patients),
        context.folder / "datasets",
        cache_dir=context.cache_dir,
        device=context.device,
        progress=context.progress,
    )


def make_known(
    context: StudyContext, kind: SegmenterKind[Scan], patients: frozenset[str]
) -> Known[Scan]:
    """Build the datasets of a share and write its training scans.

    Args:
        context: The study.
        kind: Keeps the scans.
        patients: Who is known.
    """
    study, entries = context.study, context.index.entries("hosts")
    roots = roots_of(study.recipe.sources)
    datasets = {method: build_method(context, method, patients) for method in study.methods}
    place = context.folder / "scans"
    shutil.rmtree(place, ignore_errors=True)
    make_folder(place)
    hosts = [entry for entry in entries if entry.patient_id in patients and entry.image is not None]
    reader = CaseReader(context.label_names, keep=1)
    keeper = _Keeper(study, kind, place)
    real = tuple(keeper.real(entry, reader) for entry in hosts)
    common = lesions_of_all(datasets.values())
    if "pairs" in study.arms:
        datasets[COUNTERPART] = build_method(context, COUNTERPART, patients)
    painted: dict[str, tuple[Scan, ...]] = {}
    looks: dict[str, Mapping[str, float | None]] = {}
    for method, dataset in datasets.items():
        scans = PaintedScans(dataset, roots, context.cache_dir, study.lesions_per_scan)
        rows = [row for row in rows_of(dataset) if row["lesion_id"] in common]
        looks[method] = {name: _median(row[name] for row in rows) for name in LOOKS}
        made = [keeper.painted(scan, method) for scan in scans.of(rows)]
        made.sort(key=lambda one: one[0])
        painted[method] = tuple(kept for _, kept in made)
    return Known(real, painted, keeper.digests, looks)


class _Keeper(Generic[Scan]):
    """Writes training scans into a folder and knows the hashes of what is in them."""

    def __init__(self, study: Study, kind: SegmenterKind[Scan], place: Path) -> None:
        self._study, self._kind, self._place = study, kind, place
        self.digests: dict[str, str] = {}

    def real(self, entry: CaseEntry, reader: CaseReader) -> Scan:
        """A scan as it is."""
        case = reader.read(entry)
        name, hu = f"real-{entry.case_id}", case.scan().array
        return self._keep(name, hu, case, case.labels.array, entry, is_real=True)

    def painted(self, scan: PaintedScan, method: str) -> tuple[tuple[int, int], Scan]:
        """A painted scan, with what it is sorted by: the first of each host come first."""
        entry = scan.entry
        assert entry is not None, "a study knows its hosts"
        name = f"{method}-{entry.case_id}-{scan.part}"
        kept = self._keep(name, scan.painted(), scan.case, scan.labels, entry, is_real=False)
        return (scan.part, derive_seed(self._study.seed, "order", entry.case_id)), kept

    def _keep(
        self,
        name: str,
        hu: npt.NDArray[np.int16],
        case: Case,
        labels: npt.NDArray[Any],
        entry: CaseEntry,
        *,
        is_real: bool,
    ) -> Scan:
        classes = classes_of(case, labels, self._study.classes)
        kept = self._kind.keep(self._place, name, hu, classes, entry, is_real=is_real)
        self.digests[kept.name] = cache_key(hu=hu, classes=classes, spacing_mm=entry.spacing_mm)
        return kept


def rows_of(dataset: Path) -> Iterable[Columns]:
    """The stored rows of a dataset of a study."""
    return rows_of_split(dataset, require_manifest(dataset), "train")


def _median(values: Iterable[float | None]) -> float | None:
    """The median of the numbers that there are."""
    there = [one for one in values if one is not None and math.isfinite(one)]
    return round(statistics.median(there), 3) if there else None


def lesions_of_all(datasets: Iterable[Path]) -> set[str]:
    """Ids of the lesions that were painted in every one of some datasets."""
    painted = [{r["lesion_id"] for r in rows_of(one) if r["is_painted"]} for one in datasets]
    return set.intersection(*painted) if painted else set()


def labels_missing(names: Sequence[str], entries: Iterable[CaseEntry]) -> list[str]:
    """The labels that no case knows."""
    known = {name for entry in entries for name in entry.available}
    return [name for name in names if name not in known]
