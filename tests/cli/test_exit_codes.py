"""Whatever goes wrong, a command ends with the code that says what kind of thing it was.

The codes are those of ``synthct.errors``. No traceback, unless ``--debug`` asks for one.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny_recipe import write_data, write_recipe
from typer.testing import CliRunner

from synthct import errors
from synthct.cli import app
from synthct.cli.common import reporting
from synthct.errors import SynthCTError

ERRORS = {
    errors.RecipeError: 2,
    errors.SourceError: 3,
    errors.MaskError: 3,
    errors.CheckpointError: 4,
    errors.ResourceError: 5,
    errors.ConflictError: 6,
    errors.HubError: 7,
    errors.VerifyError: 8,
    errors.PolicyError: 9,
    errors.QuarantineError: 10,
}

#: What no user may ever see as a traceback, and what it ends with.
FROM_BELOW = {
    OSError(errno.ENOSPC, "No space left on device", "/data/x"): 5,
    OSError(errno.EMFILE, "Too many open files"): 5,
    PermissionError(errno.EACCES, "Permission denied", "/data/x"): 5,
    MemoryError("cannot allocate 4 GB"): 5,
    type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"): 5,
    KeyboardInterrupt(): 130,
}

#: Commands that need no file to be there.
USAGE = [
    ["nonsense"], ["build"], ["check"], ["train"], ["build", "x.yaml", "--nonsense"],
    ["build", "x.yaml", "--limit", "0"], ["build", "x.yaml", "--limit", "many"],
    ["build", "x.yaml", "--workers", "-1"], ["phantom"], ["phantom", "--output", "p", "--patients",
    "0"], ["phantom", "--output", "p", "--layout", "mri"],
]  # fmt: skip


def ended(error: BaseException, *, debug: bool = False) -> Any:
    """What a command that meets ``error`` ends with."""
    command = typer.Typer()

    @command.command()
    def run() -> None:
        with reporting(debug):
            raise error

    return CliRunner().invoke(command, [])


def test_every_error_has_its_code() -> None:
    kinds = set(SynthCTError.__subclasses__())
    assert kinds == set(ERRORS)
    assert {kind: kind.exit_code for kind in kinds} == ERRORS


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_is_one_block_and_its_code(kind: type[SynthCTError]) -> None:
    result = ended(kind("case 17: it is broken; mend it"))
    assert result.exit_code == ERRORS[kind]
    assert result.stderr == f"{kind.__name__}: case 17: it is broken; mend it\n"
    assert not result.stdout
    assert isinstance(ended(kind("x"), debug=True).exception, kind)


@pytest.mark.parametrize("error", FROM_BELOW, ids=lambda error: type(error).__name__)
def test_what_comes_from_below_has_a_code_too(error: BaseException) -> None:
    result = ended(error)
    assert result.exit_code == FROM_BELOW[error]
    assert "Traceback" not in result.output
    assert len(result.stderr.splitlines()) == 1
    if isinstance(error, OSError):
        assert result.stderr.startswith("ResourceError: ")
        assert str(error.strerror) in result.stderr


def test_a_bug_of_ours_keeps_its_traceback() -> None:
    result = ended(KeyError("ours"))
    assert result.exit_code == 1
    assert isinstance(result.exception, KeyError)


def test_names_of_files_cannot_steer_a_terminal() -> None:
    said = ended(errors.SourceError("a\x1b[31m\x07\u202e.nii.gz: damaged\nsform\n[[1]]")).stderr
    assert said == "SourceError: a\\x1b[31m\\x07\\x202e.nii.gz: damaged\nsform\n[[1]]\n"


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_a_wrong_command_line_is_usage(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHCT_CACHE", str(tmp_path / "cache"))
    write_data(tmp_path / "data", ("case_00000",))
    return tmp_path


def no_root(folder: Path) -> None:
    (folder / "data/hosts").rename(folder / "elsewhere")


def file_as_root(folder: Path) -> None:
    no_root(folder)
    (folder / "data/hosts").write_text("x")


def empty_root(folder: Path) -> None:
    no_root(folder)
    (folder / "data/hosts").mkdir()


def damaged_scan(folder: Path) -> None:
    path = folder / "data/hosts/case_00000/imaging.nii.gz"
    path.write_bytes(path.read_bytes()[:-1])


def no_scan(folder: Path) -> None:
    (folder / "data/hosts/case_00000/imaging.nii.gz").unlink()


def cache_in_the_way(folder: Path) -> None:
    (folder / "cache").write_text("x")


def set_recipe(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        recipe = json.loads((folder / "x.yaml").read_text())
        (folder / "x.yaml").write_text(json.dumps({**recipe, **changes}))

    return spoil


WRONG: dict[str, tuple[Callable[[Path], object], int]] = {
    "recipe that is no YAML": (lambda folder: (folder / "x.yaml").write_text("a: ["), 2),
    "recipe of bytes": (lambda folder: (folder / "x.yaml").write_bytes(b"\xff\0"), 2),
    "recipe that is a folder": (
        lambda folder: (folder / "x.yaml").unlink() or (folder / "x.yaml").mkdir(), 2,
    ),
    "unknown key": (set_recipe(sed=1), 2),
    "label that nobody has": (
        set_recipe(masks=[{"name": "x", "kind": "box", "around": "lievr", "margin_mm": [1, 2]}]), 2,
    ),
    "null byte in a root": (
        set_recipe(sources={"hosts": {"layout": "kits23", "root": "a\0b"}},
                   masks=[{"name": "x", "kind": "blob", "radius_mm": [3, 4]}]), 3,
    ),
    "no folder": (no_root, 3),
    "file as a folder": (file_as_root, 3),
    "empty folder": (empty_root, 3),
    "damaged scan": (damaged_scan, 3),
    "no scan to paint into": (no_scan, 3),
    "no checkpoint": (set_recipe(inpaint={"checkpoint": "runs/none"}), 4),
    "unknown packaged checkpoint": (set_recipe(inpaint={"checkpoint": "package:none"}), 4),
    "cache in the way": (cache_in_the_way, 5),
    "looser licence": (set_recipe(licence="CC0-1.0"), 9),
}  # fmt: skip


@pytest.mark.parametrize("verb", ["check", "build"])
@pytest.mark.parametrize(("spoil", "code"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_ends_a_command_with_its_code(
    workplace: Path, tiny_checkpoint: Path, verb: str, spoil: Callable[[Path], object], code: int
) -> None:
    write_recipe(workplace / "x.yaml", workplace / "data", tiny_checkpoint)
    spoil(workplace)
    result = CliRunner().invoke(app, [verb, "x.yaml", *(["--no-sheet"] if verb == "check" else [])])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert "Error: " in result.stderr
    assert not list(workplace.glob("out/tiny/1.0.0*"))
