"""Levels 2 and 3 of verify: what a clever forger can do to a dataset, against its sources."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tampering
from tiny_recipe import HOSTS, SECTIONS, tiny_recipe, write_data

from synthct.build.run import build
from synthct.build.verify.run import Originals, Report, verify
from synthct.dataset.digest import sample_digest
from synthct.dataset.png import decode_preview, encode_hu, encode_mask, encode_preview
from synthct.dataset.rows import decoded_pictures
from synthct.errors import CheckpointError, RecipeError
from synthct.recipe.recipe import Recipe
from synthct.volume.intensity import Window

Verify = Callable[..., Report]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay")
    write_data(folder / "data")
    return folder


def build_tiny(folder: Path, checkpoint: Path, output: str, **changes: Any) -> Path:
    masks = [{"name": name, **SECTIONS[name]} for name in ("organ", "tumors")]
    masks[1]["pair"] = True
    given = {"masks": masks, "masks_per_case": 2, "keep_original": False, **changes}
    recipe = Recipe.model_validate(tiny_recipe(folder / "data", checkpoint, **given))
    return build(recipe, folder / output, cache_dir=folder / "cache", workers=0)


@pytest.fixture(scope="module")
def built(folder: Path, tiny_checkpoint: Path) -> Path:
    return build_tiny(folder, tiny_checkpoint, "out")


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


@pytest.fixture
def check(folder: Path, tiny_checkpoint: Path) -> Verify:
    def run(dataset: Path, level: int = 2, **changes: Any) -> Report:
        given = Originals(
            sources={name: folder / "data" / name for name in ("hosts", "donors")},
            checkpoint=tiny_checkpoint,
            cache_dir=folder / "cache",
            workers=0,
            samples=100,
        )
        return verify(dataset, level=level, originals=replace(given, **changes))

    return run


def test_a_dataset_is_drawn_and_painted_again_to_the_last_bit(built: Path, check: Verify) -> None:
    report = check(built, level=3)
    assert report.findings == ()
    assert len(report.levels) == 4
    assert report.levels[3] == "level 3: 8 samples painted again, bit for bit (all of them)"
    some = check(built, level=3, samples=2).levels[3]
    assert "bit for bit (with 95 % confidence fewer than " in some


@pytest.mark.long
def test_so_is_a_patch_only_release(folder: Path, tiny_checkpoint: Path, check: Verify) -> None:
    patches = build_tiny(folder, tiny_checkpoint, "patch", release="patch")
    report = check(patches, level=3)
    assert (report.findings, len(report.levels)) == ((), 4)


def test_the_checkpoints_folder_may_have_another_name(
    built: Path, check: Verify, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(tiny_checkpoint, tmp_path / "elsewhere"))
    assert check(built, checkpoint=moved).findings == ()
    with pytest.raises(CheckpointError, match="no folder here"):
        check(built, checkpoint=None)


def test_where_the_sources_are_must_be_said(
    built: Path, check: Verify, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DONORS_ROOT", raising=False)
    with pytest.raises(RecipeError, match=r"donors=FOLDER|DONORS_ROOT"):
        check(built, sources={"hosts": folder / "data/hosts"})


def forged(copy: Path, change: Callable[[dict[str, Any], np.ndarray, np.ndarray], None]) -> str:
    """Change the first painted row, and all digests and hashes that tell of it.

    Args:
        copy: The dataset.
        change: Gets the columns, image and mask of the row, to change them in place.

    Returns:
        Where a check has to find it.
    """
    path = tampering.shards_of(copy)[0]
    rows = tampering.rows_of(copy, path)
    number = next(n for n, row in enumerate(rows) if row["is_painted"])
    columns, shown = rows[number], decoded_pictures(rows[number])
    image, mask = shown["image"].copy(), shown["mask"].copy()
    affine = np.array(columns["affine"]).reshape(4, 4)
    told = json.loads(columns["provenance"])
    columns["told"] = told
    change(columns, image, mask)
    told = columns.pop("told")
    painted = image[mask].astype(float)
    preview = encode_preview(image, Window.model_validate(told["preview"]), mask)
    assert decode_preview(preview).shape[:2] == image.shape
    columns |= {
        "image": {"bytes": encode_hu(image), "path": None},
        "mask": {"bytes": encode_mask(mask), "path": None},
        "preview": {"bytes": preview, "path": None},
        "painted_mean_hu": painted.mean(),
        "painted_std_hu": painted.std(),
        "provenance": json.dumps(told),
        "sample_digest": sample_digest(image, mask, shown["labels"], affine, told),
    }
    tampering.reseal(copy, {path: rows}, roots=True)
    assert verify(copy).findings == ()  # everything agrees with everything
    return f"{path} row {number}"


_MEASURED = re.compile(r"column '(\w+)' is \S+, measured again it is (\S+)")


def measure_again(copy: Path, check: Verify) -> None:
    """Also forge the measures, to what level 2 says that they should be."""
    changed: dict[str, tampering.Rows] = {}
    for one in check(copy).findings:
        match = _MEASURED.fullmatch(one.what)
        assert match, one
        rows = changed.setdefault(one.path, tampering.rows_of(copy, one.path))
        rows[one.rows[0]][match[1]] = None if match[2] == "None" else float(match[2])
    tampering.reseal(copy, changed, roots=True)
    assert check(copy).findings == ()


def test_a_forged_voxel_outside_of_the_mask_is_found(copy: Path, check: Verify) -> None:
    def change(columns: dict[str, Any], image: np.ndarray, mask: np.ndarray) -> None:
        image[tuple(np.argwhere(~mask)[11])] += 1

    where = forged(copy, change)
    found = [str(finding) for finding in check(copy).findings]
    assert f"{where}: voxels outside of the mask are not the source's" in found


@pytest.mark.long
def test_a_forged_seed_is_found(copy: Path, check: Verify) -> None:
    def change(columns: dict[str, Any], image: np.ndarray, mask: np.ndarray) -> None:
        columns["told"]["generation"]["seeds"]["recipe"] += 1

    where = forged(copy, change)
    (finding,) = check(copy).findings
    assert str(finding) == f"{where}: the provenance's 'generation' is not what the recipe comes to"


@pytest.mark.long
def test_a_forged_voxel_inside_of_the_mask_is_found_by_painting_again(
    copy: Path, check: Verify
) -> None:
    def change(columns: dict[str, Any], image: np.ndarray, mask: np.ndarray) -> None:
        image[tuple(np.argwhere(mask)[5])] -= 1

    where = forged(copy, change)
    assert check(copy).findings, "its measures are not those of the picture"
    measure_again(copy, check)
    (finding,) = check(copy, level=3).findings
    assert str(finding) == f"{where}: painted again, 1 voxel differs, by up to 1 HU"


@pytest.mark.long
def test_samples_that_were_left_out_or_put_in_are_found(copy: Path, check: Verify) -> None:
    path = tampering.shards_of(copy)[0]
    rows = tampering.rows_of(copy, path)
    gone = rows.pop(1)
    tampering.reseal(copy, {path: rows}, roots=True)
    assert verify(copy).findings == ()
    told = [finding.what for finding in check(copy).findings]
    assert f"sample '{gone['sample_id']}' of the plan is missing" in told


def test_other_sources_than_the_locks_are_found(
    built: Path, check: Verify, folder: Path, tmp_path: Path
) -> None:
    hosts = Path(shutil.copytree(folder / "data/hosts", tmp_path / "hosts"))
    path = hosts / HOSTS[1] / "imaging.nii.gz"
    scan = nib.load(path)
    voxels = np.asarray(scan.dataobj).copy()
    voxels[3, 3, 3] += 1
    nib.save(nib.Nifti1Image(voxels, scan.affine), path)
    sources = {"hosts": hosts, "donors": folder / "data/donors"}
    found = [str(finding) for finding in check(built, sources=sources).findings]
    assert found
    assert all(f"synthct.lock: sources.hosts.cases.{HOSTS[1]}." in line for line in found)


@pytest.mark.long
def test_in_another_numerics_class_paint_is_compared_within_two_hu(
    copy: Path, check: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synthct.build.context import load_context
    from synthct.build.verify import run as module

    def elsewhere(*args: Any, **kwargs: Any) -> Any:
        context = load_context(*args, **kwargs)
        return replace(context, numerics={**context.numerics, "arch": "another"})

    def by(hu: int) -> Callable[[dict[str, Any], np.ndarray, np.ndarray], None]:
        def change(columns: dict[str, Any], image: np.ndarray, mask: np.ndarray) -> None:
            image[mask] -= hu

        return change

    monkeypatch.setattr(module, "load_context", elsewhere)
    forged(copy, by(2))
    measure_again(copy, check)
    report = check(copy, level=3)
    assert report.findings == ()
    assert "never called identical" in report.levels[3]
    where = forged(copy, by(1))
    measure_again(copy, check)
    (finding,) = check(copy, level=3).findings
    assert str(finding) == f"{where}: painted again, 100.0% of its voxels differ by more than 2 HU"
