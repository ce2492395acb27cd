"""What a folder of scans is laid out as: the section of a recipe that reads it.

Known layouts are recognised by their own files, DICOM by its mark; any other folder of NIfTI, NRRD
or MetaImage files by the names that repeat from case to case. Voxels are read only where a name
does not show whether it is a scan.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from synthct.errors import SourceError, counted
from synthct.sources.bids import bids_patients, bids_patterns
from synthct.sources.nifti import Nifti, longer_name
from synthct.sources.stored import SUFFIXES
from synthct.volume import read_labels
from synthct.volume.dicom.files import is_dicom

_SUFFIX = re.compile(rf"({'|'.join(map(re.escape, SUFFIXES))})$")
_CASE = "{case}"
#: How deep below the folder files are looked for, and how many are looked at.
_LEVELS, _MOST_FILES = 5, 20_000
#: So many label maps are read to see which values they have.
_LOOKED_AT = 5

_IMAGE_WORDS = frozenset({
    "ct", "cts", "ctscan", "image", "images", "imagestr", "imagests", "imaging", "img", "imgs",
    "scan", "scans", "volume", "volumes",
})  # fmt: skip
_LABEL_WORDS = frozenset({
    "annotation", "annotations", "dseg", "gt", "groundtruth", "label", "labelmap", "labels",
    "labelstr", "labelsts", "mask", "masks", "roi", "seg", "segmentation", "segmentations", "segs",
    "structures",
})  # fmt: skip
#: What the checkpoints call otherwise; a gross tumour volume is a tumour.
_SPELLINGS = {
    "gtv": "tumor", "kidneys": "kidney", "lesion": "tumor", "lesions": "tumor", "lungs": "lung",
    "tumors": "tumor", "tumour": "tumor", "tumours": "tumor",
}  # fmt: skip

#: Words that tell the side of an organ.
_SIDES = frozenset({"l", "left", "lt", "r", "right", "rt"})

#: Pattern to the files that match it, by case.
Patterns = Mapping[str, Mapping[str, Path]]


@dataclass(frozen=True)
class Detected:
    """A folder's layout.

    Attributes:
        section: The fields of a source's section: ``layout``, ``root`` and so on.
        remarks: What the user should look at.
    """

    section: dict[str, Any]
    remarks: tuple[str, ...] = ()


def detect(root: Path) -> Detected:
    """The layout of a folder.

    Raises:
        SourceError: If there is no such folder, or no scan in it.
    """
    if not root.is_dir():
        raise SourceError(f"{root} is no folder; name the one that your scans lie in")
    root = root.resolve()
    if _first_dicom(root):
        return _dicom(root)
    for place in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        layout = _known_layout(place)
        if layout is not None:
            return Detected({"layout": layout, "root": str(place), **_links([place])})
    return _nifti(root)


def _known_layout(root: Path) -> str | None:
    """The layout whose own files are there, if one is."""
    if (root / "dataset.json").is_file():
        try:
            data = json.loads((root / "dataset.json").read_text(encoding="utf-8-sig"))
            is_msd = isinstance(data.get("training"), list) and bool(data["training"])
        except (OSError, ValueError, AttributeError):
            return None
        return "msd" if is_msd else "nnunet"
    cases = [path for path in sorted(root.glob("case_*")) if path.is_dir()]
    if any((path / "aggregated_MAJ_seg.nii.gz").is_file() for path in cases):
        return "kits21"
    if any(next(path.glob("segmentation.nii*"), None) for path in cases):
        return "kits23"
    scans = (path.parent for path in root.glob("*/ct.nii*"))
    return "totalsegmentator" if any((path / "segmentations").is_dir() for path in scans) else None


def _first_dicom(root: Path) -> bool:
    """Whether a folder holds DICOM: one of the first files of each folder in it has the mark."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))[:50]
        if len(Path(folder).relative_to(root).parts) >= _LEVELS:
            folders.clear()
        own = [name for name in sorted(names) if not name.startswith(".")]
        some = [name for name in own if not _SUFFIX.search(name)][:_LOOKED_AT]
        if any(is_dicom(Path(folder, name)) for name in some):
            return True
    return False


