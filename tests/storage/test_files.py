"""Writing files whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from synthct.errors import ResourceError
from synthct.storage.files import (
    atomic_write,
    make_folder,
    remove_leftovers,
    require_space,
    sha256_of,
)


def test_write_replaces_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "a"
    atomic_write(path, b"one")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["write", "fsync", "open", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE])
def test_failing_disk_keeps_the_old_file_and_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    path = tmp_path / "a"
    atomic_write(path, b"old")

    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(ResourceError, match=os.strerror(code)) as caught:
            atomic_write(path, b"new" * 1000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert ("choose another folder" in str(caught.value)) is (code == errno.EROFS)
    full = code in (errno.ENOSPC, errno.EDQUOT)
    assert ("needs 3,000 bytes" in str(caught.value)) is full
    # A quota may be used up while the disk has room.
    assert ("are free" in str(caught.value)) is (code == errno.ENOSPC)


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:7])))
        atomic_write(tmp_path / "a", b"0123456789" * 5)
    assert (tmp_path / "a").read_bytes() == b"0123456789" * 5


def test_too_little_space_is_told_with_both_sizes(tmp_path: Path) -> None:
    require_space(tmp_path, 1000)
    with pytest.raises(
        ResourceError, match=r"needs about 1,000,000,000,000,000,000 bytes, [\d,]+ are free"
    ):
        require_space(tmp_path, 10**18)


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    make_folder(tmp_path / "x" / "y")
    make_folder(tmp_path / "x" / "y")
    (tmp_path / "x" / ".shard.0badc0de.part").write_bytes(b"half")
    (tmp_path / "x" / "shard").write_bytes(b"whole")
    assert remove_leftovers(tmp_path) == 1
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["shard"]


def test_folder_where_a_file_is_cannot_be_made(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"")
    with pytest.raises(ResourceError, match=r"a/b|/a"):
        make_folder(tmp_path / "a" / "b")


def test_hash_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No such file"):
        sha256_of(tmp_path / "a")


def test_longest_names_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    atomic_write(path, b"x")
    assert path.read_bytes() == b"x"
