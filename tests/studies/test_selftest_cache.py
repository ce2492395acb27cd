"""The harness of damaged files: it finds nothing here, and would find what it looks for."""

from __future__ import annotations

import importlib.util
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from synthct.cli import app
from synthct.errors import VerifyError
from synthct.storage.cache import DamageError
from synthct.studies.selftest.cache import CacheReport, cache_test

KINDS = 10 + (importlib.util.find_spec("pydicom") is not None)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.long
def test_every_damage_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["selftest", "cache", "--trials", "12", "--output", str(tmp_path / "disk")]
    )
    assert result.exit_code == 0, result.output
    assert result.output.count("12 damaged") == KINDS
    assert result.output.count("0 silent, 0 tracebacks") == KINDS
    assert "every damage was detected and reported" in result.output
    assert not list((tmp_path / "disk").iterdir())


def trials(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> CacheReport:
    """Trials of one kind alone."""
    module = import_module("synthct.studies.selftest.cache")
    every = module.every_kind
    monkeypatch.setattr(
        module, "every_kind", lambda f: [one for one in every(f) if one.name == kind]
    )
    return cache_test(folder, trials=15)


def test_damage_that_is_not_noticed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanner = import_module("synthct.sources.scanner")
    monkeypatch.setattr(scanner, "check_files", lambda folder: None)
    report = trials(tmp_path / "disk", "phantoms", monkeypatch)
    assert report.kinds["phantoms"].silent > 0
    with pytest.raises(VerifyError, match=r"phantoms: of 15 damaged files \d+ were not noticed"):
        report.require_good(tmp_path / "disk")
    assert (tmp_path / "disk").is_dir()


def test_damage_that_is_mended_without_a_word_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = import_module("synthct.storage.cache")
    monkeypatch.setattr(cache, "warn_damaged", lambda *_: None)
    report = trials(tmp_path / "disk", "evaluation features", monkeypatch)
    assert report.kinds["evaluation features"].silent == 15


def test_tracebacks_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanner = import_module("synthct.sources.scanner")

    def careless(folder: Path) -> Any:
        try:
            check(folder)
        except DamageError as err:
            raise KeyError(str(err)) from err

    check = scanner.check_files
    monkeypatch.setattr(scanner, "check_files", careless)
    report = trials(tmp_path / "disk", "phantoms", monkeypatch)
    assert report.kinds["phantoms"].tracebacks == 15
    assert "KeyError" in report.kinds["phantoms"].first
