"""A build or a composition killed at one of its last renames comes to the same bytes."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_recipe import SECTIONS, tiny_recipe, write_data

from synthct.build.compose import compose
from synthct.build.run import build
from synthct.build.verify.run import verify
from synthct.recipe.recipe import Recipe

Make = Callable[[Path], Path]

#: Documents, manifest, the version itself, and something before.
LAST = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("renames")
    write_data(folder / "data")
    return folder


def recipe(folder: Path, **changes: Any) -> Recipe:
    given = {
        "masks": [{"name": "organ", **SECTIONS["organ"]}],
        "masks_per_case": 1,
        "inpaint": {"method": "noise_fill"},
        "variants": 1,
        "keep_original": False,
        **changes,
    }
    return Recipe.model_validate(tiny_recipe(folder / "data", folder, **given))


@pytest.fixture(scope="module")
def patches(folder: Path, tiny_checkpoint: Path) -> Path:
    inpaint = {"checkpoint": str(tiny_checkpoint), "num_inference_steps": 1}
    given = recipe(folder, release="patch", inpaint=inpaint)
    return build(given, folder / "patch", cache_dir=folder / "cache", workers=0)


@pytest.fixture(params=["build", "compose"])
def make(request: pytest.FixtureRequest, folder: Path) -> Make:
    if request.param == "build":
        full = recipe(folder)
        return lambda output: build(full, output, cache_dir=folder / "cache", workers=0)
    source, hosts = request.getfixturevalue("patches"), {"hosts": folder / "data/hosts"}
    return lambda output: compose(source, output, sources=hosts, cache_dir=folder / "cache")


def files_of(version: Path) -> dict[str, str]:
    return {
        path.relative_to(version).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(version.rglob("*"))
        if path.is_file()
    }


def renames(make: Make, output: Path, *, last: int | None = None, after: bool = False) -> int:
    """Make a version in a process of its own that is killed at a rename; how many it had done.

    Args:
        make: Makes it.
        output: Where.
        last: The rename at which the process dies; None for none.
        after: Die after that rename, not before it.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        done = 0

        def counting(real: Callable[..., None]) -> Callable[..., None]:
            def rename(*args: Any, **kwargs: Any) -> None:
                nonlocal done
                done += 1
                if done == last and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                real(*args, **kwargs)
                if done == last:
                    os.kill(os.getpid(), signal.SIGKILL)

            return rename

        os.rename, os.replace = counting(os.rename), counting(os.replace)
        try:
            make(output)
            os.write(writer, str(done).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    os.waitpid(pid, 0)
    return int(said or 0)


@pytest.mark.long
def test_killed_at_its_last_renames_it_comes_to_the_same_bytes(make: Make, tmp_path: Path) -> None:
    wanted = files_of(make(tmp_path / "undisturbed"))
    count = renames(make, tmp_path / "counted")
    assert count > LAST
    for number in range(count - LAST + 1, count + 1):
        for after in (False, True):
            output = tmp_path / f"{number}-{after}"
            assert renames(make, output, last=number, after=after) == 0
            version = make(output)
            assert files_of(version) == wanted, f"killed at rename {number} of {count}"
            assert not list(output.rglob(".*building*"))
    assert verify(version).findings == ()
