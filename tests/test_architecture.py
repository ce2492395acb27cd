"""The house rules: imports point downward, files stay small, the command line starts fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import rooms
from rooms import PACKAGE, imports

ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))

#: From the ground up. A room imports from lower rows only, and from itself.
LAYERS = (
    {"version", "errors", "seeds", "metrics"},
    {"storage", "volume", "licence", "processes"},
    {"sources", "masks", "models"},
    {"recipe", "dataset"},
    {"build", "training", "evaluate"},
    {"publish", "privacy", "torch"},
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


def test_imports_point_downward() -> None:
    faults = []
    for one in imports():
        room, other = room_of(one.file), one.module[0]
        if room in (other, "__init__"):  # __init__: public names, loaded when they are first used
            continue
        assert room in ROW, f"{room} has no row in LAYERS"
        if ROW[other] >= ROW[room] or other not in ONLY.get(room, ROW):
            faults.append(f"{one.file.relative_to(ROOT)}:{one.line}: imports {other}")
    assert faults == []


def test_no_rooms_import_each_other_and_the_house_stays_small() -> None:
    assert rooms.faults() == []


def test_the_structure_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert rooms.main() == 0
    printed = capsys.readouterr().out
    assert "floor 0" in printed
    assert "none runs back up" in printed


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"a/x.py": "import synthct.b.y", "b/y.py": "from synthct import a"}, "a -> b -> a"),
        (
            {"a/b/x.py": "import synthct.a.y", "a/y.py": "from synthct.a.b.x import f"},
            "b -> y -> b",
        ),
        ({f"m{n}.py": "" for n in range(25)}, "25 rooms"),
        ({f"m{n:02}.py": f"import synthct.m{n + 1:02}" for n in range(10)}, "10 floors"),
        ({"a/x.py": "from synthct.a import y", "a/y.py": "def f():\n import synthct.a.x"}, None),
    ],
)
def test_faults_of_a_structure_are_found(
    files: dict[str, str], fault: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(rooms, "PACKAGE", tmp_path)
    imports.cache_clear()
    found = rooms.faults()
    imports.cache_clear()
    assert (fault in found[0]) if fault else (found == [])


def test_every_row_is_a_room() -> None:
    assert rooms.arrows().keys() == ROW.keys()
    assert len(ROW) == sum(map(len, LAYERS))


def test_every_folder_of_code_is_a_package() -> None:
    for folder in rooms.folders():
        assert PACKAGE.joinpath(*folder, "__init__.py").is_file(), f"synthct/{'/'.join(folder)}"


def test_the_package_imports_only_its_version_at_once() -> None:
    body = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body
    modules = [node.module or "" for node in body if isinstance(node, ast.ImportFrom)]
    assert [name for name in modules if name.startswith("synthct")] == ["synthct.version"]


def test_files_can_be_read_in_one_sitting() -> None:
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in FILES}
    assert [path for path, count in lines.items() if count > 400] == []


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
