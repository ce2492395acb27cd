"""The painted samples of a dataset one by one, and the table of what is decided of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

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
from synthct.publish.pages.painted import PaintedRows
from synthct.publish.report.html import pictured
from synthct.publish.report.pictures import WINDOWS, MaskCrop, crop_around_mask
from synthct.publish.report.report_data import ANYTHING
from synthct.storage.files import beside


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
        self.rows = PaintedRows(folder)
        self.release = self.rows.dataset.manifest.release
        self.table = table or beside(folder, "review.csv")
        self.verdicts = read_verdicts(self.table) if self.table.is_file() else {}

    def verdict(self, number: int) -> Verdict | None:
        """What is decided of a sample; None if nothing is."""
        return verdict_on(self.rows.facts[number], self.verdicts)

    def item(self, number: int) -> dict[str, Any]:
        """A sample for the page: its pictures, notes and decision.

        Raises:
            IndexError: If there is no such sample.
            VerifyError: If it is damaged.
        """
        columns, verdict = self.rows.columns(number), self.verdict(number)
        sample = decode(columns)
        facts = sample.facts
        shown = [(flat.view, crop_around_mask(flat, columns)) for flat in three_planes(sample)]
        return {
            "sample_id": sample.sample_id,
            "sample_digest": columns["sample_digest"],
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
            or not 0 <= number < len(self.rows)
            or decision not in ("", *get_args(Decision))
            or not isinstance(comment, str)
            or len(comment) > COMMENT_CHARS
        ):
            raise ValueError("an answer has number, decision and comment")
        sample_id = self.rows.facts[number]["sample_id"]
        verdicts = dict(self.verdicts)
        verdicts.pop(sample_id, None)
        if decision:
            line = " ".join(comment.split())
            digest = self.rows.facts[number]["sample_digest"]
            verdicts[sample_id] = Verdict(sample_id, decision, line, digest)
        order = {row["sample_id"]: n for n, row in enumerate(self.rows.facts)}
        write_verdicts(
            self.table,
            sorted(verdicts.values(), key=lambda one: order.get(one.sample_id, len(order))),
        )
        self.verdicts = verdicts
        return {"decision": decision}

    def counts(self) -> dict[str, int]:
        """Number of samples that are accepted, rejected, and not decided on."""
        decided = [one.decision if (one := self.verdict(n)) else "undecided"
                   for n in range(len(self.rows))]  # fmt: skip
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
