from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_recipe import tiny_recipe, write_data, write_recipe
from typer.testing import CliRunner, Result

from synthct.build.draw import DrawnMask
from synthct.cli import app
from synthct.cli.common import roots_of
from synthct.dataset.manifest import read_manifest
from synthct.errors import RecipeError
from synthct.version import __version__

Run = Callable[..., Result]

BAD = """\
name: tiny
version: 1.0.0
sources:
  hosts: {layout: kits23, root: data}
masks:
  - name: boxes
    kind: box
    around: kidney
    margn_mm: [1, 3]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_data(folder / "data")
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a folder of its own, with a cache that all tests share."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHCT_CACHE", str(folder / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def recipe(folder: Path, tmp_path: Path, tiny_checkpoint: Path) -> Path:
    return write_recipe(tmp_path / "tiny.yaml", folder / "data", tiny_checkpoint)


def said_by(result: Result, code: int) -> str:
    """What an error said, after a look at how it was said."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert not result.stdout
    return result.stderr


def python(code: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=cwd, timeout=60
    )


@pytest.mark.parametrize("verb", ["check", "build", "phantom", "schema", "train"])
def test_every_verb_explains_itself(run: Run, verb: str) -> None:
    assert verb in run("--help").stdout
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert f"Usage: synthct {verb}" in result.stdout


def test_help_names_the_defaults(run: Run) -> None:
    assert "the user's cache folder" in " ".join(run("build", "--help").stdout.split())
    assert "runs/NAME" in run("train", "--help").stdout


def test_the_version_is_printed(run: Run) -> None:
    assert run("--version").stdout == f"synthct {__version__}\n"


def test_python_m_synthct_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "synthct", "--version"],
        capture_output=True, text=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"synthct {__version__}\n")


def test_the_schema_is_json(run: Run) -> None:
    schema = json.loads(run("schema").stdout)
    assert {"name", "sources", "masks", "inpaint"} <= set(schema["properties"])


