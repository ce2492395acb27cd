"""The page of a table: its grids, and pictures of the same masks painted by each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from synthct.evaluate.stream import Dataset, painted_slice
from synthct.publish.pages.template import asset, fill_template, policy_of
from synthct.publish.report.html import Picture, pictured
from synthct.publish.report.pictures import MaskCrop, crop_around_mask, masked, outlined
from synthct.storage.files import atomic_write
from synthct.studies.table.results import TableResults, grids
from synthct.volume.intensity import Window


class Shown(NamedTuple):
    """One mask: what the methods saw, what each painted, and the original."""

    title: str
    pictures: Sequence[Picture]


def write_page(
    folder: Path, results: TableResults, arms: Mapping[str, Mapping[str, Path]], count: int
) -> Path:
    """Write ``table.html``, which needs nothing else.

    Args:
        folder: Where.
        results: The tables.
        arms: The dataset of each method, by row.
        count: Masks shown of each row.
    """
    shown = [one for row, datasets in arms.items() for one in shown_masks(row, datasets, count)]
    style = asset("page.css", "synthct.publish.report")
    values = {
        "title": results.name,
        "policy": policy_of(style),
        "style": style,
        "script": "",
        "results": results,
        "grids": list(grids(results)),
        "masks": shown,
    }
    text = fill_template(values, "synthct.studies.table")
    path = folder / "table.html"
    atomic_write(path, text.encode())
    return path


def shown_masks(row: str, datasets: Mapping[str, Path], count: int) -> list[Shown]:
    """The first masks of a row, each in its widest slice."""
    crops: dict[str, dict[str, tuple[MaskCrop, Window]]] = {}
    for method, folder in datasets.items():
        masks = groupby(Dataset(folder).slices(), key=lambda sample: sample.facts.mask_id)
        for mask_id, samples in islice(masks, count):
            widest = max(samples, key=lambda sample: int(np.count_nonzero(sample.mask)))
            one = crop_around_mask(widest, {}), painted_slice(widest).window
            crops.setdefault(mask_id, {})[method] = one
    return [
        Shown(f"{row}: {mask_id}", list(_pictures(painted)))
        for mask_id, painted in islice(crops.items(), count)
    ]


def _pictures(painted: Mapping[str, tuple[MaskCrop, Window]]) -> list[Picture]:
    first, window = next(iter(painted.values()))
    shown = {"masked": masked(first, window)}
    for method, (crop, _) in painted.items():
        shown[method] = outlined(crop.painted, crop.mask, window)
    assert first.original is not None, "a table's datasets keep their originals"
    shown["original"] = outlined(first.original, first.mask, window)
    return [pictured(name, {"soft": one}, first.size_mm) for name, one in shown.items()]
