"""Where a training region lies is in the index, and its tissue is found there again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_recipes import index_of, open_set, tiny_recipe

from synthct.metrics.region_match import Query, best_correlation, blocks
from synthct.privacy.tissue import slab_around, tissues
from synthct.sources import read_case
from synthct.training.regions import index_regions

REMADE = {
    "patches": 24,
    "patches_per_mask": 2,
    "zoom": [0.8, 1.25],
    "coarsen": 0.2,
    "views": {"axial": 0.6, "coronal": 0.2, "sagittal": 0.2},
}


@pytest.mark.parametrize("data", [{"patches": 24, "patches_per_mask": 2}, REMADE])
def test_a_region_is_found_where_the_index_says(data: Any, kits_root: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(kits_root, data=data)
    rules = recipe.rules
    training, cases = open_set(recipe, tmp_path), index_of(recipe, tmp_path).entries("scans")
    index = index_regions(training.patches, cases, rules, None, recipe.seed)
    scans = {entry.case_id: read_case(entry, {}).scan() for entry in cases if entry.image}
    found = []
    for row, region in enumerate(index.to_pylist()):
        patch = training.patches.patch(row)
        hu = rules.codec(None).decode(patch.image)
        query, scan = Query.of(hu, patch.mask), scans[region["case_id"]]
        grid = np.array(region["grid_mm"]).reshape(3, 3)
        around = tissues(scan, grid, region["side_px"], query)
        if query.cells > 8:
            found.append(best_correlation(query, around).ncc)
        if "zoom" not in data:
            voxels = np.clip(slab_around(scan, grid, region["side_px"]), -150, 250)
            mine = blocks(np.rint(hu).astype(np.int16), patch.mask)
            assert np.isin(mine, blocks(voxels, np.ones(voxels.shape, dtype=bool))).all()
    assert len(found) > 5
    assert np.median(found) > (0.6 if "zoom" in data else 0.95), sorted(found)
