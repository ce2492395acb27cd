"""The data of a report, read from a dataset in two passes: the numbers, then some pictures.

Pictures of other rows are not decoded, so large datasets take little more than reading them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from synthct.dataset.lockfile import LOCK, read_lock
from synthct.dataset.records import RECIPE, REJECTED, read_rejected
from synthct.dataset.rows import decode
from synthct.dataset.sample import Sample
from synthct.dataset.schema import measures_of
from synthct.dataset.writer import Rejection
from synthct.errors import VerifyError
from synthct.evaluate.stream import Dataset
from synthct.metrics.table import MEASURES
from synthct.publish.report.lesions import choose_lesions, stack_lesion
from synthct.publish.report.pictures import MaskCrop, crop_around_mask
from synthct.recipe.quality import Grade, Quality, Standard
from synthct.recipe.yaml_model import read_yaml

#: Most rows whose HU are counted, and rows in memory at once.
COUNTED, _ROWS = 2000, 16

#: Edges of the bins of HU.
HU_EDGES = np.arange(-1024, 3080, 8)

#: Most variants of one mask that are shown.
VARIANTS = 6

ANYTHING = "whatever fits"

#: Measures with good and bad values, which masks can be sorted by.
RANKED_MEASURES = tuple(name for name, measure in MEASURES.items() if measure.worse is not None)

Counts = npt.NDArray[np.int64]


@dataclass(eq=False)
class Tissue:
    """Histograms of HU of one label, in the bins of ``HU_EDGES``.

    Attributes:
        painted: Voxels inside the masks.
        before: The same voxels before painting; empty if the originals are not kept.
        elsewhere: Real voxels of the label outside the masks, in the same slices.
    """

    painted: Counts = field(default_factory=lambda: np.zeros(len(HU_EDGES) - 1, np.int64))
    before: Counts = field(default_factory=lambda: np.zeros(len(HU_EDGES) - 1, np.int64))
    elsewhere: Counts = field(default_factory=lambda: np.zeros(len(HU_EDGES) - 1, np.int64))

    def count(self, sample: Sample) -> None:
        """Count the voxels of a sample."""
        self.painted += _counts(sample.image[sample.mask])
        if sample.original is not None:
            self.before += _counts(sample.original[sample.mask])
        value = dict(sample.provenance.get("mask") or {}).get("label_value")
        if isinstance(value, int) and value > 0:
            self.elsewhere += _counts(sample.image[(sample.labels == value) & ~sample.mask])


@dataclass(frozen=True, eq=False)
class ReportData:
    """The data of a report.

    Attributes:
        dataset: The dataset.
        rows: The flat columns of all painted rows.
        rejected: The rejected samples.
        standards: What samples are judged by, by the name of their section of masks.
        crops: For each shown mask, its paintings.
        masks: Number of masks in the dataset.
        lesions: Some lesions with several neighbouring slices, with their surroundings.
        tissue: Histograms of HU by label.
        counted: Number of rows in ``tissue``.
    """

    dataset: Dataset
    rows: Sequence[Mapping[str, Any]]
    rejected: Sequence[Rejection]
    standards: Mapping[str, Standard]
    crops: Sequence[Sequence[MaskCrop]]
    masks: int
    lesions: Sequence[Sample]
    tissue: Mapping[str, Tissue]
    counted: int


def read_report_data(folder: Path, *, masks: int, advance: Callable[[], object]) -> ReportData:
    """Read the data of a report.

    Args:
        folder: The folder of a version.
        masks: Most masks to show.
        advance: Called once per row.

    Raises:
        VerifyError: If the dataset is unfinished, damaged, or has no pictures.
    """
    dataset = Dataset(folder)
    rows = [row for row in dataset.rows() if row.get("is_painted") is not False]
    chosen = choose_masks(rows, masks)
    crops_of: dict[str, list[MaskCrop]] = {mask_id: [] for mask_id in chosen}
    lesions = choose_lesions(rows)
    lesion_of = {sample_id: n for n, ids in enumerate(lesions) for sample_id in ids}
    slices: list[list[Mapping[str, Any]]] = [[] for _ in lesions]
    some = min(COUNTED, len(rows))
    counted = {rows[n * len(rows) // some]["sample_id"] for n in range(some)}
    tissue: dict[str, Tissue] = {}
    for columns in _stored(dataset):
        advance()
        if columns.get("is_painted") is False:
            continue
        if (number := lesion_of.get(columns["sample_id"])) is not None:
            slices[number].append({**columns, "preview": None})
        crops = crops_of.get(columns["mask_id"])
        is_shown = crops is not None and len(crops) < VARIANTS
        is_counted = columns["sample_id"] in counted
        if is_shown or is_counted:
            sample = decode(columns)
            if is_counted:
                tissue.setdefault(columns["label"] or ANYTHING, Tissue()).count(sample)
            if crops is not None and is_shown:
                crops.append(crop_around_mask(sample, columns))
    return ReportData(
        dataset=dataset,
        rows=rows,
        rejected=read_rejected(folder) if (folder / REJECTED).is_file() else [],
        standards=_standards(folder, {str(row["mask_name"]) for row in rows}),
        crops=[crops for crops in crops_of.values() if crops],
        masks=len({row["mask_id"] for row in rows}),
        lesions=[stack_lesion(one) for one in slices],
        tissue=dict(sorted(tissue.items())),
        counted=len(counted),
    )


def choose_masks(rows: Sequence[Mapping[str, Any]], most: int) -> list[str]:
    """Ids of the masks to show, in the order of the dataset.

    Half of them are spread evenly over the dataset; the others are the worst by each measure in
    turn, so that sorting by a measure shows the worst of the dataset.
    """
    all_masks = list(dict.fromkeys(str(row["mask_id"]) for row in rows))
    if len(all_masks) <= most:
        return all_masks
    even = most - most // 2
    chosen = {all_masks[n * len(all_masks) // even] for n in range(even)}
    ranked = [
        iter(worst_first) for name in RANKED_MEASURES if (worst_first := _worst_first(rows, name))
    ]
    while ranked and len(chosen) < most:
        for order in list(ranked):
            worst = next((mask for mask in order if mask not in chosen), None)
            if worst is None:
                ranked.remove(order)
            elif len(chosen) < most:
                chosen.add(worst)
    return [mask for mask in all_masks if mask in chosen]


def grade_of(data: ReportData, columns: Mapping[str, Any]) -> Grade | None:
    """The grade of a row; None if no limit applies."""
    standard = data.standards.get(str(columns["mask_name"]))
    return standard.grade(measures_of(columns)) if standard else None


def badness(columns: Mapping[str, Any], measure: str) -> float | None:
    """How bad a row is by a measure (`Measure.badness`); None if it is undefined."""
    value = columns.get(measure)
    return None if value is None else float(MEASURES[measure].badness(value))


def _stored(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The stored rows, read a few at a time."""
    for path in dataset.shards:
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                for batch in file.iter_batches(1 if dataset.of_volumes else _ROWS):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as err:
            raise VerifyError(f"{path}: damaged ({err}); build it again") from err


def _worst_first(rows: Sequence[Mapping[str, Any]], measure: str) -> list[str]:
    ranked = [(bad, str(row["mask_id"])) for row in rows
              if (bad := badness(row, measure)) is not None]  # fmt: skip
    return [mask for _, mask in sorted(ranked, key=lambda pair: -pair[0])]


def _counts(hu: npt.NDArray[np.int16]) -> Counts:
    return np.histogram(hu, HU_EDGES)[0].astype(np.int64)


def _standards(folder: Path, names: Set[str]) -> dict[str, Standard]:
    """By the name of each section of masks: the recipe's own limits, or the lock's default ones."""
    path = folder / RECIPE
    if not path.is_file():
        return {}
    section = read_yaml(path).value.get("quality") or {}
    try:
        own = Quality() if section == "none" else Quality.model_validate(section)
    except ValidationError as err:
        raise VerifyError(f"{path}: its section 'quality' cannot be read ({err})") from err
    if own.limits or section == "none" or not (folder / LOCK).is_file():
        return dict.fromkeys(names, Standard(own))
    return {
        name: Standard(Quality.model_validate(limits), is_default=True)
        for name, limits in read_lock(folder).limits.items()
    }
