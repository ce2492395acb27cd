"""The house rules: imports point downward, files stay small, the command line starts fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "synthct"
FILES = sorted(PACKAGE.rglob("*.py"))

#: From the ground up. A room imports from lower rows only, and from itself.
LAYERS = (
    {"version", "errors", "seeds", "metrics"},
    {"storage", "volume", "licence", "processes"},
    {"sources", "masks", "models"},
    {"recipe", "dataset"},
    {"build", "training", "evaluate"},
    {"publish"},
    {"studies", "api"},
    {"cli"},
    {"__main__"},
)
ROW = {name: row for row, names in enumerate(LAYERS) for name in names}

#: Rooms that know less than their row would allow: what a dataset is on disk has nothing to do
#: with how it came about, and the measures take plain arrays.
ONLY = {
    "dataset": {"version", "errors", "licence", "metrics", "storage", "volume"},
    "metrics": set(),
    "sources": {"errors", "seeds", "storage", "volume"},
    "masks": {"errors", "volume"},
}

HEAVY = {
    "accelerate", "datasets", "diffusers", "huggingface_hub", "nibabel", "numpy", "pandas", "PIL",
    "pyarrow", "pydantic", "scipy", "skimage", "torch", "tqdm", "transformers",
}  # fmt: skip


def room_of(path: Path) -> str:
    """The module or subpackage directly below ``synthct`` that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and room of everything of ours that a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            if node.module == "synthct":
                names = [f"synthct.{alias.name}" for alias in node.names]
            else:
                names = [node.module or ""]
        else:
            continue
        yield from ((node.lineno, n.split(".")[1]) for n in names if n.startswith("synthct."))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_downward(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":  # the public names, loaded when they are first used
        return
    assert room in ROW, f"{room} has no row in LAYERS"
    for line, other in imported(path):
        if other == room:
            continue
        assert other in ROW, f"{path}:{line}: there is no synthct.{other}"
        assert ROW[other] < ROW[room], f"{path}:{line}: {room} may not import {other}"
        allowed = ONLY.get(room)
        assert allowed is None or other in allowed, f"{path}:{line}: {room} imports {other}"


def test_every_row_is_a_room() -> None:
    rooms = {room_of(path) for path in FILES} - {"__init__"}
    assert rooms == set(ROW)


def test_the_package_imports_only_its_version_at_once() -> None:
    body = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body
    modules = [node.module or "" for node in body if isinstance(node, ast.ImportFrom)]
    assert [name for name in modules if name.startswith("synthct")] == ["synthct.version"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_files_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_only_the_command_line_prints() -> None:
    for path in FILES:
        if room_of(path) == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path}:{node.lineno} prints"


def test_nothing_that_runs_code_from_data_is_used() -> None:
    refused = {"pickle", "dill", "marshal", "shelve", "eval", "exec"}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: set[str | None] = set()
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {node.module}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = {node.func.id}
            assert not names & refused, f"{path}: {names & refused}"


def modules_after(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after running ``code``."""
    script = f"{code}\nimport sys\nprint('LOADED', *sorted(n.split('.')[0] for n in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_help_loads_nothing_heavy() -> None:
    run = "from synthct.cli import app\ntry: app(['--help'])\nexcept SystemExit: pass"
    assert not modules_after(run) & HEAVY


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not modules_after("import synthct") & HEAVY


def test_recipes_are_read_without_models_and_file_formats() -> None:
    slow = {"torch", "diffusers", "datasets", "pyarrow", "nibabel", "scipy", "huggingface_hub"}
    assert not modules_after("import synthct.recipe.recipe") & slow
    assert not modules_after("import synthct.training.recipe") & slow
