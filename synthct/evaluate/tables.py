"""The results as tables: labels by arms, as in the thesis, each number beside its floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from synthct.dataset.markdown import inert, table
from synthct.evaluate.results import Evaluation, Interval, Scope, Score

Cell = Callable[[Score], str]

_SCOPES: dict[Scope, str] = {
    "mask": "inside of the mask",
    "crop": "crops around the mask",
    "slice": "whole slices (most of each is real)",
}


def results_markdown(found: Evaluation) -> str:
    """All tables of an evaluation as one markdown page."""
    parts = [
        f"# {inert(found.dataset)} {inert(found.version)}",
        f"{found.rows} samples, content {found.content_id[:12]}; "
        + (
            "compared with the same places before painting."
            if found.real == found.content_id
            else f"compared with the originals of content {found.real[:12]}."
        ),
        _groups(found),
    ]
    for extractor in found.extractors:
        for scope in _SCOPES:
            rows = [s for s in found.scores if (s.extractor, s.scope) == (extractor.name, scope)]
            if rows:
                parts += list(_tables(found, extractor.name, scope, extractor.dim))
    if found.notes:
        parts.append("\n".join(f"- {inert(note)}" for note in found.notes))
    return "\n\n".join(parts) + "\n"


def _groups(found: Evaluation) -> str:
    rows = [
        [inert(g.name), g.masks, g.patients,
         "halves by patient" if g.halves == "patients" else "split halves: fewer than 5 patients"]
        for g in found.groups
    ]  # fmt: skip
    return table(["label", "masks", "patients", "real-against-real floor"], rows)


def _tables(found: Evaluation, extractor: str, scope: Scope, dim: int) -> Iterator[str]:
    is_network = any(
        s.inception_score is not None for s in found.scores if s.extractor == extractor
    )
    yield f"## {extractor}, {_SCOPES[scope]}, {dim} features"
    name = "FID" if is_network else "Fréchet distance"

    def grid(title: str, cell: Cell) -> str:
        return f"{title}\n\n" + _grid(found, extractor, scope, cell)

    yield grid(
        f"{name} of one half to the real other half, one painting per mask; the last column is the "
        "floor:",
        lambda s: _interval(s.fid_halves),
    )
    yield grid(f"{name} of everything, as in the thesis (n / real n):", _whole)
    yield grid("KID (0 is the best, may be negative):", lambda s: _interval(s.kid))
    if is_network:
        yield grid("Inception score:", _inception)
    yield grid("Precision / recall, over the same halves:", _precision_recall)


def _grid(found: Evaluation, extractor: str, scope: Scope, cell: Cell) -> str:
    rows = []
    for group in found.groups:
        scores = [found.score(group.name, arm.name, extractor, scope) for arm in found.arms]
        rows.append([inert(group.name), *("" if s is None else cell(s) for s in scores)])
    return table(["label", *(inert(arm.name) for arm in found.arms)], rows)


def _whole(score: Score) -> str:
    if score.fid is None:
        return ""
    return f"{_number(score.fid)} ({score.samples} / {score.real_samples})"


def _inception(score: Score) -> str:
    if score.inception_score is None:
        return ""
    return f"{score.inception_score:.3f} ± {score.inception_score_std or 0:.3f}"


def _precision_recall(score: Score) -> str:
    if score.precision is None or score.recall is None:
        return ""
    return f"{score.precision:.2f} / {score.recall:.2f}"


def _interval(found: Interval | None) -> str:
    if found is None:
        return ""
    ends = ""
    if found.low is not None and found.high is not None:
        ends = f" ({_number(found.low)} to {_number(found.high)})"
    return f"{_number(found.value)}{ends}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
