"""The public names of ``synthct``: all are listed, and the example of each one runs."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest

import synthct

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = {  # diffusers looks them up here
    "PaletteInpaintPipeline", "PaletteUNet", "Pix2PixGenerator", "Pix2PixInpaintPipeline",
}  # fmt: skip
NAMES = {
    "build", "check", "evaluate", "export", "inpaint", "inpaint_file", "load", "load_recipe",
    "report", "verify", "Volume", "Window",
}  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples in it; what one example builds, the next one finds."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def test_dir_shows_the_public_names() -> None:
    assert set(dir(synthct)) == NAMES | NETWORKS | {"__version__"}
    assert all(hasattr(synthct, name) for name in dir(synthct))


@pytest.mark.parametrize("name", sorted(NAMES))
def test_example_runs(name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("SYNTHCT_CACHE", str(workplace / "cache"))
    named = {"synthct": synthct, "np": np}
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(getattr(synthct, name), name, globs=named)
    assert example.examples, f"synthct.{name} has no Example"
    output: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=output.append)
    assert not output, "".join(output)


def test_load_refuses_what_is_no_dataset(tmp_path: Path) -> None:
    from synthct.errors import VerifyError

    with pytest.raises(VerifyError, match="not a finished dataset"):
        synthct.load(tmp_path)


def test_subpackages_do_not_hide_the_functions() -> None:
    import synthct.build.run
    import synthct.evaluate.run

    assert callable(synthct.build)
    assert callable(synthct.evaluate)
