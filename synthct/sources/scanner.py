"""Scans of procedural patients, and their files.

The files of a phantom are plain NIfTI, so their digests stand beside them, in a kept file.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from synthct.storage.cache import DamageError, check_files, warn_damaged, write_digests
from synthct.storage.files import resource_error
from synthct.volume import Volume, write_volume

Voxels = Annotated[int, Field(ge=8, le=1024)]
Millimetres = Annotated[float, Field(ge=0.3, le=20)]

#: File names of a phantom in the cache.
IMAGE, LABELS = "ct.nii.gz", "labels.nii.gz"


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


def is_intact(folder: Path) -> bool:
    """Whether a patient is in the cache with every byte; warns if only some are."""
    if not folder.is_dir():
        return False
    try:
        check_files(folder)
    except DamageError as err:
        warn_damaged(folder, str(err))
        return False
    return True


def keep_patient(folder: Path, ct: Volume, labels: Volume) -> None:
    """Write a patient into the cache, in place of a damaged one.

    Raises:
        ResourceError: If it cannot be written.
    """
    write_case(folder, {IMAGE: ct, LABELS: labels}, digests=True)


def write_case(folder: Path, files: Mapping[str, Volume], *, digests: bool = False) -> None:
    """Write a case beside its place and rename it, so that no reader ever finds half a case.

    Args:
        folder: The folder of the case. Files that it has already are replaced one by one: they
            are the same patient's, so a process that reads meanwhile is not disturbed.
        files: Path in the folder to volume.
        digests: Also keep digests of the files.

    Raises:
        ResourceError: If it cannot be written.
    """
    draft = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
        for name, volume in files.items():
            (draft / name).parent.mkdir(exist_ok=True)
            write_volume(volume, draft / name)
        if digests:
            write_digests(draft, list(files), name=folder.name)
        draft.chmod(0o755)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            for path in sorted(path for path in draft.rglob("*") if path.is_file()):
                path.replace(folder / path.relative_to(draft))
    except OSError as err:
        raise resource_error(folder, err) from err
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
