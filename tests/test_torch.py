"""``synthct.torch``: a dataset as tensors, in batches of the default collation."""

from __future__ import annotations

import doctest
import json
import math
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from tiny_recipe import SECTIONS, tiny_recipe, write_data
from torch.utils.data import DataLoader

import synthct
import synthct.torch
from synthct.build.run import build
from synthct.errors import VerifyError
from synthct.recipe.recipe import Recipe
from synthct.torch import Tensors, label_names

CONTROL = {"method": "noise_fill"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs and boxes of an unknown label: every column that may be null is, somewhere."""
    root = tmp_path_factory.mktemp("torch")
    masks = [
        {"name": "tumors", **SECTIONS["tumors"], "pair": True},
        {"name": "box", **SECTIONS["box"]},
    ]
    data = write_data(root / "data")
    recipe = tiny_recipe(data, root, masks=masks, masks_per_case=2, variants=1, inpaint=CONTROL)
    return build(Recipe.model_validate(recipe), root / "out", cache_dir=root / "cache", workers=0)


@pytest.fixture
def dataset(folder: Path) -> DatasetDict:
    return synthct.load(folder)


def test_rows_are_hu_and_nothing_is_null(dataset: DatasetDict, folder: Path) -> None:
    plain, rows = dataset["train"], dataset["train"].with_transform(Tensors())
    nulls = {name for row in plain for name, value in row.items() if value is None}
    assert {"donor_case_id", "variant", "label", "has_lesion", "variant_diversity"} <= nulls
    for one, row in zip(plain, rows, strict=True):
        hu = np.asarray(one["image"]).astype(np.int32) - 1024
        assert row["image"].dtype == row["original"].dtype == torch.float32
        assert np.array_equal(row["image"][0].numpy(), hu)
        assert np.array_equal(row["mask"][0].numpy(), np.asarray(one["mask"]) > 0)
        assert row["mask"].dtype == torch.bool
        assert row["label_map"].dtype == torch.int64
        assert np.array_equal(row["label_map"][0].numpy(), np.asarray(one["label_map"]))
        assert row["affine"].ravel().tolist() == one["affine"]
        assert json.loads(row["provenance"]) == one["provenance"]
        assert "preview" not in row
        assert all(value is not None for value in row.values())
        assert row["is_painted"] is one["is_painted"]
        assert row["variant"] == (-1 if one["variant"] is None else one["variant"])
        assert row["host_in_training"] in (-1, 0, 1)
        assert math.isnan(row["variant_diversity"])
    assert label_names(folder) == {1: "kidney", 2: "tumor", 3: "cyst"}


@pytest.mark.parametrize("workers", [0, 2])
def test_the_default_collation_makes_batches(dataset: DatasetDict, workers: int) -> None:
    rows = dataset["train"].with_transform(Tensors())
    batch = next(iter(DataLoader(rows, batch_size=4, num_workers=workers)))
    assert batch["image"].shape == (4, 1, 40, 48)
    assert batch["mask"].dtype == torch.bool
    assert batch["affine"].shape == (4, 4, 4)
    assert batch["seam_ratio"].dtype == torch.float64
    assert batch["variant"].dtype == torch.int64
    assert batch["sample_id"] == [row["sample_id"] for row in rows.select(range(4))]
    loss = torch.nn.CrossEntropyLoss(ignore_index=255)
    assert loss(torch.zeros(4, 3, 40, 48), batch["label_map"][:, 0]) > 0


@pytest.mark.parametrize("size", [16, (30, 64), 100])
def test_crops_lie_where_their_affine_says(dataset: DatasetDict, size: Any) -> None:
    rows = dataset["train"].with_transform(Tensors())
    crops = dataset["train"].with_transform(Tensors(size=size))
    shape = (size, size) if isinstance(size, int) else size
    for row, crop in zip(rows, crops, strict=True):
        assert crop["image"].shape == crop["mask"].shape == (1, *shape)
        if min(shape) >= 30:
            assert crop["mask"].sum() == row["mask"].sum()
        to_whole = torch.linalg.inv(row["affine"]) @ crop["affine"]
        corner = to_whole[:2, 3].round().long()
        index = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"))
        index += corner[:, None, None]
        limits = torch.tensor(row["image"].shape[1:])[:, None, None]
        inside = ((index >= 0) & (index < limits)).all(dim=0)
        r, c = index[:, inside]
        for name, fill in (("image", -1024), ("label_map", 0), ("mask", False)):
            assert torch.equal(crop[name][0][inside], row[name][0][r, c])
            assert (crop[name][0][~inside] == fill).all()


def test_a_window_scales_and_names_are_chosen(dataset: DatasetDict) -> None:
    window = synthct.Window(level_hu=50, width_hu=400)
    keys = {"image": "image", "label": "label_map"}
    row = dataset["train"].with_transform(Tensors(keys, window=window, size=32))[0]
    assert row.keys() == {"image", "label"}
    assert row["image"].shape == row["label"].shape == (1, 32, 32)
    assert float(row["image"].abs().max()) <= 1
    with pytest.raises(KeyError, match="no column 'nonsense'"):
        dataset["train"].with_transform(Tensors({"x": "nonsense"}))[0]


@pytest.mark.skipif(find_spec("monai") is None, reason="MONAI is not installed")
def test_dictionary_transforms_of_monai_take_it(dataset: DatasetDict) -> None:
    data: Any = import_module("monai.data")  # its names are not exported for type checkers
    transforms: Any = import_module("monai.transforms")
    keys = {"image": "image", "label": "label_map", "affine": "affine"}
    rows = dataset["train"].with_transform(Tensors(keys, size=32))
    steps = transforms.Compose(
        [
            transforms.ScaleIntensityRanged("image", -150, 250, -1, 1, clip=True),
            transforms.RandFlipd(["image", "label"], prob=1.0, spatial_axis=0),
        ]
    )
    batch = next(iter(data.DataLoader(data.Dataset(rows, steps), batch_size=2)))
    assert batch["image"].shape == batch["label"].shape == (2, 1, 32, 32)


def test_a_patch_only_release_is_refused() -> None:
    with pytest.raises(VerifyError, match="patch-only release"):
        Tensors()({"sample_id": ["a"], "paint": [None]})


@pytest.mark.long
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = Path(__file__).resolve().parents[1] / "examples"
    (tmp_path / "examples").symlink_to(examples)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHCT_CACHE", str(tmp_path / "cache"))
    (example,) = doctest.DocTestFinder(recurse=False).find(
        Tensors, "Tensors", globs={"synthct": synthct}
    )
    output: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=output.append)
    assert not output, "".join(output)
