"""Where scans and label maps come from: one file per layout, and the index over all of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from synthct.sources.base import CaseEntry, CaseFiles, LabelStats, SourceSection
from synthct.sources.dataset_json import DatasetJson
from synthct.sources.dicom import Dicom
from synthct.sources.folder import FolderSection
from synthct.sources.index import Index, Skipped, download, index_sources, label_table
from synthct.sources.kits import Kits
from synthct.sources.nifti import Nifti
from synthct.sources.phantom import PhantomSource, write_phantoms
from synthct.sources.read import read_case
from synthct.sources.scanner import Scanner
from synthct.sources.totalsegmentator import TotalSegmentator

#: A source's section of a recipe; ``layout`` says which one it is.
Source = Annotated[
    Kits | TotalSegmentator | Nifti | DatasetJson | Dicom | PhantomSource,
    Field(discriminator="layout"),
]

__all__ = [
    "CaseEntry",
    "CaseFiles",
    "DatasetJson",
    "Dicom",
    "FolderSection",
    "Index",
    "Kits",
    "LabelStats",
    "Nifti",
    "PhantomSource",
    "Scanner",
    "Skipped",
    "Source",
    "SourceSection",
    "TotalSegmentator",
    "download",
    "index_sources",
    "label_table",
    "read_case",
    "write_phantoms",
]
