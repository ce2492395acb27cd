"""Procedural patients as a source: written once into the cache, then read like any other files.

Also ``write_phantoms``, which lays such patients out as a KiTS or TotalSegmentator folder.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from synthct.errors import ConflictError, counted
from synthct.sources.base import CaseFiles, FolderContents, SourceSection
from synthct.sources.kits import KITS_LABELS
from synthct.sources.scanner import IMAGE, LABELS, Scanner, is_intact, keep_patient, write_case
from synthct.storage.files import require_writable
from synthct.storage.keys import cache_key
from synthct.volume import Volume, restore_orientation

Layout = Literal["kits19", "kits21", "kits23", "totalsegmentator"]

#: Unions of the phantom's structures, so that recipes for real data work on phantoms.
PHANTOM_UNIONS: Mapping[str, tuple[str, ...]] = {
    "kidney": ("kidney_left", "kidney_right"),
    "lung": ("lung_left", "lung_right"),
    "tumor": ("kidney_tumor", "liver_tumor"),
    "cyst": ("kidney_cyst", "liver_cyst"),
    "bowel": ("duodenum", "small_bowel", "colon"),
}

_LESIONS = ("kidney_tumor", "kidney_cyst", "liver_tumor", "liver_cyst")
_KITS_PARTS = {
    "kidney": PHANTOM_UNIONS["kidney"],
    "tumor": ("kidney_tumor",),
    "cyst": ("kidney_cyst",),
}

#: KiTS stores slices first, and runs to inferior, posterior, left.
_KITS_AXES = np.array([[0.0, 0, -1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])

_log = logging.getLogger(__name__)


class PhantomSource(Scanner, SourceSection):
    """Procedural patients, no download needed.

    Attributes:
        layout: The name of the layout.
        patients: How many patients.
        seed: Names the series of patients: another seed, other people. Sources with the same
            seed scan the same people.
    """

    layout: Literal["phantom"] = "phantom"
    patients: Annotated[int, Field(ge=1, le=10_000)] = 8
    seed: Annotated[int, Field(ge=0)] = 0
    licence: str | None = "CC0-1.0"
    attribution: str | None = "synthct phantoms: procedural, no patient is behind them"

    def native_labels(self) -> Mapping[str, int]:
        """``PHANTOM_LABELS``."""
        from synthct.sources.phantoms import PHANTOM_LABELS

        return dict(PHANTOM_LABELS)

    def closed_labels(self) -> bool:
        """The label maps are our own."""
        return True

    def folder(self, cache_dir: Path) -> Path:
        """Where the patients are kept."""
        look = {name: getattr(self, name) for name in Scanner.model_fields}
        key = cache_key(Scanner.__module__, look=look, seed=self.seed)[:20]
        return cache_dir / "phantoms" / key

    def find(self, cache_dir: Path) -> FolderContents:
        """The patients, whether they are made yet or not."""
        root = self.folder(cache_dir)
        values = self.native_labels()
        cases = []
        for patient in range(self.patients):
            folder = root / f"phantom-{self.seed}-{patient:04d}"
            files = dict.fromkeys(values, folder / LABELS)
            image = folder / IMAGE
            cases.append(CaseFiles(folder.name, image, files, values, PHANTOM_UNIONS))
        return FolderContents(tuple(cases))

    def prepare(self, cases: Sequence[CaseFiles], *, progress: bool = False) -> None:
        """Write the patients that are missing or damaged in the cache."""
        folders = [case.image.parent for case in cases if isinstance(case.image, Path)]
        with ThreadPoolExecutor(_threads(len(folders))) as pool:  # hashes leave the others free
            intact = list(pool.map(is_intact, folders))
        missing = [folder for folder, whole in zip(folders, intact, strict=True) if not whole]
        if missing:
            require_writable(missing[0].parent)
        _in_threads([partial(self._write, folder) for folder in missing], progress)

    def _write(self, folder: Path) -> None:
        keep_patient(folder, *self.scan(self.seed, int(folder.name.rpartition("-")[2])))


def write_phantoms(
    root: Path,
    layout: Layout,
    patients: int,
    seed: int = 0,
    *,
    scanner: Scanner | None = None,
    progress: bool = False,
) -> tuple[str, ...]:
    """Write phantoms as a folder of KiTS or TotalSegmentator, to try recipes without real data.

    KiTS gets kidney, kidney tumours and kidney cysts, in KiTS's own axis order;
    TotalSegmentator every structure in a file of its own, lesions in ``segmentations_extra``,
    and a ``meta.csv`` with a split of 8:1:1.

    Args:
        root: The folder to write; must not exist, or be empty.
        layout: Which layout.
        patients: How many patients.
        seed: Names the series of patients.
        scanner: What the scans look like; by default abdomens.
        progress: Show a progress bar, in patients.

    Returns:
        The case ids.

    Raises:
        ConflictError: If ``root`` holds anything.
        ResourceError: If it cannot be written.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConflictError(f"{root} is not empty; choose another folder for the phantoms")
    require_writable(root)
    scanner = scanner or Scanner()
    kits = layout != "totalsegmentator"
    names = [f"case_{n:05d}" if kits else f"s{n:04d}" for n in range(patients)]
    write = partial(_write_kits, layout) if kits else _write_totalsegmentator
    _in_threads(
        [partial(write, root / name, scanner, seed, n) for n, name in enumerate(names)], progress
    )
    if not kits:
        splits = [{8: "val", 9: "test"}.get(n % 10, "train") for n in range(patients)]
        rows = [f"{name};;;{split}\n" for name, split in zip(names, splits, strict=True)]
        (root / "meta.csv").write_text("image_id;age;gender;split\n" + "".join(rows))
    return tuple(names)


