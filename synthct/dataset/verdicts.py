"""Decisions on the samples of a dataset: a CSV table beside the version.

A verdict is about one painting, named by its digest: where another version paints something else
under the same id, it says nothing.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from synthct.dataset.digest import canonical_json
from synthct.errors import RecipeError
from synthct.storage.files import atomic_write, resource_error

Decision = Literal["accept", "reject"]

#: Key of a provenance that says what was decided.
REVIEW = "review"

#: Reasons of rejected samples.
REJECTED_BY_REVIEW, NOT_REVIEWED = "review: rejected", "review: not reviewed"

#: Longest comment.
COMMENT_CHARS = 2000


@dataclass(frozen=True)
class Verdict:
    """The decision on a sample.

    Attributes:
        sample_id: Its name.
        decision: Whether it may stay.
        comment: Free text; may be empty.
        sample_digest: Which painting was looked at.
    """

    sample_id: str
    decision: Decision
    comment: str
    sample_digest: str


_COLUMNS = tuple(field.name for field in fields(Verdict))


def read_verdicts(path: Path) -> dict[str, Verdict]:
    """The verdicts of a table by sample.

    Raises:
        RecipeError: If it is no such table; says in which line.
        ResourceError: If it cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # as spreadsheets save it
    except OSError as err:
        raise resource_error(path, err) from err
    except UnicodeDecodeError as err:
        raise RecipeError(f"{path} is no UTF-8 text; save the table as CSV in UTF-8") from err
    verdicts: dict[str, Verdict] = {}
    for line, verdict in _rows(path, text):
        if verdict.sample_id in verdicts:
            raise RecipeError(f"{path}:{line}: sample '{verdict.sample_id}' is there twice")
        verdicts[verdict.sample_id] = verdict
    return verdicts


def write_verdicts(path: Path, verdicts: Iterable[Verdict]) -> None:
    """Write a table, replacing it in one step.

    Raises:
        ResourceError: If it cannot be written.
    """
    atomic_write(path, table_text(verdicts).encode())


def table_text(verdicts: Iterable[Verdict]) -> str:
    """The table as CSV."""
    stream = io.StringIO()
    table = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(verdict) for verdict in verdicts)
    return stream.getvalue()


def verdict_on(row: Mapping[str, Any], verdicts: Mapping[str, Verdict]) -> Verdict | None:
    """The verdict on a stored row; None if there is none on this very painting."""
    verdict = verdicts.get(row["sample_id"])
    if verdict is None or verdict.sample_digest != row["sample_digest"]:
        return None
    return verdict


def with_verdict(row: Mapping[str, Any], verdict: Verdict) -> dict[str, Any]:
    """A row whose provenance says what was decided; its digest stays, since no voxel changes."""
    provenance = {**json.loads(row["provenance"]), REVIEW: verdict.decision}
    return {**row, "provenance": canonical_json(provenance)}


def _rows(path: Path, text: str) -> Iterator[tuple[int, Verdict]]:
    table = csv.DictReader(io.StringIO(text, newline=""))
    try:
        missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise RecipeError(
                f"{path}:1: has no column '{missing[0]}'; a table of 'synthct review' has "
                f"{', '.join(_COLUMNS)}"
            )
        for row in table:
            values = {name: (row[name] or "").strip() for name in _COLUMNS}
            if not any(values.values()):
                continue
            if values["decision"] not in get_args(Decision) or not values["sample_id"]:
                raise RecipeError(
                    f"{path}:{table.line_num}: the decision on '{values['sample_id']}' is "
                    f"'{values['decision']}'; write accept or reject, or remove the line"
                )
            yield table.line_num, Verdict(**values)  # type: ignore[arg-type]
    except csv.Error as err:
        raise RecipeError(f"{path}:{table.line_num}: is no CSV ({err})") from err
