"""The scripts that make what the starter is trained on."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from synthct.sources.phantoms import PHANTOM_LABELS, make_phantom
from synthct.volume import Volume, read_ct, read_labels, write_volume

SCRIPTS = Path(__file__).parents[2] / "recipes" / "training" / "starter-2d"


@pytest.fixture(scope="module")
def scan() -> tuple[Volume, Volume]:
    made = make_phantom(
        5, 0, region="abdomen_chest", shape=(120, 90, 48), tumours=False, oblique=False
    )
    return Volume(made.ct, made.affine), Volume(made.labels, made.affine)


def test_tumours_are_pasted_and_nothing_else_changes(scan: tuple[Volume, Volume]) -> None:
    script = runpy.run_path(str(SCRIPTS / "paste_lesions.py"))
    pasted, mask = script["paste"](scan[0], np.random.default_rng(3))
    inside = mask.array > 0
    assert 1 <= ndimage.label(inside)[1] <= 14
    assert np.array_equal(pasted.array[~inside], scan[0].array[~inside])
    assert (pasted.array[inside] != scan[0].array[inside]).mean() > 0.9
    again, _ = script["paste"](scan[0], np.random.default_rng(3))
    assert np.array_equal(again.array, pasted.array)


def test_lungs_are_labelled_by_threshold(tmp_path: Path, scan: tuple[Volume, Volume]) -> None:
    script = runpy.run_path(str(SCRIPTS / "label_lungs.py"))
    for name in ("a", "b"):
        (tmp_path / "scans" / name).mkdir(parents=True)
    write_volume(scan[0], tmp_path / "scans" / "a" / "ct.nii.gz")
    below = Volume(scan[0].array[:, :, :12], scan[0].affine)  # no lung to speak of
    write_volume(below, tmp_path / "scans" / "b" / "ct.nii.gz")
    script["main"](tmp_path / "out", [tmp_path / "scans"])
    found = read_labels(tmp_path / "out" / "a" / "lung.nii.gz").array > 0
    true = np.isin(scan[1].array, [PHANTOM_LABELS["lung_left"], PHANTOM_LABELS["lung_right"]])
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.85
    assert not read_labels(tmp_path / "out" / "b" / "lung.nii.gz").array.any()
    assert np.array_equal(read_ct(tmp_path / "out" / "a" / "ct.nii.gz").array, scan[0].array)
