"""The program in odd surroundings: closed and full streams, hostile names, Python without docs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PYTHON = [sys.executable, "-m", "synthct"]


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A line of a shell in which "$@" is the program."""
    return subprocess.run(
        ["sh", "-c", line, "sh", *PYTHON], capture_output=True, text=True, cwd=cwd, timeout=120
    )


@pytest.mark.long
def test_commands_work_with_standard_error_closed(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/thesis.txt").touch()
    assert shell('"$@" phantom --output taken 2>&-', tmp_path).returncode == 6
    assert shell('"$@" schema 2>&-', tmp_path).returncode == 0


@pytest.mark.parametrize("words", ["build no.yaml", "check no.yaml", "train no.yaml"])
def test_errors_have_their_code_with_standard_error_closed(words: str, tmp_path: Path) -> None:
    assert shell(f'"$@" {words} 2>&-', tmp_path).returncode == 2


@pytest.mark.long
def test_commands_work_with_standard_output_closed(tmp_path: Path) -> None:
    done = shell('"$@" schema >&-', tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("words", ["--help", "--version", "schema", "build --help"])
def test_a_full_standard_output_is_told(words: str, tmp_path: Path) -> None:
    done = shell(f'"$@" {words} >/dev/full', tmp_path)
    assert done.returncode == 5
    assert done.stderr == "ResourceError: standard output: No space left on device\n"


@pytest.mark.long
def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    done = shell('"$@" schema | head -c 5', tmp_path)
    assert (done.stdout, done.stderr) == ('{\n  "', "")


def test_python_without_docstrings_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-OO", "-m", "synthct", "build", "recipe.yaml"],
        capture_output=True, text=True, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("RecipeError: python -OO")
    done = subprocess.run(
        [sys.executable, "-OO", "-c", "import synthct; synthct.build"],
        capture_output=True, text=True, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert "ImportError: python -OO" in done.stderr


@pytest.mark.parametrize(
    "words",
    [[b"phantom", b"--output", b"p\xff"], [b"build", b"\xff.yaml"], [b"verify", b"\xfe"]],
)
def test_names_that_are_no_utf8_are_told(words: list[bytes], tmp_path: Path) -> None:
    command = [os.fsencode(one) for one in PYTHON] + words
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 2, done.stderr
    assert b"the name is no UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_names_that_the_locale_cannot_spell_are_told(tmp_path: Path) -> None:
    (tmp_path / "\N{LATIN SMALL LETTER O WITH DIAERESIS}").mkdir()
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [*PYTHON, "verify", "\N{LATIN SMALL LETTER O WITH DIAERESIS}"],
        capture_output=True, text=True, cwd=tmp_path, timeout=120, env={**os.environ, **ascii_only},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "set PYTHONUTF8=1" in done.stderr


def test_the_log_cannot_steer_a_terminal(tmp_path: Path) -> None:
    code = (
        "import logging\nfrom synthct.cli.common import reporting\n"
        "with reporting():\n    logging.getLogger('synthct.x').info('case \\x1b[31m: \\u202e')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.stderr == "case \\x1b[31m: \\x202e\n"
