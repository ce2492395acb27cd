"""Kept files: what is written is read, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synthct.errors import ResourceError
from synthct.storage.cache import (
    DamageError,
    check_files,
    load_arrays,
    read_kept,
    save_arrays,
    write_digests,
    write_kept,
)


def test_content_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for content in (b"", b"\n", b"one\ntwo", bytes(range(256))):
        write_kept(tmp_path / "new" / "file", content)
        assert read_kept(tmp_path / "new" / "file") == content
    assert read_kept(tmp_path / "another") is None
    assert not caplog.messages


def test_every_flip_and_every_cut_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "file"
    write_kept(path, b"some content\n")
    good = path.read_bytes()
    flips = [(at, bit) for at in range(len(good)) for bit in range(8)]
    damaged = [good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :] for at, bit in flips]
    damaged += [good[:at] for at in range(len(good))]
    for content in damaged:
        path.write_bytes(content)
        caplog.clear()
        assert read_kept(path) is None
        (message,) = caplog.messages
        assert message.startswith(f"{path} is damaged and made anew (")


def test_a_file_under_the_name_of_another_is_damaged(tmp_path: Path) -> None:
    write_kept(tmp_path / "one", b"1")
    (tmp_path / "one").rename(tmp_path / "two")
    assert read_kept(tmp_path / "two") is None
    assert read_kept(tmp_path / "two", name="one") == b"1"


def test_a_folder_in_place_of_a_file_is_damage(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    assert read_kept(tmp_path / "file") is None


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(["x", "yz"])}
    save_arrays(tmp_path / "arrays.npz", arrays)
    loaded = load_arrays(tmp_path / "arrays.npz")
    assert loaded is not None
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        assert np.array_equal(loaded[name], array)


def test_arrays_that_cannot_be_kept_cost_time_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    save_arrays(tmp_path / "file" / "arrays.npz", {"a": np.zeros(1)})
    assert "computed again next time" in caplog.text
    with pytest.raises(ResourceError):
        write_kept(tmp_path / "file" / "arrays.npz", b"")


@pytest.mark.parametrize("victim", ["one", "two", "digests"])
def test_plain_files_are_checked_by_their_digests(tmp_path: Path, victim: str) -> None:
    draft, folder = tmp_path / "draft", tmp_path / "folder"
    draft.mkdir()
    for name in ("one", "two"):
        (draft / name).write_text(name)
    write_digests(draft, ("one", "two"), name="folder")
    draft.rename(folder)
    check_files(folder)
    (folder / victim).write_bytes((folder / victim).read_bytes()[:-1])
    with pytest.raises(DamageError, match=f"^{victim}: "):
        check_files(folder)
    (folder / victim).unlink()
    with pytest.raises(DamageError, match=f"^{victim}: "):
        check_files(folder)
