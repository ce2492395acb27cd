"""A patch-only release: what it holds, what it does not, and what is made of it with the hosts."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import make_tiny_case, write_kits
from PIL import Image
from pydantic import ValidationError
from tiny_recipe import HOSTS, SECTIONS, tiny_recipe, write_data

from synthct.build import provenance
from synthct.build.compose import bytes_of, compose
from synthct.build.run import build
from synthct.build.verify.run import verify
from synthct.dataset.manifest import read_manifest
from synthct.dataset.rows import stored_rows
from synthct.errors import ConflictError, RecipeError, SourceError, VerifyError
from synthct.recipe.recipe import Recipe

Make = Callable[..., Path]

#: Side of the blocks of host voxels that are searched for.
BLOCK = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose")
    write_data(folder / "data")
    return folder


@pytest.fixture(scope="module")
def make(folder: Path, tiny_checkpoint: Path) -> Make:
    masks = [{"name": name, **section} for name, section in SECTIONS.items()]
    masks[2] = {**masks[2], "pair": True}  # a pair also has the host's own slice

    def run(release: str, **changes: Any) -> Path:
        given = {"masks": masks, "keep_original": False, "release": release, **changes}
        recipe = Recipe.model_validate(tiny_recipe(folder / "data", tiny_checkpoint, **given))
        out = folder / f"{release}-{changes.get('view', 'axial')}"
        return build(recipe, out, cache_dir=folder / "cache", workers=0)

    return run


@pytest.fixture(scope="module")
def full(make: Make) -> Path:
    return make("full")


@pytest.fixture(scope="module")
def patches(make: Make) -> Path:
    return make("patch")


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def content_id(folder: Path) -> str:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest.release.content_id


@pytest.mark.long
def test_composing_gives_the_very_files_of_a_full_build(
    full: Path, patches: Path, folder: Path, tmp_path: Path
) -> None:
    whole = compose(patches, tmp_path / "out", sources={"hosts": folder / "data/hosts"})
    assert content_id(whole) == content_id(full) == content_id(patches)
    assert hashes(whole) == hashes(full)
    assert verify(whole).findings == ()
    again = compose(patches, tmp_path / "out", sources={"hosts": folder / "data/hosts"})
    assert again == whole


@pytest.mark.long
def test_a_release_of_an_earlier_format_is_composed_into_one_of_todays(
    make: Make, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "FORMAT_VERSION", "1.1.0")
    given = make("patch", view="sagittal")
    whole = compose(given, tmp_path / "out", sources={"hosts": folder / "data/hosts"})
    row = next(stored_rows(next((whole / "data").iterdir())))
    assert json.loads(row["provenance"])["versions"]["format"] == "1.1.0"
    assert verify(whole).findings == ()
    monkeypatch.setattr(provenance, "FORMAT_VERSION", "1.0.0")
    old = make("full", view="sagittal")
    assert verify(old).findings


@pytest.mark.long
def test_composing_works_in_every_view(make: Make, folder: Path, tmp_path: Path) -> None:
    given = make("patch", view="coronal")
    whole = compose(given, tmp_path / "out", sources={"hosts": folder / "data/hosts"})
    assert hashes(whole) == hashes(make("full", view="coronal"))


def arrays_in(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every picture of a release as an array: those of its rows, and files."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".png":
            yield path.name, np.asarray(Image.open(path).convert("RGB"))[..., 0]
        if path.suffix == ".parquet" and path.parent.name == "data":
            for number, row in enumerate(stored_rows(path)):
                for name, value in row.items():
                    if isinstance(value, dict) and "bytes" in value:
                        picture = Image.open(io.BytesIO(value["bytes"]))
                        yield f"{path.name} row {number} {name}", np.asarray(picture)


def blocks(array: np.ndarray) -> set[bytes]:
    """All blocks of an integer picture whose values are not all the same."""
    if min(array.shape) < BLOCK:
        return set()
    windows = np.lib.stride_tricks.sliding_window_view(array.astype(np.int32), (BLOCK, BLOCK))
    flat = windows.reshape(-1, BLOCK * BLOCK)
    return {row.tobytes() for row in flat[flat.min(axis=1) < flat.max(axis=1)]}


def host_blocks(folder: Path) -> set[bytes]:
    """All blocks of all slices of the hosts, as HU + 1024, whichever way a picture is turned."""
    found: set[bytes] = set()
    for case in HOSTS:
        scan = nib.as_closest_canonical(nib.load(folder / "data/hosts" / case / "imaging.nii.gz"))
        voxels = np.rint(scan.get_fdata()).clip(-1024, 3071).astype(np.int32) + 1024
        for k in range(voxels.shape[2]):
            found |= blocks(np.ascontiguousarray(voxels[:, :, k].T[::-1, ::-1]))
    return found


@pytest.mark.long
def test_a_patch_only_release_holds_no_block_of_a_host(
    full: Path, patches: Path, folder: Path
) -> None:
    hosts = host_blocks(folder)
    leaked = {name for name, array in arrays_in(patches) if blocks(array) & hosts}
    assert leaked == set()
    # the search does find them where they are
    seen = [name for name, array in arrays_in(full) if blocks(array) & hosts]
    assert sum(name.endswith("image") for name in seen) == sum(
        name.endswith("image") for name, _ in arrays_in(full)
    )


def test_outside_of_the_masks_nothing_is_stored(patches: Path) -> None:
    for path in sorted((patches / "data").iterdir()):
        for row in stored_rows(path):
            paint = np.asarray(Image.open(io.BytesIO(row["paint"]["bytes"])))
            mask = np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"]))) > 0
            assert not paint[~mask].any()
            assert bool(paint.any()) == row["is_painted"]
            change = np.asarray(Image.open(io.BytesIO(row["label_change"]["bytes"])))
            assert not change[~mask].any()
            assert {"image", "label_map", "original"}.isdisjoint(row)


def test_a_patch_only_release_is_smaller(
    full: Path, patches: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large = bytes_of(patches), bytes_of(full)
    with capsys.disabled():
        print(f"\npatch-only {small:,} bytes, full {large:,} bytes: {small / large:.1%}")
    assert small < large


def test_a_patch_only_release_loads_and_passes_verification(patches: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    rows = load_dataset(str(patches), cache_dir=str(tmp_path))["train"]
    assert rows.num_rows == 18
    assert isinstance(rows[0]["paint"], Image.Image)
    assert verify(patches).findings == ()
    card = (patches / "README.md").read_text()
    assert "synthct compose" in card
    assert "outside of it every voxel" not in card


def test_another_scan_than_the_painted_one_is_refused(
    patches: Path, folder: Path, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    write_kits(hosts, make_tiny_case(HOSTS[0], noise_seed=0))
    write_kits(hosts, make_tiny_case(HOSTS[1], noise_seed=99))
    with pytest.raises(SourceError, match=f"case {HOSTS[1]}: these are not the voxels"):
        compose(patches, tmp_path / "out", sources={"hosts": hosts})
    shutil.rmtree(hosts / HOSTS[1])
    with pytest.raises(SourceError, match=HOSTS[1]):
        compose(patches, tmp_path / "out", sources={"hosts": hosts})


def test_a_scan_whose_labels_were_changed_is_refused(
    patches: Path, folder: Path, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    shutil.copytree(folder / "data/hosts", hosts)
    path = hosts / HOSTS[0] / "segmentation.nii.gz"
    labels = nib.load(path)
    flipped = np.asarray(labels.dataobj)[:, ::-1]
    nib.save(nib.Nifti1Image(flipped, labels.affine), path)
    with pytest.raises(SourceError, match=r"label map of axial slice .* not those that were paint"):
        compose(patches, tmp_path / "out", sources={"hosts": hosts})


def test_a_damaged_release_or_one_that_is_whole_is_refused(
    full: Path, patches: Path, folder: Path, tmp_path: Path
) -> None:
    hosts = {"hosts": folder / "data/hosts"}
    with pytest.raises(VerifyError, match="its samples are whole already"):
        compose(full, tmp_path / "out", sources=hosts)
    copy = Path(shutil.copytree(patches, tmp_path / "copy"))
    shard = next((copy / "data").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(VerifyError, match=f"is damaged.*\n.*{shard.name}"):
        compose(copy, tmp_path / "out", sources=hosts)


def test_where_the_scans_are_must_be_said(
    patches: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="--source hosts=PATH"):
        compose(patches, tmp_path / "out")
    with pytest.raises(RecipeError, match="--source scans"):
        compose(patches, tmp_path / "out", sources={"scans": folder})
    monkeypatch.setenv("HOSTS_ROOT", str(folder / "data/hosts"))
    assert compose(patches, tmp_path / "out").is_dir()


def test_composing_does_not_replace_a_version_of_other_content(patches: Path, folder: Path) -> None:
    """Its own patch-only release is in the way, if nothing else."""
    with pytest.raises(ConflictError, match="as a patch-only release"):
        compose(patches, patches.parents[1], sources={"hosts": folder / "data/hosts"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep_original": True}, "set keep_original to false"),
        ({"inpaint": {"method": "noise_fill"}}, "mixes real tissue into its paint"),
    ],
)
def test_a_recipe_cannot_ask_for_real_tissue_in_a_patch_only_release(
    changes: dict[str, Any], message: str
) -> None:
    given = {"keep_original": False, "release": "patch", **changes}
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(tiny_recipe(Path("data"), Path("checkpoint"), **given))
