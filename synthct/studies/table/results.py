"""The results of a table: ``table.json``, ``table.csv``, and the grids of ``table.md`` and page.

Scores and measures are those of ``evaluate``, with the row as ``group`` and the method as ``arm``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from synthct.dataset.markdown import inert
from synthct.evaluate.results import Interval, Scope, Score, Spread
from synthct.evaluate.run import FLOOR, NEIGHBOUR
from synthct.evaluate.tables import Grid, grid_markdown, inception_text, interval_text, number_text
from synthct.storage.files import atomic_write, make_folder

#: Measures per sample that have a table: name and title.
MEASURED = {
    "mae_hu": "Error in HU against the replaced tissue: median; perfect but other grain has 1.41 "
    "times that of the best guess",
    "hu_wasserstein": "Distance in HU from the values of real tissue of the label: median",
    "seam_ratio": "Step across the mask's border, painted / original: median, 1 is best",
    "texture_ratio": "Texture, painted / original: median, 1 is best",
}


class Cost(BaseModel):
    """What a method costs.

    Attributes:
        parameters: Of the networks that paint; None for a control.
        training_minutes: That this table spent; None for none.
        steps: Optimiser steps of the checkpoint; None if unknown.
        seconds_per_sample: Of a whole build, with masks and measures, on one process; None where
            a build was interrupted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    parameters: int | None
    training_minutes: float | None
    steps: int | None
    seconds_per_sample: float | None


class TableResults(BaseModel):
    """All results of a table.

    Attributes:
        format_version: Layout of this file.
        rows: In the order of the tables, as are the methods, which end with the real neighbouring
            slice and the floor.
        extractor: The feature network of FID and inception score; None if there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: str = "1.0.0"
    package_version: str
    name: str
    description: str
    rows: tuple[str, ...]
    methods: tuple[str, ...]
    extractor: str | None
    scores: tuple[Score, ...]
    measures: tuple[Spread, ...]
    costs: tuple[Cost, ...]
    notes: tuple[str, ...]

    def score(self, row: str, method: str, extractor: str | None, scope: Scope) -> Score | None:
        """The score of a method in a row; None if there is none."""
        key = row, method, extractor, scope
        return next((s for s in self.scores if (s.group, s.arm, s.extractor, s.scope) == key), None)

    def median(self, row: str, method: str, measure: str) -> float | None:
        """The median of a measure; None if it was not taken."""
        key = row, method, measure
        found = (m.quantiles[2] for m in self.measures if (m.group, m.arm, m.measure) == key)
        return next(found, None)


def grids(results: TableResults) -> Iterator[Grid]:
    """The tables that have a number: the thesis's two, then all others."""
    return (grid for grid in _grids(results) if len(grid.head) > 1)


def _grids(results: TableResults) -> Iterator[Grid]:
    network = results.extractor

    def scores(title: str, extractor: str, scope: Scope, cell: Callable[[Score], str]) -> Grid:
        found = [
            [results.score(row, method, extractor, scope) for method in results.methods]
            for row in results.rows
        ]
        cells = [["" if score is None else cell(score) for score in line] for line in found]
        return _grid(results, title, cells)

    def fid(score: Score) -> str:
        return interval_text(score.fid_halves)

    if network is not None:
        yield scores(
            f"FID of {network} on crops around the mask, one half of the patients against the "
            "other, with a 95 % interval from 5 patients on; lower is better",
            network, "crop", fid,
        )  # fmt: skip
        yield scores(
            f"Inception score of {network} on crops around the mask; higher is more distinct and "
            "varied",
            network, "crop", inception_text,
        )  # fmt: skip
        yield scores("KID on crops; 0 is best", network, "crop", lambda s: interval_text(s.kid))
        yield scores("FID on whole slices (most of each is real)", network, "slice", fid)
        yield scores(
            "FID on crops of all samples, biased upward since they are few",
            network, "crop", lambda s: "" if s.fid is None else number_text(s.fid),
        )  # fmt: skip
    yield scores("Fréchet distance of radiomics inside the mask", "radiomics", "mask", fid)
    for measure, title in MEASURED.items():
        medians = [
            [results.median(row, method, measure) for method in results.methods]
            for row in results.rows
        ]
        cells = [["" if value is None else number_text(value) for value in m] for m in medians]
        yield _grid(results, title, cells)
    yield Grid(
        "What it costs; seconds are of the whole build on one process, masks and measures included",
        ("method", "parameters", "trained for", "steps", "seconds per sample"),
        tuple(
            (
                cost.method,
                _shown(cost.parameters, "{:,}"),
                _shown(cost.training_minutes, "{:.3g} min"),
                _shown(cost.steps, "{:,}"),
                _shown(cost.seconds_per_sample, "{:.2g}"),
            )
            for cost in results.costs
        ),
    )


def write_results(folder: Path, results: TableResults) -> str:
    """Write ``table.json``, ``table.md`` and ``table.csv``.

    Returns:
        The text of ``table.md``.

    Raises:
        ResourceError: If the folder cannot be written.
    """
    text = markdown(results)
    make_folder(folder)
    atomic_write(folder / "table.md", text.encode())
    atomic_write(folder / "table.csv", csv_text(results).encode())
    atomic_write(folder / "table.json", f"{results.model_dump_json(indent=1)}\n".encode())
    return text


def markdown(results: TableResults) -> str:
    """All tables as one markdown page."""
    parts = [f"# {results.name}"]
    parts += [inert(results.description)] if results.description else []
    parts += [f"{grid.title}:\n\n{grid_markdown(grid)}" for grid in grids(results)]
    if results.notes:
        parts.append("\n".join(f"- {inert(note)}" for note in results.notes))
    return "\n\n".join(parts) + "\n"


def csv_text(results: TableResults) -> str:
    """Every number in a line of its own: row, method, measure, where, value, low, high, samples."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "method", "measure", "features", "scope", "value", "low", "high", "n"])
    for score in results.scores:
        numbers = {
            "fid": score.fid_halves,
            "fid_all": None if score.fid is None else Interval(value=score.fid),
            "kid": score.kid,
            "inception_score": None
            if score.inception_score is None
            else Interval(value=score.inception_score),
        }
        for name, one in numbers.items():
            if one is not None:
                writer.writerow([
                    score.group, score.arm, name, score.extractor, score.scope, one.value,
                    one.low, one.high, score.samples,
                ])  # fmt: skip
    for spread in results.measures:
        low, middle, high = (spread.quantiles[n] for n in (1, 2, 3))
        writer.writerow([
            spread.group, spread.arm, spread.measure, "", "quartiles", middle, low, high,
            spread.count,
        ])  # fmt: skip
    return file.getvalue()


def _grid(results: TableResults, title: str, cells: list[list[str]]) -> Grid:
    """A grid of rows by methods, without methods that have no number in it."""
    kept = [n for n in range(len(results.methods)) if any(line[n] for line in cells)]
    lines = zip(results.rows, cells, strict=True)
    return Grid(
        title,
        ("row", *(results.methods[n] for n in kept)),
        tuple((row, *(line[n] or "-" for n in kept)) for row, line in lines),
    )


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


#: The columns that every table has after its methods.
ALWAYS = (NEIGHBOUR, FLOOR)
