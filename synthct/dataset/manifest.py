"""The manifest: every file of a version with its size and hash, and the version's identity.

It is written last, so a folder with a manifest is complete. Files are named by their hashes, the
content by ``content_id``, which does not depend on what wrote the files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from synthct.dataset.added import numbers
from synthct.dataset.digest import canonical_json, merkle_root
from synthct.dataset.first_format import FIRST_FORMAT
from synthct.dataset.schema import FORMAT_VERSION
from synthct.dataset.writer import RowDigests, ShardRecord, row_digests
from synthct.errors import RecipeError, ResourceError, VerifyError
from synthct.storage.files import atomic_write, remove_leftovers, resource_error, sha256_of
from synthct.version import __version__

MANIFEST = "manifest.json"


def _relative(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or path.startswith("/") or "\\" in path or not path.isprintable():
        raise ValueError(f"'{path}' does not lie inside of the dataset")
    return path


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SplitSize(_Model):
    """How much a split holds.

    Attributes:
        name: Of the split.
        rows: Number of samples.
        shards: Number of files.
    """

    name: str
    rows: Annotated[int, Field(ge=0)]
    shards: Annotated[int, Field(ge=0)]


class FileEntry(_Model):
    """A file of the dataset.

    Attributes:
        path: Relative to the dataset's folder, with forward slashes.
        bytes: Its size.
        sha256: Hash of its bytes in hex.
        rows: Number of samples, if it is a shard.
        root: Merkle root over the digests of its rows, if it is a shard.
    """

    path: Annotated[str, AfterValidator(_relative)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256
    rows: Annotated[int, Field(ge=0)] | None = None
    root: Sha256 | None = None

    @property
    def split(self) -> str:
        """The split of a shard, by its name: ``data/train-00000-of-00012.parquet``."""
        return PurePosixPath(self.path).name.partition("-")[0]


class Release(_Model):
    """What a version is, apart from its files.

    Attributes:
        name: Of the dataset.
        version: Semantic version of the data.
        content_id: Merkle root over the sample digests in the order of the plan.
        plan_id: Hash of the plan that the build followed.
        splits: In the order of the plan.
        rejected: Planned samples that are not in it, by reason.
        patch_id: Of a patch-only release, Merkle root over the digests of what it holds itself;
            ``content_id`` then is that of the full samples that it can be completed to.
        format_version: Layout of the dataset.
        package_version: Version of synthct that wrote it.
    """

    name: str
    version: str
    content_id: Sha256
    plan_id: str
    splits: Annotated[tuple[SplitSize, ...], Field(strict=False)]
    rejected: dict[str, int] = {}
    patch_id: Sha256 | None = None
    format_version: str = FORMAT_VERSION
    package_version: str = __version__

    @property
    def label(self) -> str:
        """How a version prints: ``1.4.0+c3f9a1b2c4d5``."""
        return f"{self.version}+{self.content_id[:12]}"

    @property
    def rows(self) -> int:
        """Number of samples in all splits."""
        return sum(split.rows for split in self.splits)


class Manifest(_Model):
    """A release and its files.

    Attributes:
        release: What the version is.
        files: All files but the manifest itself, sorted by path.
        files_id: Hash over both. It names the files, as ``content_id`` names the content.
    """

    release: Release
    files: Annotated[tuple[FileEntry, ...], Field(strict=False)]
    files_id: Sha256

    @classmethod
    def of(cls, release: Release, files: Iterable[FileEntry]) -> Manifest:
        """The manifest of a release with these files, in any order."""
        in_order = tuple(sorted(files, key=lambda entry: entry.path))
        return cls(release=release, files=in_order, files_id=_files_id(release, in_order))

    @property
    def shards(self) -> tuple[FileEntry, ...]:
        """The shards, in the order of the plan."""
        by_split: dict[str, list[FileEntry]] = {split.name: [] for split in self.release.splits}
        for entry in self.files:
            if entry.rows is not None:
                by_split.setdefault(entry.split, []).append(entry)
        return tuple(entry for entries in by_split.values() for entry in entries)

    def text(self) -> str:
        """The content of ``manifest.json``: one spelling per manifest."""
        content = self.model_dump(exclude_none=True)
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def release_of(
    folder: Path, *, name: str, version: str, plan_id: str, shards: Sequence[ShardRecord]
) -> Release:
    """Name what a build has made, from the sample digests in its shards.

    Args:
        folder: The dataset's folder.
        name: Of the dataset.
        version: Of the data.
        plan_id: Hash of the plan.
        shards: All of them, in the order of the plan.

    Raises:
        VerifyError: If a shard is damaged, or holds another number of rows than recorded.
    """
    digests = RowDigests([], None)
    sizes: dict[str, tuple[int, int]] = {}
    for shard in shards:
        found = row_digests(folder / shard.path)
        if len(found.samples) != shard.rows:
            raise VerifyError(
                f"{shard.path} holds {len(found.samples)} rows, not {shard.rows}; "
                "delete it and build again"
            )
        digests = digests.joined(found)
        rows, files = sizes.get(shard.split, (0, 0))
        sizes[shard.split] = (rows + shard.rows, files + 1)
    return Release(
        name=name,
        version=version,
        content_id=merkle_root(digests.samples),
        patch_id=None if digests.patches is None else merkle_root(digests.patches),
        plan_id=plan_id,
        splits=tuple(SplitSize(name=s, rows=r, shards=n) for s, (r, n) in sizes.items()),
        rejected=dict(Counter(one.reason for shard in shards for one in shard.rejected)),
    )


def write_manifest(folder: Path, release: Release, shards: Sequence[ShardRecord]) -> Manifest:
    """List and hash every file of ``folder``, and write ``manifest.json``: the last file.

    Args:
        folder: The dataset's folder, complete but for the manifest.
        release: What the version is.
        shards: All of them; their hashes are taken as they are, since they were just computed.

    Raises:
        VerifyError: If a shard is missing, or something in the folder is no plain file.
        ResourceError: If a file cannot be read or the manifest not be written.
    """
    remove_leftovers(folder)
    paths = _files_of(folder)
    if missing := {shard.path for shard in shards} - paths.keys():
        raise VerifyError(f"{folder}: {min(missing)} is missing; build again")
    known = {shard.path: _shard_entry(folder, shard) for shard in shards}
    entries = [known.get(path) or _entry(path, file) for path, file in paths.items()]
    manifest = Manifest.of(release, entries)
    atomic_write(folder / MANIFEST, manifest.text().encode())
    return manifest


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None if there is none, so the folder is not a finished dataset.

    Raises:
        VerifyError: If it is damaged, or written by a newer synthct than this.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as err:
        raise VerifyError(f"{path} is damaged ({err}); take the dataset from its source") from err
    except OSError as err:
        raise resource_error(path, err) from err
    try:
        content = json.loads(text)
        _check_format(path, content)
        if isinstance(content, dict) and _format_of(content) == FIRST_FORMAT:
            return _first_manifest(content)
        manifest = Manifest.model_validate(content)
        if manifest.files_id != _files_id(manifest.release, manifest.files):
            raise ValueError("its files_id is not that of its content")
        if manifest.text() != text:
            raise ValueError("it is not spelt as synthct spells it")
        return manifest
    except (ValidationError, ValueError, RecursionError) as err:
        raise VerifyError(f"{path} is damaged ({err}); take the dataset from its source") from err


def require_manifest(folder: Path) -> Manifest:
    """The manifest of a finished dataset.

    Raises:
        ResourceError: If there is no such folder.
        VerifyError: If it is no finished dataset, or its manifest is damaged.
    """
    require_folder(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise VerifyError(
            f"{folder} is no finished dataset (it has no {MANIFEST}); {dataset_near(folder)}"
        )
    return manifest


def require_todays_recipe(folder: Path) -> None:
    """See that the recipe of a finished dataset has the keys of today's.

    Raises:
        RecipeError: If not.
        ResourceError, VerifyError: As ``require_manifest``.
    """
    if require_manifest(folder).release.format_version == FIRST_FORMAT:
        raise RecipeError(
            f"{folder} is of format {FIRST_FORMAT}, whose recipe this synthct does not read, and "
            "this needs it; build the dataset anew"
        )


def require_folder(folder: Path) -> None:
    """See that what is given as a dataset is a folder.

    Raises:
        ResourceError: If it is not.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ResourceError(f"{folder} {what}; {dataset_near(folder)}")


