"""What is known of a file after it was read once, kept on disk so that it is not read again.

Facts belong to a file's content and name, not to a recipe: two sources with the same root share
them, and a file is read again only if its size or time of change is another. The lesions found in
the label files of a case are kept beside them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from synthct.errors import ResourceError, SourceError
from synthct.volume import (
    Affine,
    Box,
    CtReading,
    Index3,
    LabelReading,
    read_ct_counting,
    read_labels,
)
from synthct.volume.anatomy import LesionFacts
from synthct.volume.counting import count_values, fingerprint

#: Raise when the meaning of the facts changes: older caches are then made anew.
_FORMAT = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FileFacts:
    """What the index keeps of one file.

    Attributes:
        sha256: Of the bytes of the file.
        shape: Shape (I, J, K) of the canonical grid.
        affine: (4, 4) of the canonical grid.
        array_sha256: Of an image's canonical clipped int16 HU and their shape; None for labels.
        filled: Number of voxels of an image that are not finite and were read as air.
        values: Value in a label file to how many voxels have it and the box around them; empty
            for an image.
        fingerprint: Of an image's values, whatever its orientation, affine and voxel type; None
            for labels.
        remarks: What the user should know of how the file was read.
    """

    sha256: str
    shape: Index3
    affine: Affine
    array_sha256: str | None
    filled: int
    values: Mapping[int, tuple[int, Box]]
    fingerprint: str | None = None
    remarks: tuple[str, ...] = ()

    def moved(self, start_ijk: Index3) -> FileFacts:
        """The facts of a label file that begins at ``start_ijk`` of a larger grid."""
        values = {value: (n, box.shift(start_ijk)) for value, (n, box) in self.values.items()}
        return replace(self, values=values)

    @property
    def voxel_sha256(self) -> str | None:
        """Of an image's canonical clipped int16 HU, shape and affine; None for labels."""
        if self.array_sha256 is None:
            return None
        affine = self.affine.astype("<f8").tobytes()
        digest = hashlib.sha256(b"synthct/voxels/v1\0" + bytes.fromhex(self.array_sha256) + affine)
        return digest.hexdigest()


