"""What is found wrong before a mask is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_tiny_case, write_kits
from datasets import load_dataset
from tiny_recipe import DONORS, HOSTS, tiny_recipe

import synthct
from synthct.build.check import check
from synthct.errors import RecipeError
from synthct.recipe.recipe import Recipe
from synthct.volume import Volume


@pytest.fixture(scope="module")
def tilted_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hosts and donors of the tiny recipe, as a gantry tilted by 20 degrees scans them."""
    root = tmp_path_factory.mktemp("tilted")
    affine = np.diag([0.8, 0.8, 2.5, 1.0])
    affine[1, 2] = 2.5 * np.tan(np.radians(20))
    for number, name in enumerate((*HOSTS, *DONORS)):
        case = make_tiny_case(name, noise_seed=number)
        case = replace(
            case,
            ct=Volume(case.scan().array, affine),
            labels=Volume(case.labels.array, affine),
        )
        write_kits(root / ("hosts" if name in HOSTS else "donors"), case)
    return root


def test_slices_without_right_angles_are_refused(
    tilted_data: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    """Axial and coronal slices of a tilted gantry have them, sagittal ones do not."""

    def checked(view: str) -> None:
        recipe = Recipe.model_validate(tiny_recipe(tilted_data, tiny_checkpoint, view=view))
        check(recipe, cache_dir=tmp_path)

    checked("axial")
    checked("coronal")
    with pytest.raises(RecipeError, match=r"view: case case_00000 .* sheared .* another view"):
        checked("sagittal")


def test_a_structure_that_no_source_has_is_painted_with_the_value_that_the_recipe_gives(
    organs_root: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    """A tumour in scans whose label maps know only organs."""
    tumors = {"name": "tumors", "kind": "ellipsoid", "label": "tumor", "into": "kidney"}
    sizes = {"sizes": ["tiny"], "inside_fraction": 0.3, "organ_fraction": 1.0}
    sources = {"hosts": {"layout": "totalsegmentator", "root": organs_root, "cases": ["s0001"]}}
    fields = {"sources": sources, "masks": [{**tumors, **sizes}]}

    def recipe(**changes: Any) -> Recipe:
        return Recipe.model_validate(tiny_recipe(tmp_path, tiny_checkpoint, **fields, **changes))

    with pytest.raises(
        RecipeError, match=r"no source numbers 'tumor' .*label_values: {tumor: 200}"
    ):
        check(recipe(), cache_dir=tmp_path)
    given = recipe(label_values={"tumor": 1}, masks_per_case=2)
    checked = check(given, cache_dir=tmp_path)
    assert checked.label_names == {"kidney_left": 2, "kidney_right": 3, "tumor": 1}
    done = synthct.build(given, tmp_path / "out", cache_dir=tmp_path, workers=0)
    (split,) = load_dataset(str(done)).values()
    for row in split:
        labels, mask = np.array(row["label_map"]), np.array(row["mask"]) > 0
        assert set(np.unique(labels[mask])) == {1}
        assert set(np.unique(labels[~mask])) <= {0, 2, 3}
