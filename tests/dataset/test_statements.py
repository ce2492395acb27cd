"""The Croissant metadata of a finished dataset."""

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
from synthct.dataset.documents.croissant import _usage
from synthct.dataset.lockfile import read_lock
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
    assert rows[0]["train/mask"].mode == "L"
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


def test_croissant_tells_sources_checkpoint_and_use_conditions(built: Path) -> None:
    said = json.loads((built / "croissant.json").read_text())
    assert said["conformsTo"][0] == "http://mlcommons.org/croissant/1.1"
    lock = read_lock(built)
    assert lock.checkpoint is not None
    made, sources = said["prov:wasGeneratedBy"], said["prov:wasDerivedFrom"]
    assert made["prov:used"] == {"@id": f"urn:synthct:checkpoint:{lock.checkpoint.id}"}
    assert [one["@id"].rpartition(":")[2] for one in sources] == ["hosts", "donors"]
    assert all(one["license"] == said["license"] for one in sources)
    term, offer = said["usageInfo"]
    assert term["url"] == "http://purl.obolibrary.org/obo/DUO_0000046"  # non-commercial use only
    duties = [one["odrl:action"]["@id"] for one in offer["odrl:permission"]["odrl:duty"]]
    assert duties == ["odrl:attribute", "cc:ShareAlike"]
    assert offer["odrl:prohibition"]["odrl:action"] == {"@id": "cc:CommercialUse"}
    (records,) = said["recordSet"]
    types = {field["name"]: field["dataType"] for field in records["field"]}
    assert types["mask"] == ["cr:SegmentationMask", "sc:ImageObject"]


@pytest.mark.parametrize(
    ("licence", "code", "duties"),
    [
        ("CC0-1.0", "DUO_0000004", []),
        ("CC-BY-4.0", "DUO_0000004", ["odrl:attribute"]),
        ("CC-BY-NC-4.0", "DUO_0000046", ["odrl:attribute"]),
        (None, None, None),
        ("my own terms", None, None),
    ],
)
def test_use_conditions_follow_from_the_licence(
    licence: str | None, code: str | None, duties: list[str] | None
) -> None:  # fmt: skip
    told = _usage(licence).get("usageInfo")
    assert (told and told[0]["termCode"]) == code
    if told:
        permitted = told[1]["odrl:permission"]
        assert [duty["odrl:action"]["@id"] for duty in permitted["odrl:duty"]] == duties


def test_there_is_no_unsigned_statement(built: Path) -> None:
    assert not list(built.glob("*intoto*"))


def test_statements_name_no_machine_user_path_or_time(built: Path) -> None:
    for name in ("croissant.json", "synthct.lock", "manifest.json"):
        text = (built / name).read_text()
        for secret in (str(built.parents[2]), socket.gethostname(), f"/{getpass.getuser()}/"):
            assert secret not in text
        assert not re.search(r"20\d\d-\d\d-\d\d", text)
