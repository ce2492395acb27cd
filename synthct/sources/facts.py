"""Facts of image and label files, kept on disk so that a file is read only once.

Facts belong to a file, not to a recipe: sources with the same root share them, and a file is read
again if its size or one of its times differs: an edit may keep the time that it was written at, but
not that of its entry on the disk. What else is computed from the files of a
case, such as its lesions, is kept with them under a key of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from synthct.errors import SourceError
from synthct.sources.stored import Stored, paths_of, read_image, read_label_map, sha256_of
from synthct.storage.cache import read_kept, write_kept
from synthct.storage.keys import cache_key
from synthct.volume import Affine, Box, CtReading, Index3, LabelReading
from synthct.volume.counting import count_values, fingerprint
from synthct.volume.dicom.files import Drawn
from synthct.volume.formats import not_a_file


@dataclass(frozen=True, eq=False)
class FileFacts:
    """What the index keeps of one file, or of one DICOM series.

    Attributes:
        sha256: Of the bytes of the file; of several files, of their digests.
        shape: Shape (I, J, K) of the canonical grid.
        affine: (4, 4) of the canonical grid.
        array_sha256: Of an image's canonical clipped int16 HU and their shape; None for labels.
        filled: Number of voxels of an image that are not finite and were read as air.
        values: Value in a label file to how many voxels have it and the box around them; empty
            for an image.
        fingerprint: Of an image's values, whatever its orientation, affine and voxel type; of
            labels, of their canonical array, None if they are empty.
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
    """The facts of the files beneath one root, on disk as one file.

    Use it as a context manager: what is new is saved on the way out, also after an error or an
    interrupt, so that a long first index is never lost.

    Args:
        root: The folder that all files lie beneath.
        cache_dir: Where the facts are kept.
        follow_links: Whether links may lead out of the root.

    Attributes:
        outside: The files asked for that links outside of the root lead to.
    """

    def __init__(self, root: Path, cache_dir: Path, *, follow_links: bool = False) -> None:
        self.root, self._follow_links = root, follow_links
        self.outside: set[str] = set()
        self._root = root.resolve()
        # The root only says whose facts these are: each one is checked against its file.
        key = cache_key(__name__, root=os.fsdecode(self._root))[:20]
        self._path = cache_dir / "index" / f"{key}.facts"
        kept = read_kept(self._path)
        stored = {"files": {}, "derived": {}} if kept is None else json.loads(kept)
        self._files: dict[str, dict[str, Any]] = stored["files"]
        self._derived: dict[str, dict[str, Any]] = stored["derived"]
        self._changed = False

    def __enter__(self) -> FactsStore:
        return self

    def __exit__(self, *_: object) -> None:
        if self._changed:
            self._save()

    def image(self, stored: Stored, reading: CtReading) -> FileFacts:
        """The facts of a CT; reads it if it is new or changed.

        Raises:
            SourceError: If the file is missing, damaged or not a CT.
        """
        kind = f"image {json.dumps(asdict(reading))}"
        return self._facts(stored, kind, partial(_read_image, stored, reading))

    def labels(self, stored: Stored, reading: LabelReading) -> FileFacts:
        """The facts of a label map or of a structure's file; reads it if it is new or changed.

        Raises:
            SourceError: If the file is missing, damaged or not a label map.
        """
        kind = f"labels {reading.orientation}"
        if isinstance(stored, Drawn):  # on the grid of its series
            numbers = [numbers for _, numbers in stored.parts]
            kind = f"drawn {numbers} on {[self._state(path)[1] for path in stored.series.files]}"
            kind += " interpolated" if stored.interpolates else ""
        if reading.image is not None:  # whose grid the labels may take
            try:
                state = reading.image.stat()
            except OSError as err:
                raise SourceError(f"{reading.image}: cannot be read ({err.strerror})") from err
            kind += f" on {reading.image.name} {_stamp(state)}"
        return self._facts(stored, kind, partial(_read_labels, stored, reading))

    def derived(self, name: str, key: str, compute: Callable[[], Any]) -> Any:
        """What is computed from the files of a case, as JSON; computed if its key has changed.

        Args:
            name: Names what is computed, of which case. Only the newest of a name is kept.
            key: From ``cache_key``.
            compute: Computes it.
        """
        known = self._derived.get(name)
        if known is not None and known["key"] == key:
            return known["value"]
        value = compute()
        self._derived[name] = {"key": key, "value": value}
        self._changed = True
        return value

    def _facts(self, stored: Stored, kind: str, read: Callable[[], FileFacts]) -> FileFacts:
        states = [self._state(path) for path in paths_of(stored)]
        name = states[0][0]
        stamp: list[Any] = [kind, *states[0][1]]
        if isinstance(stored, Drawn):  # a file holds many
            name += f" {cache_key(__name__, kind=kind, files=[file for file, _ in states])}"
        if not isinstance(stored, Path) or len(states) > 1:
            stamp = [kind, states]
        known = self._files.get(name)
        if known is not None and known["stamp"] == json.loads(json.dumps(stamp)):
            return _from_json(known)
        facts = read()
        self._files[name] = {"stamp": stamp, **_to_json(facts)}
        self._changed = True
        return facts

    def _state(self, path: Path) -> tuple[str, list[int]]:
        """The name of a file beneath the root, and what changes with its content.

        Raises:
            SourceError: If it is missing, no regular file, or leads out of the root.
        """
        try:
            resolved = path.resolve(strict=True)
            state = resolved.stat()
        except (OSError, RuntimeError) as err:  # RuntimeError: a loop of links
            raise SourceError(f"{path}: {not_a_file(path)}") from err
        inside = resolved.is_relative_to(self._root)
        if not inside and not self._follow_links:
            raise SourceError(f"{path}: leads out of {self._root}; copy the file or move the root")
        if not stat.S_ISREG(state.st_mode):
            raise SourceError(f"{path}: {not_a_file(path)}")
        name = (resolved.relative_to(self._root) if inside else resolved).as_posix()
        if not inside:
            self.outside.add(name)
        return name, _stamp(state)

    def _save(self) -> None:
        """Write the file.

        Raises:
            ResourceError: If the cache cannot be written.
        """
        stored = {"files": self._files, "derived": self._derived}
        write_kept(self._path, json.dumps(stored, separators=(",", ":")).encode())


def _stamp(state: os.stat_result) -> list[int]:
    """What changes with the content of a file."""
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _read_image(stored: Stored, reading: CtReading) -> FileFacts:
    sha256, remarks = sha256_of(stored), list[str]()
    volume, filled = read_image(stored, sha256=sha256, reading=reading, remarks=remarks)
    digest = hashlib.sha256(f"synthct/array/v1 {volume.shape}\0".encode())
    digest.update(np.ascontiguousarray(volume.array, dtype="<i2").data)
    return FileFacts(
        sha256, volume.shape, volume.affine, digest.hexdigest(), filled, {},
        fingerprint(volume.array), tuple(remarks),
    )  # fmt: skip


def _read_labels(stored: Stored, reading: LabelReading) -> FileFacts:
    sha256, remarks = sha256_of(stored), list[str]()
    volume = read_label_map(stored, sha256=sha256, reading=reading, remarks=remarks)
    values = count_values(volume.array)
    digest = hashlib.sha256(f"synthct/labels/v1 {volume.shape}\0".encode())
    digest.update(np.ascontiguousarray(volume.array, dtype="<u2").data)
    return FileFacts(
        sha256, volume.shape, volume.affine, None, 0, values,
        digest.hexdigest() if values else None, tuple(remarks),
    )  # fmt: skip


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
