"""The version that a commit of a repository holds."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import ValidationError

from synthct.dataset.manifest import MANIFEST, Manifest
from synthct.errors import ConflictError
from synthct.models.folder import BESIDE, SUMS
from synthct.models.network import checkpoint_id
from synthct.publish.hub.bundle import Tree
from synthct.publish.hub.repo import HubRepo

_TITLE = re.compile(r"Publish (?P<name>.+) (?P<version>\S+)")
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:-([\w.-]+))?")


@dataclass(frozen=True)
class PublishedVersion:
    """The version that a commit holds; fields are None if unknown.

    Attributes:
        name: Name of the dataset or checkpoint.
        version: Its version.
        content_id: Its content id.
        paths: Its files.
    """

    name: str | None = None
    version: str | None = None
    content_id: str | None = None
    paths: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.name or 'no published version'} {self.version or ''}".strip()


def published_at(repo: HubRepo, commit: str, tree: Tree) -> PublishedVersion:
    """The version that a commit of a repository with the files ``tree`` holds.

    Raises:
        ConflictError: If it has a manifest of another kind.
        HubError: If a file cannot be read.
    """
    if repo.kind == "dataset":
        if MANIFEST not in tree:
            return PublishedVersion()
        return _dataset(repo.name, repo.read(commit, MANIFEST, tree[MANIFEST]))
    if SUMS not in tree:
        return PublishedVersion()
    return _checkpoint(repo.read(commit, SUMS, tree[SUMS]), repo.title(commit))


def is_later(version: str, than: str) -> bool:
    """Whether a version is later than another; False if one is not a semantic version."""
    first, second = _order(version), _order(than)
    return first is not None and second is not None and first > second


def _dataset(repo: str, data: bytes) -> PublishedVersion:
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as err:
        raise ConflictError(
            f"{repo} has a {MANIFEST} that this synthct does not understand "
            f"({err.errors(include_url=False)[0]['msg']}); publish to another repository, or with "
            "a newer synthct"
        ) from err
    release = manifest.release
    paths = {entry.path for entry in manifest.files}
    return PublishedVersion(
        release.name, release.version, release.content_id, frozenset({*paths, MANIFEST})
    )


def _checkpoint(sums: bytes, title: str) -> PublishedVersion:
    lines = (line.split() for line in sums.decode("utf-8", "replace").splitlines())
    hashes = {parts[1]: parts[0] for parts in lines if len(parts) == 2}
    match = _TITLE.fullmatch(title)
    return PublishedVersion(
        name=match["name"] if match else None,
        version=match["version"] if match else None,
        content_id=checkpoint_id({n: sha256 for n, sha256 in hashes.items() if n not in BESIDE}),
        paths=frozenset({*hashes, SUMS}),
    )


def _order(version: str) -> tuple[int, int, int, bool, str] | None:
    match = _VERSION.fullmatch(version)
    if match is None:
        return None
    major, minor, patch, before = match.groups()
    return int(major), int(minor), int(patch), before is None, before or ""
