"""Croissant metadata and the in-toto statement of a finished dataset."""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from tiny_recipe import HOSTS, tiny_recipe, write_data

from synthct.build.run import build
from synthct.dataset.documents.attestation import PREDICATE, STATEMENT
from synthct.dataset.manifest import read_manifest
from synthct.licence import licence_url
from synthct.recipe.recipe import Recipe


@pytest.fixture(scope="module", params=["full", "patch"])
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path
) -> Path:
    folder = tmp_path_factory.mktemp("statements")
    data = write_data(folder / "data")
    given: dict[str, Any] = {"release": request.param, "keep_original": request.param == "full"}
    recipe = Recipe.model_validate(tiny_recipe(data, tiny_checkpoint, **given))
    return build(recipe, folder / "out", cache_dir=folder / "cache", workers=0)


@pytest.mark.filterwarnings("ignore")  # of mlcroissant's own
def test_croissant_is_valid_and_gives_every_row(
    built: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import mlcroissant

    with caplog.at_level(logging.WARNING):
        dataset = mlcroissant.Dataset(jsonld=built / "croissant.json")
    issues = dataset.metadata.issues
    assert not issues.errors
    # that there is no date is meant: nothing in a dataset depends on time
    assert [w for w in issues.warnings if "datePublished" not in w] == []
    rows = list(dataset.records("train"))
    manifest = read_manifest(built)
    assert manifest is not None
    assert len(rows) == manifest.release.rows
    assert {row["train/case_id"].decode() for row in rows} == set(HOSTS)
    picture = rows[0]["train/paint" if manifest.release.patch_id else "train/image"]
    assert picture.mode == "I;16"
    assert len(rows[0]["train/affine"]) == 16


def test_croissant_names_every_shard_by_hash_and_the_licence(built: Path) -> None:
    said = json.loads((built / "croissant.json").read_text())
    hashes = {one["@id"]: one["sha256"] for one in said["distribution"] if "sha256" in one}
    shards = {f"data/{path.name}": path for path in (built / "data").iterdir()}
    assert hashes == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in shards.items()
    }
    assert said["license"] == licence_url("CC-BY-NC-SA-4.0")
    assert said["license"].endswith("licenses/by-nc-sa/4.0/")
    assert all(isinstance(value, str) for key, value in said.items() if key.startswith("rai:"))


def test_the_statement_names_every_file_and_everything_it_was_made_from(built: Path) -> None:
    said = json.loads((built / "provenance.intoto.json").read_text())
    assert (said["_type"], said["predicateType"]) == (STATEMENT, PREDICATE)
    files = {
        path.relative_to(built).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in built.rglob("*")
        if path.is_file() and path.name not in ("manifest.json", "provenance.intoto.json")
    }
    assert {one["name"]: one["digest"]["sha256"] for one in said["subject"]} == files
    definition = said["predicate"]["buildDefinition"]
    needed = {one["name"] for one in definition["resolvedDependencies"]}
    assert {f"hosts/{case}/image" for case in HOSTS} <= needed
    assert {f"hosts/{case}/labels" for case in HOSTS} <= needed
    assert {"donors/case_00002/labels", "torch", "pyarrow", "python"} <= needed
    assert "donors/case_00002/image" not in needed  # a donor of shapes alone has none
    assert definition["externalParameters"]["recipe"]["name"] == "tiny"


def test_statements_name_no_machine_user_path_or_time(built: Path) -> None:
    for name in ("croissant.json", "provenance.intoto.json", "synthct.lock", "manifest.json"):
        text = (built / name).read_text()
        for secret in (str(built.parents[2]), socket.gethostname(), f"/{getpass.getuser()}/"):
            assert secret not in text
        assert not re.search(r"20\d\d-\d\d-\d\d", text)