@pytest.mark.parametrize("verb", ["check", "build"])
def test_a_mistake_in_a_recipe_is_reported_with_its_place_and_a_suggestion(
    run: Run, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    assert said_by(run(verb, "bad.yaml"), 2) == (
        "RecipeError: bad.yaml:9:5: masks[0].margn_mm: unknown key; did you mean 'margin_mm'?\n"
    )


def test_a_bad_recipe_is_reported_without_loading_anything_heavy(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    code = (
        "import sys\nfrom synthct.cli import app\n"
        "try: app()\nexcept SystemExit as end: print(end.code)\n"
        "heavy = {'torch', 'diffusers', 'datasets', 'pyarrow', 'scipy', 'nibabel'}\n"
        "print(*heavy & set(sys.modules))"
    )
    done = python(code, "check", "bad.yaml", cwd=tmp_path)
    assert done.stdout == "2\n\n", done.stderr
    assert "did you mean 'margin_mm'?" in done.stderr


def test_a_recipe_that_is_not_there_is_reported(run: Run) -> None:
    assert "nowhere.yaml" in said_by(run("check", "nowhere.yaml"), 2)


@pytest.mark.long
def test_missing_data_is_reported_without_loading_a_model(
    tmp_path: Path, folder: Path, tiny_checkpoint: Path
) -> None:
    write_recipe(tmp_path / "tiny.yaml", folder / "nowhere", tiny_checkpoint)
    code = (
        "import sys\nfrom synthct.cli import app\n"
        "try: app()\nexcept SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = python(code, "build", "tiny.yaml", cwd=tmp_path)
    assert done.stdout == "3 False\n", done.stderr
    assert "github.com/neheller/kits23" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("inpaint", "words"),
    [
        ({"checkpoint": "package:starter-9d"}, ["does not ship with synthct", "starter-2d"]),
        ({"checkpoint": "runs/tiny"}, ["'runs/tiny' is no folder here"]),
    ],
)
def test_an_unknown_checkpoint_is_reported_before_the_data_is_looked_at(
    run: Run, folder: Path, tmp_path: Path, inpaint: dict[str, Any], words: list[str]
) -> None:
    write_recipe(tmp_path / "tiny.yaml", folder / "nowhere", tmp_path, inpaint=inpaint)
    for verb in ("check", "build"):
        said = said_by(run(verb, "tiny.yaml"), 4)
        assert all(word in said for word in words)


def test_a_label_that_the_checkpoint_cannot_paint_is_reported_with_its_section(
    run: Run, folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    masks = [{"name": "livers", "kind": "organ", "label": "liver"}]
    write_recipe(tmp_path / "tiny.yaml", folder / "nowhere", tiny_checkpoint, masks=masks)
    said = said_by(run("check", "tiny.yaml"), 4)
    assert "masks 'livers': the checkpoint cannot paint 'liver' (it paints kidney, tumor" in said


def test_painting_a_label_that_a_section_does_not_name_is_reported(
    run: Run, folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    masks = [{"name": "blobs", "kind": "blob", "label_map": "paint"}]
    write_recipe(tmp_path / "tiny.yaml", folder / "nowhere", tiny_checkpoint, masks=masks)
    said = said_by(run("check", "tiny.yaml"), 2)
    assert said.startswith("RecipeError: tiny.yaml:")
    assert "masks[0].label_map: 'paint' writes the section's label, which is missing" in said


def test_a_looser_licence_than_the_sources_is_refused_before_the_data_is_looked_at(
    run: Run, folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    write_recipe(tmp_path / "tiny.yaml", folder / "nowhere", tiny_checkpoint, licence="CC-BY-4.0")
    assert "CC-BY-4.0 is looser than CC-BY-NC-SA-4.0" in said_by(run("check", "tiny.yaml"), 9)


@pytest.mark.parametrize("pair", ["hosts", "=x", "hosts=", "host=x"])
def test_a_source_option_that_makes_no_sense_is_reported(run: Run, recipe: Path, pair: str) -> None:
    assert f"--source {pair}" in said_by(run("check", recipe, "--source", pair), 2)


def test_paths_of_sources_may_hold_equals_signs() -> None:
    assert roots_of(["hosts=/a=b"]) == {"hosts": Path("/a=b")}
    with pytest.raises(RecipeError, match="write NAME=PATH"):
        roots_of(["hosts"])


@pytest.mark.long
def test_check_prints_the_plan_and_draws_the_masks(run: Run, recipe: Path, tmp_path: Path) -> None:
    result = run("check", recipe)
    assert result.exit_code == 0, result.output
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0] == "tiny 1.0.0: 16 samples in 4 files"
    assert "split   train 16" in lines
    assert "mask    organ 4, box 4, tumors 4, blob 4" in lines
    assert "painted kidney 4, whatever fits 8, tumor 4" in lines
    assert "licence CC-BY-NC-SA-4.0" in lines
    assert lines[-1] == "masks: tiny-masks.png shows 8"
    with Image.open(tmp_path / "tiny-masks.png") as sheet:
        assert np.asarray(sheet).std() > 20
    assert not list(tmp_path.glob("out*"))


def test_the_contact_sheet_shows_masks_of_every_section(
    run: Run, folder: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    def plan_sheet(masks: list[DrawnMask], view: str) -> None:
        shown.extend(mask.section.name for mask in masks)

    monkeypatch.setattr(import_module("synthct.build.preview"), "plan_sheet", plan_sheet)
    changes: dict[str, Any] = tiny_recipe(folder, folder)
    changes["masks"][3]["weight"] = 0.1  # blobs are rare
    write_recipe(tmp_path / "tiny.yaml", folder / "data", tiny_checkpoint,
                 masks=changes["masks"], masks_per_case=20)  # fmt: skip
    assert run("check", "tiny.yaml").exit_code == 0
    assert Counter(shown) == {"organ": 3, "box": 3, "tumors": 3, "blob": 2}


def test_check_says_why_masks_are_refused(
    run: Run, folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    masks = [m for m in tiny_recipe(folder, folder)["masks"] if m["name"] == "tumors"]
    masks[0]["deform"] = {"scale": [4, 4]}
    write_recipe(tmp_path / "tiny.yaml", folder / "data", tiny_checkpoint, masks=masks)
    result = run("check", "tiny.yaml", "--limit", 2, "--sheet", "mine.png")
    assert result.exit_code == 0
    assert "masks: none could be drawn, 1 refused" in result.stdout
    assert not (tmp_path / "mine.png").exists()
    assert "even at scale 4; choose smaller donors" in result.stdout


def test_check_refuses_a_scheduler_that_the_checkpoint_does_not_fit(
    run: Run, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedulers = import_module("synthct.models.painting").SCHEDULERS
    monkeypatch.setitem(schedulers, "dpmsolver++", ("DDIMScheduler", {"nonsense": 1}))
    result = run("check", recipe, "--no-sheet")
    assert result.exit_code == 4
    assert "scheduler 'dpmsolver++' does not fit the checkpoint" in result.stderr


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    result = run("build", recipe, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "tiny 1.0.0: 16 samples in 4 files" in result.stdout
    assert list(tmp_path.iterdir()) == [recipe]


def test_build_makes_the_dataset_and_says_how_to_load_it(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    result = run("build", recipe, "--limit", 2, "--workers", 0)
    assert result.exit_code == 0, result.output
    manifest = read_manifest(tmp_path / "out/tiny/1.0.0-first2")
    assert manifest is not None
    assert manifest.release.rows == 2
    assert 'load_dataset("out/tiny/1.0.0-first2")' in result.stdout
    write_recipe(recipe, *sources_of(recipe), seed=9)
    assert "a higher version" in said_by(run("build", recipe, "--limit", 2), 6)


def sources_of(recipe: Path) -> tuple[Path, Path]:
    """Data folder and checkpoint of a tiny recipe."""
    written = json.loads(recipe.read_text())
    root = Path(written["sources"]["hosts"]["root"])
    return root.parent, Path(written["inpaint"]["checkpoint"])


def test_an_output_that_cannot_be_written_is_reported(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "file" in said_by(run("build", recipe, "--output", tmp_path / "file"), 5)


def test_debug_shows_where_an_error_comes_from(run: Run) -> None:
    result = run("check", "nowhere.yaml", "--debug")
    assert isinstance(result.exception, RecipeError)


def test_phantoms_are_written_as_a_folder_that_recipes_read(run: Run, tmp_path: Path) -> None:
    result = run("phantom", "--layout", "nonsense", "--output", tmp_path / "p")
    assert result.exit_code == 2
    (tmp_path / "p").mkdir()
    (tmp_path / "p/mine").write_text("x")
    assert "p" in said_by(run("phantom", "--output", tmp_path / "p"), 6)
