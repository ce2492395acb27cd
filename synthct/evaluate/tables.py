"""The results as tables: labels by arms, with the floor as the last column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from synthct.dataset.markdown import code, inert, table
from synthct.errors import counted
from synthct.evaluate.results import Evaluation, Interval, Scope, Score

Cell = Callable[[Score], str]

_SCOPES: dict[Scope, str] = {
    "mask": "inside of the mask",
    "crop": "crops around the mask",
    "slice": "whole slices (most of each is real)",
}


class Grid(NamedTuple):
    """One table of results, with plain text in its cells.

    Attributes:
        title: What its numbers are.
        head: Names of the columns.
        rows: Cells by row; the first is the row's name.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Section(NamedTuple):
    """The tables of one extractor in one scope."""

    title: str
    grids: tuple[Grid, ...]


def results_markdown(evaluation: Evaluation) -> str:
    """All tables of an evaluation as one markdown page."""
    parts = [f"# {code(evaluation.dataset)} {code(evaluation.version)}", compared(evaluation)]
    parts.append(grid_markdown(groups_grid(evaluation)))
    for section in sections(evaluation):
        parts.append(f"## {section.title}")
        parts += [f"{grid.title}:\n\n{grid_markdown(grid)}" for grid in section.grids]
    if evaluation.notes:
        parts.append("\n".join(f"- {inert(note)}" for note in evaluation.notes))
    return "\n\n".join(parts) + "\n"


def compared(evaluation: Evaluation) -> str:
    """A sentence that says what was compared."""
    return f"{counted(evaluation.rows, 'sample')}, content {evaluation.content_id[:12]}; " + (
        "compared with the same places before painting."
        if evaluation.real == evaluation.content_id
        else f"compared with the originals of content {evaluation.real[:12]}."
    )


def groups_grid(evaluation: Evaluation) -> Grid:
    """The groups of samples, and how their floors were computed."""
    halves = {"patients": "halves by patient", "masks": "split halves: fewer than 5 patients"}
    return Grid(
        "Groups",
        ("label", "masks", "patients", "real-against-real floor"),
        tuple(
            (g.name, f"{g.masks:,}", f"{g.patients:,}", halves[g.halves]) for g in evaluation.groups
        ),
    )


def sections(evaluation: Evaluation) -> Iterator[Section]:
    """All tables of scores."""
    for extractor in evaluation.extractors:
        for scope, where in _SCOPES.items():
            if any((s.extractor, s.scope) == (extractor.name, scope) for s in evaluation.scores):
                title = f"{extractor.name}, {where}, {extractor.dim} features"
                yield Section(title, tuple(_grids(evaluation, extractor.name, scope)))


def _grids(evaluation: Evaluation, extractor: str, scope: Scope) -> Iterator[Grid]:
    is_network = any(
        s.inception_score is not None for s in evaluation.scores if s.extractor == extractor
    )
    name = "FID" if is_network else "Fréchet distance"

    def grid(title: str, cell: Cell) -> Grid:
        return _grid(evaluation, extractor, scope, title, cell)

    yield grid(
        f"{name} of one half of the patients to the real scans of the other half, one painting per "
        "mask; lower is better, the last column (real to real) is the floor",
        lambda s: interval_text(s.fid_halves),
    )
    yield grid(f"{name} of all samples (samples / real samples), biased upward if few", _whole)
    yield grid("KID (0 is best, may be negative)", lambda s: interval_text(s.kid))
    if is_network:
        yield grid("Inception score (higher is more distinct and varied)", inception_text)
    yield grid("Precision / recall (1 / 1 is best), over the same halves", _precision_recall)


def _grid(evaluation: Evaluation, extractor: str, scope: Scope, title: str, cell: Cell) -> Grid:
    arms = [arm.name for arm in evaluation.arms]
    rows = []
    for group in evaluation.groups:
        scores = [evaluation.score(group.name, arm, extractor, scope) for arm in arms]
        rows.append((group.name, *("" if s is None else cell(s) for s in scores)))
    return Grid(title, ("label", *arms), tuple(rows))


def grid_markdown(grid: Grid) -> str:
    """A grid as Markdown; names, which come from the dataset, are escaped."""
    rows = [[inert(name), *cells] for name, *cells in grid.rows]
    return table([inert(name) for name in grid.head], rows)


def _whole(score: Score) -> str:
    if score.fid is None:
        return ""
    return f"{number_text(score.fid)} ({score.samples} / {score.real_samples})"


def inception_text(score: Score) -> str:
    """The inception score of an arm, with its spread."""
    if score.inception_score is None:
        return ""
    if score.inception_score_std is None:
        return f"{score.inception_score:.3f}"
    return f"{score.inception_score:.3f} ± {score.inception_score_std:.3f}"


def _precision_recall(score: Score) -> str:
    if score.precision is None or score.recall is None:
        return ""
    return f"{score.precision:.2f} / {score.recall:.2f}"


def interval_text(interval: Interval | None) -> str:
    """A number with its interval in brackets."""
    if interval is None:
        return ""
    ends = ""
    if interval.low is not None and interval.high is not None:
        ends = f" ({number_text(interval.low)} to {number_text(interval.high)})"
    return f"{number_text(interval.value)}{ends}"


def number_text(value: float) -> str:
    """A number with three digits."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
