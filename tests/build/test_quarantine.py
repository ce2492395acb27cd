"""A model that fails: nothing of it is published, the rest is, and the exit code tells."""

from __future__ import annotations

import html
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny_recipe import write_data, write_recipe
from typer.testing import CliRunner

from synthct.build.painter import _is_saturated
from synthct.build.run import build
from synthct.cli import app
from synthct.dataset.manifest import read_manifest
from synthct.errors import MaskError, QuarantineError
from synthct.models.palette import PaletteInpaintPipeline
from synthct.recipe.recipe import load_recipe

Spoil = Callable[[torch.Tensor, torch.Tensor], None]


def some(value: float) -> Spoil:
    """Every other painting of a batch is of one value inside its mask."""

    def spoil(out: torch.Tensor, mask: torch.Tensor) -> None:
        out[::2][mask[::2] > 0.5] = value

    return spoil


def every(out: torch.Tensor, mask: torch.Tensor) -> None:
    out[mask > 0.5] = float("nan")


def one_pixel(out: torch.Tensor, mask: torch.Tensor) -> None:
    """A single pixel of each painting is infinite."""
    for n in range(len(out)):
        row, column = (mask[n, 0] > 0.5).nonzero()[0]
        out[n, 0, row, column] = float("inf")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Spoil], None]:
    """Lets every model fail in a way."""
    paint: Any = PaletteInpaintPipeline.__call__

    def fail(spoil: Spoil) -> None:
        def spoilt(self: Any, **arguments: Any) -> torch.Tensor:
            out = paint(self, **arguments).clone()
            spoil(out, arguments["mask_image"])
            return out

        monkeypatch.setattr(PaletteInpaintPipeline, "__call__", spoilt)

    return fail


@pytest.fixture
def recipe(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHCT_CACHE", str(tmp_path / "cache"))
    data = write_data(tmp_path / "data", ("case_00000",))
    return write_recipe(tmp_path / "tiny.yaml", data, tiny_checkpoint, keep_original=False)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(float("nan"), "model: not finite"), (0.25, "model: one value throughout"),
     (-1.0, "model: one value throughout")],
)  # fmt: skip
def test_what_a_model_failed_to_paint_is_left_out_and_told(
    recipe: Path, failing: Callable[[Spoil], None], value: float, reason: str
) -> None:
    failing(some(value))
    result = CliRunner().invoke(app, ["build", str(recipe), "--workers", "0"])
    assert result.exit_code == 10, result.output
    assert "QuarantineError: out/tiny/1.0.0 is finished, but 4 of 8 samples" in result.stderr
    assert reason in result.stderr
    assert "Traceback" not in result.output
    folder = Path("out/tiny/1.0.0")
    manifest = read_manifest(folder)
    assert manifest is not None
    rejected = pq.read_table(folder / "rejected.parquet").to_pylist()
    assert [row["reason"] for row in rejected] == [reason] * 4
    (shards,) = [sorted((folder / "data").glob("*.parquet"))]
    rows = [row for path in shards for row in pq.read_table(path).to_pylist()]
    assert manifest.release.rows == len(rows) == 4
    assert not {row["sample_id"] for row in rows} & {row["sample_id"] for row in rejected}
    assert all(np.isfinite(row["painted_mean_hu"]) and row["painted_std_hu"] > 0 for row in rows)


@pytest.mark.parametrize("spoil", [every, one_pixel])
def test_a_model_that_always_fails_publishes_nothing(
    recipe: Path, failing: Callable[[Spoil], None], spoil: Spoil
) -> None:
    failing(spoil)
    with pytest.raises(MaskError, match=r"all 8 samples were rejected \(8 model: not finite\)"):
        build(load_recipe(recipe), workers=0)
    assert not Path("out/tiny/1.0.0").exists()


def test_a_few_failures_are_let_pass(
    recipe: Path, failing: Callable[[Spoil], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(some(float("nan")))
    monkeypatch.setattr(import_module("synthct.build.run"), "MAX_FAULTY", 0.5)
    folder = build(load_recipe(recipe), workers=0)
    assert "model: not finite" in html.unescape((folder / "README.md").read_text())


def test_what_a_finished_version_lacks_is_told_every_time(
    recipe: Path, failing: Callable[[Spoil], None]
) -> None:
    failing(some(float("nan")))
    for _ in range(3):
        with pytest.raises(QuarantineError, match="is finished, but 4 of 8"):
            build(load_recipe(recipe), workers=0)


@pytest.mark.parametrize("factor", [1e20, 40.0])
def test_what_is_cut_off_at_the_ends_of_the_range_is_no_painting(
    recipe: Path, failing: Callable[[Spoil], None], factor: float
) -> None:
    """Every other painting is noise of a network that has burst: black and white once decoded."""

    def burst(out: torch.Tensor, mask: torch.Tensor) -> None:
        noise = torch.randn(out[::2].shape, generator=torch.Generator().manual_seed(1))
        out[::2] = torch.where(mask[::2] > 0.5, factor * noise, out[::2])

    failing(burst)
    with pytest.raises(QuarantineError, match=r"4 of 8 samples .*model: saturated"):
        build(load_recipe(recipe), workers=0)


def test_a_painting_at_one_end_of_the_range_may_be_right() -> None:
    """Gas in a window of soft tissue is black, as are lungs."""
    rng = np.random.default_rng(0)
    assert not _is_saturated(np.clip(rng.normal(-1.1, 0.05, 400), -1, None).astype(np.float32))
    assert not _is_saturated(rng.normal(0, 0.8, 400).astype(np.float32))
