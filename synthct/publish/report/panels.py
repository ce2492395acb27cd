"""The charts of a report with captions: measures of the samples, HU of real and painted tissue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthct.dataset.markdown import figure
from synthct.metrics.measure import Measure
from synthct.metrics.table import MEASURES
from synthct.publish.report.charts import Chart, Numbers, Series, bars, lines
from synthct.publish.report.report_data import HU_EDGES, ReportData, Tissue

#: Bins of a measure's histogram, and the share of HU that a chart cuts off at either end.
_BINS, _TAIL = 30, 0.002


@dataclass(frozen=True, eq=False)
class Panel:
    """A chart with its texts.

    Attributes:
        name: The measure, or the label.
        chart: The chart.
        series: Its series, for the legend.
        note: One line below the chart: description, median, number of rejected samples.
    """

    name: str
    chart: Chart
    series: tuple[Series, ...]
    note: str = ""


def measure_panels(data: ReportData) -> Iterator[Panel]:
    """A histogram of each measure that varies over the samples."""
    for measure in MEASURES.values():
        panel = _histogram(data, measure)
        if panel is not None:
            yield panel


def tissue_panels(data: ReportData) -> Iterator[Panel]:
    """The HU of each label: painted, before painting, and of real tissue."""
    for label, tissue in data.tissue.items():
        yield _tissue(label, tissue)


def _histogram(data: ReportData, measure: Measure) -> Panel | None:
    """Histogram of accepted and rejected samples; None if the measure is constant or undefined."""
    name = measure.name
    kept = _defined(row.get(name) for row in data.rows)
    lost = _defined(one.columns.get(name) for one in data.rejected)
    both = np.concatenate([kept, lost])
    if not len(both) or both.min() == both.max():
        return None
    low, high = np.quantile(both, [0.005, 0.995])
    if low == high:
        low, high = both.min(), both.max()
    limits = _ends(name, data)
    low, high = min([low, *limits]), max([high, *limits])
    edges = np.linspace(low, high, _BINS + 1)
    series = (
        Series(f"accepted ({len(kept):,})", "accepted", _binned(kept, edges)),
        Series(f"rejected ({len(lost):,})", "rejected", _binned(lost, edges)),
    )
    broken = sum(one.measure == name for one in data.rejected)
    rejected = f"; {broken:,} rejected by it" if broken else ""
    median = f"median {figure(float(np.median(kept)))}" if len(kept) else "none accepted"
    return Panel(
        name,
        bars(f"Histogram of {name}", edges, series, limits),
        series if len(lost) else series[:1],
        f"{measure.label}; {median}{rejected}",
    )


def _tissue(label: str, tissue: Tissue) -> Panel:
    named = (
        ("painted", "painted", tissue.painted),
        ("replaced tissue, before painting", "before", tissue.before),
        ("real tissue of the label, outside the mask", "real", tissue.elsewhere),
    )
    kept = [(name, css, counts) for name, css, counts in named if counts.any()]
    shares = [np.cumsum(counts) / counts.sum() for _, _, counts in kept]
    first = min((int(np.argmax(share > _TAIL)) for share in shares), default=0)
    last = max((int(np.argmax(share >= 1 - _TAIL)) for share in shares), default=1)
    part, edges = slice(first, last + 1), HU_EDGES[first : last + 2].astype(np.float64)
    series = [Series(name, css, counts[part].astype(np.float64)) for name, css, counts in kept]
    return Panel(label, lines(f"HU of {label}", edges, series), tuple(series))


def _defined(values: Iterable[Any]) -> Numbers:
    return np.array([v for v in values if v is not None and np.isfinite(v)], dtype=np.float64)


def _binned(values: Numbers, edges: Numbers) -> Numbers:
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].astype(np.float64)


def _ends(name: str, data: ReportData) -> list[float]:
    """The limits of a measure; several where sections of masks have their own."""
    found = [standard.limits.limits.get(name) for standard in data.standards.values()]
    ends = {end for limits in found if limits for end in (limits.min, limits.max)}
    return sorted(end for end in ends if end is not None)