def _dicom(root: Path) -> Detected:
    """DICOM series; NIfTI files in their folders are their label maps, if there are any."""
    section: dict[str, Any] = {"layout": "dicom", "root": str(root)}
    beside: dict[str, list[Path]] = defaultdict(list)
    for path in _files(root):
        beside[path.name].append(root / path)
    maps = {name: files for name, files in beside.items() if _values(files[0]) is not None}
    own = {name: _structure_of(name) for name in maps}
    if len(own) > 1 and all(own.values()) and len(set(own.values())) == len(own):
        section["structures"] = {str(one): f"{{folder}}/{name}" for name, one in own.items()}
        section |= _unions(section["structures"])
    elif maps:
        name = max(maps, key=lambda one: len(maps[one]))
        section["labels"] = f"{{folder}}/{name}"
        section["label_names"] = _named(own[name], maps[name])
    remarks = (
        "scans and patients are called by hashes; case_names: folder calls them by their folders",
    )
    return Detected(section, remarks)


def names_of_drawn(names: Iterable[str], known: Collection[str]) -> dict[str, list[str]]:
    """Structures of DICOM files by what they are to be called: as in ``known``, where that is told.

    Args:
        names: What the files call them, such as ``kidney_l`` and ``gtv_1``.
        known: The labels that a checkpoint paints, such as ``kidney`` and ``tumor``.
    """
    called: dict[str, list[str]] = {}
    for name in sorted(names):
        words = [word for word in name.split("_") if word not in _SIDES and not word.isdecimal()]
        plain = "_".join(words)
        plain = _SPELLINGS.get(plain, plain)
        called.setdefault(plain if plain in known else name, []).append(name)
    return called


def _nifti(root: Path) -> Detected:
    """The patterns of a folder of NIfTI, NRRD or MetaImage files of any arrangement."""
    files = sorted(_files(root))
    if not files:
        raise SourceError(
            f"{root} holds no scan ({', '.join(SUFFIXES)}, or DICOM), nor a layout that synthct "
            "knows; convert the scans to .nii.gz first"
        )
    kinds: dict[Path, bool] = {}
    best = max(
        (_Arrangement(patterns, kinds) for patterns in _arrangements(root, files)),
        key=lambda one: one.score,
    )
    # All may be of one case: a scan, and label maps that would else be none's.
    own = _Arrangement({f"{_CASE}/{f.as_posix()}": {root.name: root / f} for f in files}, kinds)
    is_one_case = len(own.patterns) == 1 + len(own.labels) and own.score > best.score
    best = own if is_one_case else best
    if best.image is None:
        raise SourceError(
            f"{root}: {counted(len(files), 'file')} but no scan: all are whole numbers "
            "from 0 on, as in label maps; name the folder with the scans"
        )
    section: dict[str, Any] = {"layout": "nifti", "root": str(root), "image": best.image}
    if is_one_case:
        section |= {"root": str(root.parent), "cases": [root.name]}
    remarks = []
    named = {pattern: _structure_of(pattern, _stem_words(best.image)) for pattern in best.labels}
    if len(named) > 1 and all(named.values()) and len(set(named.values())) == len(named):
        section["structures"] = {str(name): pattern for pattern, name in named.items()}
        section |= _unions(section["structures"])
    elif named:
        pattern = max(named, key=lambda one: len(best.patterns[one]))
        section["labels"] = pattern
        section["label_names"] = _named(named[pattern], best.patterns[pattern].values())
        if any(name.startswith("label_") for name in section["label_names"]):
            remarks.append("give the structures in label_names their real names")
        remarks += [f"not used: {other}" for other in named if other != pattern]
    else:
        remarks.append("no label maps were found, so masks are blobs anywhere in the body")
    others = [p for p in best.patterns if p != best.image and p not in named]
    remarks += [f"not used: {other}" for other in others[:5]]
    chosen = [best.image, *(section.get("structures") or {}).values()]
    chosen += [section["labels"]] if "labels" in section else []
    section |= _links(best.patterns[best.image].values())
    cases = Nifti.model_validate(section).find(root).cases
    whole = [case.case_id for case in cases if case.image is not None and case.label_files]
    strangers = [
        name
        for name in sorted(set(_strangers(chosen, best.patterns)))
        if not any(fnmatchcase(case_id, name) for case_id in whole)
    ]
    if strangers:
        section["exclude"] = strangers
    if patients := bids_patients(whole):
        section["patients"] = patients
    return Detected(section, tuple(remarks))


