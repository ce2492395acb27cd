"""Datasets and checkpoints of every format version, written by a synthct of their time.

``tests/golden/make.sh`` says how they came about. They are read for ever.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from synthct.build.verify.run import Originals, verify
from synthct.cli import app
from synthct.dataset.diff import compare
from synthct.dataset.first_format import FIRST_FORMAT
from synthct.dataset.lockfile import read_lock
from synthct.dataset.manifest import read_manifest
from synthct.dataset.rows import decode, stored_rows
from synthct.dataset.schema import FORMAT_VERSION, columns
from synthct.errors import RecipeError, VerifyError
from synthct.evaluate.results import read_results
from synthct.evaluate.stream import Dataset, recipe_of
from synthct.models.checkpoint import load_checkpoint
from synthct.publish.export.scans import PaintedScans
from synthct.publish.report.run import write_report

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FORMATS = sorted(path.name for path in (GOLDEN / "datasets").iterdir())
#: The formats that have volumes.
VOLUMES = sorted(path.name for path in (GOLDEN / "volumes").iterdir())

of_every_format = pytest.mark.parametrize("version", FORMATS)


@pytest.fixture
def golden(version: str) -> Path:
    return GOLDEN / "datasets" / version


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_there_is_a_golden_dataset_and_checkpoint_of_todays_format() -> None:
    assert FORMAT_VERSION in FORMATS
    assert FORMAT_VERSION in VOLUMES
    assert sorted(path.name for path in (GOLDEN / "checkpoints").iterdir()) == FORMATS


@of_every_format
def test_it_is_what_it_says_it_is(golden: Path) -> None:
    report = verify(golden, level=1)
    assert not report.findings
    assert len(report.levels) == 2


@of_every_format
def test_every_row_has_all_columns_of_today(golden: Path) -> None:
    manifest = read_manifest(golden)
    assert manifest is not None
    for shard in manifest.shards:
        for row in stored_rows(golden / shard.path):
            assert row.keys() == columns(keep_original=True).keys()
            assert row["is_painted"] is True
            assert row["lesion_id"]
            sample = decode(row)
            assert sample.mask.any()
            assert sample.original is not None
            assert np.array_equal(sample.image[~sample.mask], sample.original[~sample.mask])


@pytest.mark.parametrize("version", VOLUMES)
def test_volumes_of_every_format_are_read(version: str, tmp_path: Path) -> None:
    from datasets import load_dataset

    folder = GOLDEN / "volumes" / version
    assert not verify(folder, level=1).findings
    for path in sorted(folder.glob("data/*.parquet")):
        for row in stored_rows(path):
            assert row.keys() == columns(keep_original=True, volume=True).keys()
            sample = decode(row)
            assert sample.original is not None
            assert np.array_equal(sample.image[~sample.mask], sample.original[~sample.mask])
    rows = load_dataset(str(folder), cache_dir=str(tmp_path), split="train")
    assert rows[0]["image"].shape == rows[0]["mask"].shape
    run("export", folder, "--to", "nifti", "--output", tmp_path / "plain")
    assert write_report(folder, tmp_path / "report").stat().st_size > 10_000


def test_what_needs_a_recipe_that_is_not_read_says_so(tmp_path: Path) -> None:
    first = GOLDEN / "datasets" / "1.0.0"
    for needs in (
        lambda: recipe_of(first, {}, read=()),
        lambda: PaintedScans(first, {}, tmp_path),
    ):
        with pytest.raises(RecipeError, match=r"is of format 1\.0\.0, whose recipe"):
            needs()


@of_every_format
def test_load_dataset_reads_it(golden: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    dataset = load_dataset(str(golden), cache_dir=str(tmp_path))
    assert {name: split.num_rows for name, split in dataset.items()} == {"train": 1, "test": 1}
    assert np.asarray(dataset["train"][0]["image"]).shape == (64, 64)


@of_every_format
def test_its_lock_names_sources_licence_and_labels(golden: Path) -> None:
    lock = read_lock(golden)
    assert {name: source.layout for name, source in lock.sources.items()} == {
        "hosts": "phantom",
        "donors": "phantom",
    }
    assert lock.licence == "CC0-1.0"
    assert lock.labels["kidney_tumor"] == 23
    assert lock.checkpoint is not None


@of_every_format
@pytest.mark.parametrize("kind", ["png", "nifti"])
def test_it_is_exported(golden: Path, kind: str, tmp_path: Path) -> None:
    run("export", golden, "--to", kind, "--output", tmp_path / "plain")
    listed = (tmp_path / "plain" / "samples.csv").read_text(encoding="utf-8").splitlines()
    assert len(listed) == 3
    assert "`kidney_tumor`" in (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")


@of_every_format
def test_it_is_reported_and_evaluated(golden: Path, tmp_path: Path) -> None:
    assert write_report(golden, tmp_path / "report").stat().st_size > 10_000
    arguments = ("--extractor", "radiomics", "--output", tmp_path / "evaluation")
    run("evaluate", golden, *arguments)
    results = read_results(tmp_path / "evaluation")
    manifest = read_manifest(golden)
    assert manifest is not None
    assert results.content_id == manifest.release.content_id
    assert len(Dataset(golden).rows()) == 2


@of_every_format
def test_it_is_compared_with_every_other(golden: Path) -> None:
    """Those of 1.1.0 and 1.2.0 have the same content in other files; later networks are others."""
    for other in FORMATS:
        difference = compare(golden, GOLDEN / "datasets" / other)
        alike = "patch" if {other, golden.name} == {"1.1.0", "1.2.0"} else "major"
        assert difference.step == ("none" if other == golden.name else alike)


@of_every_format
def test_its_checkpoint_loads(version: str) -> None:
    checkpoint = load_checkpoint(str(GOLDEN / "checkpoints" / version))
    assert checkpoint.files.checkpoint_id


def test_level_2_of_the_first_format_is_refused_with_what_to_do() -> None:
    with pytest.raises(VerifyError, match=r"format 1\.0\.0.*--level 1"):
        verify(GOLDEN / "datasets" / FIRST_FORMAT, level=2, originals=Originals())


@pytest.mark.long
def test_masks_of_todays_format_are_drawn_again(tmp_path: Path) -> None:
    report = verify(
        GOLDEN / "datasets" / FORMAT_VERSION,
        level=2,
        originals=Originals(
            cache_dir=tmp_path, checkpoint=GOLDEN / "checkpoints" / FORMAT_VERSION, workers=0
        ),
    )
    assert not report.findings


@of_every_format
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("data/train-00000-of-00001.parquet", None, None),
        ("recipe.yaml", "seed: 0", "seed: 1"),
        ("README.md", "license: cc0-1.0", "license: mit"),
        ("synthct.lock", "phantom-1-0000", "phantom-1-0009"),
    ],
)
def test_damage_is_found(
    golden: Path, tmp_path: Path, file: str, old: str | None, new: str | None
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(golden, copy)
    path = copy / file
    data = path.read_bytes()
    if old is None or new is None:
        data = data[:2000] + bytes([data[2000] ^ 1]) + data[2001:]
    else:
        assert old.encode() in data
        data = data.replace(old.encode(), new.encode())
    path.write_bytes(data)
    assert verify(copy, level=0).findings
    _list_anew(copy)
    assert verify(copy, level=1).findings, "found by what the files say of each other"


@pytest.mark.parametrize(
    ("keys", "value", "problem"),
    [
        (("subject", 0, "name"), "gone.txt", "subject 'gone.txt'"),
        (("subject", 1, "digest", "sha256"), "0" * 64, "subject 'attribution.md'"),
        (("subject",), [], "subject 'README.md'"),
        (("predicate", "buildDefinition", "resolvedDependencies"), [], "dependency 'numpy'"),
        (("predicate", "runDetails", "byproducts"), [], "content_id"),
        (("subject",), None, "cannot be read as"),
    ],
)
def test_a_statement_of_format_1_1_0_is_compared_with_manifest_and_lock(
    tmp_path: Path, keys: tuple[str | int, ...], value: object, problem: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(GOLDEN / "datasets/1.1.0", copy)
    path = copy / "provenance.intoto.json"
    content = place = json.loads(path.read_text(encoding="utf-8"))
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(content), encoding="utf-8")
    _list_anew(copy)
    findings = verify(copy).findings
    assert {one.path for one in findings} == {path.name}
    assert any(problem in one.what for one in findings)


def _list_anew(folder: Path) -> None:
    """A manifest that agrees with the bytes of a changed dataset."""
    from synthct.dataset.manifest import MANIFEST, Manifest
    from synthct.storage.files import sha256_of

    manifest = read_manifest(folder)
    assert manifest is not None
    files = [
        entry.model_copy(
            update={
                "bytes": (folder / entry.path).stat().st_size,
                "sha256": sha256_of(folder / entry.path),
            }
        )
        for entry in manifest.files
    ]
    anew = Manifest.of(manifest.release, files)
    text = anew.text()
    if anew.release.format_version == FIRST_FORMAT:
        content = json.loads(text)
        del content["files_id"], content["release"]["rejected"]
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("newer", ["1.5.0", "1.4.1", "2.0.0", "10.0.0"])
def test_a_newer_format_is_refused_with_the_version_that_wrote_it(
    newer: str, tmp_path: Path
) -> None:
    shutil.copytree(GOLDEN / "datasets" / FORMAT_VERSION, tmp_path / "copy")
    path = tmp_path / "copy" / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["release"] |= {"format_version": newer, "package_version": "7.8.9"}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with pytest.raises(VerifyError, match=r"install synthct 7\.8\.9 or newer"):
        read_manifest(tmp_path / "copy")
    (finding,) = verify(tmp_path / "copy").findings
    assert "damaged" not in finding.what
