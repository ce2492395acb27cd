"""What a Hub keeps: repositories with branches, tags and commits that never change."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

#: Files that the Hub keeps outside of git, by the ``.gitattributes`` of a new repository.
_LARGE = (".parquet", ".safetensors", ".png", ".bin")
_ATTRIBUTES = "".join(f"*{end} filter=lfs diff=lfs merge=lfs -text\n" for end in _LARGE).encode()


class RefusedError(Exception):
    """An answer that is not the one asked for.

    Args:
        status: HTTP status.
        message: For people.
        code: For ``X-Error-Code``.
    """

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class Entry:
    """A file in a commit; a large one is a pointer to a blob of that SHA-256."""

    data: bytes = field(repr=False)
    sha256: str | None = None

    @property
    def oid(self) -> str:
        """The hash by which git knows it."""
        text = self.data
        if self.sha256 is not None:
            text = (
                "version https://git-lfs.github.com/spec/v1\n"
                f"oid sha256:{self.sha256}\nsize {len(self.data)}\n"
            ).encode()
        return hashlib.sha1(b"blob %d\0" % len(text) + text, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Commit:
    """A commit: the whole tree, its parent and what was said of it."""

    oid: str
    tree: Mapping[str, Entry]
    parent: str | None
    title: str
    number: int

    @property
    def date(self) -> str:
        """When it was made; every second one."""
        return f"2026-01-01T00:{self.number // 60 % 60:02}:{self.number % 60:02}.000Z"


@dataclass
class Repo:
    """A repository."""

    kind: str
    name: str
    private: bool
    gated: str | bool = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    def at(self, revision: str) -> Commit:
        """The commit of a branch, a tag or a hash."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def history(self, revision: str) -> list[Commit]:
        """A commit and those before it, newest first."""
        commits = [self.at(revision)]
        while (parent := commits[-1].parent) is not None:
            commits.append(self.commits[parent])
        return commits

    def add(self, branch: str, tree: Mapping[str, Entry], title: str) -> Commit:
        """Commit a tree to a branch."""
        parent, number = self.branches.get(branch), len(self.commits)
        listing = {path: entry.oid for path, entry in sorted(tree.items())}
        text = json.dumps([self.kind, self.name, parent, title, number, listing])
        oid = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.commits[oid] = commit = Commit(oid, dict(tree), parent, title, number)
        self.branches[branch] = oid
        return commit


@dataclass
class Store:
    """All repositories, blobs and tokens of a Hub.

    Attributes:
        users: Name and role (``write`` or ``read``) by token.
        blobs: Large files by SHA-256.
        received: SHA-256 of each large file, as often as it was sent whole.
    """

    users: dict[str, tuple[str, str]] = field(default_factory=dict)
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    received: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def user(self, token: str | None) -> tuple[str, str]:
        """Who asks."""
        if token not in self.users:
            raise RefusedError(401, f"Invalid credentials in Authorization header: {token}")
        return self.users[token]

    def readable(self, kind: str, name: str, token: str | None) -> Repo:
        """A repository, for whoever may read it."""
        repo = self.repos.get((kind, name))
        owner = name.partition("/")[0]
        if repo is None or (repo.private and (token is None or self.user(token)[0] != owner)):
            raise RefusedError(404, "Repository not found", "RepoNotFound")
        if repo.gated and (token is None or self.user(token)[0] != owner):
            raise RefusedError(403, "Access to this repository is restricted", "GatedRepo")
        return repo

    def writable(self, kind: str, name: str, token: str | None) -> Repo:
        """A repository, for whoever may write to it."""
        self.may_write(name.partition("/")[0], token)
        return self.readable(kind, name, token)

    def may_write(self, owner: str, token: str | None) -> None:
        """Refuse whoever may not write to what is the owner's."""
        if self.user(token) != (owner, "write"):
            raise RefusedError(403, f"You don't have the rights to write to {owner}")

    def create(self, kind: str, name: str, *, private: bool = False) -> Repo:
        """A new repository, with the file that the Hub puts into it."""
        if (kind, name) in self.repos:
            raise RefusedError(409, "You already created this repo")
        repo = self.repos[kind, name] = Repo(kind, name, private)
        repo.add("main", {".gitattributes": Entry(_ATTRIBUTES)}, "initial commit")
        return repo

    def commit(self, repo: Repo, branch: str, lines: list[dict[str, Any]]) -> Commit:
        """Do what the lines of a commit say: all of it, or nothing."""
        head = repo.branches.get(branch)
        if head is None:
            raise RefusedError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, head):
            raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(repo.commits[head].tree)
        for line in lines[1:]:
            value = line["value"]
            path = value["path"]
            if line["key"] == "file":
                tree[path] = Entry(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.blobs:
                    raise RefusedError(
                        400, f"LFS pointer pointed to a file that does not exist: {path}"
                    )
                tree[path] = Entry(self.blobs[value["oid"]], value["oid"])
            elif line["key"] == "deletedFile":
                if path not in tree:
                    raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
                del tree[path]
            else:
                raise RefusedError(400, f"unknown operation {line['key']}")
        return repo.add(branch, tree, header["summary"])

    def receive(self, sha256: str, data: bytes) -> None:
        """Keep a large file, if it is what it is said to be."""
        if hashlib.sha256(data).hexdigest() != sha256:
            raise RefusedError(400, "the content is not that of its SHA-256")
        self.blobs[sha256] = data
        self.received.append(sha256)


def is_large(path: str, size: int) -> bool:
    """Whether the Hub keeps a file outside of git."""
    return size > 10_000_000 or PurePosixPath(path).suffix in _LARGE
