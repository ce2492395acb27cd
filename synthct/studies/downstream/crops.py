"""Crops of axial slices with and without a lesion, which classifiers are trained and judged on."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from synthct import seeds
from synthct.build.draw import CaseReader
from synthct.errors import MaskError
from synthct.publish.export.scans import PaintedScan, PaintedScans
from synthct.sources import CaseEntry
from synthct.studies.downstream.arms import rows_of
from synthct.studies.downstream.judge import LEAST_ML
from synthct.studies.downstream.recipe import Study
from synthct.studies.downstream.slices import resize
from synthct.volume.case import Case

Place = tuple[int, int, int]
Picture = npt.NDArray[np.int16]

#: So many slices of a lesion are taken, of those with at least half of its largest area.
_SLICES = 5
#: So many places are tried for each crop of an organ without a lesion.
_TRIES = 20


@dataclass(frozen=True, eq=False)
class Crop:
    """A square of a slice.

    Attributes:
        patient_id: Whose.
        hu: int16 (P, P).
    """

    patient_id: str
    hu: Picture


@dataclass(eq=False)
class PaintedCrops:
    """Crops at the masks of a painted dataset, by lesion.

    Attributes:
        places: Host voxels of the crops' centres.
        painted: Of the painted scan.
        before: Of the host as it was, at the same places.
    """

    places: dict[str, list[Place]] = field(default_factory=dict)
    painted: dict[str, list[Crop]] = field(default_factory=dict)
    before: dict[str, list[Crop]] = field(default_factory=dict)


class Cutter:
    """Cuts the crops of a study.

    Args:
        study: With a section ``classification``.
        organ: Structure or union that crops without a lesion are centred in.
    """

    def __init__(self, study: Study, organ: str) -> None:
        assert study.classification is not None, "asked for only where there is one"
        self._lesion, self._organ, self._settings = study.lesion, organ, study.classification

    def real(
        self, entries: Iterable[CaseEntry], reader: CaseReader
    ) -> tuple[list[Crop], list[Crop]]:
        """Crops of real scans: at their lesions, and in the organ with no lesion in sight."""
        ill: list[Crop] = []
        well: list[Crop] = []
        for entry in entries:
            case = reader.read(entry)
            lesion, hu = _region(case, self._lesion), case.scan().array
            numbered, count = ndimage.label(lesion, np.ones((3, 3, 3)))
            for number in range(1, count + 1):
                one = numbered == number
                if int(one.sum()) * case.labels.voxel_volume_ml >= LEAST_ML:
                    ill += [self._cut(case, hu, at) for at in _places(one)]
            rng = seeds.generator(0, "crops", entry.voxel_sha256 or entry.case_id)
            inside = np.argwhere(_region(case, self._organ))
            for _ in range(self._settings.places_per_scan if len(inside) else 0):
                for _ in range(_TRIES):
                    i, j, k = (int(n) for n in inside[int(rng.integers(len(inside)))])
                    if not self._shows(case, lesion, (i, j, k)):
                        well.append(self._cut(case, hu, (i, j, k)))
                        break
        return ill, well

    def painted(
        self,
        dataset: Path,
        roots: Mapping[str, Path],
        cache_dir: Path,
        wanted: Container[str] | None = None,
        places: Mapping[str, Sequence[Place]] | None = None,
    ) -> PaintedCrops:
        """Crops at the masks of a dataset, where no lesion of the host's own is in sight.

        Args:
            dataset: The folder of a version.
            roots: Source name to folder.
            cache_dir: Of indexes and phantoms.
            wanted: Ids of the lesions that are taken; by default all.
            places: Where crops are cut, by lesion; by default in each mask.
        """
        made = PaintedCrops()
        rows = (r for r in rows_of(dataset) if wanted is None or r["lesion_id"] in wanted)
        for scan in PaintedScans(dataset, roots, cache_dir, lesions=1).of(rows):
            lesion_id = scan.lesions[0]
            own = places[lesion_id] if places else self._places_in(scan)
            before, hu = scan.case.scan().array, scan.painted()
            made.places[lesion_id] = list(own)
            made.painted[lesion_id] = [self._cut(scan.case, hu, at) for at in own]
            made.before[lesion_id] = [self._cut(scan.case, before, at) for at in own]
        return made

    def _places_in(self, scan: PaintedScan) -> list[Place]:
        lesion = _region(scan.case, self._lesion)
        return [at for at in _places(scan.number > 0) if not self._shows(scan.case, lesion, at)]

    def _cut(self, case: Case, hu: Picture, at: Place) -> Crop:
        edge = self._settings.crop_px
        part = _window(hu[:, :, at[2]], at, self._voxels(case), -1024)
        cut = resize(part[None], (edge, edge), linear=True)[0].round().astype(np.int16)
        return Crop(case.patient_id, cut)

    def _shows(self, case: Case, lesion: npt.NDArray[np.bool_], at: Place) -> bool:
        return bool(_window(lesion[:, :, at[2]], at, self._voxels(case), fill=0).any())

    def _voxels(self, case: Case) -> tuple[int, int]:
        """Voxels along i and j that a crop covers."""
        i, j, _ = (max(1, round(self._settings.crop_mm / s)) for s in case.labels.spacing_mm)
        return i, j


def _region(case: Case, name: str) -> npt.NDArray[np.bool_]:
    try:
        return case.region(name)
    except MaskError:  # a scan that does not know the label has none of it
        return np.zeros(case.labels.shape, bool)


def _places(region: npt.NDArray[np.bool_]) -> list[Place]:
    """The middle of a region in some of its slices."""
    areas = region.sum((0, 1))
    large = np.flatnonzero(areas >= max(1, 0.5 * areas.max()))
    chosen = np.unique(np.linspace(0, len(large) - 1, min(_SLICES, len(large))).round().astype(int))
    places = []
    for k in large[chosen].tolist():
        i, j = ndimage.center_of_mass(region[:, :, k])
        places.append((round(float(i)), round(float(j)), k))
    return places


def _window(
    plane: npt.NDArray[Any], at: Place, size: tuple[int, int], fill: int
) -> npt.NDArray[Any]:
    """A rectangle around a pixel, filled up beyond the plane."""
    made = np.full(size, fill, plane.dtype)
    low = [at[n] - size[n] // 2 for n in range(2)]
    here = tuple(slice(max(low[n], 0), min(low[n] + size[n], plane.shape[n])) for n in range(2))
    there = tuple(slice(s.start - low[n], s.stop - low[n]) for n, s in enumerate(here))
    made[there] = plane[here]
    return made
