"""Every script in ``examples/`` runs from an empty folder, as a user would start it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))

#: What a script says in the end if it did what it is there for.
SAYS = {
    "add_mask_kind.py": "the same from its record: True",
    "own_scans.py": "kidney seam ratio",
    "read_monai.py": "step 0  loss",
    "read_torch.py": "(2, 1, 64, 64) labels [0, ",
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all scripts, so that the dataset two of them read is built once."""
    return tmp_path_factory.mktemp("workplace")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(path, marks=() if path.name == "add_mask_kind.py" else pytest.mark.long)
        for path in SCRIPTS
    ],
    ids=lambda path: path.name,
)
def test_example_runs(script: Path, workplace: Path) -> None:
    if script.name == "read_monai.py" and find_spec("monai") is None:
        pytest.skip("MONAI is not installed; it comes with the extra dev")
    cache = {"SYNTHCT_CACHE": str(workplace / "cache"), "HF_HOME": str(workplace / "huggingface")}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=workplace,
        env=os.environ | cache,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert SAYS[script.name] in done.stdout


def test_readme_of_the_examples_names_them_all() -> None:
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for path in (*SCRIPTS, *(ROOT / "examples").glob("*.yaml")):
        assert f"`{path.name}`" in text
