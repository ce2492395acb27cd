"""nnU-Net (v1 and v2) and the Medical Segmentation Decathlon: folders with a ``dataset.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from synthct.errors import SourceError
from synthct.sources.base import CaseFiles, FolderContents
from synthct.sources.exported import EXPORT_FILES
from synthct.sources.folder import FolderSection
from synthct.sources.stored import SUFFIXES
from synthct.volume.views import IGNORE

_JSON = "dataset.json"
_MAX_BYTES = 1 << 24
_CREATIVE_COMMONS = re.compile(r"CC0-1\.0|CC-BY(-NC)?(-SA|-ND)?-\d\.\d")
#: Names that are no structure: what is not segmented, and nnU-Net's "nobody knows".
_BACKGROUND, _UNKNOWN = "background", "ignore"


class DatasetJson(FolderSection):
    """A folder with ``dataset.json``, ``imagesTr`` and ``labelsTr``.

    nnU-Net: ``imagesTr/CASE_0000.nii.gz`` and ``labelsTr/CASE.nii.gz``, or the files that
    ``dataset`` in the JSON names. Decathlon: the files that ``training`` names. Structures have
    the names that the JSON gives them; a region of nnU-Net (several values) is a union. A licence
    of Creative Commons in the JSON is that of the source.

    Attributes:
        layout: ``nnunet`` or ``msd``.
        root: The folder with ``dataset.json``.
        channel: Which channel of nnU-Net's is the CT; by default the one that is named CT.
    """

    marks: ClassVar[str] = "a dataset.json that states a Creative Commons licence"

    layout: Literal["nnunet", "msd"]
    channel: Annotated[int, Field(ge=0, le=9999)] | None = None

    def files(self) -> tuple[str, ...]:
        """The JSON, images and label maps for training, and the tables of an export."""
        folders = ("imagesTr", "labelsTr")
        scans = [f"{folder}/*{suffix}" for folder in folders for suffix in SUFFIXES]
        return (_JSON, *scans, *EXPORT_FILES)

    def native_labels(self) -> Mapping[str, int]:
        """The structures of ``dataset.json``."""
        return self._structures()[0]

    def named_labels(self) -> Mapping[str, int]:
        """The structures of ``dataset.json``."""
        return self.native_labels()

    def closed_labels(self) -> bool:
        """The JSON names all values, unless some voxels are to be ignored."""
        return _UNKNOWN not in {name.lower() for name in self._labels()}

    def known_terms(self) -> dict[str, str | None]:
        """What the JSON says."""
        data = self._json()
        text = str(data.get("licence") or data.get("license") or "")
        licence = re.sub(r"[\s_-]+", "-", text.strip()).upper()
        if not _CREATIVE_COMMONS.fullmatch(licence):
            return {"licence": None, "attribution": None}
        parts = [str(data[key]) for key in ("name", "reference") if data.get(key)]
        return {"licence": licence, "attribution": f"{': '.join(parts)} ({text})".strip()}

    def find(self, cache_dir: Path) -> FolderContents:
        """The cases for training; see ``SourceSection.find``."""
        del cache_dir
        root = self.require_root()
        values, unions, notes = self._structures()
        cases, skipped = [], []
        for case_id, (image_name, label_name) in sorted(self._pairs().items()):
            image, labels = self.inside(root / image_name), self.inside(root / label_name)
            if labels is None:
                skipped.append((case_id, f"has no {label_name}"))
                continue
            files = dict.fromkeys(values, labels)
            cases.append(CaseFiles(case_id, image, files, values, unions))
            if image is None:
                notes.append(f"case {case_id} has no {image_name}")
        if not cases:
            raise SourceError(
                f"root {root} has no case with a label map in labelsTr. {self.remedy()}"
            )
        return FolderContents(tuple(cases), tuple(skipped), tuple(notes))

    def _pairs(self) -> dict[str, tuple[str, str]]:
        """Case id to the paths of image and label map beneath the root."""
        data = self._json()
        channel = self._channel(data)
        listed = data.get("training" if self.layout == "msd" else "dataset")
        pairs: dict[str, tuple[str, str]] = {}
        try:
            if self.layout == "msd":
                for one in listed or ():
                    label = str(one["label"]).removeprefix("./")
                    pairs[_stem(label)] = (str(one["image"]).removeprefix("./"), label)
            elif listed:
                for name, one in listed.items():
                    pairs[name] = (str(one["images"][channel]), str(one["label"]))
            if listed or self.layout == "msd":
                return {name: pair for name, pair in pairs.items() if not name.startswith(".")}
        except (KeyError, TypeError, AttributeError, IndexError) as err:
            raise SourceError(
                f"{self._root / _JSON}: its list of cases is damaged ({err!r})"
            ) from err
        ending = str(data.get("file_ending", ".nii.gz"))
        if ending not in SUFFIXES:
            raise SourceError(
                f"{self._root / _JSON}: file_ending is '{ending}'; convert the files to .nii.gz "
                f"(or another of {', '.join(SUFFIXES)})"
            )
        mark = f"_{channel:04d}{ending}"
        images = {n.removesuffix(mark) for n in self._names("imagesTr") if n.endswith(mark)}
        labels = {n.removesuffix(ending) for n in self._names("labelsTr") if n.endswith(ending)}
        return {
            name: (f"imagesTr/{name}{mark}", f"labelsTr/{name}{ending}") for name in images | labels
        }

    def _names(self, folder: str) -> list[str]:
        """Names of the files of a folder, without hidden ones."""
        place = self._root / folder
        if not place.is_dir():
            return []
        return [path.name for path in place.iterdir() if not path.name.startswith(".")]

    def _channel(self, data: Mapping[str, Any]) -> int:
        """The channel that is the CT.

        Raises:
            SourceError: If none is named so, and the recipe does not say which.
        """
        names = data.get("channel_names") or data.get("modality") or {}
        if self.channel is not None:
            return self.channel
        ct = [int(n) for n, name in dict(names).items() if str(name).strip().lower() == "ct"]
        if not ct:
            known = ", ".join(f"{n} is {name}" for n, name in dict(names).items()) or "none named"
            raise SourceError(
                f"{self._root / _JSON}: no channel is named CT ({known}); if one is a CT in HU, "
                "say which with 'channel: 0' in the source"
            )
        return min(ct)

    def _structures(self) -> tuple[dict[str, int], dict[str, tuple[str, ...]], list[str]]:
        """Structure to value, union to its structures, and notes."""
        single: dict[str, int] = {}
        regions: dict[str, list[int]] = {}
        notes = []
        for name, value in self._labels().items():
            if name.lower() == _UNKNOWN:
                notes.append(f"label '{name}' of dataset.json is read as background")
            elif isinstance(value, list):
                regions[name] = [int(one) for one in value]
            elif name.lower() != _BACKGROUND and value != 0:
                single[name] = int(value)
        by_value = {value: name for name, value in single.items()}
        for name, values in list(regions.items()):
            if len(values) == 1 and values[0] not in by_value:
                by_value[values[0]] = name
                del regions[name]
        for values in regions.values():
            for value in values:
                by_value.setdefault(value, f"label_{value}")
        if IGNORE in by_value or not all(0 < value <= 65535 for value in by_value):
            raise SourceError(
                f"{self._root / _JSON}: label values are 1 to 65535 without {IGNORE}, which means "
                f"'ignore'; it has {', '.join(map(str, sorted(by_value)))}"
            )
        unions = {name: tuple(by_value[v] for v in values) for name, values in regions.items()}
        return {name: value for value, name in sorted(by_value.items())}, unions, notes

    def _labels(self) -> dict[str, Any]:
        """Name to value or values, in whichever direction the JSON has them."""
        labels = self._json().get("labels")
        try:
            if not labels:
                raise ValueError("it is empty")
            if all(re.fullmatch(r"\d+", str(key)) for key in labels):
                return {str(name): int(value) for value, name in labels.items()}
            return {
                str(name): value if isinstance(value, list) else int(value)
                for name, value in labels.items()
            }
        except (ValueError, TypeError, AttributeError) as err:
            raise SourceError(f"{self._root / _JSON}: 'labels' is damaged ({err})") from err

    def _json(self) -> Mapping[str, Any]:
        """The content of ``dataset.json``.

        Raises:
            SourceError: If it is not there or damaged; names a folder below that has one.
        """
        root = self.require_root()
        path = self.inside(root / _JSON)
        if path is None:
            nested = sorted(root.glob(f"*/{_JSON}"))
            hint = f"use {nested[0].parent}" if nested else self.remedy()
            raise SourceError(f"root {root} has no {_JSON}; {hint}")
        if path.stat().st_size > _MAX_BYTES:
            raise SourceError(f"{path}: larger than 16 MiB, the limit of a list of cases")
        try:
            data = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as err:
            raise SourceError(f"{path}: cannot be read as JSON ({err})") from err
        if not isinstance(data, dict):
            raise SourceError(f"{path}: not an object of JSON")
        return data


def _stem(name: str) -> str:
    """The name of a file without folder and ending."""
    own = Path(name).name
    return own.removesuffix(next((one for one in SUFFIXES if own.endswith(one)), ""))
