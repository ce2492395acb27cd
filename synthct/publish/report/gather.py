"""What a report shows of a dataset, read from it in two passes: the numbers, then some pictures.

The pictures of rows that are neither shown nor counted are never decoded, so a large dataset costs
little more than reading it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from synthct.dataset.records import RECIPE, REJECTED, read_rejected
from synthct.dataset.rows import decode
from synthct.dataset.sample import Sample
from synthct.dataset.writer import Rejection
from synthct.errors import VerifyError
from synthct.evaluate.stream import Dataset
from synthct.metrics.table import MEASURES
from synthct.publish.report.lesions import bring_together, choose_lesions
from synthct.publish.report.pictures import Piece, cut
from synthct.recipe.quality import Limits, Quality
from synthct.recipe.yaml_model import read_yaml

#: Rows whose HU are counted, and rows that are in memory at once.
COUNTED, _ROWS = 2000, 16

#: Edges of the bins that HU are counted in.
HU_EDGES = np.arange(-1024, 3080, 8)

#: Variants of one mask that are shown side by side.
VARIANTS = 6

ANYTHING = "whatever fits"

#: The measures whose values say how bad a sample is.
JUDGED = tuple(name for name, measure in MEASURES.items() if measure.worse is not None)

Counts = npt.NDArray[np.int64]


@dataclass(eq=False)
class Tissue:
    """How often each HU occurs, in the bins of ``HU_EDGES``.

    Attributes:
        painted: Inside of the masks.
        before: The same voxels before painting; empty where the originals are not kept.
        elsewhere: Voxels of the label outside of the masks, in the same slices: all real.
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
class Gathered:
    """What a report shows.

    Attributes:
        dataset: The dataset.
        rows: The flat columns of all painted rows.
        rejected: What was not accepted.
        limits: By measure.
        pieces: The masks that are shown, with the paintings of each.
        masks: How many masks there are.
        lesions: Some of those that are shown by neighbouring slices, with their surroundings.
        tissue: By label.
        counted: Rows of which ``tissue`` is.
    """

    dataset: Dataset
    rows: Sequence[Mapping[str, Any]]
    rejected: Sequence[Rejection]
    limits: Mapping[str, Limits]
    pieces: Sequence[Sequence[Piece]]
    masks: int
    lesions: Sequence[Sample]
    tissue: Mapping[str, Tissue]
    counted: int


def gather(folder: Path, *, masks: int, advance: Callable[[], object]) -> Gathered:
    """Read what a report shows.

    Args:
        folder: The folder of a version.
        masks: How many masks are shown at most.
        advance: Called once per row.

    Raises:
        VerifyError: If it is no finished dataset with pictures, or a damaged one.
    """
    dataset = Dataset(folder)
    rows = [row for row in dataset.rows() if row.get("is_painted") is not False]
    chosen = choose_masks(rows, masks)
    shown: dict[str, list[Piece]] = {mask_id: [] for mask_id in chosen}
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
            slices[number].append({**columns, "original": None, "preview": None})
        pieces = shown.get(columns["mask_id"])
        is_shown = pieces is not None and len(pieces) < VARIANTS
        is_counted = columns["sample_id"] in counted
        if is_shown or is_counted:
            sample = decode(columns)
            if is_counted:
                tissue.setdefault(columns["label"] or ANYTHING, Tissue()).count(sample)
            if pieces is not None and is_shown:
                pieces.append(cut(sample, columns))
    return Gathered(
        dataset=dataset,
        rows=rows,
        rejected=read_rejected(folder) if (folder / REJECTED).is_file() else [],
        limits=_limits(folder),
        pieces=[pieces for pieces in shown.values() if pieces],
        masks=len({row["mask_id"] for row in rows}),
        lesions=[bring_together(one) for one in slices],
        tissue=dict(sorted(tissue.items())),
        counted=len(counted),
    )


def choose_masks(rows: Sequence[Mapping[str, Any]], most: int) -> list[str]:
    """The masks that are shown, in the order of the dataset.

    Half of them evenly from the whole dataset, the others the worst by each measure in turn, so
    that sorting what is shown brings up the worst there is.
    """
    all_masks = list(dict.fromkeys(str(row["mask_id"]) for row in rows))
    if len(all_masks) <= most:
        return all_masks
    even = most - most // 2
    chosen = {all_masks[n * len(all_masks) // even] for n in range(even)}
    ranked = [iter(worst_first) for name in JUDGED if (worst_first := _worst_first(rows, name))]
    while ranked and len(chosen) < most:
        for order in list(ranked):
            worst = next((mask for mask in order if mask not in chosen), None)
            if worst is None:
                ranked.remove(order)
            elif len(chosen) < most:
                chosen.add(worst)
    return [mask for mask in all_masks if mask in chosen]


def badness(columns: Mapping[str, Any], measure: str) -> float | None:
    """How bad a row is; None where the measure is not defined."""
    value = columns.get(measure)
    return None if value is None else float(MEASURES[measure].badness(value))


def _stored(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The rows as they are stored, a few of them in memory at a time."""
    for path in dataset.shards:
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                for batch in file.iter_batches(_ROWS):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as err:
            raise VerifyError(f"{path}: damaged ({err}); build it again") from err


def _worst_first(rows: Sequence[Mapping[str, Any]], measure: str) -> list[str]:
    ranked = [(bad, str(row["mask_id"])) for row in rows
              if (bad := badness(row, measure)) is not None]  # fmt: skip
    return [mask for _, mask in sorted(ranked, key=lambda pair: -pair[0])]


def _counts(hu: npt.NDArray[np.int16]) -> Counts:
    return np.histogram(hu, HU_EDGES)[0].astype(np.int64)


def _limits(folder: Path) -> dict[str, Limits]:
    path = folder / RECIPE
    if not path.is_file():
        return {}
    section = read_yaml(path).value.get("quality") or {}
    try:
        return Quality.model_validate(section).limits
    except ValidationError as err:
        raise VerifyError(f"{path}: its section 'quality' cannot be read ({err})") from err
