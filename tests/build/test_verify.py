"""Levels 0 and 1 of verify: whatever happens to a finished dataset is found, and located."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tampering
from contract import MASKS
from tiny_recipe import tiny_recipe, write_data

from synthct.build.run import build
from synthct.build.verify.run import Originals, verify
from synthct.dataset.finding import Finding
from synthct.dataset.integrity import check_bytes
from synthct.dataset.manifest import MANIFEST, read_manifest, require_manifest
from synthct.dataset.rows import stored_rows
from synthct.errors import ResourceError, VerifyError
from synthct.recipe.recipe import Recipe


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A dataset of two splits and four shards."""
    folder = tmp_path_factory.mktemp("verify")
    data = write_data(folder / "data", hosts=("case_00010", "case_00011"))
    masks = [
        {"name": "organ", "kind": "organ", "label": "kidney"},
        {"name": "blob", "kind": "blob", "radius_mm": [3, 6]},
    ]
    splits = {"train": 0.5, "validation": 0.5}
    changes = {"masks": masks, "masks_per_case": 2, "splits": splits, "samples_per_shard": 2}
    recipe = Recipe.model_validate(tiny_recipe(data, tiny_checkpoint, **changes))
    return build(recipe, folder / "out", cache_dir=folder / "cache", workers=0)


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def places(findings: tuple[Finding, ...]) -> set[str]:
    """Where the findings are: ``file``, or ``file row n``."""
    rows = {f"{one.path} row {row}" for one in findings for row in one.rows}
    return rows | {one.path for one in findings}


def test_a_dataset_as_it_was_built_passes(built: Path) -> None:
    report = verify(built)
    assert report.findings == ()
    assert [line.partition(":")[0] for line in report.levels] == ["level 0", "level 1"]
    assert report.release is not None
    assert report.release.rows == 8


@pytest.mark.parametrize("view", ["axial", "volume"])
def test_a_dataset_of_every_kind_of_mask_passes(
    tmp_path: Path, tiny_checkpoint: Path, view: str
) -> None:
    data = write_data(tmp_path / "data", hosts=("case_00010",))
    masks = [{"name": kind.replace("_", "-"), "kind": kind, **MASKS[kind]} for kind in MASKS]
    recipe = tiny_recipe(data, tiny_checkpoint, masks=masks, masks_per_case=len(masks), view=view)
    hosts, own = str(data / "hosts"), {"mask": "{case}/segmentation.nii.gz"}
    recipe["sources"]["masks"] = {"layout": "nifti", "root": hosts, "structures": own}
    recipe["inpaint"] = {"method": "noise_fill"}
    dataset = build(
        Recipe.model_validate(recipe), tmp_path / "out", cache_dir=tmp_path / "cache", workers=0
    )
    sources = {"hosts": data / "hosts", "donors": data / "donors", "masks": data / "hosts"}
    given = Originals(sources=sources, cache_dir=tmp_path / "cache", workers=0)
    report = verify(dataset, level=2, originals=given)
    assert report.findings == ()
    assert {row["mask_kind"] for p in dataset.glob("data/*") for row in stored_rows(p)} >= {"own"}


def harmed(built: Path, copy: Path, harms: tuple[tampering.Harm, ...], count: int, seed: int
           ) -> Iterator[tuple[str, set[str]]]:  # fmt: skip
    """Do harm after harm, each to the dataset as it was built; what was done, and where."""
    intact = {path: (built / path).read_bytes() for path in tampering.files_of(built)}
    rng = np.random.default_rng(seed)
    for number in range(count):
        harm = harms[number % len(harms)]
        where = harm(copy, rng)
        yield f"{harm.__name__} {number} of {sorted(where)}", where
        for path in tampering.files_of(copy):
            if path not in intact:
                (copy / path).unlink()
        for path, data in intact.items():
            if (copy / path).is_symlink():
                (copy / path).unlink()
            if not (copy / path).is_file() or (copy / path).read_bytes() != data:
                (copy / path).write_bytes(data)


def find_harmed_bytes(built: Path, copy: Path, count: int, seed: int) -> None:
    for what, where in harmed(built, copy, tampering.BYTES, count, seed):
        report = verify(copy, level=0)
        assert {finding.path for finding in report.findings} == where, what


def find_harmed_rows(built: Path, copy: Path, count: int, seed: int) -> None:
    for what, where in harmed(built, copy, tampering.ROWS, count, seed):
        assert verify(copy, level=0).findings == (), what
        findings = verify(copy).findings
        assert where <= places(findings), f"{what}: found {sorted(places(findings))}"
        # a row in a wrong split is at odds with all others of its patient, which are told too
        alone = {finding.path for finding in findings if "is in split" not in finding.what}
        assert alone <= {place.partition(" row ")[0] for place in where} | {MANIFEST}, what


@pytest.mark.long
def test_flips_cuts_swaps_and_drops_are_found_and_located(built: Path, copy: Path) -> None:
    find_harmed_bytes(built, copy, 900, seed=1)


@pytest.mark.long
def test_rows_that_were_changed_and_sealed_again_are_found_and_located(
    built: Path, copy: Path
) -> None:
    find_harmed_rows(built, copy, 100, seed=2)


@pytest.mark.slow
def test_ten_thousand_harms_are_found_and_located(built: Path, copy: Path) -> None:
    find_harmed_bytes(built, copy, 9000, seed=3)
    find_harmed_rows(built, copy, 1000, seed=4)


def test_a_damaged_page_is_located_by_rows_and_column(built: Path, copy: Path) -> None:
    manifest = read_manifest(built)
    assert manifest is not None
    path = manifest.shards[1].path
    with pq.ParquetFile(built / path) as shard:
        group = shard.metadata.row_group(0)
        chunks = [group.column(n) for n in range(group.num_columns)]
    chunk = next(c for c in chunks if c.path_in_schema == "image.bytes")
    data = bytearray((built / path).read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 4
    (copy / path).write_bytes(data)
    rows = tuple(range(manifest.shards[1].rows or 0))
    assert Finding(path, "damaged (column image)", rows) in check_bytes(copy, manifest)


@pytest.mark.parametrize("role", ["patient_id", "donor_patient_id"])
def test_a_patient_in_two_splits_is_found_by_name(built: Path, copy: Path, role: str) -> None:
    train, *_, validation = tampering.shards_of(copy)
    rows, others = tampering.rows_of(copy, train), tampering.rows_of(copy, validation)
    person = rows[0]["patient_id"]
    for row in others:
        row[role] = person
    tampering.reseal(copy, {validation: others}, roots=True)
    told = [str(finding) for finding in verify(copy).findings]
    planted = f"patient '{person}' is in split 'validation' here and in split 'train' with sample"
    assert sum(planted in line for line in told) == len(others)


def test_what_is_no_dataset_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="does not exist; give the folder of a version"):
        verify(tmp_path / "nowhere")
    (finding,) = verify(tmp_path).findings
    assert str(finding).startswith(
        "manifest.json: is missing: this is no finished dataset; give th"
    )


def test_a_dataset_near_what_was_given_is_named(built: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(built, tmp_path / "out" / "tiny" / "1.0.0"))
    for above in (copy.parent, copy.parent.parent):
        (finding,) = verify(above).findings
        assert str(finding).endswith(f"; give {copy}")
        with pytest.raises(VerifyError, match=f"is no finished dataset .*; give {copy}"):
            require_manifest(above)
    with pytest.raises(ResourceError, match=f"is a file, not a folder; give {copy}"):
        verify(copy / "README.md")
