"""Default limits of a recipe without ``quality``: how far real tissue is from real tissue.

Parts of the hosts' slices are compared, by the measures of painted samples, with the same place one
slice further and with other places. Most of these pairs keep the limits, so a sample that does not
is further from the tissue that it replaced than real tissue would be. Learned from up to
``PATIENTS`` hosts, cached per scan, and stored in the lock.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synthct.build import real_tissue
from synthct.build.check import Checked
from synthct.build.real_tissue import Pairs, compare_real
from synthct.sources import CaseEntry, read_case
from synthct.sources.keys import case_facts
from synthct.storage.cache import load_arrays, save_arrays
from synthct.storage.keys import cache_key
from synthct.volume.case import Case
from synthct.volume.intensity import Codec
from synthct.volume.views import Plane

#: Most patients to learn from, and places of real tissue of all of them together.
PATIENTS, PLACES = 8, 128

#: Limits are never closer than this, so that good paint passes where slices hardly differ. Texture:
#: a third less or a half more; spectrum: a factor of two in power at a typical frequency.
CLOSEST_TEXTURE, CLOSEST_SPECTRUM_DB = (0.67, 1.5), 3.0

#: Nor wider, so that noise of half or double the strength (0.5, 2; 6 dB) passes nowhere.
WIDEST_TEXTURE, WIDEST_SPECTRUM_DB = (0.55, 1.8), 5.0
#: But for a label over other tissue: what was there, an organ's edge included, may be much rougher
#: or smoother (0.3 to 4 times, and 13 dB, from 1 to 99 % of other places). Paint without grain, at
#: 0.1 to 0.25, passes nowhere.
WIDEST_TEXTURE_ELSEWHERE, WIDEST_SPECTRUM_ELSEWHERE_DB = (0.3, 4.0), 13.0

#: The grain of a label over other tissue, which is compared with what lies around: real tissue of
#: other places has 0.85 to 1.9 times that of the quietest around it (1 to 99 %), half the strength
#: of that 0.5 to 0.7, double the strength 1.9 to 2.6.
CLOSEST_GRAIN, WIDEST_GRAIN = (0.75, 1.5), (0.6, 1.8)

#: Of paint, not of real slices, whose border with the next slice shows: 95 % of the paintings that
#: keep the yardstick's bounds (tests/benchmarks/starter.py) lie between 0.75 and 2.
SEAM = (0.5, 2.0)

#: A label painted over other tissue has an edge of its own: it may be as hard as that of most of
#: the tissue of other places would be, which is 4 to 15 times the steps between neighbours.
WIDEST_SEAM = 10.0

#: Share of real pairs beyond each end of a limit.
_BEYOND_TEXTURE, _BEYOND_SPECTRUM, _BEYOND_SEAM = 0.01, 0.02, 0.1

#: Default limits by section of masks and measure, as the lock has them.
DefaultLimits = dict[str, dict[str, dict[str, float]]]

_log = logging.getLogger(__name__)


def learn_limits(checked: Checked, *, cache_dir: Path) -> DefaultLimits:
    """The default limits of a recipe; none where it sets its own.

    A section that paints anew what was there is compared with neighbouring slices, one that paints
    a label over other tissue also with other places of the hosts.

    Raises:
        SourceError: If a scan is missing or damaged.
    """
    if checked.recipe.own_limits is not None:
        return {}
    recipe, rules = checked.recipe, checked.rules
    pairs = RealPairs(_hosts(checked), checked.label_names, recipe.plane, cache_dir)
    limits = {}
    for section in recipe.masks:
        is_new = not section.has_truth()
        found: list[Pairs] = []
        for label in section.painted_labels() or (None,):
            codec = rules.codec(label) if rules else None
            found += pairs.of(None if is_new else label, codec)
        limits[section.name] = limits_of(found, with_other_places=is_new)
    return limits


def limits_of(pairs: Sequence[Pairs], *, with_other_places: bool) -> dict[str, dict[str, float]]:
    """The limits by measure that most pairs keep, within what limits may be.

    Args:
        pairs: From ``compare_real``; of several scans, or none.
        with_other_places: Whether other places count as well as neighbouring slices.
    """
    compared = np.concatenate([np.empty((0, 2, 4)), *pairs])
    values = compared.reshape(-1, 4) if with_other_places else compared[:, 0]
    widest, widest_db = WIDEST_TEXTURE, WIDEST_SPECTRUM_DB
    if with_other_places:
        widest, widest_db = WIDEST_TEXTURE_ELSEWHERE, WIDEST_SPECTRUM_ELSEWHERE_DB
    spectrum = _kept(values[:, 1], _BEYOND_SPECTRUM, (0, CLOSEST_SPECTRUM_DB), (0, widest_db))
    limits = {
        "seam_ratio": dict(zip(("min", "max"), SEAM, strict=True)),
        "texture_ratio": _kept(values[:, 0], _BEYOND_TEXTURE, CLOSEST_TEXTURE, widest),
        "spectrum_distance": {"max": spectrum["max"]},
    }
    if with_other_places:
        edges = compared[:, 1, 2]  # the next slice's seam says nothing
        limits["seam_ratio"] = _kept(edges, _BEYOND_SEAM, SEAM, (SEAM[0], WIDEST_SEAM))
        limits["grain_ratio"] = _kept(values[:, 3], _BEYOND_TEXTURE, CLOSEST_GRAIN, WIDEST_GRAIN)
    return limits


def _kept(
    values: npt.NDArray[np.float64],
    beyond: float,
    closest: tuple[float, float],
    widest: tuple[float, float],
) -> dict[str, float]:
    """The limits beyond each of which so small a share of values lies, between two others."""
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, (beyond, 1 - beyond)) if len(finite) else closest
    low, high = np.clip(low, widest[0], closest[0]), np.clip(high, closest[1], widest[1])
    return {"min": _rounded(low), "max": _rounded(high)}


class RealPairs:
    """The compared real tissue of some scans, from the cache or from the scans.

    Args:
        scans: One per patient.
        label_names: Structure to value, dataset-wide.
        view: The plane of the slices.
        cache_dir: Where the pairs are kept.
    """

    def __init__(
        self,
        scans: Sequence[CaseEntry],
        label_names: Mapping[str, int],
        view: Plane,
        cache_dir: Path,
    ) -> None:
        self._scans, self._label_names, self._view = scans, label_names, view
        self._folder = cache_dir / "limits"
        self._last: tuple[CaseEntry, Case] | None = None

    def of(self, label: str | None, codec: Codec | None) -> Iterator[Pairs]:
        """The pairs of each scan that has a label; of soft tissue for None.

        Args:
            label: Where to look.
            codec: What a model would paint in; None without one.
        """
        scans = [scan for scan in self._scans if label is None or label in scan.labels]
        for entry in scans:
            count = -(-PLACES // len(scans))
            path = self._folder / f"{self._key(entry, label, codec, count)}.npz"
            arrays = load_arrays(path)
            if arrays is None:
                _log.info("comparing real %s in case %s", label or "tissue", entry.case_id)
                case = self._read(entry)
                arrays = {"pairs": compare_real(case, label, self._view, codec, count)}
                save_arrays(path, arrays)
            yield arrays["pairs"]

    def _read(self, entry: CaseEntry) -> Case:
        """A scan; the last one is kept for the next label."""
        if self._last is None or self._last[0] is not entry:
            self._last = entry, read_case(entry, self._label_names)
        return self._last[1]

    def _key(self, entry: CaseEntry, label: str | None, codec: Codec | None, count: int) -> str:
        """The key of what a scan teaches, whatever its source is called."""
        return cache_key(
            real_tissue.__name__,
            case=case_facts(replace(entry, source="", lesions={})),
            label_names=self._label_names if label else {},
            label=label,
            view=self._view,
            codec=codec,
            count=count,
        )


def _hosts(checked: Checked) -> list[CaseEntry]:
    """One scan of each of some host patients, evenly over all of them."""
    by_patient: dict[str, CaseEntry] = {}
    for entry in checked.index.entries("hosts"):
        if entry.image is not None:
            by_patient.setdefault(entry.patient_id, entry)
    scans = list(by_patient.values())
    some = min(PATIENTS, len(scans))
    return [scans[n * len(scans) // some] for n in range(some)]


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