def _strangers(chosen: Sequence[str], patterns: Iterable[str]) -> Iterator[str]:
    """Names that are no cases but files that are not used: ``{case}.nii`` takes ``1_pet.nii``."""
    for pattern in chosen:
        for other in patterns:
            if other not in chosen and (name := longer_name(pattern, other)) is not None:
                yield name.replace(_CASE, "*")


class _Arrangement:
    """One way to see where in the names of the files the case stands.

    Attributes:
        patterns: Pattern to files by case.
        image: The pattern of the scans; None if no pattern is one.
        labels: The patterns of label files of the same cases.
        score: The better, the greater: labelled scans, then scans, then few patterns.
    """

    def __init__(self, patterns: Patterns, kinds: dict[Path, bool]) -> None:
        self.patterns = patterns
        is_label = {one: _is_label(one, files, kinds) for one, files in patterns.items()}
        labelled = {case for one, files in patterns.items() if is_label[one] for case in files}
        images = [one for one in patterns if not is_label[one]]
        self.image = max(
            images, key=lambda one: (len(labelled & patterns[one].keys()), len(patterns[one])),
            default=None,
        )  # fmt: skip
        cases = patterns[self.image].keys() if self.image else set()
        self.labels = [one for one in patterns if is_label[one] and cases & patterns[one].keys()]
        self.score = len(cases & labelled), len(cases), -len(patterns)


def _files(root: Path) -> Iterator[Path]:
    """The scans and label maps, relative to the root; hidden ones are none."""
    count = 0
    for folder, folders, names in os.walk(root, followlinks=True):
        place = Path(folder).relative_to(root)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        if len(place.parts) >= _LEVELS:
            folders.clear()
        for name in sorted(names):
            if _SUFFIX.search(name) and not name.startswith("."):
                count += 1
                if count > _MOST_FILES:
                    return
                yield place / name


def _arrangements(root: Path, files: Sequence[Path]) -> Iterator[Patterns]:
    """The files by pattern, for each part of their paths that may be the case."""
    depth = max(len(path.parts) for path in files)
    for level in range(depth - 1):
        found: dict[str, dict[str, Path]] = defaultdict(dict)
        folders = {path.parts[level] for path in files if len(path.parts) > level + 1}
        for path in files:
            if len(path.parts) > level + 1:
                case, after = _split_folder(path.parts[level], folders)
                parts = [part.replace(case, _CASE) if n > level else part
                         for n, part in enumerate(path.parts)]  # fmt: skip
                parts[level] = f"{_CASE}{after}"
                found["/".join(parts)][case] = root / path
        yield found
    beginnings, endings = _several(files, _BEGINNING, 3, 2), _several(files, _ENDING, 1, 3)
    found = defaultdict(dict)
    for path in files:
        before, case, after = _split_name(_SUFFIX.sub("", path.name), beginnings, endings)
        suffix = path.name[len(before + case + after) :]
        found["/".join((*path.parts[:-1], f"{before}{_CASE}{after}{suffix}"))][case] = root / path
    yield found
    yield bids_patterns(root, files)


_BEGINNING = re.compile(r"(([A-Za-z]+)[-_.]?)(.*\d.*)")
_ENDING = re.compile(r"(.+?)([-_.]([A-Za-z]+))")


def _several(files: Iterable[Path], shape: re.Pattern[str], case: int, word: int) -> set[str]:
    """Words beside the case of which one case has several: ``_ct`` and ``_liver``."""
    by_case: dict[str, set[str]] = defaultdict(set)
    for path in files:
        if match := shape.fullmatch(_SUFFIX.sub("", path.name)):
            by_case[match[case]].add(match[word])
    return {word for words in by_case.values() if len(words) > 1 for word in words}


