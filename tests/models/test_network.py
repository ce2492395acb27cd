"""The door for networks: one class and one name are enough to build, read and refuse to publish."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from additions.membrane import Membrane
from conftest import make_tiny_case
from datasets import load_dataset
from tiny_recipe import tiny_recipe, write_data

import synthct
from synthct.build.run import build
from synthct.dataset.lockfile import read_lock
from synthct.errors import CheckpointError
from synthct.models import networks
from synthct.models.checkpoint import find_checkpoint
from synthct.models.methods import DIFFUSION_WORDS
from synthct.models.network import Network
from synthct.publish.hub.gate import pack
from synthct.recipe.recipe import Recipe
from synthct.volume import Volume


@pytest.fixture
def membrane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of it, and its name in the list."""
    monkeypatch.setattr(networks, "NETWORKS", (*networks.NETWORKS, Membrane))
    folder = tmp_path / "membrane"
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "MembranePipeline"}))
    return folder


@pytest.mark.long
def test_a_new_network_builds_a_dataset(membrane: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    inpaint = {"checkpoint": str(membrane), "batch_size": 2}
    recipe = Recipe.model_validate(tiny_recipe(data, membrane, inpaint=inpaint))
    folder = build(recipe, tmp_path / "out", cache_dir=tmp_path / "cache", workers=0)
    rows = load_dataset(str(folder), cache_dir=str(tmp_path / "hf"))["train"]
    assert rows.num_rows == 16
    for row in rows:
        mask = np.asarray(row["mask"]) > 0
        painted, original = (np.asarray(row[n]).astype(int) for n in ("image", "original"))
        assert np.array_equal(painted[~mask], original[~mask])
        assert (painted[mask] != original[mask]).mean() > 0.5
        files = find_checkpoint(str(membrane))
        assert row["provenance"]["generation"]["checkpoint_id"] == files.checkpoint_id
    lock = read_lock(folder)
    assert lock.checkpoint is not None
    assert lock.checkpoint.pipeline == "MembranePipeline"
    assert set(lock.checkpoint.files) == {"model_index.json"}
    assert "pydantic" in lock.versions
    card = (folder / "README.md").read_text()
    assert all(words in card for words in Membrane.words)
    assert "a diffusion model" not in card


def test_a_new_network_paints_a_scan(membrane: Path) -> None:
    case = make_tiny_case()
    scan = case.scan()
    region = np.zeros(scan.shape, dtype=np.int16)
    region[20:26, 18:25, 10:12] = 1
    mask = Volume(region, scan.affine)
    painted = synthct.inpaint(scan, mask, label="kidney", checkpoint=str(membrane))
    assert np.array_equal(painted.array[region == 0], scan.array[region == 0])
    assert (painted.array[region > 0] != scan.array[region > 0]).mean() > 0.5
    with pytest.raises(CheckpointError, match="cannot paint 'liver'"):
        synthct.inpaint(scan, mask, label="liver", checkpoint=str(membrane))
    with pytest.raises(CheckpointError, match="is a membrane, which takes no 'prompt'"):
        synthct.inpaint(scan, mask, checkpoint=str(membrane), prompt="a kidney")


def test_only_networks_that_are_trained_here_are_published(
    membrane: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match="lacks SHA256SUMS"):
        pack(str(membrane))
    monkeypatch.setattr(Membrane, "section", None)
    with pytest.raises(CheckpointError, match="is a membrane; only checkpoints of synthct"):
        pack(str(membrane))


def test_a_network_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "MembranePipeline"}))
    with pytest.raises(CheckpointError, match="asks for the pipeline MembranePipeline"):
        find_checkpoint(str(tmp_path))


@pytest.mark.parametrize("network", networks.NETWORKS, ids=lambda n: n.__name__)
def test_a_lock_without_a_pipeline_is_of_a_diffusion_model(network: type[Network]) -> None:
    assert (network.words is DIFFUSION_WORDS) == network.layout.has_schedule
