"""What README, CONTRIBUTING and docs/ show is right: commands, recipes, links, marks of CI."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from synthct.cli import app
from synthct.recipe.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*.md")])
PAGES = [page for page in PAGES if page.name != "commands.md"]  # written from the commands


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    """Page and text of every code block of a language."""
    for page in PAGES:
        for text in re.findall(rf"```{language}\n(.+?)```", page.read_text("utf-8"), re.DOTALL):
            yield page, text


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every call of synthct in a bash block: page and line, words after ``synthct``."""
    for page, text in blocks("bash"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "synthct" in words and "mypy" not in words:
                found = words[words.index("synthct") + 1 :]
                yield f"{page.name}: {line}", found


@pytest.mark.parametrize(("line", "words"), list(commands()), ids=lambda value: str(value)[:80])
def test_command_has_these_options(line: str, words: list[str]) -> None:
    command = get_command(app)
    while isinstance(command, TyperGroup):
        command, words = command.commands[words[0]], words[1:]
    command.make_context("synthct", words)  # raises where an option is unknown


RECIPES = [(page, text) for page, text in blocks("yaml") if re.search("^version:", text, re.M)]


@pytest.mark.parametrize(("page", "text"), RECIPES, ids=lambda value: getattr(value, "name", ""))
def test_recipe_is_one(page: Path, text: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text, encoding="utf-8")
    assert load_recipe(recipe).masks


def test_there_are_recipes_and_commands() -> None:
    assert len(RECIPES) >= 3
    assert len(list(commands())) >= 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
        if not target.startswith(("http://", "https://")) and target != "../reference/commands.md":
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_readme_keeps_the_commands_that_ci_runs() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for name in ("build", "test"):
        assert re.search(rf"<!-- ci: {name} -->\s*```bash\n[^\n]+\n```", text)
    assert len(text.splitlines()) <= 160


def test_the_map_in_contributing_is_the_tree() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = text.partition("## Where is what")[2].partition("\n\nA sample")[0].splitlines()
    listed = set()
    for room, holds in (row.strip("| ").split(" | ", 1) for row in rows if row.startswith("| `")):
        names = re.findall(r"`([\w.]+)(?:/|`)", room)
        listed.update(names)
        listed.update(f"{names[0]}/{part}" for part in re.findall(r"`(\w+)/`", holds))
    package = ROOT / "synthct"
    folders = {path.parent.relative_to(package) for path in package.rglob("__init__.py")} - {Path()}
    assert {path.as_posix() for path in folders} <= listed
    assert {name for name in listed if not (package / name).exists()} == set()


def test_every_pinned_package_is_pinned_once_and_to_no_build() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    names = [re.fullmatch(r"([a-z0-9.-]+)==[0-9.]+", pin)[1] for pin in pins]  # type: ignore[index]
    assert len(names) == len(set(names))
