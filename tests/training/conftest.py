"""What many tests of training share: patches that are cut once."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_recipes import open_set, take, tiny_recipe

from synthct.training.cache import TrainingSet
from synthct.training.data import Batch


@pytest.fixture(scope="session")
def patch_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for tests that are not about it: the same patches are cut once for all of them."""
    return tmp_path_factory.mktemp("patches")


@pytest.fixture(scope="session")
def tiny_set(kits_template: Path, patch_cache: Path) -> TrainingSet:
    """Patches of the two cases with an image of ``kits_root``."""
    return open_set(tiny_recipe(kits_template), patch_cache)


@pytest.fixture(scope="session")
def batch(kits_template: Path, tiny_set: TrainingSet) -> Batch:
    """One batch of training patches. Do not change it."""
    return take(tiny_recipe(kits_template), tiny_set, 1)[0]