class FactsStore:
    """The facts of the files beneath one root, on disk as one JSON file.

    Use it as a context manager: what was learnt is saved on the way out, also after an error or
    an interrupt, so that a long first index is never lost.

    Args:
        root: The folder that all files lie beneath.
        cache_dir: Where the facts are kept.
        follow_links: Whether links may lead out of the root.
    """

    def __init__(self, root: Path, cache_dir: Path, *, follow_links: bool = False) -> None:
        self.root, self._follow_links = root, follow_links
        self._root = root.resolve()
        key = hashlib.sha256(os.fsencode(self._root)).hexdigest()[:16]
        self._path = cache_dir / "index" / f"{key}.json"
        self._files, self._lesions = self._load()
        self._changed = False

    def __enter__(self) -> FactsStore:
        return self

    def __exit__(self, *_: object) -> None:
        if self._changed:
            self._save()

    def image(self, path: Path, reading: CtReading) -> FileFacts:
        """The facts of a CT; reads it if it is new or changed.

        Raises:
            SourceError: If the file is missing, damaged or not a CT.
        """
        kind = f"image {reading.frame} {reading.fill_nan} {reading.orientation}"
        return self._facts(path, kind, partial(_read_image, path, reading))

    def labels(self, path: Path, reading: LabelReading) -> FileFacts:
        """The facts of a label map or of a structure's file; reads it if it is new or changed.

        Raises:
            SourceError: If the file is missing, damaged or not a label map.
        """
        kind = f"labels {reading.orientation}"
        if reading.image is not None:  # whose grid the labels may take
            try:
                state = reading.image.stat()
            except OSError as err:
                raise SourceError(f"{reading.image}: cannot be read ({err.strerror})") from err
            kind += f" on {reading.image.name} {state.st_size} {state.st_mtime_ns}"
        return self._facts(path, kind, partial(_read_labels, path, reading))

    def lesions(
        self, key: str, stamp: list[Any], find: Callable[[], Sequence[LesionFacts]]
    ) -> tuple[LesionFacts, ...]:
        """The lesions of a case; finds them if they are new or what they follow from changed.

        Args:
            key: Names the case, the label and the organ.
            stamp: As JSON, all that the lesions follow from, such as the sha256 of files.
            find: Finds them in voxels.
        """
        known = self._lesions.get(key)
        if known is not None and known.get("stamp") == stamp:
            return tuple(LesionFacts.from_json(one) for one in known["found"])
        found = tuple(find())
        self._lesions[key] = {"stamp": stamp, "found": [one.as_json() for one in found]}
        self._changed = True
        return found

    def _facts(self, path: Path, kind: str, read: Callable[[], FileFacts]) -> FileFacts:
        try:
            resolved = path.resolve(strict=True)
            state = resolved.stat()
        except (OSError, RuntimeError) as err:  # RuntimeError: a loop of links
            raise SourceError(f"{path}: cannot be read ({err})") from err
        inside = resolved.is_relative_to(self._root)
        if not inside and not self._follow_links:
            raise SourceError(f"{path}: leads out of {self._root}; copy the file or move the root")
        if not stat.S_ISREG(state.st_mode):
            raise SourceError(f"{path}: not a regular file")
        name = (resolved.relative_to(self._root) if inside else resolved).as_posix()
        stamp = [kind, state.st_size, state.st_mtime_ns]
        known = self._files.get(name)
        if known is not None and known.get("stamp") == stamp:
            return _from_json(known)
        facts = read()
        self._files[name] = {"stamp": stamp, **_to_json(facts)}
        self._changed = True
        return facts

    def _load(self) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """What was learnt of files, and of lesions."""
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            if stored["format"] == _FORMAT:
                return dict(stored["files"]), dict(stored["lesions"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as err:
            _log.warning("index %s is unreadable and made anew (%s)", self._path.name, err)
        return {}, {}

    def _save(self) -> None:
        """Write to a temporary file and rename, so that a reader never sees half of it."""
        stored = {"format": _FORMAT, "files": self._files, "lesions": self._lesions}
        text = json.dumps(stored, separators=(",", ":"))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=self._path.parent, suffix=".tmp", encoding="utf-8", delete=False
            ) as file:
                file.write(text)
            Path(file.name).replace(self._path)
        except OSError as err:
            raise ResourceError(
                f"cannot write the index {self._path}: {err.strerror}; choose another --cache-dir"
            ) from err


def _read_image(path: Path, reading: CtReading) -> FileFacts:
    sha256, remarks = _file_sha256(path), list[str]()
    volume, filled = read_ct_counting(path, sha256=sha256, reading=reading, remarks=remarks)
    digest = hashlib.sha256(f"synthct/array/v1 {volume.shape}\0".encode())
    digest.update(np.ascontiguousarray(volume.array, dtype="<i2").data)
    return FileFacts(
        sha256, volume.shape, volume.affine, digest.hexdigest(), filled, {},
        fingerprint(volume.array), tuple(remarks),
    )  # fmt: skip


def _read_labels(path: Path, reading: LabelReading) -> FileFacts:
    sha256, remarks = _file_sha256(path), list[str]()
    volume = read_labels(path, sha256=sha256, reading=reading, remarks=remarks)
    values = count_values(volume.array)
    return FileFacts(sha256, volume.shape, volume.affine, None, 0, values, remarks=tuple(remarks))


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise SourceError(f"{path}: cannot be read ({err.strerror})") from err


def _to_json(facts: FileFacts) -> dict[str, Any]:
    return {
        "sha256": facts.sha256,
        "shape": facts.shape,
        "affine": facts.affine.tolist(),
        "array_sha256": facts.array_sha256,
        "filled": facts.filled,
        "values": {
            str(value): [voxels, box.start_ijk, box.stop_ijk]
            for value, (voxels, box) in facts.values.items()
        },
        "fingerprint": facts.fingerprint,
        "remarks": facts.remarks,
    }


def _from_json(stored: Mapping[str, Any]) -> FileFacts:
    i, j, k = stored["shape"]
    values = {
        int(value): (int(voxels), Box(tuple(start), tuple(stop)))
        for value, (voxels, start, stop) in stored["values"].items()
    }
    affine = np.array(stored["affine"], dtype=np.float64)
    return FileFacts(
        stored["sha256"], (i, j, k), affine, stored["array_sha256"], stored["filled"], values,
        stored["fingerprint"], tuple(stored["remarks"]),
    )  # fmt: skip
