"""Masks on the grid of a tilted gantry: millimetres are those of the patient, not of the voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import make_tiny_case
from pydantic import TypeAdapter
from scipy.spatial import KDTree

from synthct.masks import MaskKind
from synthct.masks.accept import CLEARANCE, Accept
from synthct.masks.organ_site import OrganSite
from synthct.masks.slicing import draw_slices
from synthct.volume import Volume
from synthct.volume.anatomy import organ_parts
from synthct.volume.case import Case


def section(**fields: object) -> Any:
    return TypeAdapter(MaskKind).validate_python({"name": "m", **fields})


@pytest.fixture
def tilted() -> Case:
    """A kidney with a tumour in a scan whose gantry was tilted by 20 degrees."""
    case = make_tiny_case()
    affine = np.diag([0.8, 0.8, 2.5, 1.0])
    affine[1, 2] = 2.5 * np.tan(np.radians(20))
    labels = np.zeros((60, 60, 26), dtype=np.uint8)
    labels[20:40, 20:40, 8:18] = 1
    labels[30:36, 28:34, 11:14] = 2
    hu = np.where(labels > 0, 90, 40).astype(np.int16)
    return Case("c", "c", "hosts", Volume(hu, affine), Volume(labels, affine), case.label_names)


def distance_from(case: Case, region: np.ndarray) -> np.ndarray:
    """True distance in mm from every voxel of a case to the nearest one of a region."""
    axes = case.labels.affine[:3, :3]
    points = np.indices(region.shape).reshape(3, -1).T @ axes.T
    away, _ = KDTree(points[region.ravel()]).query(points)
    return away.reshape(region.shape)


@pytest.mark.parametrize("margin_mm", [10.0, 4.0, -2.0])
def test_an_organ_grows_by_millimetres(tilted: Case, margin_mm: float) -> None:
    organ = tilted.labels.array == 1
    kind = section(kind="organ", label="kidney", margin_mm=margin_mm)
    mask = kind.build(tilted, None, kind.draw(tilted, None, np.random.default_rng(0)))
    where = mask.in_host(organ.shape)
    if margin_mm > 0:
        away = distance_from(tilted, organ)
        assert where[away <= margin_mm - 1e-6].all()
        assert not where[away > margin_mm + 1e-6].any()
    else:
        away = distance_from(tilted, ~organ)
        assert np.array_equal(where, away > -margin_mm)


def test_limits_around_an_organ_are_millimetres(tilted: Case) -> None:
    part = organ_parts(tilted, "kidney")[0]
    accept = Accept(clearance_mm=5, rim_mm=4)
    site = OrganSite(tilted, part, (1,), (2,), accept)
    box = part.box.grow((6, 6, 3))
    seen = site.around(box)
    near = distance_from(tilted, tilted.labels.array == 2)[box.slices] <= 5
    assert np.array_equal(seen.codes == CLEARANCE, near)
    soft = distance_from(tilted, tilted.labels.array == 1)[box.slices] > 4
    unlabelled = tilted.labels.array[box.slices] == 0
    assert np.array_equal(seen.soft, soft & unlabelled)


def test_the_faces_of_a_box_are_so_far_from_the_organ(tilted: Case) -> None:
    """A step along the table leads sideways: planes are 2.5 mm apart, steps 2.66 mm."""
    kind = section(kind="box", around="kidney", margin_mm=[10, 10], label=None)
    mask = kind.build(tilted, None, kind.draw(tilted, None, np.random.default_rng(0)))
    assert mask.box.start_ijk[2] == 8 - 4
    assert mask.box.stop_ijk[2] == 18 + 4


def test_slices_are_chosen_and_measured_by_millimetres(tilted: Case) -> None:
    kind = section(kind="organ", label="kidney", slices={"every_mm": 10, "min_area_mm2": 230})
    mask = kind.build(tilted, None, kind.draw(tilted, None, np.random.default_rng(0)))
    chosen = draw_slices(mask, "axial", kind.slices, None, np.random.default_rng(0))
    assert np.unique(np.diff([one["slice_index"] for one in chosen])).tolist() == [4]


@pytest.mark.long
def test_an_ellipsoid_keeps_clear_by_millimetres(tilted: Case) -> None:
    kind = section(
        kind="ellipsoid", label="tumor", into="kidney", sizes=["tiny"], clearance_mm=3,
        inside_fraction=0.3, organ_fraction=1,
    )  # fmt: skip
    tumour = distance_from(tilted, tilted.labels.array == 2)
    for seed in range(20):
        mask = kind.build(tilted, None, kind.draw(tilted, None, np.random.default_rng(seed)))
        assert tumour[mask.in_host(tumour.shape)].min() > 3
