"""What is found wrong before a mask is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tiny_case, write_kits
from tiny_recipe import DONORS, HOSTS, tiny_recipe

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
