"""The files of a version to publish, and their comparison with a repository."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from synthct.errors import VerifyError
from synthct.storage.files import resource_error

Kind = Literal["dataset", "model"]

CARD = "README.md"

_LARGE, _LARGE_BYTES = (".parquet", ".safetensors"), 1 << 20


@dataclass(frozen=True)
class Item:
    """A file to publish.

    Attributes:
        path: Its name in the repository, with forward slashes.
        source: Its local path, or its content.
        size: In bytes.
        sha256: Hash of its bytes in hex.
    """

    path: str
    source: Path | bytes
    size: int
    sha256: str

    @classmethod
    def of(cls, path: str, source: Path | bytes) -> Item:
        """A file with its present size and hash.

        Raises:
            ResourceError: If it cannot be read.
        """
        data = source if isinstance(source, bytes) else _read(source)
        return cls(path, source, len(data), hashlib.sha256(data).hexdigest())

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            ResourceError: If it cannot be read.
            VerifyError: If it has changed.
        """
        data = self.source if isinstance(self.source, bytes) else _read(self.source)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise VerifyError(f"{self.path} changed while it was published; check it and retry")
        return data

    @property
    def is_large(self) -> bool:
        """Whether it is stored as a large file (LFS), which is uploaded before the commit."""
        return self.path.endswith(_LARGE) or self.size > _LARGE_BYTES

    @cached_property
    def git_oid(self) -> str:
        """SHA-1 of its git blob, by which the Hub lists small files."""
        data = self.read()
        head = b"blob %d\0" % len(data)
        return hashlib.sha1(head + data, usedforsecurity=False).hexdigest()


class Stored(NamedTuple):
    """A file as the Hub lists it.

    Attributes:
        size: In bytes.
        git_oid: SHA-1 of its git blob; of a large file, of its pointer.
        sha256: Hash of a large file's bytes; None for small files.
    """

    size: int
    git_oid: str
    sha256: str | None

    def is_same(self, item: Item) -> bool:
        """Whether it has the size and the hash of a local file."""
        if self.size != item.size:
            return False
        return item.git_oid == self.git_oid if self.sha256 is None else item.sha256 == self.sha256


Tree = Mapping[str, Stored]


@dataclass(frozen=True)
class Bundle:
    """The checked files of a dataset's version or a checkpoint.

    Attributes:
        kind: Type of repository on the Hub.
        name: Name of the dataset or checkpoint.
        version: Name of the tag; None for a checkpoint without one.
        content_id: Hash of the content, which does not depend on the files.
        licence: SPDX id.
        items: All of its files, large ones first.
        gated: Why readers should have to agree to terms first; None if they need not.
    """

    kind: Kind
    name: str
    version: str | None
    content_id: str
    licence: str
    items: tuple[Item, ...]
    gated: str | None

    @property
    def label(self) -> str:
        """Name and version with content id: ``tiny 1.4.0+c3f9a1b2c4d5``."""
        return f"{self.name} {self.version or ''}+{self.content_id[:12]}"

    @property
    def title(self) -> str:
        """The title of the commit that publishes it."""
        return f"Publish {self.name} {self.version or self.content_id[:12]}"

    @property
    def page(self) -> str:
        """Its card."""
        return next(item for item in self.items if item.path == CARD).read().decode()

    @property
    def paths(self) -> frozenset[str]:
        """The names of its files in a repository."""
        return frozenset(item.path for item in self.items)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(item.size for item in self.items)

    def missing(self, tree: Tree) -> list[Item]:
        """The files that are missing in a repository, or differ there."""
        return [i for i in self.items if (s := tree.get(i.path)) is None or not s.is_same(i)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise resource_error(path, err) from err
