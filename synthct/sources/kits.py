"""KiTS19, KiTS21 and KiTS23: one folder per case with ``imaging`` and ``segmentation`` files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from synthct.errors import SourceError
from synthct.sources.base import CaseFiles, Found
from synthct.sources.folder import FolderSection

KITS_LABELS = {"kidney": 1, "tumor": 2, "cyst": 3}


class Kits(FolderSection):
    """A ``dataset`` folder of KiTS: ``case_*/segmentation.nii.gz`` and ``imaging.nii.gz``.

    A case without an image is fine as a donor of shapes. The images of KiTS have the slices along
    the first axis; canonical reading takes care of it.

    Attributes:
        layout: Which KiTS; they differ in labelling policy, not in files.
        root: The folder with the ``case_*`` folders (``dataset``, or ``data`` in KiTS19).
    """

    obtain: ClassVar[str] = (
        "KiTS23 (CC BY-NC-SA 4.0, no commercial use) comes from "
        "https://github.com/neheller/kits23: clone it, run kits23_download_data, and use its "
        "folder 'dataset'. "
    )
    variable: ClassVar[str] = "KITS23_ROOT"

    layout: Literal["kits19", "kits21", "kits23"] = "kits23"
    licence: str | None = "CC-BY-NC-SA-4.0"
    attribution: str | None = (
        "KiTS: Heller et al., The KiTS21 Challenge, arXiv:2307.01984, and the KiTS23 data, "
        "https://kits-challenge.org/kits23 (CC BY-NC-SA 4.0)"
    )

    def files(self) -> tuple[str, ...]:
        """Images and label maps of all cases."""
        return ("case_*/imaging.nii*", "case_*/segmentation.nii*")

    def native_labels(self) -> Mapping[str, int]:
        """Kidney 1, tumor 2, cyst 3; the kidney leaves out its tumours and cysts."""
        return KITS_LABELS

    def closed_labels(self) -> bool:
        """KiTS has these three labels and no other."""
        return True

    def find(self, cache_dir: Path) -> Found:
        """The ``case_*`` folders with a label map; see ``SourceSection.find``."""
        del cache_dir
        root = self.require_root()
        cases, skipped = [], []
        for folder in sorted(root.glob("case_*")):
            if not folder.is_dir():
                continue
            labels = self._either(folder, "segmentation")
            if labels is None:
                skipped.append((folder.name, "has no segmentation.nii.gz"))
                continue
            files = dict.fromkeys(KITS_LABELS, labels)
            cases.append(
                CaseFiles(folder.name, self._either(folder, "imaging"), files, KITS_LABELS)
            )
        if not cases:
            nested = sorted({path.parent for path in root.glob("*/case_*") if path.is_dir()})
            hint = f"use {nested[0]}" if nested else self.remedy()
            raise SourceError(f"root {root} has no case_*/segmentation.nii.gz; {hint}")
        return Found(tuple(cases), tuple(skipped))

    def _either(self, folder: Path, stem: str) -> Path | None:
        return self.inside(folder / f"{stem}.nii.gz") or self.inside(folder / f"{stem}.nii")
