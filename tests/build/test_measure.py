"""In which window paintings are measured, and what becomes of those that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_recipe import SECTIONS, tiny_recipe, write_data

from synthct.build.run import build
from synthct.dataset.writer import read_shard
from synthct.recipe.recipe import Recipe
from synthct.volume.intensity import LUNG, SOFT_TISSUE

BOX = {"name": "box", **SECTIONS["box"]}
KIDNEY = {"name": "organ", **SECTIONS["organ"]}
MODEL: dict[str, Any] = {"num_inference_steps": 2, "batch_size": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hosts whose soft tissue is as thin as lung."""
    folder = tmp_path_factory.mktemp("measure")
    for path in write_data(folder / "data").glob("hosts/*/imaging.nii.gz"):
        image = nib.load(path)
        hu = np.clip(np.asarray(image.dataobj).astype(np.int16) - 850, -1024, 3071)
        nib.save(nib.Nifti1Image(hu.astype(np.int16), image.affine), path)
    return folder


def built(folder: Path, output: Path, checkpoint: Path, **changes: Any) -> Path:
    inpaint = changes.pop("inpaint", {**MODEL, "checkpoint": str(checkpoint)})
    fields = tiny_recipe(folder / "data", checkpoint, inpaint=inpaint, variants=1, **changes)
    recipe = Recipe.model_validate(fields)
    return build(recipe, output, cache_dir=folder / "cache", workers=0)


def rows_of(dataset: Path) -> list[dict[str, Any]]:
    return [row for path in dataset.glob("data/*") for row in read_shard(path).to_pylist()]


@pytest.mark.parametrize("method", ["full range without a label", "control without a label"])
def test_lung_is_measured_in_its_own_window(
    folder: Path, tmp_path: Path, tiny_checkpoint: Path, method: str
) -> None:
    changes = {"inpaint": {"method": "noise_fill"}} if "control" in method else {}
    rows = rows_of(built(folder, tmp_path / "out", tiny_checkpoint, masks=[BOX], **changes))
    assert rows
    for row in rows:
        assert json.loads(row["provenance"])["preview"] == LUNG.model_dump()
        assert row["seam_ratio"] is not None
        assert row["texture_ratio"] is not None


def test_a_limited_measure_that_cannot_be_computed_is_rejected_for_that_reason(
    folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    limits = {"texture_ratio": {"max": 1000}}
    masks = [BOX, KIDNEY]  # the model paints kidney in the soft-tissue window, where lung is flat
    made = built(folder, tmp_path / "out", tiny_checkpoint, masks=masks, quality=limits)
    assert {row["mask_name"] for row in rows_of(made)} == {"box"}
    rejected = pq.read_table(made / "rejected.parquet").to_pylist()
    assert {row["reason"] for row in rejected} == {"texture_ratio cannot be computed"}
    assert {(row["measure"], row["value"]) for row in rejected} == {("texture_ratio", None)}
    assert {row["mask_name"] for row in rejected} == {"organ"}


def test_a_measure_that_cannot_be_computed_is_null_where_it_is_not_limited(
    folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    rows = rows_of(built(folder, tmp_path / "out", tiny_checkpoint, masks=[KIDNEY]))
    assert rows
    for row in rows:
        assert json.loads(row["provenance"])["preview"] == SOFT_TISSUE.model_dump()
        assert row["texture_ratio"] is None
        assert row["painted_mean_hu"] is not None
