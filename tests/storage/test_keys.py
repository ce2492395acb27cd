"""Cache keys: of which values, and of which code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from synthct.storage import keys
from synthct.storage.keys import PACKAGE, cache_key, code_sha256, source_files


@dataclass(frozen=True)
class Pair:
    one: int
    two: Any


class Model(BaseModel):
    one: int
    two: tuple[str, ...] = ()


DIFFERENT: list[Any] = [
    None, True, 1, 1.5, "1", [], [1], [[1]], {}, {"a": 1}, {"b": 1}, {"a": 1, "b": 2},
    {"b": 2, "a": 1}, {("a", "b"): 1}, frozenset({1}), Pair(1, None), Pair(1, "x"),
    Model(one=1), Model(one=1, two=("x",)), np.zeros(2), np.zeros(2, np.float32),
    np.zeros((1, 2)), np.ones(2),
]  # fmt: skip


def test_each_value_has_a_key_of_its_own() -> None:
    made = [cache_key(value=value) for value in DIFFERENT]
    assert len(set(made)) == len(made)
    assert made == [cache_key(value=value) for value in DIFFERENT]
    assert cache_key(value=1) != cache_key(other=1)


def test_equal_values_have_equal_keys() -> None:
    assert cache_key(value=(1, 2)) == cache_key(value=[1, 2])
    assert cache_key(value={3, 1, 2}) == cache_key(value={2, 3, 1})
    assert cache_key(value=np.int64(1)) == cache_key(value=1)
    turned = np.asfortranarray(np.arange(6).reshape(2, 3))
    assert cache_key(value=turned) == cache_key(value=np.arange(6).reshape(2, 3))


@pytest.mark.parametrize("value", [Path("/data"), object(), b"bytes", {"nested": [Path("x")]}])
def test_a_place_or_a_thing_without_a_fixed_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a cache key cannot hold"):
        cache_key(value=value)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of our own kind: ``made`` imports ``low`` late, and one name of ``room``."""
    root = tmp_path / "ours"
    files = {
        "__init__.py": "",
        "made.py": "import numpy\nfrom ours.room import used as u\ndef f():\n    import ours.low\n",
        "low.py": "from ours import made\n",
        "other.py": "import ours.made\n",
        "room/__init__.py": "from ours.room.a import used\nfrom ours.room.b import unused\n",
        "room/a.py": "used = 1\n",
        "room/b.py": "unused = 1\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(keys, "PACKAGE", root)
    yield root
    forget()


def forget() -> None:
    for function in (code_sha256, source_files, keys._imported_files, keys._tree):
        function.cache_clear()


def test_the_code_of_a_key_is_found_by_following_imports(package: Path) -> None:
    found = [path.relative_to(package).as_posix() for path in source_files("ours.made")]
    assert found == ["low.py", "made.py", "room/a.py"]


@pytest.mark.parametrize(
    ("name", "matters"),
    [("made.py", True), ("low.py", True), ("room/a.py", True),
     ("room/b.py", False), ("other.py", False)],
)  # fmt: skip
def test_only_code_that_is_imported_matters(package: Path, name: str, matters: bool) -> None:
    before = cache_key("ours.made", "numpy")
    with (package / name).open("a") as file:
        file.write("# another line\n")
    forget()
    assert (cache_key("ours.made", "numpy") != before) == matters


@pytest.mark.parametrize(
    ("module", "needs", "needs_not"),
    [
        ("sources.facts", "volume/nifti.py", "volume/anatomy.py"),
        ("sources.lesions", "volume/anatomy.py", "sources/kits.py"),
        ("sources.scanner", "sources/phantoms/organs.py", "sources/kits.py"),
        ("build.references", "metrics/adherence.py", "build/run.py"),
        ("training.cache", "volume/anatomy.py", "training/loop.py"),
        ("evaluate.collect", "evaluate/pictures.py", "evaluate/run.py"),
        ("studies.downstream.segmenter", "studies/downstream/network.py", "build/run.py"),
    ],
)
def test_keys_know_their_code(module: str, needs: str, needs_not: str) -> None:
    found = {path.relative_to(PACKAGE).as_posix() for path in source_files(f"synthct.{module}")}
    assert needs in found
    assert needs_not not in found
    assert (PACKAGE / needs_not).is_file()
