"""The painted samples of a dataset one by one, and the table of what is decided of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from synthct.dataset.first_format import with_added_columns
from synthct.dataset.rows import decode
from synthct.dataset.stack import three_planes
from synthct.dataset.tiles import windowed
from synthct.dataset.verdicts import (
    COMMENT_CHARS,
    Decision,
    Verdict,
    read_verdicts,
    verdict_on,
    write_verdicts,
)
from synthct.dataset.writer import read_shard
from synthct.errors import VerifyError
from synthct.evaluate.stream import Dataset
from synthct.publish.report.html import pictured
from synthct.publish.report.pictures import WINDOWS, MaskCrop, crop_around_mask
from synthct.publish.report.report_data import ANYTHING
from synthct.storage.files import beside


class _Place(NamedTuple):
    """Where a row is."""

    shard: Path
    group: int
    row: int
    sample_id: str
    sample_digest: str


class Reviewed:
    """The painted samples of a dataset, and what is decided of them.

    Args:
        folder: The folder of a version.
        table: The table; need not be there. By default ``1.0.0.review.csv`` beside the version.

    Raises:
        VerifyError: If the dataset is damaged or has no pictures.
        RecipeError: If the table is damaged.
    """

    def __init__(self, folder: Path, table: Path | None = None) -> None:
        dataset = Dataset(folder)
        self.release = dataset.manifest.release
        self.table = table or beside(folder, "review.csv")
        self.places = [place for shard in dataset.shards for place in _places(shard)]
        self.verdicts = read_verdicts(self.table) if self.table.is_file() else {}
        self._group = lru_cache(maxsize=2)(_row_group)

    def verdict(self, number: int) -> Verdict | None:
        """What is decided of a sample; None if nothing is."""
        return verdict_on(self.places[number]._asdict(), self.verdicts)

    def item(self, number: int) -> dict[str, Any]:
        """A sample for the page: its pictures, what is said of it, what is decided.

        Raises:
            IndexError: If there is no such sample.
            VerifyError: If it is damaged.
        """
        place, verdict = self.places[number], self.verdict(number)
        table = with_added_columns(self._group(place.shard, place.group), None)
        columns = table.slice(place.row, 1).to_pylist()[0]
        sample = decode(columns)
        facts = sample.facts
        shown = [(flat.view, crop_around_mask(flat, columns)) for flat in three_planes(sample)]
        return {
            "sample_id": place.sample_id,
            "sample_digest": place.sample_digest,
            "facts": f"{facts.label or ANYTHING}, {facts.mask_kind} '{facts.mask_name}', "
            f"case {facts.case_id}, {facts.view}",
            "window": next((key for key, one in WINDOWS.items() if one == sample.window), "soft"),
            "figures": [figure for view, crop in shown for figure in _figures(view, crop)],
            "decision": verdict.decision if verdict else "",
            "comment": verdict.comment if verdict else "",
        }

    def decide(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Take a decision and write the table.

        Args:
            answer: ``number`` of the sample, ``decision`` (empty to take one back), ``comment``.

        Raises:
            ValueError: If it is no such answer.
            ResourceError: If the table cannot be written.
        """
        number, decision, comment = (answer.get(k) for k in ("number", "decision", "comment"))
        if (
            not isinstance(number, int)
            or not 0 <= number < len(self.places)
            or decision not in ("", *get_args(Decision))
            or not isinstance(comment, str)
            or len(comment) > COMMENT_CHARS
        ):
            raise ValueError("an answer has number, decision and comment")
        place, verdicts = self.places[number], dict(self.verdicts)
        verdicts.pop(place.sample_id, None)
        if decision:
            line = " ".join(comment.split())
            verdicts[place.sample_id] = Verdict(
                place.sample_id, decision, line, place.sample_digest
            )
        order = {one.sample_id: n for n, one in enumerate(self.places)}
        write_verdicts(
            self.table,
            sorted(verdicts.values(), key=lambda one: order.get(one.sample_id, len(order))),
        )
        self.verdicts = verdicts
        return {"decision": decision}

    def counts(self) -> dict[str, int]:
        """Number of samples that are accepted, rejected, and not decided on."""
        decided = [one.decision if (one := self.verdict(n)) else "undecided"
                   for n in range(len(self.places))]  # fmt: skip
        return {name: decided.count(name) for name in (*get_args(Decision), "undecided")}


def _figures(view: str, crop: MaskCrop) -> list[dict[str, Any]]:
    """The painted picture and, if it is kept, the one before painting."""
    named = {"painted": crop.painted, "before": crop.original}
    return [
        pictured(
            f"{view}, {name}",
            {key: windowed(hu, window) for key, window in WINDOWS.items()},
            crop.size_mm,
            mask=crop.mask,
        )._asdict()
        for name, hu in named.items()
        if hu is not None
    ]


def _places(shard: Path) -> list[_Place]:
    """Where the painted rows of a shard are."""
    names = ["sample_id", "sample_digest", "is_painted"]
    rows = read_shard(shard, names).to_pylist()
    with pq.ParquetFile(shard) as file:
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    groups = [(group, row) for group, size in enumerate(sizes) for row in range(size)]
    return [
        _Place(shard, group, row, one["sample_id"], one["sample_digest"])
        for (group, row), one in zip(groups, rows, strict=True)
        if one["is_painted"] is not False
    ]


def _row_group(shard: Path, group: int) -> pa.Table:
    """All columns of a row group but the preview."""
    try:
        with pq.ParquetFile(shard, page_checksum_verification=True) as file:
            names = [name for name in file.schema_arrow.names if name != "preview"]
            return file.read_row_group(group, columns=names)
    except (pa.ArrowException, OSError) as err:
        raise VerifyError(f"{shard}: damaged ({err}); build it again") from err
