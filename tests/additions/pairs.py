"""A source layout as somebody would add it: ``NAME-ct.nii.gz`` beside ``NAME-labels.nii.gz``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from synthct.sources.base import CaseFiles, FolderContents
from synthct.sources.folder import FolderSection

LABELS = {"kidney": 1, "tumor": 2}


class Pairs(FolderSection):
    """Pairs of files in one folder."""

    layout: Literal["pairs"] = "pairs"

    def files(self) -> tuple[str, ...]:
        return ("*-ct.nii.gz", "*-labels.nii.gz")

    def native_labels(self) -> Mapping[str, int]:
        return LABELS

    def find(self, cache_dir: Path) -> FolderContents:
        cases = []
        for image in sorted(self.require_root().glob("*-ct.nii.gz")):
            name = image.name.removesuffix("-ct.nii.gz")
            labels = image.with_name(f"{name}-labels.nii.gz")
            cases.append(CaseFiles(name, image, dict.fromkeys(LABELS, labels), LABELS))
        return FolderContents(tuple(cases))
