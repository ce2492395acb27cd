"""Folders that ``synthct export`` wrote, read back as a source: their patients by its tables.

By the name of an exported file the person would be another one than in the source that the export
was made from.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthct.errors import SourceError
from synthct.sources.base import CaseFiles, FolderContents
from synthct.sources.stored import place_of

_SAMPLES, _METADATA, _LOCK = "samples.csv", "metadata.parquet", "synthct.lock"
#: Patterns of what an export says of itself; ``*`` also stands for ``/``.
EXPORT_FILES = (_SAMPLES, f"*{_METADATA}", _LOCK)
#: Columns that tell a table of an export from any other of that name.
_OWN_COLUMNS = frozenset({"patient_id", "lesion_id", "mask_kind"})
#: How many folders above a file the export's own may be.
_LEVELS = 3

Row = Mapping[str, Any]


def with_export_tables(contents: FolderContents) -> FolderContents:
    """The cases with patient and split of an export's own tables, where they are from one.

    Raises:
        SourceError: If a case is from an export whose tables are lost or do not name it.
    """
    known: dict[Path, Mapping[str, Row] | None] = {}
    return replace(contents, cases=tuple(_with_patient(case, known) for case in contents.cases))


def export_terms(root: Path) -> dict[str, str | None]:
    """Licence and attribution of an export by its lock; empty if ``root`` is in none."""
    lock = next((path for path in _above(root, _LOCK) if path.is_file()), None)
    if lock is None:
        return {}
    try:
        content = json.loads(lock.read_text(encoding="utf-8"))
        owed = {source["attribution"] for source in content["sources"].values()}
        licence = content["licence"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise SourceError(f"{lock}: cannot be read ({err}); export the dataset again") from err
    attribution = "; ".join(sorted(text for text in owed if text)) or None
    return {"licence": licence, "attribution": attribution}


def _with_patient(case: CaseFiles, known: dict[Path, Mapping[str, Row] | None]) -> CaseFiles:
    stored = (case.image, *case.label_files.values())
    files = [place_of(one) for one in stored if one is not None]
    if not files:
        return case
    folder = files[0].parent
    if folder not in known:
        known[folder] = _rows_of(folder)
    rows = known[folder]
    if rows is None:
        return case
    row = next((rows[path.name] for path in files if path.name in rows), None)
    if row is None or not row["patient_id"]:
        raise SourceError(
            f"case {case.case_id}: {files[0]} lies in an export of synthct, whose tables do not "
            "name it, so that its patient is unknown; use the export as it was written"
        )
    return replace(case, patient_id=str(row["patient_id"]), split=row.get("split") or case.split)


def _rows_of(folder: Path) -> dict[str, Row] | None:
    """File name to its row in an export's table; None if the folder is in no export."""
    for path in _above(folder, _SAMPLES):
        if path.is_file() and (rows := _by_file(_read_csv(path))) is not None:
            return rows
    path = folder / _METADATA
    if path.is_file() and (rows := _by_file(_read_parquet(path))) is not None:
        return rows
    if any(path.is_file() for path in _above(folder, _LOCK)):
        raise SourceError(
            f"{folder} is from an export of synthct, but neither {_SAMPLES} nor {_METADATA} is "
            "there to say who the patients are; use the export as it was written"
        )
    return None


def _above(folder: Path, name: str) -> list[Path]:
    resolved = folder.resolve()
    return [place / name for place in (resolved, *resolved.parents)[:_LEVELS]]


def _by_file(rows: list[dict[str, Any]] | None) -> dict[str, Row] | None:
    """Name of each file to its row; None if the table is not one of an export."""
    if not rows or not rows[0].keys() >= _OWN_COLUMNS:
        return None
    names = [name for name in rows[0] if name.endswith("file_name")]
    return {Path(str(row[name])).name: row for row in rows for name in names if row[name]}


def _read_csv(path: Path) -> list[dict[str, Any]] | None:
    usual = csv.field_size_limit(1 << 24)  # of the whole process; provenance is long
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {name: _without_apostrophe(text) for name, text in row.items()}
                for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    finally:
        csv.field_size_limit(usual)


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would run a cell, or would have without the apostrophe before it.

    In ``samples.csv`` one more apostrophe stands before such a text.
    """
    return text.lstrip("'").startswith(("=", "+", "-", "@", "\t", "\r"))


def _without_apostrophe(text: Any) -> Any:
    """A cell without the apostrophe that keeps spreadsheets from running it."""
    is_marked = isinstance(text, str) and text[:1] == "'" and is_formula(text)
    return text[1:] if is_marked else text


def _read_parquet(path: Path) -> list[dict[str, Any]] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        wanted = [n for n in names if n.endswith("file_name") or n in _OWN_COLUMNS]
        rows: list[dict[str, Any]] = pq.read_table(path, columns=wanted).to_pylist()
    except (OSError, pa.ArrowException):
        return None
    return rows