def _write_kits(layout: Layout, folder: Path, scanner: Scanner, seed: int, patient: int) -> None:
    ct, labels = scanner.scan(seed, patient)
    mapped = np.zeros_like(labels.array)
    for name, parts in _KITS_PARTS.items():
        mapped[_any_of(labels, parts)] = KITS_LABELS[name]
    # In KiTS21 three people drew; here they agree.
    aggregated = tuple(f"aggregated_{how}_seg" for how in ("MAJ", "AND", "OR"))
    stems = aggregated if layout == "kits21" else ("segmentation",)
    label_map = Volume(mapped, labels.affine)
    files = {"imaging.nii.gz": ct, **{f"{stem}.nii.gz": label_map for stem in stems}}
    turned = {name: restore_orientation(one, _KITS_AXES) for name, one in files.items()}
    write_case(folder, turned)


def _write_totalsegmentator(folder: Path, scanner: Scanner, seed: int, patient: int) -> None:
    from synthct.sources.phantoms import PHANTOM_LABELS

    ct, labels = scanner.scan(seed, patient)
    files = {"ct.nii.gz": ct}
    for name in PHANTOM_LABELS:
        place = "segmentations_extra" if name in _LESIONS else "segmentations"
        region = _any_of(labels, (name,)).astype(np.uint8)
        files[f"{place}/{name}.nii.gz"] = Volume(region, labels.affine)
    write_case(folder, files)


def _any_of(labels: Volume, structures: Iterable[str]) -> npt.NDArray[np.bool_]:
    from synthct.sources.phantoms import PHANTOM_LABELS

    return np.isin(labels.array, [PHANTOM_LABELS[name] for name in structures])


def _in_threads(jobs: list[Callable[[], None]], progress: bool) -> None:
    """Run the jobs, as many at once as there are cores; the first error ends them."""
    if not jobs:
        return
    from tqdm import tqdm

    _log.info("making %s", counted(len(jobs), "phantom"))
    with ThreadPoolExecutor(_threads(len(jobs))) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            for future in tqdm(
                futures, desc="phantoms", unit="patient", leave=False, disable=not progress
            ):
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _threads(jobs: int) -> int:
    return max(1, min(jobs, os.cpu_count() or 1, 4))
