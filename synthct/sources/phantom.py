"""Procedural patients as a source: made once into the cache, then read like any other files.

Also ``write_phantoms``, which lays such patients out as a KiTS or TotalSegmentator folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from synthct.errors import ConflictError, ResourceError
from synthct.sources.base import CaseFiles, FolderContents, SourceSection
from synthct.sources.kits import KITS_LABELS
from synthct.volume import Volume, restore_orientation, write_volume

Layout = Literal["kits19", "kits21", "kits23", "totalsegmentator"]
Voxels = Annotated[int, Field(ge=8, le=1024)]
Millimetres = Annotated[float, Field(ge=0.3, le=20)]

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


class Scanner(BaseModel):
    """What a phantom's scan looks like; the anatomy depends on seed and patient alone.

    Attributes:
        region: What the scan covers.
        shape: Voxels along i, j, k; by default as many as cover the region.
        spacing_mm: Voxel size along i, j, k; by default drawn for each patient, or fitted to
            ``shape``.
        tumours: True for at least one kidney tumour in each patient, False for no lesion at all,
            None to leave it to chance.
        oblique: Whether the grid is tilted; by default drawn for each patient.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: Literal["abdomen", "chest", "abdomen_chest"] = "abdomen"
    shape: tuple[Voxels, Voxels, Voxels] | None = None
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] | None = None
    tumours: bool | None = None
    oblique: bool | None = None

    def scan(self, seed: int, patient: int) -> tuple[Volume, Volume]:
        """CT and label map of one patient; the same arguments give the same voxels."""
        from synthct.sources.phantoms import make_phantom

        made = make_phantom(
            seed,
            patient,
            region=self.region,
            spacing_mm=self.spacing_mm,
            shape=self.shape,
            tumours=self.tumours,
            oblique=self.oblique,
        )
        return Volume(made.ct, made.affine), Volume(made.labels, made.affine)


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
        """Where the patients are kept: by what they look like and by the code that makes them."""
        look = self.model_dump_json(include=set(Scanner.model_fields) | {"seed"})
        key = hashlib.sha256(f"{_code_sha256()} {look}".encode()).hexdigest()[:16]
        return cache_dir / "phantoms" / key

    def find(self, cache_dir: Path) -> FolderContents:
        """The patients, whether they are made yet or not."""
        root = self.folder(cache_dir)
        values = self.native_labels()
        cases = []
        for patient in range(self.patients):
            folder = root / f"phantom-{self.seed}-{patient:04d}"
            files = dict.fromkeys(values, folder / "labels.nii.gz")
            image = folder / "ct.nii.gz"
            cases.append(CaseFiles(folder.name, image, files, values, PHANTOM_UNIONS))
        return FolderContents(tuple(cases))

    def prepare(self, cases: Sequence[CaseFiles], *, progress: bool = False) -> None:
        """Make the patients that are not in the cache yet."""
        folders = [case.image.parent for case in cases if case.image is not None]
        missing = [folder for folder in folders if not folder.is_dir()]
        _in_threads([partial(self._make, folder) for folder in missing], progress)

    def _make(self, folder: Path) -> None:
        ct, labels = self.scan(self.seed, int(folder.name.rpartition("-")[2]))
        _write_case(folder, {"ct.nii.gz": ct, "labels.nii.gz": labels})


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
    _write_case(folder, turned)


def _write_totalsegmentator(folder: Path, scanner: Scanner, seed: int, patient: int) -> None:
    from synthct.sources.phantoms import PHANTOM_LABELS

    ct, labels = scanner.scan(seed, patient)
    files = {"ct.nii.gz": ct}
    for name in PHANTOM_LABELS:
        place = "segmentations_extra" if name in _LESIONS else "segmentations"
        region = _any_of(labels, (name,)).astype(np.uint8)
        files[f"{place}/{name}.nii.gz"] = Volume(region, labels.affine)
    _write_case(folder, files)


def _any_of(labels: Volume, structures: Iterable[str]) -> npt.NDArray[np.bool_]:
    from synthct.sources.phantoms import PHANTOM_LABELS

    return np.isin(labels.array, [PHANTOM_LABELS[name] for name in structures])


def _write_case(folder: Path, files: Mapping[str, Volume]) -> None:
    """Write a case beside its place and rename it, so that nobody ever sees half a case."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
    except OSError as err:
        raise ResourceError(f"cannot write to {folder.parent}: {err.strerror}") from err
    try:
        for name, volume in files.items():
            (draft / name).parent.mkdir(exist_ok=True)
            write_volume(volume, draft / name)
        draft.chmod(0o755)
        try:
            draft.rename(folder)
        except OSError as err:
            if not folder.is_dir():  # else another process was faster with the same bytes
                raise ResourceError(f"cannot write {folder}: {err.strerror}") from err
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _in_threads(jobs: list[Callable[[], None]], progress: bool) -> None:
    """Run the jobs, as many at once as there are cores; the first error ends them."""
    if not jobs:
        return
    from tqdm import tqdm

    _log.info("making %d phantoms", len(jobs))
    with ThreadPoolExecutor(min(len(jobs), os.cpu_count() or 1, 4)) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            for future in tqdm(futures, desc="phantoms", unit="patient", disable=not progress):
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


@cache
def _code_sha256() -> str:
    """Of the code that makes phantoms: other code, other patients, even under one version."""
    import synthct.sources.phantoms

    digest = hashlib.sha256()
    for path in sorted(Path(synthct.sources.phantoms.__path__[0]).glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
