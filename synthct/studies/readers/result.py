"""The result of a study: of every reader who has answered everything, and of all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthct.dataset.markdown import inert, table
from synthct.errors import counted
from synthct.storage.files import atomic_write
from synthct.studies.readers.statistics import (
    CONFIDENCE,
    Estimate,
    Ratings,
    Told,
    Truth,
    agreement,
    mean_accuracy,
    told_apart,
)
from synthct.studies.readers.study import Answer, Key, StudyFolder

RESULT = "result.json"


@dataclass(frozen=True)
class Result:
    """What came out of a study.

    Attributes:
        told: By reader who has answered everything.
        unfinished: Number of answers of each of the other readers.
        pictures: Number of pictures.
        by_label: By label the number of pictures and the mean accuracy of the readers.
        mean: Mean accuracy of the readers; None without any.
        agreement: Share of equal answers and Fleiss' kappa; None for fewer than two readers.
    """

    told: Mapping[str, Told]
    unfinished: Mapping[str, int]
    pictures: int
    by_label: Mapping[str, tuple[int, float]]
    mean: Estimate | None
    agreement: tuple[float, float] | None

    def plain(self) -> dict[str, Any]:
        """The result as JSON."""
        same, kappa = self.agreement or (None, None)
        return {
            "pictures": self.pictures,
            "chance": 0.5,
            "confidence": CONFIDENCE,
            "readers": {name: _plain(told) for name, told in self.told.items()},
            "unfinished": dict(self.unfinished),
            "mean_accuracy": _plain(self.mean),
            "agreement": {"same_answers": same, "fleiss_kappa": kappa},
            "by_label": {
                label: {"pictures": count, "accuracy": accuracy}
                for label, (count, accuracy) in self.by_label.items()
            },
        }


def write_result(study: StudyFolder) -> Result:
    """Work out the result so far and write ``result.json``.

    Single answers with the truth are in it only when everybody who has begun is done.

    Raises:
        SynthCTError: If answers or key are damaged.
    """
    key, readers = study.key(), study.readers()
    done = {name: given for name, given in readers.items() if len(given) == len(study.names)}
    result = _result(study, key, readers, done)
    content: dict[str, Any] = {**study.study.model_dump(), **result.plain()}
    if done and not result.unfinished:
        content["pictures_by_name"] = {
            name: {
                **key.pictures[name].model_dump(),
                "answers": {reader: given[name].model_dump() for reader, given in done.items()},
            }
            for name in study.names
        }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    atomic_write(study.folder / RESULT, f"{text}\n".encode())
    return result


def result_markdown(result: Result) -> str:
    """The result as tables."""
    if not result.told:
        pictures = counted(result.pictures, "picture", f"all {result.pictures} pictures")
        return f"No reader has answered {pictures} yet.{_waiting(result)}"
    head = ("reader", "accuracy", "p (guessing)", "AUC", "painted found", "real found")
    rows = [
        (inert(name), _interval(told.accuracy, 100, " %"), f"{told.p_value:.3g}",
         _interval(told.auc), f"{100 * told.painted_found:.1f} %", f"{100 * told.real_found:.1f} %")
        for name, told in result.told.items()
    ]  # fmt: skip
    lines = [table(head, rows), ""]
    if result.mean is not None and len(result.told) > 1:
        lines.append(f"Mean accuracy of {len(result.told)} readers: "
                     f"{_interval(result.mean, 100, ' %')}.")  # fmt: skip
    if result.agreement is not None:
        same, kappa = result.agreement
        lines.append(f"Agreement: {100 * same:.1f} % of answers are the same, "
                     f"Fleiss' kappa {kappa:.2f}.")  # fmt: skip
    lines += [
        f"By label: {inert(label)} {100 * accuracy:.1f} % of {count}."
        for label, (count, accuracy) in result.by_label.items()
    ]
    lines.append(
        f"{counted(result.pictures, 'picture')}; by guessing accuracy is 50 % and AUC 0.5; "
        f"intervals are of {100 * CONFIDENCE:.0f} %.{_waiting(result)}"
    )
    return "\n".join(lines)


def _result(
    study: StudyFolder,
    key: Key,
    readers: Mapping[str, Mapping[str, Answer]],
    done: Mapping[str, Mapping[str, Answer]],
) -> Result:
    truth: Truth = np.array([key.pictures[name].truth == "painted" for name in study.names])
    ratings = {name: _ratings(study, given) for name, given in done.items()}
    several = list(ratings.values())
    return Result(
        told={name: told_apart(truth, one) for name, one in ratings.items()},
        unfinished={name: len(given) for name, given in readers.items() if name not in done},
        pictures=len(truth),
        by_label=_by_label(study, key, truth, several),
        mean=mean_accuracy(truth, several) if several else None,
        agreement=agreement(several) if len(several) > 1 else None,
    )


def _ratings(study: StudyFolder, given: Mapping[str, Answer]) -> Ratings:
    return np.array([given[name].rating for name in study.names], dtype=np.int64)


def _by_label(
    study: StudyFolder, key: Key, truth: Truth, ratings: Sequence[Ratings]
) -> dict[str, tuple[int, float]]:
    labels = np.array([key.pictures[name].label for name in study.names])
    if not ratings:
        return {}
    right = np.stack([(one > 0) == truth for one in ratings])
    return {
        str(label): (int((labels == label).sum()), float(right[:, labels == label].mean()))
        for label in dict.fromkeys(labels.tolist())
    }


def _plain(value: Any) -> Any:
    """Named tuples as objects."""
    if hasattr(value, "_asdict"):
        return {name: _plain(one) for name, one in value._asdict().items()}
    return value


def _interval(one: Estimate, times: float = 1, unit: str = "") -> str:
    digits = 1 if times == 100 else 2
    value, low, high = (f"{times * number:.{digits}f}" for number in one)
    return f"{value}{unit} ({low} to {high})"


def _waiting(result: Result) -> str:
    return "".join(
        f" {inert(name)} has answered {count} of {result.pictures}."
        for name, count in result.unfinished.items()
    )
