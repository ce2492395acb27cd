"""The DICOM files of a folder and what each of them is, kept so that a header is read only once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from synthct.errors import SourceError
from synthct.storage.cache import read_kept, write_kept
from synthct.storage.keys import cache_key
from synthct.volume.dicom.files import is_dicom
from synthct.volume.dicom.kinds import Kind, kind_of

#: What this process knows already, by path, with size and times of the file.
_known: dict[str, tuple[list[int], Kind]] = {}


@dataclass(frozen=True)
class DicomFiles:
    """The files of a folder.

    Attributes:
        kinds: What each DICOM file is; its patient is a pseudonym.
        others: Files with a DICOM name that are none.
    """

    kinds: dict[Path, Kind]
    others: tuple[Path, ...]


def dicom_files(
    root: Path, cache_dir: Path | None, *, recursive: bool, check: Callable[[Path], Path | None]
) -> DicomFiles:
    """The DICOM files of a folder.

    Args:
        root: The folder.
        cache_dir: Where what is found is kept; None to keep it in this process only.
        recursive: Whether the folders below count as well.
        check: Makes sure that a path is a file that may be read.

    Raises:
        SourceError: If a file is damaged, or ``check`` says so.
        ResourceError: If the cache cannot be written.
    """
    kept = None
    if cache_dir is not None:
        name = cache_key(__name__, root=os.fsdecode(root.resolve()))[:20]
        kept = cache_dir / "index" / f"{name}.headers"
        for path, (stamp, fields) in json.loads(read_kept(kept) or b"{}").items():
            _known.setdefault(path, (stamp, _from_json(fields)))
    kinds: dict[Path, Kind] = {}
    others, changed = [], False
    for path in _walk(root, recursive):
        if check(path) is None:
            continue
        state = path.stat()
        stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        known = _known.get(str(path))
        if known is not None and known[0] == stamp:
            kinds[path] = known[1]
        elif is_dicom(path):
            kind = kind_of(path)
            kinds[path] = replace(kind, patient=pseudonym(kind.patient))
            _known[str(path)] = stamp, kinds[path]
            changed = True
        elif path.suffix.lower() in (".dcm", ".ima"):
            others.append(path)
    if kept is not None and (changed or not kept.is_file()):
        stored = {str(path): [_known[str(path)][0], asdict(kind)] for path, kind in kinds.items()}
        write_kept(kept, json.dumps(stored, separators=(",", ":")).encode())
    return DicomFiles(kinds, tuple(others))


@lru_cache(maxsize=4096)
def pseudonym(patient_id: str) -> str:
    """What a PatientID is called in whatever is kept or published; empty if it is empty.

    The same person is called the same in every source. A hospital's numbers are few enough to be
    tried one by one, which scrypt (RFC 7914) makes slow but not impossible.
    """
    if not patient_id:
        return ""
    salt = b"synthct/dicom/patient/v1"
    digest = hashlib.scrypt(patient_id.encode(), salt=salt, n=2**14, r=8, p=1, dklen=8)
    return f"p-{digest.hex()[:12]}"


def _walk(root: Path, recursive: bool) -> list[Path]:
    """Files in a folder, by name, without those whose names start with a dot."""
    found = []
    for folder, folders, names in os.walk(root, onerror=_raise):
        folders[:] = sorted(n for n in folders if not n.startswith((".", "__MACOSX")) and recursive)
        found += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _raise(err: OSError) -> None:
    raise SourceError(f"{err.filename}: cannot be read ({err.strerror})") from err


def _from_json(fields: dict[str, object]) -> Kind:
    kind = Kind(**fields)  # type: ignore[arg-type]  # what asdict made of one
    structures = tuple((int(number), str(name)) for number, name in kind.structures)
    return replace(kind, drawn_on=tuple(kind.drawn_on), structures=structures)