def _split_folder(name: str, others: Collection[str]) -> tuple[str, str]:
    """A folder's name as the case and what stands after it, as in ``pat1_seg`` beside ``pat1``."""
    match = _ENDING.fullmatch(name)
    if match is None or match[3].lower() not in _IMAGE_WORDS | _LABEL_WORDS:
        return name, ""
    beside = (match[1], *(f"{match[1]}{match[2][0]}{w}" for w in _IMAGE_WORDS | _LABEL_WORDS))
    is_one_of_several = any(one in others for one in beside if one != name)
    return (match[1], match[2]) if is_one_of_several else (name, "")


def _split_name(stem: str, beginnings: set[str], endings: set[str]) -> tuple[str, str, str]:
    """A name as what stands before the case, the case, and what stands after it."""
    if stem.endswith("_0000"):
        return "", stem.removesuffix("_0000"), "_0000"
    match = _ENDING.fullmatch(stem)
    if match and (match[3] in endings or match[3].lower() in _IMAGE_WORDS | _LABEL_WORDS):
        return "", match[1], match[2]
    match = _BEGINNING.fullmatch(stem)
    if match and match[2] in beginnings:
        return match[1], match[3], ""
    return "", stem, ""


def _words(pattern: str) -> list[str]:
    """The words of a pattern, the last first, but before them that of a folder like ``1_seg``."""
    folder = re.findall(r"\{case\}[-_.]([a-z]+)/", pattern.lower())
    words = re.findall(r"[a-z0-9]+", _SUFFIX.sub("", pattern.replace(_CASE, "/")).lower())
    return [word for word in folder if word in _LABEL_WORDS] + words[::-1]


def _is_label(pattern: str, files: Mapping[str, Path], kinds: dict[Path, bool]) -> bool:
    """Whether the files of a pattern are label maps: by its words, else by one's voxels."""
    for word in _words(pattern):
        if word in _IMAGE_WORDS or word in _LABEL_WORDS:
            return word in _LABEL_WORDS
    first = next(iter(files.values()))
    if first not in kinds:
        kinds[first] = _values(first) is not None
    return kinds[first]


def _values(path: Path) -> set[int] | None:
    """The values of a label map without 0; None if it is none."""
    try:
        values = {int(value) for value in np.unique(read_labels(path).array)} - {0}
    except SourceError:
        return None
    return values if len(values) <= 256 else None


def _structure_of(pattern: str, image: Collection[str] = ()) -> str | None:
    """The structure that a pattern is named after: ``{case}/masks/liver.nii.gz`` is a liver.

    Args:
        pattern: Of its files.
        image: Words of the scan's name, which say nothing of the structure.
    """
    words = [w for w in _stem_words(pattern) if w not in {*_IMAGE_WORDS, *_LABEL_WORDS, *image}]
    name = "_".join(words)
    if not re.search("[a-z]", name):
        return None
    return _SPELLINGS.get(re.sub(r"_\d+$", "", name), name)


def _stem_words(pattern: str) -> list[str]:
    """The words of a pattern's file name, in order."""
    stem = _SUFFIX.sub("", PurePosixPath(pattern).name).replace(_CASE, "").lower()
    return [word for word in re.split(r"[^a-z0-9]+", stem) if word]


def _named(name: str | None, files: Iterable[Path]) -> dict[str, int]:
    """Structure to value, of the values in some label maps."""
    values: set[int] = set()
    for path in list(files)[:_LOOKED_AT]:
        values |= _values(path) or set()
    values.discard(255)  # unknown tissue
    if not values:
        return {name or "label_1": 1}
    if len(values) == 1 and name is not None:
        return {name: values.pop()}
    return {f"label_{value}": value for value in sorted(values)}


def _unions(structures: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """The unions of left and right parts."""
    unions: dict[str, list[str]] = {}
    for name in sorted(structures):
        stem = re.sub(r"_?(left|right)$", "", name)
        if stem and stem != name and stem not in structures:
            unions.setdefault(stem, []).append(name)
    return {"unions": unions} if unions else {}


def _links(paths: Iterable[Path]) -> dict[str, str]:
    """``links: follow`` where files are links, as in folders of links and in the Hub's cache."""
    first = next(iter(paths))
    some = [first, *sorted(first.rglob("*.nii*"))[:100]] if first.is_dir() else [first]
    return {"links": "follow"} if any(path.is_symlink() for path in some) else {}
