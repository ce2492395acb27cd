"""KiTS19, KiTS21 and KiTS23: one folder per case with ``imaging`` and ``segmentation`` files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from synthct.errors import SourceError
from synthct.sources.base import CaseFiles, FolderContents
from synthct.sources.folder import FolderSection

_CASE_NAME = re.compile(r"case_\d{5}")

KITS_LABELS = {"kidney": 1, "tumor": 2, "cyst": 3}


class Kits(FolderSection):
    """A ``dataset`` folder of KiTS: ``case_*/segmentation.nii.gz`` and ``imaging.nii.gz``.

    A case without an image is fine as a donor of shapes. The images of KiTS have the slices along
    the first axis; canonical reading takes care of it.

    Attributes:
        layout: Which KiTS; they differ in labelling policy, and KiTS21 in its label files.
        root: The folder with the ``case_*`` folders (``dataset``, or ``data`` in KiTS19).
        aggregation: Which label map of KiTS21, where three people drew each structure:
            ``MAJ`` (what most of them drew, the default), ``AND`` or ``OR``.
    """

    obtain: ClassVar[str] = (
        "KiTS23 (CC BY-NC-SA 4.0, no commercial use) comes from "
        "https://github.com/neheller/kits23: clone it, run kits23_download_data, and use its "
        "folder 'dataset'. "
    )
    variable: ClassVar[str] = "KITS23_ROOT"

    marks: ClassVar[str] = "KiTS (cases named case_00000 and the like)"

    layout: Literal["kits19", "kits21", "kits23"] = "kits23"
    aggregation: Literal["MAJ", "AND", "OR"] | None = None
    licence: str | None = "CC-BY-NC-SA-4.0"
    attribution: str | None = (
        "KiTS: Heller et al., The KiTS21 Challenge, arXiv:2307.01984, and the KiTS23 data, "
        "https://kits-challenge.org/kits23 (CC BY-NC-SA 4.0)"
    )

    @model_validator(mode="after")
    def _check_aggregation(self) -> Self:
        if self.aggregation is not None and self.layout != "kits21":
            raise ValueError(f"aggregation belongs to layout kits21, not {self.layout}; remove it")
        return self

    @property
    def label_stems(self) -> tuple[str, ...]:
        """Names of the label map without ending, the first that is there wins."""
        if self.layout != "kits21":
            return ("segmentation",)
        aggregated = f"aggregated_{self.aggregation or 'MAJ'}_seg"
        return (aggregated,) if self.aggregation else (aggregated, "segmentation")

    def files(self) -> tuple[str, ...]:
        """Images and label maps of all cases."""
        return tuple(f"case_*/{stem}.nii*" for stem in ("imaging", *self.label_stems))

    def known_terms(self) -> dict[str, str | None]:
        """Known where all cases have KiTS's names."""
        names = [path.name for path in self._root.glob("case_*") if self._wants(path.name)]
        if names and all(_CASE_NAME.fullmatch(name) for name in names):
            return {}
        return {"licence": None, "attribution": None}

    def native_labels(self) -> Mapping[str, int]:
        """Kidney 1, tumor 2, cyst 3; the kidney leaves out its tumours and cysts."""
        return KITS_LABELS

    def closed_labels(self) -> bool:
        """KiTS has these three labels and no other."""
        return True

    def find(self, cache_dir: Path) -> FolderContents:
        """The ``case_*`` folders with a label map; see ``SourceSection.find``."""
        del cache_dir
        root = self.require_root()
        cases, skipped = [], []
        for folder in sorted(root.glob("case_*")):
            if not folder.is_dir():
                continue
            labels = next(filter(None, (self._either(folder, s) for s in self.label_stems)), None)
            if labels is None:
                skipped.append((folder.name, f"has no {self.label_stems[0]}.nii.gz"))
                continue
            files = dict.fromkeys(KITS_LABELS, labels)
            cases.append(
                CaseFiles(folder.name, self._either(folder, "imaging"), files, KITS_LABELS)
            )
        if not cases:
            nested = sorted({path.parent for path in root.glob("*/case_*") if path.is_dir()})
            hint = f"use {nested[0]}" if nested else self.remedy()
            label_map = f"case_*/{self.label_stems[0]}.nii.gz"
            raise SourceError(f"root {root} has no {label_map}; {hint}")
        return FolderContents(tuple(cases), tuple(skipped))

    def _either(self, folder: Path, stem: str) -> Path | None:
        return self.inside(folder / f"{stem}.nii.gz") or self.inside(folder / f"{stem}.nii")
