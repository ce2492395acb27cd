"""Small versions of a dataset, and how tests publish them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub.loopback import TOKEN
from tiny_recipe import write_data, write_recipe

from synthct.build.run import build
from synthct.dataset.manifest import MANIFEST, FileEntry, Manifest, read_manifest
from synthct.publish.hub.bundle import Bundle
from synthct.publish.hub.connection import RetryPolicy
from synthct.publish.hub.deliver import UploadResult, deliver
from synthct.publish.hub.repo import HubRepo
from synthct.recipe.recipe import load_recipe

REPO = "jane/tiny"

#: So that a test does not wait: a hung request is left soon, and given up soon.
IMPATIENT = RetryPolicy(silence_s=0.5, first_s=0.01, longest_s=0.02, give_up_s=0.05)

#: As a user's is, but for the waiting: what happens once passes.
QUICK = RetryPolicy(silence_s=2.0, first_s=0.01, longest_s=0.05, give_up_s=10.0)


def build_versions(folder: Path, checkpoint: Path) -> dict[str, Path]:
    """Versions of a dataset, from phantoms, by what they are called here.

    ``1.0.0`` has two shards of 4 samples, ``1.1.0`` three others; ``other`` calls itself 1.0.0 too,
    and ``next`` is another 1.1.0.
    """
    data = write_data(folder / "data", hosts=("case_00000",))

    def made(called: str, **changes: Any) -> Path:
        recipe = write_recipe(folder / f"{called}.yaml", data, checkpoint, **changes)
        return build(load_recipe(recipe), folder / called, cache_dir=folder / "cache", workers=0)

    return {
        "1.0.0": made("1.0.0"),
        "1.1.0": made("1.1.0", version="1.1.0", variants=3),
        "other": made("other", seed=6),
        "next": made("next", version="1.1.0", seed=6),
    }


def rewritten(folder: Path, copy: Path, name: str, more: bytes) -> Path:
    """A copy of a dataset with more in one of its texts, and a manifest that says so."""

    shutil.copytree(folder, copy)
    path = copy / name
    path.write_bytes(path.read_bytes() + more)
    old = read_manifest(copy)
    assert old is not None
    entries = [
        entry
        if entry.path != name
        else FileEntry(
            path=name,
            bytes=path.stat().st_size,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for entry in old.files
    ]
    (copy / MANIFEST).write_text(Manifest.of(old.release, entries).text())
    return copy


def send(
    bundle: Bundle, retry_policy: RetryPolicy = QUICK, *, private: bool = False
) -> UploadResult:
    """Publish what has been checked already."""
    repo = HubRepo(bundle.kind, REPO, TOKEN, "synthct publish ...", retry_policy)
    return deliver(bundle, repo, private=private)


def python(script: str, home: Path, *words: str) -> str:
    """What a script prints, in a process of its own whose Hub client has kept nothing yet."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HOME": str(home), "HF_TOKEN": TOKEN},
        timeout=120,
    )
    if done.returncode:
        pytest.fail(done.stderr)
    return done.stdout
