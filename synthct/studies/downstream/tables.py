"""The results of a study as tables, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from synthct.dataset.markdown import table
from synthct.evaluate.tables import Grid
from synthct.studies.downstream.statistics import LEAST_PATIENTS, MEASURES

Results = Mapping[str, Any]

#: Arms as they are called in tables.
ARM_NAMES = {
    "real": "real",
    "painted": "real + painted",
    "pairs": "real + painted in pairs",
    "copy_paste": "real + copy-paste",
    "noise_fill": "real + noise fill",
    "painted_only": "painted only",
}

#: Ways of painting, likewise.
_METHOD_NAMES = {
    "painted": "the checkpoint",
    "copy_paste": "copy-paste",
    "noise_fill": "noise fill",
    "counterpart": "the checkpoint, as the organ",
}

#: The same for classifiers.
CLASSIFIER_NAMES = {
    "real": "real",
    "painted": "real + painted, beside the places as they were",
    "pairs": "real + painted, beside the places painted as the organ",
    "copy_paste": "real + copy-paste, beside the places as they were",
}

#: Short names of the measures, for the heads of tables.
_NAMES = ("lesion Dice", "found", "FROC", "FP", "FP healthy at found of real")
_SHORT = dict(zip(MEASURES, _NAMES, strict=True))


def markdown(results: Results) -> str:
    """All tables of a study as one page."""
    parts = [f"# {results['study']}", summary(results)]
    for grid in grids(results):
        parts += [f"## {grid.title}", table(grid.head, grid.rows)]
    return "\n\n".join(parts) + "\n"


def summary(results: Results) -> str:
    """What was trained and judged, in a few sentences."""
    test = results["test"]
    seeds = len(results["seeds"])
    few = f" {test['patients']} patients are too few to show a difference."
    return (
        f"Segmenters of {', '.join(results['labels'])}, trained for {results['steps']} steps each "
        f"on {results['training_scans']} real scans and what the arm adds, with {seeds} "
        f"seed{'s' if seeds > 1 else ''}. Judged on {test['scans']} real scans of "
        f"{test['patients']} other patients, {test['with_lesion']} of them with {test['lesions']} "
        f"lesions ({results['lesion']}). Intervals are of 95 %, of test patients drawn anew."
        f"{few if test['patients'] < LEAST_PATIENTS else ''}"
    )


def grids(results: Results) -> Iterator[Grid]:
    """The tables, the difference to pasted lesions first."""
    several = {
        name: len({row[name] for row in results["arms"] if row["arm"] != "real"}) > 1
        for name in ("share", "amount")
    }
    extra = tuple(name for name, is_so in several.items() if is_so)

    def of(row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(f"{row[name]:g}" for name in extra)

    yield Grid(
        "Differences",
        (*extra, "arm", "minus", "measure", "difference", "interval", ""),
        tuple(
            (
                *of(row),
                ARM_NAMES[row["arm"]],
                ARM_NAMES[row["against"]],
                row["measure"],
                f"{row['value']:+.3f}",
                f"{row['low']:+.3f} to {row['high']:+.3f}",
                row["verdict"],
            )
            for row in results["differences"]
        ),
    )
    yield Grid(
        "Arms",
        (*extra, "arm", *_SHORT.values(), *(f"{name} Dice" for name in results["labels"][:-1])),
        tuple(
            (
                *of(row),
                ARM_NAMES[row["arm"]],
                *(figure(row[name]) for name in _SHORT),
                *(figure(row["dice"][name]) for name in results["labels"][:-1]),
            )
            for row in results["arms"]
        ),
    )
    sizes = results["arms"][0]["by_size"]
    yield Grid(
        "Lesions found, by greatest diameter",
        (*extra, "arm", *(f"{name} ({n})" for name, (n, _) in sizes.items())),
        tuple(
            (*of(row), ARM_NAMES[row["arm"]], *(figure(one) for _, one in row["by_size"].values()))
            for row in results["arms"]
        ),
    )
    yield Grid(
        "Lesions found at so many false positives per scan (FROC)",
        (*extra, "arm", *(f"{one:g}" for one in results["alarms"])),
        tuple(
            (*of(row), ARM_NAMES[row["arm"]], *(figure(one) for one in row["froc"]))
            for row in results["arms"]
        ),
    )
    yield Grid(
        f"Overlap (surface Dice within {results['tolerance_mm']:g} mm)",
        (*extra, "arm", "label", "Dice", "Jaccard", "surface Dice"),
        tuple(
            (
                *of(row),
                ARM_NAMES[row["arm"]],
                label,
                *(figure(row[name][label]) for name in ("dice", "jaccard", "surface_dice")),
            )
            for row in results["arms"]
            for label in results["labels"]
        ),
    )
    yield Grid(
        "By seed of training",
        (*extra, "arm", "seed", *_SHORT.values()),
        tuple(
            (*of(row), ARM_NAMES[row["arm"]], seed, *(figure(one[name]) for name in _SHORT))
            for row in results["arms"]
            for seed, one in row["by_seed"].items()
        ),
    )

    if looks := results.get("looks"):
        yield Grid(
            "What was painted, medians over the lesions",
            ("painted by", "mean HU", "sd HU", "mean HU before", "looks like the label (Dice)"),
            tuple(
                (_METHOD_NAMES.get(method, method), *(figure(one) for one in look.values()))
                for method, look in looks.items()
            ),
        )
    if (classified := results.get("classification")) is not None:
        yield from _classification(classified)


def _classification(classified: Mapping[str, Any]) -> Iterator[Grid]:
    """How well classifiers find lesions in crops, and whether they have learned the paint."""
    number = classified["test"]
    yield Grid(
        f"Classifiers: AUC on real crops, {number['ill']} with a lesion, {number['well']} without",
        ("arm", "trained on crops with / without", "AUC", "interval",
         "AUC of healthy tissue, painted or not", "interval", ""),
        tuple(
            (
                CLASSIFIER_NAMES[row["arm"]],
                " / ".join(map(str, row["crops"])),
                *_area(row["lesion"]),
                *_area(row["paint"]),
                row["verdict"],
            )
            for row in classified["arms"]
        ),
    )  # fmt: skip
    yield Grid(
        "Classifiers: differences of AUC",
        ("arm", "minus", "difference", "interval", ""),
        tuple(
            (
                CLASSIFIER_NAMES[row["arm"]],
                CLASSIFIER_NAMES[row["against"]],
                f"{row['value']:+.3f}",
                f"{row['low']:+.3f} to {row['high']:+.3f}",
                row["verdict"],
            )
            for row in classified["differences"]
        ),
    )


def _area(found: Sequence[float] | None) -> tuple[str, str]:
    return ("-", "-") if found is None else (figure(found[0]), f"{found[1]:.3f} to {found[2]:.3f}")


def figure(value: float | None) -> str:
    """A number for a cell; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"
