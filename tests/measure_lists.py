"""Every place that lists the measures of samples, as the names that it gives."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path

from evaluated import fresh, write_dataset

from synthct.dataset.documents.card import CardFacts, dataset_card
from synthct.dataset.documents.croissant import croissant
from synthct.dataset.manifest import Manifest, read_manifest
from synthct.dataset.patch_rows import patch_columns
from synthct.dataset.schema import arrow_schema, columns
from synthct.dataset.summary import Summary, summarise
from synthct.dataset.writer import ShardRecord
from synthct.evaluate.radiomics import Radiomics
from synthct.evaluate.run import Options, evaluate
from synthct.metrics.table import MEASURES
from synthct.models.methods import DIFFUSION_WORDS
from synthct.publish.export.run import export
from synthct.publish.report.run import write_report
from synthct.recipe.quality import Quality

CARD = CardFacts("title", None, "axial", "soft tissue", (), {}, "diffusion", DIFFUSION_WORDS, {})


def all_lists(folder: Path) -> dict[str, tuple[set[str], set[str]]]:
    """By place: the measures that it should list, and those that it does.

    Args:
        folder: An empty folder.
    """
    values = dict.fromkeys(MEASURES, 0.5) | {"outside_max_abs_diff": 0, "replaced_mean_hu": 60.0}
    dataset = write_dataset(
        folder / "dataset/1.0.0",
        fresh,
        patients=2,
        masks=4,
        measures=lambda number: {name: (number % 3) * 2 + v for name, v in values.items()},
    )
    manifest = read_manifest(dataset)
    assert manifest is not None
    shards = _shards(manifest)
    summary = summarise(dataset, shards)
    everything = {name for name, measure in MEASURES.items() if not measure.of_volumes}
    judged = {name for name in everything if MEASURES[name].worse}
    evaluation = evaluate(dataset, [Radiomics()], Options({}), cache_dir=folder / "cache")
    page = write_report(dataset, folder / "report").read_text(encoding="utf-8")
    table = export(dataset, "png", folder / "export") / "samples.csv"
    with table.open(newline="", encoding="utf-8") as stream:
        exported = set(next(csv.reader(stream)))
    fields = json.loads(
        croissant(manifest.release, summary, CARD, arrow_schema(keep_original=True), shards)
    )["recordSet"][0]["field"]
    return {
        "columns": (everything, everything & set(columns(keep_original=False))),
        "patch columns": (everything, everything & set(patch_columns())),
        "columns of volumes": (set(MEASURES), set(MEASURES) & set(columns(True, volume=True))),
        "limits": (
            {name for name, measure in MEASURES.items() if measure.has_limits},
            set(Quality.model_fields),
        ),
        "summary": (everything, set(summary.measures)),
        "card": (everything, _in_card(manifest, summary)),
        "croissant": (everything, everything & {field["name"] for field in fields}),
        "report's charts": (
            everything,
            set(re.findall(r"<h3>(?:<[^>]*>)?(\w+)", page)) & everything,
        ),
        "report's orders": (judged, set(re.findall(r"worst (\w+) first", page))),
        "report's samples": (everything, _beneath_sample(page)),
        "evaluation": (everything, {one.measure for one in evaluation.measures} & everything),
        "export": (everything, everything & exported),
    }


def _shards(manifest: Manifest) -> list[ShardRecord]:
    return [
        ShardRecord(file.path, "train", file.rows, file.bytes, file.sha256)
        for file in manifest.files
        if file.rows is not None
    ]


def _in_card(manifest: Manifest, summary: Summary) -> set[str]:
    """The measures of which the card gives text, quantiles and unit."""
    rows: Mapping[str, list[str]] = {
        cells[0].strip("`"): cells
        for line in dataset_card(manifest.release, summary, CARD).splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 7
    }
    return {
        name
        for name, measure in MEASURES.items()
        if name in rows and (rows[name][1], rows[name][5]) == (measure.text, measure.unit)
    }


def _beneath_sample(page: str) -> set[str]:
    """The measures that a click on a sample shows."""
    match = re.search(r'"measures": \{(.*?)\}', html.unescape(page), re.DOTALL)
    assert match is not None
    return set(re.findall(r'"(\w+)": ', match[1]))
