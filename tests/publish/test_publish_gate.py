"""What is not published: refused on this machine, before anybody is asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published import rewritten
from tiny_recipe import write_data, write_recipe

from synthct.build.run import build
from synthct.errors import PolicyError, RecipeError, VerifyError
from synthct.publish.hub.bundle import Item
from synthct.publish.hub.gate import pack, require_repo_name
from synthct.publish.hub.leaks import require_no_leaks
from synthct.recipe.recipe import load_recipe

SECRET = "hf_" + "q" * 34
GITHUB = "ghp_" + "A1" * 18


@pytest.mark.parametrize("name", ["jane/tiny", "Jane-9/a.b_c-d", "j/t"])
def test_names_of_repositories_are_taken(name: str) -> None:
    require_repo_name(name)


@pytest.mark.parametrize(
    "name",
    ["tiny", "a/b/c", "/tiny", "jane/", "jane/ti ny", "jane/.tiny", "jane/a..b", "jane/a--b",
     "../tiny", "jane/tiny.git", "jane/" + "t" * 96, "https://hub/jane/tiny", "jane/tiny\n"],
)  # fmt: skip
def test_what_is_no_name_of_a_repository_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="USER/NAME"):
        require_repo_name(name)


def test_what_is_neither_dataset_nor_checkpoint_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(RecipeError, match="neither a dataset's version"):
            pack(str(path))


@pytest.mark.parametrize("options", [{"tag": "1.0.0"}, {"card": Path("card.md")}])
def test_a_dataset_has_its_own_version_and_card(
    versions: dict[str, Path], options: dict[str, Any]
) -> None:
    with pytest.raises(RecipeError, match="for checkpoints"):
        pack(str(versions["1.0.0"]), **options)


@pytest.mark.parametrize("tag", ["", "-1", "1.0 0", "a/b", "main\n"])
def test_what_is_no_tag_is_refused(tiny_checkpoint: Path, tag: str) -> None:
    with pytest.raises(RecipeError, match="--tag"):
        pack(str(tiny_checkpoint), tag=tag)


def test_a_damaged_dataset_is_refused(versions: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(versions["1.0.0"], tmp_path / "copy")
    shard = next(copy.glob("data/*.parquet"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(VerifyError, match=rf"(?s)not published.*{shard.name}"):
        pack(str(copy))


def test_a_dataset_of_unknown_licence_is_refused_whatever_it_states(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "silent")
    (checkpoint / "training.json").unlink()
    (checkpoint / "SHA256SUMS").unlink()
    path = write_recipe(
        tmp_path / "recipe.yaml",
        write_data(tmp_path / "data"),
        checkpoint,
        licence="CC-BY-NC-SA-4.0",
        variants=1,
    )
    folder = build(load_recipe(path), tmp_path / "out", cache_dir=tmp_path / "cache", workers=0)
    with pytest.raises(PolicyError, match="training data of checkpoint 'silent' is unknown"):
        pack(str(folder))


def test_scans_of_patients_are_to_be_gated(versions: dict[str, Path]) -> None:
    assert pack(str(versions["1.0.0"])).gated == "it shows scans of real patients"


@pytest.mark.slow
def test_phantoms_are_free_to_all(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    recipe = {
        "name": "made-up",
        "version": "0.1.0",
        "sources": {"hosts": {"layout": "phantom", "patients": 1}},
        "masks_per_case": 1,
        "masks": [{"name": "kidneys", "kind": "organ", "label": "kidney"}],
        "inpaint": {"method": "noise_fill"},
        "splits": {"train": 1.0},
    }
    path.write_text(json.dumps(recipe))
    folder = build(load_recipe(path), tmp_path / "out", cache_dir=tmp_path / "cache", workers=0)
    bundle = pack(str(folder))
    assert (bundle.gated, bundle.licence) == (None, "CC0-1.0")


# Secrets and paths


@pytest.mark.parametrize(
    "text",
    [
        f"see {SECRET}",
        f"token={GITHUB}",
        "AKIA" + "Q7" * 8,
        "https://jane:pa55word@example.org/data",
        "my own word",
        f"{Path.home()}/scans/a.nii.gz",
        f"{Path.cwd()}/scans",
        "/home/jane/scans/a.nii.gz",
        "/Users/jane/scans",
        r"C:\\Users\\jane\\scans",
        r"C:\Users\jane",
    ],
)
def test_secrets_and_paths_stay_at_home(text: str, tmp_path: Path) -> None:
    secret = ["my own word"]
    with pytest.raises(PolicyError, match=r"README\.md holds") as caught:
        require_no_leaks([Item.of("README.md", f"# A card\n{text}\n".encode())], secret)
    assert SECRET not in str(caught.value)
    path = tmp_path / "train.parquet"
    rows = pa.table({"sample_id": ["a", "b"], "provenance": ["{}", json.dumps({"note": text})]})
    pq.write_table(rows, path, compression="zstd", write_page_checksum=True)
    with pytest.raises(PolicyError, match=r"data/train\.parquet holds"):
        require_no_leaks([Item.of("data/train.parquet", path)], secret)


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/home/jane/page and user@example.org",
        "${HOSTS_ROOT}/case_00000, data/train-00000-of-00002.parquet",
        "hf_hub_download, http://example.org:80/a@b",
        "arXiv:2307.01984; see C:/data",
    ],
)
def test_what_is_neither_goes(text: str) -> None:
    require_no_leaks([Item.of("README.md", text.encode())], [SECRET, ""])


def test_a_token_in_a_published_text_is_found_on_the_way(
    versions: dict[str, Path], tmp_path: Path
) -> None:
    copy = rewritten(versions["1.0.0"], tmp_path / "copy", "README.md", SECRET.encode())
    with pytest.raises(PolicyError, match=r"README\.md holds what looks like a token"):
        pack(str(copy))
