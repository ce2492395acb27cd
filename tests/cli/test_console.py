"""What all commands share: help, examples, ``--quiet``, ``--json``, shell completion."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_recipe import write_data, write_recipe
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner, Result

from synthct.cli import COMMANDS, app
from synthct.storage.cache import PARTS

Run = Callable[..., Result]
PACKAGE = Path(__file__).resolve().parents[2] / "synthct"


def commands() -> list[str]:
    """Every command, as words."""
    found = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        of_group = command.commands if isinstance(command, TyperGroup) else {"": None}
        found += [f"{name} {sub}".strip() for sub in of_group]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("console")
    write_data(folder / "data")
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHCT_CACHE", str(folder / "cache"))
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def recipe(folder: Path, tmp_path: Path, tiny_checkpoint: Path) -> Path:
    control = {"method": "noise_fill"}
    return write_recipe(tmp_path / "tiny.yaml", folder / "data", tiny_checkpoint, inpaint=control)


def the_object(result: Result, code: int = 0) -> dict[str, Any]:
    """The one JSON object on standard output."""
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("name", commands())
def test_every_command_explains_itself_by_h(run: Run, name: str) -> None:
    result = run(*name.split(), "-h")
    assert result.exit_code == 0
    assert f"Usage: synthct {name}" in result.stdout


EXAMPLES = [example for examples in COMMANDS.values() for example in examples]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_help_are_commands(run: Run, example: str) -> None:
    first, *words = shlex.split(example.partition(" > ")[0])
    get_command(app).commands[first].make_context(first, words)  # type: ignore[attr-defined]
    shown = " ".join(run(first, "-h").stdout.split())
    assert f"synthct {example}" in shown


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    def completed(words: str) -> str:
        environment = {
            "_SYNTHCT_COMPLETE": "complete_bash",
            "COMP_WORDS": f"synthct {words}",
            "COMP_CWORD": str(len(words.split())),
        }
        done = subprocess.run(
            [sys.executable, "-m", "synthct"], capture_output=True, text=True, timeout=60,
            env={**os.environ, **environment},
        )  # fmt: skip
        return done.stdout

    assert completed("ver").split() == ["verify"]
    assert "--num-processes" in completed("build --num").split()


def test_quiet_commands_say_only_what_they_wrote(run: Run, recipe: Path) -> None:
    result = run("check", recipe, "-q", "--no-sheet")
    assert (result.exit_code, result.output) == (0, "")
    result = run("build", recipe, "--limit", 2, "--workers", 0, "--quiet")
    assert (result.exit_code, result.output) == (0, "out/tiny/1.0.0-first2\n")
    result = run("verify", "out/tiny/1.0.0-first2", "-q")
    assert (result.exit_code, result.output) == (0, "")


def test_a_limit_counts_samples_and_says_so(run: Run, recipe: Path) -> None:
    said = run("build", recipe, "--limit", 6, "--dry-run").stdout
    assert said.startswith("tiny 1.0.0: 6 samples (limited to the first 6) in 2 files")


@pytest.mark.long
def test_json_is_one_object_on_standard_output(run: Run, recipe: Path, tmp_path: Path) -> None:
    checked = the_object(run("check", recipe, "--json"))
    assert (checked["samples"], checked["splits"], checked["files"]) == (16, {"train": 16}, 4)
    assert checked["sheet"] == "tiny-masks.png"
    assert checked["licence"] == "CC-BY-NC-SA-4.0"
    built = the_object(run("build", recipe, "--limit", 4, "--workers", 0, "--json"))
    assert (built["rows"], built["folder"]) == (4, "out/tiny/1.0.0-first4")
    assert re.fullmatch("[0-9a-f]{64}", built["content_id"])
    verified = the_object(run("verify", built["folder"], "--json"))
    assert (verified["ok"], verified["findings"], len(verified["checked"])) == (True, [], 2)
    more = the_object(run("build", recipe, "--limit", 6, "--workers", 0, "--json"))["folder"]
    changes = the_object(run("diff", built["folder"], more, "--json"))
    assert (len(changes["added"]), changes["gone"], changes["problem"]) == (2, [], None)
    results = the_object(run("evaluate", more, "--extractor", "radiomics", "--no-slices", "--json"))
    assert (results["rows"], results["arms"][0]["name"]) == (6, "painted")
    (tmp_path / built["folder"] / "README.md").write_text("x")
    verified = the_object(run("verify", built["folder"], "--json"), 8)
    assert (verified["ok"], verified["findings"][0]["path"]) == (False, "README.md")
    wrong = the_object(run("check", "nowhere.yaml", "--json"), 2)["error"]
    assert (wrong["kind"], wrong["exit_code"]) == ("RecipeError", 2)


def test_the_machine_is_described(run: Run) -> None:
    facts = the_object(run("env", "--json"))
    assert facts["devices"][0] == "cpu"
    assert {"torch", "datasets"} <= facts["packages"].keys()
    assert "pytest" not in facts["packages"]
    assert "torch " in run("env").stdout


def test_the_cache_is_measured_and_cleared(run: Run, tmp_path: Path) -> None:
    for name in ("index", "tissue", "mine"):
        (tmp_path / "c" / name).mkdir(parents=True)
        (tmp_path / "c" / name / "x").write_bytes(bytes(100))
    options = ["--cache-dir", "c"]
    sizes = the_object(run("cache", "size", "--json", *options))
    assert (sizes["bytes"], sizes["parts"]) == (200, {"index": 100, "tissue": 100})
    assert run("cache", "clear", "--part", "mine", *options).exit_code == 2
    assert "100 bytes deleted" in run("cache", "clear", "--part", "index", *options).stdout
    assert run("cache", "clear", *options).exit_code == 0
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["mine"]


def test_every_part_of_the_cache_is_known() -> None:
    texts = [path.read_text("utf-8") for path in PACKAGE.rglob("*.py")]
    used = {name for text in texts for name in re.findall(r'cache_dir / "(\w+)"', text)}
    assert used == set(PARTS)
