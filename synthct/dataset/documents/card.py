"""The dataset card: what a finished dataset says about itself, as README.md and attribution.md.

The YAML header is dumped, never templated, and every name or text that comes from recipes, scans
or people is made inert: in a page it is text, whatever it contains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from synthct.dataset.documents.card_usage import usage
from synthct.dataset.manifest import Release
from synthct.dataset.markdown import bullets, code, figure, inert, one_line, table
from synthct.dataset.records import yaml_text
from synthct.dataset.summary import Summary
from synthct.errors import counted
from synthct.licence import hub_fields, licence_url
from synthct.metrics.table import MEASURES
from synthct.volume.views import IGNORE

#: Longest list of cases in a card.
_MAX_CASES = 40

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))


@dataclass(frozen=True)
class SourceNote:
    """What is owed to a source.

    Attributes:
        name: Its name in the recipe.
        layout: Kind of folder it was.
        licence: SPDX id; None if unknown.
        attribution: Whom to name, and how; None if nothing is asked for.
        cases: Number of cases that were used.
        origin: Repository on the Hub and its commit, if it came from there.
    """

    name: str
    layout: str
    licence: str | None
    attribution: str | None
    cases: int
    origin: str | None = None


_UNKNOWN_TRAINING = (
    "The checkpoint does not say what it was trained on: it may have seen these scans, and the "
    "licence of its training data is unknown."
)


class MethodWords(Protocol):
    """The parts of sentences about a method of painting.

    Attributes:
        who: Who did what to a region.
        inside: What is inside of the mask.
        how: What was done for each sample.
    """

    @property
    def who(self) -> str: ...  # noqa: D102
    @property
    def inside(self) -> str: ...  # noqa: D102
    @property
    def how(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class CardFacts:
    """What a card needs beside the release and its summary.

    Attributes:
        title: Title of the page.
        licence: SPDX id of the dataset; None if it is not known that all sources allow one.
        view: The plane of the slices.
        preview_window: What the preview shows, such as ``level 50 HU, width 400 HU``.
        sources: In the order of the recipe.
        labels: Values of the label map by name.
        method: What painted: ``diffusion``, or a control.
        words: Parts of sentences about the method.
        settings: How it painted, in the order to be shown: checkpoint, revision, scheduler, ...
        description: A paragraph of the recipe's author.
        picture: File name of a picture in the dataset's folder.
        keep_original: Whether there is a column ``original``.
        relabelled: The program that gave the label maps under some masks, if any.
        ignore: Whether label maps hold 255 where it is unknown what was painted.
        notes: Notes of the plan, such as too few patients for three splits.
        is_training_known: Whether the checkpoint says what it was trained on.
        grades: How many samples are good, doubtful and poor by default limits; empty without them.
    """

    title: str
    licence: str | None
    view: str
    preview_window: str
    sources: Sequence[SourceNote]
    labels: Mapping[str, int]
    method: str
    words: MethodWords
    settings: Mapping[str, str]
    description: str | None = None
    picture: str | None = None
    keep_original: bool = False
    relabelled: str | None = None
    ignore: bool = False
    notes: Sequence[str] = ()
    grades: str = ""
    is_training_known: bool = True


def dataset_card(release: Release, summary: Summary, facts: CardFacts) -> str:
    """README.md: the YAML header that the Hub and ``load_dataset`` read, and the page."""
    sections = (
        _introduction(release, summary, facts),
        _contents(summary, facts),
        usage(release, keep_original=facts.keep_original, volume=facts.view == "volume"),
        _method(facts),
        _quality(summary, facts.grades),
        _limits(release, summary, facts),
        _origin(release, facts),
    )
    header = yaml_text(
        card_header(release, facts.title, facts.licence, facts.method, summary.shards_id)
    )
    return f"---\n{header}---\n\n" + "\n\n".join(sections) + "\n"


def attribution(sources: Sequence[SourceNote]) -> str:
    """attribution.md: sources, licences, and what is owed to whom."""
    blocks = [
        f"## {code(source.name)}\n\n"
        f"Layout {code(source.layout)}, {counted(source.cases, 'case')}, "
        f"licence {_licence(source.licence)}.{_from_hub(source)}\n\n"
        f"{inert(source.attribution) if source.attribution else 'No attribution is asked for.'}"
        for source in sources
    ]
    return "# Attribution\n\n" + "\n\n".join(blocks) + "\n"


def _from_hub(source: SourceNote) -> str:
    """Where on the Hub the scans came from, as a sentence; empty if it was a folder."""
    return f" From the Hugging Face Hub, {code(source.origin)}." if source.origin else ""


def card_header(
    release: Release, title: str, licence: str | None, method: str, shards_id: str | None
) -> dict[str, Any]:
    """The YAML header of a card, which the Hub and ``load_dataset`` read.

    Args:
        release: What the version is.
        title: Of the page.
        licence: SPDX id; None if unknown.
        method: What painted.
        shards_id: Of the shards; None for a card that does not name them, as before 0.2.
    """
    splits = [split.name for split in release.splits if split.rows]
    size = next((size for limit, size in _SIZES if release.rows < limit), "1M<n<10M")
    paths = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    files = "" if shards_id is None else f", files {shards_id[:12]}"
    return {
        "pretty_name": one_line(title),
        **hub_fields(licence),
        "task_categories": ["image-segmentation", "unconditional-image-generation"],
        "tags": ["medical", "ct", "radiology", "synthetic", "inpainting", method, "synthct"],
        "size_categories": [size],
        # ``datasets`` caches a folder under its base name (here the version) and a hash of its
        # configs: without the ids another dataset of that version would be taken for it, or the
        # same samples with the columns that they had when they were first read.
        "configs": [
            {
                "config_name": "default",
                "description": f"content {release.content_id}{files}",
                "data_files": paths,
            }
        ],
    }


def _introduction(release: Release, summary: Summary, facts: CardFacts) -> str:
    is_volume = facts.view == "volume"
    slices = "CT volume" if is_volume else f"{facts.view} CT slice"
    hosts = counted(summary.hosts, "patient")
    whose = "the real patient's" if _is_real(facts) else "that of a procedural phantom"
    outside = f"outside of it every voxel is {whose}"
    if release.patch_id is not None:
        outside = "voxels outside of it are not included"
    parts = [f"# {inert(facts.title)}"]
    if facts.description:
        parts.append(inert(facts.description))
    one = "volume" if is_volume else "slice"
    parts.append(
        f"{counted(summary.samples - summary.real, slices)} of {hosts}, in each of which "
        f"{facts.words.who} a region anew, with the label map after painting. **Inside of the "
        f"mask {facts.words.inside}; {outside}.**"
    )
    if summary.real:
        parts.append(
            f"It also has {counted(summary.real, f'unpainted {one}')} "
            f"(`is_painted` is false). A {one} and its paintings share a `pair_id`; `has_lesion` "
            "says which of them show the lesion that was painted or removed. Other lesions may be "
            "on both."
        )
    if facts.picture:
        parts.append(f"![Samples of the dataset](./{quote(facts.picture)})")
    parts.append(
        f"Version {code(release.label)} of {code(release.name)}, in format "
        f"{release.format_version}, made by synthct {release.package_version}."
    )
    return "\n\n".join(parts)


def _contents(summary: Summary, facts: CardFacts) -> str:
    splits = list(summary.splits)
    by_mask = [
        [
            code(name),
            kind,
            code(label) if label is not None else "whatever fits",
            *(counts.get(split, 0) for split in splits),
            sum(counts.values()),
        ]
        for (name, kind, label), counts in summary.by_mask.items()
    ]
    total = ["all", "", "", *summary.splits.values(), summary.samples]
    head = ["mask", "kind", "painted as", *map(code, splits), "all"]
    donors = f", {counted(summary.donors, 'donor patient')}" if summary.donors else ""
    parts = [
        "## What is in it",
        table(head, [*by_mask, total]),
        f"{counted(summary.masks, 'mask')} in {counted(len(summary.by_case), 'host case')} of "
        f"{counted(summary.hosts, 'patient')}{donors}. "
        "A sample's host and donor are in the same split.",
        table(["host case", "samples"], _longest(summary.by_case)),
        "Values of the label map:",
        table(["value", "name"], _labels(facts)),
    ]
    if facts.relabelled:
        parts.append(
            f"Under some masks the label map is the output of {code(facts.relabelled)} on the "
            "painted picture (`provenance` names it there); it was not checked."
        )
    if facts.notes:
        parts.append("Notes of the plan:\n\n" + bullets(inert(note) for note in facts.notes))
    return "\n\n".join(parts)


def _method(facts: CardFacts) -> str:
    settings = [[inert(key), code(value)] for key, value in facts.settings.items()]
    return "\n\n".join(
        [
            "## How it was made",
            f"For each sample a mask was drawn on a scan, {facts.words.how}, and only "
            "voxels inside of the mask were pasted back. That all others are unchanged was checked "
            "for every sample. "
            f"The preview shows {inert(facts.preview_window)}.",
            table(["setting", "value"], settings),
            "`recipe.yaml` is the complete recipe, `synthct.lock` has the hash of every input.",
        ]
    )


def _quality(summary: Summary, grades: str) -> str:
    rows = [
        [f"`{name}`", one.text, *map(figure, (s.low, s.median, s.high)), one.unit, s.count]
        for name, one in MEASURES.items()
        if (s := summary.measures.get(name)) is not None
    ]
    head = ["column", "measure", "5 %", "median", "95 %", "unit", "samples"]
    rejected = sum(summary.rejected.values())
    parts = ["## How good it is", table(head, rows)]
    if grades:
        parts.append(
            f"By limits that real tissue of the hosts keeps (`synthct.lock`): {grades}. Doubtful "
            "is beyond two thirds of the way to a limit."
        )
    parts.append(f"Rejected (`rejected.parquet`): {counted(rejected, 'planned sample')}.")
    if rejected:
        reasons = [[inert(reason), count] for reason, count in summary.rejected.items()]
        parts.append(table(["reason", "rejected"], reasons))
    if summary.in_training:
        parts.append(
            f"The checkpoint was trained on the hosts of {counted(summary.in_training, 'sample')} "
            "(`host_in_training`): exclude them when you evaluate the model."
        )
    return "\n\n".join(parts)


def _limits(release: Release, summary: Summary, facts: CardFacts) -> str:
    anonymous = (
        "This dataset is not anonymous. Voxels outside of the masks are those of real patients, as "
        "in the sources, and all terms of use of the sources apply to you."
    )
    if release.patch_id is not None:
        anonymous = (
            "No voxel of a scan is included, but masks and numbers are those of real patients; "
            "once completed with the scans, all terms of use of the scans apply to you."
        )
    real = [
        anonymous,
        *(
            ["The shape of a transplanted structure is that of a real donor patient."]
            if summary.donors
            else []
        ),
    ]
    lines = [
        "Several samples show the same patient: split by `patient_id`, never by row.",
        "Painted tissue is plausible, not true: it says nothing about the patient, and must not be "
        "used for diagnosis.",
        "A segmenter trained on this can learn errors of the painting: test it on real scans.",
        *([] if facts.is_training_known else [_UNKNOWN_TRAINING]),
    ]
    phantoms = ["All scans are procedural phantoms: no patient is in this dataset."]
    return "## Limits\n\n" + bullets([*(real if _is_real(facts) else phantoms), *lines])


def _origin(release: Release, facts: CardFacts) -> str:
    rows = [
        [code(s.name), code(s.layout), s.cases, _licence(s.licence), inert(s.attribution or "")]
        for s in facts.sources
    ]
    hub = [f"{code(s.name)}:{_from_hub(s)}" for s in facts.sources if s.origin]
    head = ["source", "layout", "cases", "licence", "attribution"]
    return "\n\n".join(
        [
            "## Where it comes from",
            table(head, rows),
            *([bullets(hub)] if hub else []),
            f"Licence of this dataset: {_licence(facts.licence)}. `attribution.md` has the texts.",
            f"Content: {code(release.content_id)}, the Merkle root over the samples' digests, "
            f"which names the content whatever files hold it. Plan: {code(release.plan_id)}.",
        ]
    )


def _is_real(facts: CardFacts) -> bool:
    return any(source.layout != "phantom" for source in facts.sources)


def _labels(facts: CardFacts) -> list[list[Any]]:
    rows: list[list[Any]] = [[0, "background"]]
    rows += sorted([value, code(name)] for name, value in facts.labels.items())
    if facts.ignore:
        rows.append([IGNORE, "ignore: painted with unknown content; exclude from the loss"])
    return rows


def _longest(by_case: Mapping[str, int]) -> list[list[Any]]:
    cases = sorted(by_case.items())
    rows: list[list[Any]] = [[code(case), count] for case, count in cases[:_MAX_CASES]]
    if rest := cases[_MAX_CASES:]:
        rows.append([f"{len(rest):,} more", sum(count for _, count in rest)])
    return rows


def _licence(licence: str | None) -> str:
    if licence is None:
        return "**unknown: ask the owners before you share it**"
    link = licence_url(licence)
    return f"[{inert(licence)}]({link})" if link else code(licence)
