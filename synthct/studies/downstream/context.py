"""What all steps of a study share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from synthct.sources import Index
from synthct.studies.downstream.recipe import Study


@dataclass(frozen=True, eq=False)
class StudyContext:
    """A study, and where and with what it runs.

    Attributes:
        study: What is compared.
        index: Of the dataset's sources.
        label_names: Structure to value in the label maps of the real scans.
        folder: Of the study.
        cache_dir: Of indexes and phantoms.
        device: Where networks run.
        progress: Show progress bars.
    """

    study: Study
    index: Index
    label_names: Mapping[str, int]
    folder: Path
    cache_dir: Path
    device: str
    progress: bool = False