def dataset_near(place: Path) -> str:
    """For a message: what to give instead of a path, such as a dataset below or around it."""
    found = [path for level in ("*", "*/*") for path in place.glob(f"{level}/{MANIFEST}")]
    around = [place.parent] if (place.parent / MANIFEST).is_file() else []
    if datasets := sorted(path.parent for path in found) or around:
        return f"give {datasets[-1]}"
    return "give the folder of a version: OUTPUT/name/1.0.0"


def _first_manifest(content: dict[str, Any]) -> Manifest:
    """A manifest of format 1.0.0, which does not state its ``files_id``."""
    if content.keys() != {"release", "files"}:
        raise ValueError("it has more than format 1.0.0 knows")
    files = [FileEntry.model_validate(entry) for entry in content["files"]]
    return Manifest.of(Release.model_validate(content["release"]), files)


def _format_of(content: object) -> str | None:
    release = content.get("release") if isinstance(content, dict) else None
    stated = release.get("format_version") if isinstance(release, dict) else None
    return stated if isinstance(stated, str) else None


def _check_format(path: Path, content: Any) -> None:
    stated = _format_of(content)
    if stated is None or not re.fullmatch(r"\d+\.\d+\.\d+", stated):
        return  # damaged, which the model says
    if numbers(stated) > numbers(FORMAT_VERSION):
        raise VerifyError(
            f"{path} has format {stated}, this synthct reads up to {FORMAT_VERSION}; install "
            f"synthct {content['release'].get('package_version')} or newer, which wrote it"
        )


def _files_of(folder: Path) -> dict[str, Path]:
    files = {}
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise VerifyError(f"{path} is no plain file; a dataset holds nothing else")
        if path.is_file() and path != folder / MANIFEST:
            files[path.relative_to(folder).as_posix()] = path
    return files


def _files_id(release: Release, files: Sequence[FileEntry]) -> str:
    content = {
        "release": release.model_dump(exclude_none=True),
        "files": [entry.model_dump(exclude_none=True) for entry in files],
    }
    return hashlib.sha256(b"synthct/files/v1\0" + canonical_json(content).encode()).hexdigest()


def _shard_entry(folder: Path, shard: ShardRecord) -> FileEntry:
    """The entry of a shard, whose bytes were just hashed."""
    return FileEntry(
        path=shard.path,
        bytes=shard.bytes,
        sha256=shard.sha256,
        rows=shard.rows,
        root=merkle_root(row_digests(folder / shard.path).own),
    )


def _entry(path: str, file: Path) -> FileEntry:
    return FileEntry(path=path, bytes=file.stat().st_size, sha256=sha256_of(file))
